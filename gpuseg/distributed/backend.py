"""The seam over rows on workers: each operation is a step of every part and a sum of them.

What is not a `Matrix` is an array here: samples, on which the search for good clusters
works as on one machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuseg.backends.base import Backend, Farthest, LloydSums
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.distributed import steps
from gpuseg.distributed.cluster import Cluster
from gpuseg.distributed.matrix import Labels, Matrix, Measured, fit_of
from gpuseg.records import Array, Assignment, KMeansFit, Progress


class DaskBackend(NumPyBackend):
    """The engine of a run on workers; see `gpuseg.backends.base.Backend`.

    Parameters
    ----------
    cluster
        Whose workers do the steps, each with the NumPy or the GPU engine.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.name = cluster.engine

    def in_host_memory(self) -> Backend:
        """Return itself: a worker that lacks memory decides for itself."""
        return self

    def to_host(self, array: Array) -> Any:
        """Return the values of all rows, in the order of the table, as a NumPy array."""
        return array.on_host() if isinstance(array, (Labels, Measured)) else super().to_host(array)

    def covariance(self, X: Array) -> tuple[Array, Array]:
        """Return mean (d,) and population covariance (d, d), float64."""
        return X.moments if isinstance(X, Matrix) else super().covariance(X)

    def project(self, X: Array, mean: Any, components: Any) -> Array:
        """Return ``(X - mean) @ components.T`` as float32."""
        if not isinstance(X, Matrix):
            return super().project(X, mean, components)
        common = {"mean": mean, "components": components, "on": self._cluster.engine}
        parts = self._cluster.each("project", steps.project, X.parts, **common)
        return Matrix(self._cluster, parts, X.sizes, len(components), X.keys)

    def lloyd(
        self,
        X: Array,
        starts: Sequence[Any],
        *,
        max_iter: int,
        tol: float,
        progress: Progress,
    ) -> list[KMeansFit]:
        """Run Lloyd's iterations from each start; all runs share each pass over the rows."""
        if not isinstance(X, Matrix):
            return super().lloyd(X, starts, max_iter=max_iter, tol=tol, progress=progress)
        variance = float(np.trace(X.moments[1])) / X.shape[1]
        runs = [_Run(start, max_iter, tol * variance) for start in starts]
        n_passes = 0
        while active := [run for run in runs if not run.done]:
            n_passes += 1
            for run, seen in zip(active, self._pass(X, active, n_passes), strict=True):
                if not self._refilled(X, run, seen):
                    run.step(seen)
            progress(1 - len(active) / (len(runs) + 1))
        progress(1.0)
        return [fit_of(X, run.centroids, run.inertia, run.n_iter) for run in runs]

    def lloyd_sums(self, X: Array, many: Sequence[Any]) -> list[LloydSums]:
        """See the rows once for each set of centroids."""
        if not isinstance(X, Matrix):
            return super().lloyd_sums(X, many)
        return self._sums(X, many, "kmeans")

    def farthest(self, X: Array, centroids: Any) -> Farthest:
        """Find the row that is farthest from its nearest centroid."""
        if not isinstance(X, Matrix):
            return super().farthest(X, centroids)
        common = {"centroids": centroids, "on": self._cluster.engine}
        found = self._cluster.each("kmeans: farthest row", steps.farthest, X.parts, **common)
        farthest: Farthest = self._cluster.total("kmeans", found, steps.farther)
        return farthest

    def assign(self, X: Array, centroids: Any, *, progress: Progress) -> Assignment:
        """Find the nearest and second nearest centroid of every row, when they are asked for."""
        if not isinstance(X, Matrix):
            return super().assign(X, centroids, progress=progress)
        centroids = np.asarray(centroids)
        rest = (Measured(X, centroids, name) for name in Assignment._fields[1:])
        return Assignment(Labels(X, centroids), *rest)

    def _pass(self, X: Matrix, runs: Sequence[_Run], number: int) -> list[LloydSums]:
        ks = sorted({len(run.centroids) for run in runs})
        detail = f"kmeans: k={ks[0]}..{ks[-1]} step {number}"
        return self._sums(X, [run.centroids for run in runs], detail)

    def _sums(self, X: Matrix, many: Sequence[Any], stage: str) -> list[LloydSums]:
        common = {"many": list(many), "on": self._cluster.engine}
        parts = self._cluster.each(stage, steps.lloyd_sums, X.parts, **common)
        total: list[LloydSums] = self._cluster.total("kmeans", parts, steps.add_sums)
        return total

    def _refilled(self, X: Matrix, run: _Run, seen: LloydSums) -> bool:
        """Put empty clusters on the rows that are farthest from any centroid, as one machine does.

        The run takes no means then, before its rows are assigned anew.
        """
        for number, cluster in enumerate(np.flatnonzero(seen.counts == 0)):
            found = self.farthest(X, run.centroids)
            if found.sq_distance == 0:  # fewer different rows than clusters
                return number > 0
            run.centroids[cluster] = found.row
        return bool((seen.counts == 0).any())


class _Run:
    """One run between passes; it ends by the rules of ``backends/cpu``."""

    def __init__(self, start: Any, max_iter: int, small_shift: float) -> None:
        self.centroids = np.array(start, dtype=np.float32)
        self.n_iter = 0
        self.inertia = 0.0
        self.done = False
        self._last = max_iter <= 0
        self._max_iter, self._small_shift = max_iter, small_shift

    def step(self, seen: LloydSums) -> None:
        """Move the centroids to the means of their rows, or end."""
        self.inertia = seen.inertia
        there = seen.counts > 0
        means = (seen.sums / np.maximum(seen.counts, 1)[:, None]).astype(np.float32)
        moved = np.where(there[:, None], means, self.centroids)
        shift = float(((moved.astype(np.float64) - self.centroids) ** 2).sum())
        if self._last or shift == 0:
            self.done = True
            return
        self.centroids = moved
        self.n_iter += 1
        self._last = shift <= self._small_shift or self.n_iter >= self._max_iter
