"""Lloyd's iterations for many runs at once, and the assignment of rows to centroids.

The distances, and why a row's label depends on no other row, are in ``nearest.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpuseg.backends.cpu.nearest import STRIDE, TILE, assign_block, moments_block, step_block
from gpuseg.backends.cpu.threads import in_threads
from gpuseg.errors import ShapeError
from gpuseg.records import Assignment, KMeansFit, Progress, no_progress

#: Multiply-adds that take a thread about 0.3 ms.
BLOCK_WORK = 5_000_000


def _blocks(n_samples: int, n_values: int) -> list[tuple[int, int]]:
    """Cut the rows into at most 64 blocks of whole tiles, by the size of the task alone.

    `n_values` is how many numbers each row is compared with. A block is worth at least
    what it costs to hand it to a thread.
    """
    n_blocks = min(64, max(1, n_samples * n_values // BLOCK_WORK))
    n_tiles = -(-n_samples // TILE)
    step = -(-n_tiles // n_blocks) * TILE
    return [(start, min(start + step, n_samples)) for start in range(0, n_samples, step)]


def _mean_variance(X: Any) -> float:
    """Population variance of the features, averaged over them."""
    n_samples = len(X)
    origin = X[0].astype(np.float64)
    totals, squares = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for total, square in in_threads(
        lambda b: moments_block(X, *b, origin), _blocks(n_samples, X.shape[1])
    ):
        totals += total
        squares += square
    return float(np.mean(squares / n_samples - (totals / n_samples) ** 2))


def _padded(centroids: Any) -> Any:
    """Pad to whole strides of features with 0 and to an even number of centroids with inf."""
    k, d = centroids.shape
    padded = np.full((k + k % 2, -(-d // STRIDE) * STRIDE), np.inf, np.float32)
    padded[:k] = 0.0
    padded[:k, :d] = centroids
    return padded


def _check(X: Any, centroids: Sequence[Any]) -> None:
    """Refuse arrays that the kernels would misread."""
    if X.ndim != 2 or X.dtype != np.float32 or not X.flags.c_contiguous or not X.size:
        raise ShapeError(
            f"X has shape {X.shape}, type {X.dtype}; expected rows and features, float32, C order"
        )
    for c in centroids:
        if c.ndim != 2 or not len(c) or c.shape[1] != X.shape[1]:
            raise ShapeError(
                f"centroids have shape {c.shape}; expected (n_clusters, {X.shape[1]}) as X has"
            )


def assign(X: Any, centroids: Any, *, progress: Progress) -> Assignment:
    """Find the nearest and second nearest centroid of every row; see ``Backend.assign``.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, C order, finite
    centroids : Array of shape (n_clusters, n_features)

    Returns
    -------
    Assignment
        Bit-equal for a row whichever other rows are in `X`.

    Raises
    ------
    ShapeError
        If an array has another type or shape than stated.
    """
    centroids = np.asarray(centroids)
    _check(X, [centroids])
    n_samples, n_clusters = len(X), len(centroids)
    padded = _padded(centroids)
    found = Assignment(
        np.full(n_samples, -1, np.int32),
        np.full(n_samples, np.inf, np.float32),
        np.full(n_samples, -1, np.int32),
        np.full(n_samples, np.inf, np.float32),
    )
    blocks = _blocks(n_samples, padded.size)
    done = in_threads(lambda b: assign_block(X, *b, padded, n_clusters, *found), blocks)
    for finished, _ in enumerate(done, start=1):
        progress(finished / len(blocks))
    return found


class _Runs:
    """The unfinished runs: their centroids side by side, and what each cluster holds."""

    def __init__(self, X: Any, starts: Sequence[Any], max_iter: int) -> None:
        padded = [_padded(np.asarray(start)) for start in starts]
        widest = max(len(start) for start in starts)
        kind = np.uint8 if widest < 256 else np.int32
        self.X = X
        self.labels = np.full((len(starts), len(X)), np.iinfo(kind).max, kind)
        self.ids = np.arange(len(starts))
        self.sizes = np.array([len(block) for block in padded])
        self.n_clusters = np.array([len(start) for start in starts])
        self.centroids = np.concatenate(padded)
        self.sums = np.zeros((len(self.centroids), X.shape[1]))
        self.counts = np.zeros(len(self.centroids), np.int64)
        self.n_iter = np.zeros(len(starts), np.int64)
        self.last = np.full(len(starts), max_iter <= 0)

    @property
    def first(self) -> Any:
        """Number of the first centroid of each run, and the end."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def step(self) -> tuple[Any, Any]:
        """Assign every row in every run; return rows changed and inertia of each run."""
        n_runs, first = len(self.ids), self.first

        def work(block: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
            sums, counts = np.zeros_like(self.sums), np.zeros_like(self.counts)
            changed, inertia = np.zeros(n_runs, np.int64), np.zeros(n_runs)
            booked = (sums, counts, changed, inertia)
            step_block(self.X, *block, self.centroids, first, self.ids, self.labels, *booked)
            return booked

        changed, inertia = np.zeros(n_runs, np.int64), np.zeros(n_runs)
        totals = (self.sums, self.counts, changed, inertia)
        for booked in in_threads(work, _blocks(len(self.X), self.centroids.size)):
            for total, part in zip(totals, booked, strict=True):
                total += part
        return changed, inertia

    def refill(self) -> Any:
        """Move the centroid of each empty cluster; return which runs that concerned."""
        refilled = np.zeros(len(self.ids), bool)
        empty = (self.counts == 0) & np.isfinite(self.centroids[:, 0])
        run_of = np.repeat(np.arange(len(self.ids)), self.sizes)
        for r in np.unique(run_of[empty]):
            own = slice(self.first[r], self.first[r] + self.n_clusters[r])
            centroids = self.centroids[own, : self.X.shape[1]]
            refilled[r] = _refill(self.X, centroids, np.flatnonzero(empty[own]))
        return refilled

    def move(self, still: Any) -> Any:
        """Move centroids to the means of their clusters; return the squared shift of each run.

        Runs marked in `still` keep theirs, and so do clusters without rows.
        """
        n_features = self.X.shape[1]
        moves = np.repeat(~still, self.sizes) & (self.counts > 0)
        means = (self.sums[moves] / self.counts[moves, None]).astype(np.float32)
        shift = np.zeros(len(moves))
        before = self.centroids[moves, :n_features].astype(np.float64)
        shift[moves] = ((means - before) ** 2).sum(axis=1)
        self.centroids[moves, :n_features] = means
        return np.add.reduceat(shift, self.first[:-1])

    def fits(self, chosen: Any, inertia: Any) -> Iterator[tuple[int, KMeansFit]]:
        """Yield the number and the result of each chosen run."""
        for r in np.flatnonzero(chosen):
            own = slice(self.first[r], self.first[r] + self.n_clusters[r])
            centroids = self.centroids[own, : self.X.shape[1]].copy()
            labels = self.labels[self.ids[r]].astype(np.int32)
            yield (
                int(self.ids[r]),
                KMeansFit(centroids, labels, float(inertia[r]), int(self.n_iter[r])),
            )

    def keep(self, chosen: Any) -> None:
        """Forget the runs that are not chosen."""
        rows = np.repeat(chosen, self.sizes)
        self.centroids, self.sums, self.counts = (
            self.centroids[rows],
            self.sums[rows],
            self.counts[rows],
        )
        for name in ("ids", "sizes", "n_clusters", "n_iter", "last"):
            setattr(self, name, getattr(self, name)[chosen])


def _refill(X: Any, centroids: Any, empty: Any) -> bool:
    """Put the centroids numbered in `empty` on the rows that are farthest from any centroid.

    Changes `centroids`. Returns False when every row already lies on a centroid: then there
    are fewer distinct rows than clusters.
    """
    sq_distances = assign(X, centroids, progress=no_progress).sq_distances
    for c in empty:
        farthest = int(np.argmax(sq_distances))
        if sq_distances[farthest] == 0:
            return bool(c != empty[0])
        centroids[c] = X[farthest]
        near = assign(X, X[farthest : farthest + 1], progress=no_progress).sq_distances
        sq_distances = np.minimum(sq_distances, near)
    return True


def lloyd(
    X: Any, starts: Sequence[Any], *, max_iter: int, tol: float, progress: Progress
) -> list[KMeansFit]:
    """Run Lloyd's iterations from each start, all runs together; see ``Backend.lloyd``.

    Each iteration is one pass over the rows for all unfinished runs. A run has at least
    one row in every cluster if there are as many distinct rows as clusters.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, C order, finite
    starts : sequence of arrays of shape (n_clusters, n_features)
    max_iter : int
        0 only assigns the rows to the starts.
    tol : float
        Relative to the mean variance of the features.

    Returns
    -------
    list of KMeansFit
        In the order of `starts`; equal bits on any number of threads.

    Raises
    ------
    ShapeError
        If an array has another type or shape than stated.

    References
    ----------
    Lloyd, S. P. (1982). Least squares quantization in PCM. IEEE Trans. Inf. Theory 28(2).
    """
    _check(X, [np.asarray(start) for start in starts])
    if not starts:
        return []
    small_shift = tol * _mean_variance(X)
    runs = _Runs(X, starts, max_iter)
    fits: dict[int, KMeansFit] = {}
    while len(runs.ids):
        changed, inertia = runs.step()
        # A refilled run takes no means before its rows are assigned anew: each refill puts a
        # centroid on a row of its own, so that no cluster stays empty for long.
        refilled = runs.refill()
        finished = ~refilled & (runs.last | (changed == 0))
        fits.update(runs.fits(finished, inertia))
        runs.keep(~finished)
        still = refilled[~finished]
        if len(runs.ids):
            shift = runs.move(still)
            runs.n_iter += ~still
            runs.last |= ~still & ((shift <= small_shift) | (runs.n_iter >= max_iter))
        progress(len(fits) / len(starts))
    return [fits[i] for i in range(len(starts))]
