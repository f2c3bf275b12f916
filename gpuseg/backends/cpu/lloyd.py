"""Lloyd's iterations for many runs at once, and the assignment of rows to centroids.

Rows travel in tiles of 128, turned so that one register holds the same feature of several
rows. A distance is the sum of ``(x - c)**2`` over the features in their order, by fused
multiply-add in float32. Every row goes through the same operations wherever it stands, so
its label depends on nothing but the row and the centroids; and differences, unlike
``|c|**2 - 2 x.c``, keep their digits when the data lie far from the origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numba.extending import intrinsic

from gpuseg.backends.cpu.compile import jit
from gpuseg.backends.cpu.threads import in_threads
from gpuseg.errors import ShapeError
from gpuseg.records import Assignment, KMeansFit, Progress

#: Rows in a tile: with 50 features it still fits the first-level cache.
TILE = 128

#: Features are padded with zeros to a multiple of this; so many are added per pass.
STRIDE = 4

#: Multiply-adds that take a thread about 0.3 ms.
BLOCK_WORK = 5_000_000


def _type_fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Multiply and add with one rounding; written out, so no compiler decides about it."""

    def generate(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return a(a, b, c), generate


_fma: Any = intrinsic(_type_fma)


@jit()
def _load_tile(X, start, tile):  # type: ignore[no-untyped-def]
    """Turn rows from `start` on into `tile` (n_features padded, TILE); return how many."""
    n_rows = min(TILE, X.shape[0] - start)
    n_features = X.shape[1]
    if n_rows < TILE:
        tile[:] = 0.0
    for t in range(n_rows):
        for j in range(n_features):
            tile[j, t] = X[start + t, j]
    return n_rows


@jit()
def _pair_distances(tile, centroids, c, even, odd):  # type: ignore[no-untyped-def]
    """Squared distances of the tile's rows to centroids `c` and `c + 1`."""
    even[:] = 0.0
    odd[:] = 0.0
    for j in range(0, tile.shape[0], STRIDE):
        a0, b0 = centroids[c, j], centroids[c + 1, j]
        a1, b1 = centroids[c, j + 1], centroids[c + 1, j + 1]
        a2, b2 = centroids[c, j + 2], centroids[c + 1, j + 2]
        a3, b3 = centroids[c, j + 3], centroids[c + 1, j + 3]
        for t in range(TILE):
            x0, x1, x2, x3 = tile[j, t], tile[j + 1, t], tile[j + 2, t], tile[j + 3, t]
            u0, u1, u2, u3 = x0 - a0, x1 - a1, x2 - a2, x3 - a3
            v0, v1, v2, v3 = x0 - b0, x1 - b1, x2 - b2, x3 - b3
            even[t] = _fma(u3, u3, _fma(u2, u2, _fma(u1, u1, _fma(u0, u0, even[t]))))
            odd[t] = _fma(v3, v3, _fma(v2, v2, _fma(v1, v1, _fma(v0, v0, odd[t]))))


@jit()
def _keep_nearest(even, odd, c, old, old_label, new, new_label):  # type: ignore[no-untyped-def]
    """Fold two centroids into the nearest so far, ties to the smaller index.

    Reads one buffer and writes another: an update in place becomes a masked store, which
    costs more than the distances on AMD processors.
    """
    even_label = np.int32(c)
    odd_label = np.int32(c + 1)
    for t in range(TILE):
        odd_wins = odd[t] < even[t]
        nearest = odd[t] if odd_wins else even[t]
        label = odd_label if odd_wins else even_label
        wins = nearest < old[t]
        new[t] = nearest if wins else old[t]
        new_label[t] = label if wins else old_label[t]


@jit()
def _keep_two_nearest(sq, c, near, label, second, second_label):  # type: ignore[no-untyped-def]
    """Fold one centroid into the two nearest so far, ties to the smaller index."""
    for t in range(sq.shape[0]):
        if c == 0 or sq[t] < near[t]:
            second[t], second_label[t] = near[t], label[t]
            near[t], label[t] = sq[t], c
        elif sq[t] < second[t]:
            second[t], second_label[t] = sq[t], c


@jit()
def _tile_sum(values, n_rows, scratch):  # type: ignore[no-untyped-def]
    """Add up the first `n_rows` values in float64, pairwise: always in the same order."""
    for t in range(TILE):
        scratch[t] = values[t] if t < n_rows else 0.0
    width = TILE // 2
    while width:
        for t in range(width):
            scratch[t] += scratch[t + width]
        width //= 2
    return scratch[0]


@jit()
def _step_block(X, start, stop, centroids, first, runs, labels, sums, counts, changed, inertia):  # type: ignore[no-untyped-def]
    """Assign the rows of a block for every run, and book the rows that changed cluster.

    Run r owns the centroids ``first[r]:first[r + 1]`` and the row ``runs[r]`` of `labels`.
    """
    n_features = X.shape[1]
    tile = np.zeros((centroids.shape[1], TILE), np.float32)
    even, odd = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    near, spare = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    label, spare_label = np.empty(TILE, np.int32), np.empty(TILE, np.int32)
    scratch = np.empty(TILE, np.float64)
    for row in range(start, stop, TILE):
        n_rows = _load_tile(X, row, tile)
        for r in range(runs.shape[0]):
            near[:] = np.inf
            label[:] = 0
            n_centroids = first[r + 1] - first[r]
            for c in range(0, n_centroids, 2):
                _pair_distances(tile, centroids, first[r] + c, even, odd)
                _keep_nearest(even, odd, c, near, label, spare, spare_label)
                near, spare = spare, near
                label, spare_label = spare_label, label
            inertia[r] += _tile_sum(near, n_rows, scratch)
            known = labels[runs[r]]
            for t in range(n_rows):
                i = row + t
                if known[i] == label[t]:
                    continue
                changed[r] += 1
                gains, loses = first[r] + label[t], first[r] + known[i]
                counts[gains] += 1
                for j in range(n_features):
                    sums[gains, j] += X[i, j]
                if known[i] < n_centroids:
                    counts[loses] -= 1
                    for j in range(n_features):
                        sums[loses, j] -= X[i, j]
                known[i] = label[t]


@jit()
def _assign_block(X, start, stop, centroids, n_clusters, labels, sq, second_labels, second_sq):  # type: ignore[no-untyped-def]
    """Find the two nearest centroids of the rows of a block."""
    tile = np.zeros((centroids.shape[1], TILE), np.float32)
    even, odd = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for row in range(start, stop, TILE):
        n_rows = _load_tile(X, row, tile)
        end = row + n_rows
        near, label = sq[row:end], labels[row:end]
        second, second_label = second_sq[row:end], second_labels[row:end]
        for c in range(0, n_clusters, 2):
            _pair_distances(tile, centroids, c, even, odd)
            _keep_two_nearest(even[:n_rows], c, near, label, second, second_label)
            if c + 1 < n_clusters:
                _keep_two_nearest(odd[:n_rows], c + 1, near, label, second, second_label)


@jit()
def _moments_block(X, start, stop, origin):  # type: ignore[no-untyped-def]
    """Sum ``x - origin`` and its square over the rows of a block, per feature."""
    total = np.zeros(X.shape[1])
    square = np.zeros(X.shape[1])
    for i in range(start, stop):
        for j in range(X.shape[1]):
            difference = np.float64(X[i, j]) - origin[j]
            total[j] += difference
            square[j] += difference * difference
    return total, square


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
        lambda b: _moments_block(X, *b, origin), _blocks(n_samples, X.shape[1])
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
    done = in_threads(lambda b: _assign_block(X, *b, padded, n_clusters, *found), blocks)
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
            _step_block(self.X, *block, self.centroids, first, self.ids, self.labels, *booked)
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
    sq_distances = assign(X, centroids, progress=lambda _: None).sq_distances
    for c in empty:
        farthest = int(np.argmax(sq_distances))
        if sq_distances[farthest] == 0:
            return bool(c != empty[0])
        centroids[c] = X[farthest]
        near = assign(X, X[farthest : farthest + 1], progress=lambda _: None).sq_distances
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
