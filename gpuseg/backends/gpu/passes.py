"""k-means in passes: rows that do not fit the device go through it block by block.

The way from the host to the device takes longer than the arithmetic, so all runs share each
pass. Every step is deterministic: nearest centroids by our kernel, sums in float64 in a fixed
order, empty clusters on the farthest rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.base import Farthest, LloydSums
from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.memory import (
    MOST_SUMMED_ROWS,
    in_blocks,
    pass_row_bytes,
    rows_per_block,
)
from gpuseg.backends.gpu.nearest import checked_centroids, launch
from gpuseg.backends.gpu.rows import give_back, library_of, on_device
from gpuseg.backends.gpu.sums import one_hot
from gpuseg.records import Array, Assignment, KMeansFit, Progress

#: Steps of a run after its stopping rule holds, at most; they end earlier when no centroid
#: moves.
SETTLING_STEPS = 20


class _Seen(NamedTuple):
    """What a pass found for one run; on the host."""

    sums: Any  # (n_clusters, n_features) float64
    counts: Any  # (n_clusters,) int64
    inertia: float
    farthest_sq: float
    farthest: Any  # (n_features,) float32: the row that is farthest from its centroid

    def plus(self, later: _Seen) -> _Seen:
        """Add what was found in a later block."""
        far = later if later.farthest_sq > self.farthest_sq else self
        return _Seen(
            self.sums + later.sums,
            self.counts + later.counts,
            self.inertia + later.inertia,
            far.farthest_sq,
            far.farthest,
        )


def lloyd_in_passes(
    device: Device,
    X: Array,
    starts: Sequence[Any],
    *,
    max_iter: int,
    tol: float,
    variance: float,
    progress: Progress,
) -> list[KMeansFit]:
    """Run k-means from all starts together; see ``Backend.lloyd``.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, C order, finite, on either side
    variance
        Mean population variance of the features, to which `tol` is relative.

    Returns
    -------
    list of KMeansFit
        In the order of `starts`; centroids on the host, labels on the side of `X`.
    """
    runs = [_Run(device.xp.asnumpy(start), max_iter, tol * variance) for start in starts]
    while active := [run for run in runs if not run.done]:
        seen = _pass(device, X, [run.centroids for run in active])
        for run, found in zip(active, seen, strict=True):
            run.step(found)
        progress(1 - len(active) / (len(runs) + 1))
    home = library_of(device, X)
    labels = [home.empty(len(X), dtype=np.int32) for _ in runs]
    last = _pass(device, X, [run.centroids for run in runs], labels) if runs else []
    progress(1.0)
    return [
        KMeansFit(run.centroids, of_run, seen.inertia, run.n_iter)
        for run, of_run, seen in zip(runs, labels, last, strict=True)
    ]


def lloyd_sums(device: Device, X: Array, many: Sequence[Any]) -> list[LloydSums]:
    """See the rows once for each set of centroids; see ``Backend.lloyd_sums``."""
    there = [checked_centroids(device, X, centroids) for centroids in many]
    seen = _pass(device, X, there) if there else []
    return [LloydSums(found.sums, found.counts, found.inertia) for found in seen]


def farthest(device: Device, X: Array, centroids: Any) -> Farthest:
    """Find the row that is farthest from its centroid; see ``Backend.farthest``."""
    (seen,) = _pass(device, X, [checked_centroids(device, X, centroids)])
    return Farthest(seen.farthest_sq, seen.farthest)


class _Run:
    """One run between passes."""

    def __init__(self, start: Any, max_iter: int, sq_shift: float) -> None:
        self.centroids = np.array(start, dtype=np.float32)
        self.n_iter = 0
        self.done = False
        self._limit, self._sq_shift, self._settling = max_iter, sq_shift, False

    def step(self, seen: _Seen) -> None:
        """Move the centroids by what a pass found, or end."""
        empty = np.flatnonzero(seen.counts == 0)
        if len(empty) and seen.farthest_sq > 0:
            # one at a time, and the others stay: the next pass finds the next farthest row
            self.centroids[empty[0]] = seen.farthest
            return
        means = (seen.sums / np.maximum(seen.counts, 1)[:, None]).astype(np.float32)
        moved = np.where(seen.counts[:, None] > 0, means, self.centroids)
        shift = float(((moved.astype(np.float64) - self.centroids) ** 2).sum())
        if self.n_iter >= self._limit or shift == 0:
            self.done = True
            return
        self.centroids = moved
        self.n_iter += 1
        if shift <= self._sq_shift and not self._settling:
            self._settling = True
            self._limit = min(self._limit, self.n_iter + SETTLING_STEPS)


def _pass(
    device: Device, X: Array, many: Sequence[Any], labels: Sequence[Array] | None = None
) -> list[_Seen]:
    """Let all rows go by once; fill `labels`, one array for each run, if they are wanted."""
    there = [device.xp.ascontiguousarray(device.xp.asarray(centroids)) for centroids in many]
    totals: list[_Seen] = []

    def look(rows: slice) -> None:
        block = on_device(device, X, rows)
        seen = []
        for run, centroids in enumerate(there):
            found = _nearest(device, block, centroids)
            seen.append(_seen(device, block, found, len(centroids)))
            if labels is not None:
                give_back(device, labels[run][rows], found.labels)
        totals[:] = [a.plus(b) for a, b in zip(totals, seen, strict=True)] if totals else seen

    row_bytes = pass_row_bytes(X.shape[1], max(len(centroids) for centroids in many))
    block = rows_per_block(row_bytes, device.free_bytes(), at_most=MOST_SUMMED_ROWS)
    in_blocks(device, len(X), block, look, operation="k-means")
    return totals


def _nearest(device: Device, X: Array, centroids: Array) -> Assignment:
    n_rows = len(X)
    types = (np.int32, np.float32, np.int32, np.float32)
    found = Assignment(*(device.xp.empty(n_rows, dtype=dtype) for dtype in types))
    launch(device, X, centroids, found)
    return found


def _seen(device: Device, X: Array, found: Assignment, n_clusters: int) -> _Seen:
    xp = device.xp
    sums = one_hot(device, found.labels, n_clusters).T @ X.astype(np.float64)
    farthest = int(found.sq_distances.argmax())
    return _Seen(
        xp.asnumpy(sums),
        xp.asnumpy(xp.bincount(found.labels, minlength=n_clusters)),
        float(found.sq_distances.sum(dtype=np.float64)),
        float(found.sq_distances[farthest]),
        xp.asnumpy(X[farthest]),
    )
