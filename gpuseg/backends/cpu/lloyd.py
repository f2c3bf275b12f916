"""Lloyd's iterations for many runs at once, and the assignment of rows to centroids.

The distances, and why a row's label depends on no other row, are in ``nearest_lines.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuseg.backends.base import LloydSums
from gpuseg.backends.cpu.nearest import (
    advance,
    assign_tiles,
    moments_block,
    run_alone,
    step_tiles,
    turn,
)
from gpuseg.backends.cpu.nearest_lines import BATCH, LANES, LINES, TILE
from gpuseg.backends.cpu.threads import in_threads, thread_count
from gpuseg.errors import ShapeError
from gpuseg.memory import room
from gpuseg.records import Assignment, KMeansFit, Progress, no_progress

#: Multiply-adds that take a thread about 0.3 ms.
BLOCK_WORK = 25_000_000

#: From so many rows on, labels under way are a byte each.
SHORT_LABELS = 2**16

#: Steps on all rows after which half of the work is thought to be done.
MANY_STEPS = 20

#: Tiles of a piece, where rows are too many to be kept in panels.
PIECE_TILES = 1 << 11

#: Up to so many numbers the rows stay in a cache: then each thread brings runs to their end,
#: without waiting for others after each step. Beyond, all runs share a pass over the rows.
CACHED_VALUES = 2**22


def _blocks(n_samples: int, n_values: int) -> list[tuple[int, int]]:
    """Cut the tiles into at most 64 blocks, by the size of the task alone.

    `n_values` is how many numbers each row is compared with. A block is worth at least
    what it costs to hand it to a thread.
    """
    n_blocks = min(64, max(1, n_samples * n_values // BLOCK_WORK))
    n_tiles = -(-n_samples // TILE)
    step = -(-n_tiles // n_blocks)
    return [(start, min(start + step, n_tiles)) for start in range(0, n_tiles, step)]


def _mean_variance(X: Any) -> float:
    """Population variance of the features, averaged over them."""
    n_samples = len(X)
    origin = X[0].astype(np.float64)
    totals, squares = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for total, square in in_threads(
        lambda b: moments_block(X, b[0] * TILE, min(b[1] * TILE, n_samples), origin),
        _blocks(n_samples, X.shape[1]),
    ):
        totals += total
        squares += square
    return float(np.mean(squares / n_samples - (totals / n_samples) ** 2))


def _padded(centroids: Any) -> Any:
    """Pad to whole batches of centroids with inf, which are nobody's nearest."""
    k, d = centroids.shape
    padded = np.full((-(-k // BATCH) * BATCH, d), np.inf, np.float32)
    padded[:k] = centroids
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
    n_samples = len(X)
    padded = _padded(centroids)
    sq, second_sq = (room().empty(n_samples, np.float32) for _ in range(2))
    labels, second_labels = (room().empty(n_samples, np.int32) for _ in range(2))
    blocks = _blocks(n_samples, padded.size)
    found = (sq, labels, second_sq, second_labels)
    done = in_threads(lambda block: assign_tiles(X, *block, padded, *found), blocks)
    for finished, _ in enumerate(done, start=1):
        progress(finished / len(blocks))
    return Assignment(labels, sq, second_labels, second_sq)


class _Pieces:
    """The labels of all runs, and the rows in panels: as a whole or in pieces.

    Rows that memory does not hold twice are turned into panels piece by piece, anew in each
    step; the labels of a piece lie together, so that a step reads files from end to end.
    """

    def __init__(self, X: Any, n_runs: int, kind: Any) -> None:
        self._X = X
        n_tiles = -(-len(X) // TILE)
        row_bytes = 4 * X.shape[1] + np.dtype(kind).itemsize * n_runs
        whole = X.size <= CACHED_VALUES or room().holds_work(2 * len(X) * row_bytes)
        length = n_tiles if whole else min(n_tiles, PIECE_TILES)
        self._edges = [(start, min(start + length, n_tiles)) for start in range(0, n_tiles, length)]
        flat = room().empty(n_runs * n_tiles * TILE, kind)
        flat[:] = np.iinfo(kind).max
        self.labels = [
            flat[n_runs * TILE * a : n_runs * TILE * b].reshape(n_runs, (b - a) * TILE)
            for a, b in self._edges
        ]
        self.panels = _turned(X, n_tiles * LINES) if whole else None

    def step(self, block: tuple[int, int], *args: Any) -> None:
        """Assign the rows of a block of tiles; what is booked is the same in any pieces."""
        n_features = self._X.shape[1]
        for (start, stop), labels in zip(self._edges, self.labels, strict=True):
            first, last = max(block[0], start) - start, min(block[1], stop) - start
            if first >= last:
                continue
            rows = self._X[start * TILE : stop * TILE]
            panels = self.panels
            if panels is None:
                panels = np.empty((stop - start) * TILE * n_features, np.float32)
                turn(rows, panels, first * LINES, last * LINES)
            runs, centroids, first_slot, *booked = args
            step_tiles(rows, panels, first, last, runs, centroids, first_slot, labels, *booked)

    def of_run(self, run: int) -> Any:
        """Return the labels of all rows in one run, as short as they were kept."""
        n_rows = len(self._X)
        if self.labels[0].dtype == np.int32 and len(self.labels) == 1:
            return self.labels[0][run, :n_rows]
        labels = room().empty(n_rows, self.labels[0].dtype)
        for (start, stop), piece in zip(self._edges, self.labels, strict=True):
            rows = slice(start * TILE, min(stop * TILE, n_rows))
            labels[rows] = piece[run, : rows.stop - rows.start]
        return labels


class _Runs:
    """All runs of a job: their centroids side by side, and what each cluster holds."""

    def __init__(
        self, X: Any, starts: Sequence[Any], max_iter: int, tol: float, progress: Progress
    ) -> None:
        padded = [_padded(np.asarray(start)) for start in starts]
        self.n_clusters = np.array([len(start) for start in starts])
        self.first = np.concatenate([[0], np.cumsum([len(block) for block in padded])])
        self.centroids = np.concatenate(padded)
        self.sums = np.zeros(self.centroids.shape)
        self.counts = np.zeros(len(self.centroids), np.int64)
        # of few rows the labels are given away as they are, of many they are kept short
        short = len(X) > SHORT_LABELS and self.n_clusters.max() < 255
        self.pieces = _Pieces(X, len(starts), np.uint8 if short else np.int32)
        self.n_iter = np.zeros(len(starts), np.int64)
        self.last = np.full(len(starts), max_iter <= 0)
        self.inertia = np.zeros(len(starts))
        self.X = X
        self.max_iter, self.small_shift = max_iter, tol * _mean_variance(X)
        self.n_finished, self.n_told, self.progress = 0, 0.0, progress

    def finish_one_by_one(self) -> None:
        """Bring every run to its end in a thread; only empty clusters interrupt it."""
        runs = np.arange(len(self.n_clusters))
        while len(runs):
            # the neighbours in the list have the same k, so this shares the work evenly
            n_parts = min(len(runs), 4 * thread_count())
            parts = [runs[part::n_parts] for part in range(n_parts)]
            stopped = []
            for part, changed in zip(parts, in_threads(self._run_alone, parts), strict=True):
                stopped += [
                    run
                    for run, n_changed in zip(part, changed, strict=True)
                    if self._is_empty_somewhere(run) and not self._settle(run, n_changed)
                ]
                self._report(len(part) - len(stopped))
            runs = np.array(sorted(stopped), np.int64)

    def finish_together(self) -> None:
        """Step all unfinished runs in one pass over the rows, until there are none."""
        runs, n_steps = np.arange(len(self.n_clusters)), 0
        while len(runs):
            changed, n_steps = self._step(runs), n_steps + 1
            # how many more steps it takes is not known
            self.n_told = max(self.n_told, len(self.n_clusters) * n_steps / (n_steps + MANY_STEPS))
            on = [not self._settle(int(run), n) for run, n in zip(runs, changed, strict=True)]
            self._report(len(runs) - sum(on))
            runs = runs[on]

    def look(self) -> list[LloydSums]:
        """See all rows once, and move nothing."""
        self._step(np.arange(len(self.n_clusters)))
        seen = []
        for first, k, inertia in zip(self.first, self.n_clusters, self.inertia, strict=False):
            own = slice(first, first + k)
            seen.append(LloydSums(self.sums[own], self.counts[own], float(inertia)))
        return seen

    def fit(self, run: int) -> KMeansFit:
        """Return the result of a finished run."""
        own = slice(self.first[run], self.first[run] + self.n_clusters[run])
        labels = self.pieces.of_run(run)
        inertia, n_iter = float(self.inertia[run]), int(self.n_iter[run])
        return KMeansFit(self.centroids[own].copy(), labels, inertia, n_iter)

    def _run_alone(self, runs: Any) -> Any:
        changed, inertia = np.zeros(len(runs), np.int64), np.zeros((len(runs), LANES))
        limits = (self.n_iter, self.last, self.max_iter, self.small_shift)
        [labels] = self.pieces.labels
        state = (self.centroids, self.first, labels, self.sums, self.counts)
        run_alone(
            self.X, self.pieces.panels, runs, self.n_clusters, *state, *limits, changed, inertia
        )
        self.inertia[runs] = inertia.sum(axis=1)
        return changed

    def _step(self, runs: Any) -> Any:
        """Assign every row in these runs; return how many changed in each."""

        def work(block: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
            sums, counts = np.zeros_like(self.sums), np.zeros_like(self.counts)
            changed, inertia = np.zeros(len(runs), np.int64), np.zeros((len(runs), LANES))
            booked = (sums, counts, changed, inertia)
            self.pieces.step(block, runs, self.centroids, self.first, *booked)
            return booked

        changed, inertia = np.zeros(len(runs), np.int64), np.zeros((len(runs), LANES))
        totals = (self.sums, self.counts, changed, inertia)
        n_values = int((self.first[runs + 1] - self.first[runs]).sum()) * self.X.shape[1]
        for booked in in_threads(work, _blocks(len(self.X), n_values)):
            for total, part in zip(totals, booked, strict=True):
                total += part
        self.inertia[runs] = inertia.sum(axis=1)
        return changed

    def _is_empty_somewhere(self, run: int) -> bool:
        own = slice(self.first[run], self.first[run] + self.n_clusters[run])
        return bool((self.counts[own] == 0).any())

    def _settle(self, run: int, n_changed: int) -> bool:
        """Refill empty clusters, else move on after a step; tell whether the run is finished.

        A refilled run takes no means before its rows are assigned anew: each refill puts a
        centroid on a row of its own, so that no cluster stays empty for long.
        """
        own = slice(self.first[run], self.first[run] + self.n_clusters[run])
        empty = np.flatnonzero(self.counts[own] == 0)
        if len(empty) and _refill(self.X, self.centroids[own], empty):
            return False
        limits = (self.n_iter, self.last, self.max_iter, self.small_shift)
        means = (self.centroids, self.first, self.sums, self.counts)
        return bool(advance(run, n_changed, *means, *limits))

    def _report(self, n_finished: int) -> None:
        self.n_finished += n_finished
        self.n_told = max(self.n_told, self.n_finished)
        self.progress(self.n_told / len(self.n_clusters))


def _turned(X: Any, n_lines: int) -> Any:
    """Return the rows in panels."""
    panels = np.empty(n_lines * LANES * X.shape[1], np.float32)
    step = -(-n_lines // thread_count())
    edges = [(start, min(start + step, n_lines)) for start in range(0, n_lines, step)]
    for _done in in_threads(lambda part: turn(X, panels, *part), edges):
        pass
    return panels


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
        np.minimum(sq_distances, near, out=sq_distances)
    return True


def lloyd(
    X: Any, starts: Sequence[Any], *, max_iter: int, tol: float, progress: Progress
) -> list[KMeansFit]:
    """Run Lloyd's iterations from each start, all runs together; see ``Backend.lloyd``.

    A run has at least one row in every cluster if there are as many distinct rows as
    clusters.

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
        In the order of `starts`; equal bits on any number of threads. Labels of more than
        `SHORT_LABELS` rows are uint8, if there are fewer than 255 clusters.

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
    runs = _Runs(X, starts, max_iter, tol, progress)
    if X.size <= CACHED_VALUES:
        runs.finish_one_by_one()
    else:
        runs.finish_together()
    return [runs.fit(run) for run in range(len(starts))]


def lloyd_sums(X: Any, many: Sequence[Any]) -> list[LloydSums]:
    """See the rows once for each set of centroids; see ``Backend.lloyd_sums``.

    Raises
    ------
    ShapeError
        If an array has another type or shape than stated.
    """
    _check(X, [np.asarray(centroids) for centroids in many])
    if not many:
        return []
    return _Runs(X, many, 0, 0.0, no_progress).look()
