"""k-means: cuML walks nearly all the way, our own deterministic steps the rest.

cuML adds floats in an order that changes from run to run, leaves empty clusters where they
are, and stops by rules of its own. So its centroids are rounded to where its stopping rule
leaves them anyway, and the last steps are ours: nearest centroids by our kernel, sums in
float64 in a fixed order, empty clusters refilled. Rows that do not fit the device, or not
with cuML beside them, go through it in passes instead: see `passes`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.libraries import Libraries
from gpuseg.backends.gpu.memory import failed, fits, kmeans_row_bytes
from gpuseg.backends.gpu.nearest import assign, checked_centroids
from gpuseg.backends.gpu.passes import SETTLING_STEPS, lloyd_in_passes
from gpuseg.backends.gpu.rows import is_there, on_device
from gpuseg.backends.gpu.sums import cluster_sums, mean_variance
from gpuseg.records import Array, Assignment, KMeansFit, Progress

log = logging.getLogger("gpuseg")

#: cuML refuses a tolerance of 0.
SMALLEST_TOL = 1e-30

#: Rounding that makes the inertia worse by more than this share is not done.
ROUNDING_LOSS = 1e-3


class _Position(NamedTuple):
    """Centroids on the host, and what they mean for the rows."""

    centroids: Any
    found: Assignment

    @property
    def inertia(self) -> float:
        return float(self.found.sq_distances.sum(dtype=np.float64))


def lloyd(
    device: Device,
    libraries: Libraries,
    X: Array,
    starts: Sequence[Any],
    *,
    max_iter: int,
    tol: float,
    progress: Progress,
) -> list[KMeansFit]:
    """Run k-means from each start; see ``Backend.lloyd``.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, C order, finite, on either side
    starts : sequence of host arrays of shape (n_clusters, n_features)
    max_iter : int
        Steps in all; 0 only assigns the rows to the starts.
    tol : float
        Relative to the mean variance of the features.

    Returns
    -------
    list of KMeansFit
        In the order of `starts`; centroids on the host, labels on the side of `X`.

    Raises
    ------
    ShapeError
        If an array has another type or shape than stated.
    """
    for start in starts:
        checked_centroids(device, X, start)
    device.release()  # cuML cannot use what CuPy keeps
    variance = mean_variance(device, X) if starts and max_iter > 0 else 0.0
    needed = X.nbytes + len(X) * kmeans_row_bytes()
    if not is_there(device, X) and not fits(needed, device.free_bytes()):
        return lloyd_in_passes(
            device, X, starts, max_iter=max_iter, tol=tol, variance=variance, progress=progress
        )
    fits_found: list[KMeansFit] = []

    def run_all() -> None:
        runs = _Runs(device, libraries, on_device(device, X))
        for start in starts:
            fit = runs.run(start, max_iter, tol, variance)
            labels = fit.labels if is_there(device, X) else device.xp.asnumpy(fit.labels)
            fits_found.append(fit._replace(labels=labels))
            progress(len(fits_found) / len(starts))

    failure = failed(run_all)
    if failure is None:
        return fits_found
    device.release()
    log.warning("k-means: the device's memory ran out (%s); going on in passes", failure)
    rest = starts[len(fits_found) :]
    return fits_found + lloyd_in_passes(
        device, X, rest, max_iter=max_iter, tol=tol, variance=variance, progress=progress
    )


class _Runs:
    """What all runs on the same rows share."""

    def __init__(self, device: Device, libraries: Libraries, X: Array) -> None:
        self._device, self._libraries, self._X = device, libraries, X

    def run(self, start: Any, max_iter: int, tol: float, variance: float) -> KMeansFit:
        xp = self._device.xp
        position, n_iter = self._at(np.array(xp.asnumpy(start), dtype=np.float32)), 0
        # cuML refuses more clusters than rows
        if max_iter > 0 and len(position.centroids) <= len(self._X):
            position, n_iter = self._walk(position.centroids, max_iter, tol, variance)
        position = self._filled(position)
        for _ in range(min(SETTLING_STEPS, max_iter - n_iter)):
            before = position.found.labels
            position = self._filled(self._at(self._means(position)))
            n_iter += 1
            if not bool((position.found.labels != before).any()):
                break
        return KMeansFit(position.centroids, position.found.labels, position.inertia, n_iter)

    def _at(self, centroids: Any) -> _Position:
        return _Position(centroids, assign(self._device, self._X, centroids))

    def _walk(
        self, start: Any, max_iter: int, tol: float, variance: float
    ) -> tuple[_Position, int]:
        """Let cuML iterate; return where it ends, rounded, and its number of iterations."""
        model = self._libraries.call(
            "kmeans",
            n_clusters=len(start),
            max_iter=max_iter,
            tol=cuml_tol(tol, variance),
            init=self._device.xp.array(start),  # a copy: cuML may move it in place
        )
        self._libraries.call("kmeans.fit", model, self._X)
        ended = self._at(self._device.xp.asnumpy(model.cluster_centers_))
        rounded = self._at(round_centroids(ended.centroids, tol * variance))
        good = rounded.inertia <= ended.inertia * (1 + ROUNDING_LOSS)
        return (rounded if good else ended), int(model.n_iter_)

    def _means(self, position: _Position) -> Any:
        """Return the means of the clusters; one without rows stays where it is."""
        n_clusters = len(position.centroids)
        labels, xp = position.found.labels, self._device.xp
        counts = xp.asnumpy(xp.bincount(labels, minlength=n_clusters))[:, None]
        sums = cluster_sums(self._device, self._X, labels, n_clusters)
        means = (sums / np.maximum(counts, 1)).astype(np.float32)
        return np.where(counts > 0, means, position.centroids)

    def _filled(self, position: _Position) -> _Position:
        """Put empty clusters on the rows that are farthest from any centroid.

        It stays as it is when every row lies on a centroid: then there are fewer distinct
        rows than clusters. Each round puts one centroid more on a row of its own.
        """
        xp = self._device.xp
        while True:
            n_clusters = len(position.centroids)
            counts = xp.asnumpy(xp.bincount(position.found.labels, minlength=n_clusters))
            centroids = self._refilled(position, np.flatnonzero(counts == 0))
            if centroids is None:
                return position
            position = self._at(centroids)

    def _refilled(self, position: _Position, empty: Any) -> Any:
        xp, X = self._device.xp, self._X
        centroids, sq_distances = position.centroids.copy(), position.found.sq_distances
        moved = None
        for cluster in empty:
            farthest = int(sq_distances.argmax())
            if float(sq_distances[farthest]) == 0:
                break
            centroids[cluster] = xp.asnumpy(X[farthest])
            near = assign(self._device, X, X[farthest : farthest + 1]).sq_distances
            sq_distances = xp.minimum(sq_distances, near)
            moved = centroids
        return moved


def cuml_tol(tol: float, variance: float) -> float:
    """Translate our tolerance into cuML's.

    Parameters
    ----------
    tol
        Of the squared centroid shift, relative to `variance`.
    variance
        Mean population variance of the features.

    Notes
    -----
    cuML stops when the squared shift is below its `tol`, which is absolute, or when the
    inertia falls by less than the share `tol`. The smaller of the two readings of our
    tolerance makes neither rule stop too early, whatever the unit of the data.
    """
    return max(SMALLEST_TOL, min(tol, tol * variance))


def round_centroids(centroids: Any, sq_shift: float) -> Any:
    """Round to a multiple of a power of two near the shift at which a run stops.

    Two runs of cuML from the same start end within a few last bits of each other; nearly
    always they are the same after this, and all that follows is the same then.

    Examples
    --------
    >>> round_centroids(np.array([0.1, 0.5001, 1.26], dtype=np.float32), 0.07)
    array([0.  , 0.5 , 1.25], dtype=float32)
    """
    if not sq_shift > 0:
        return centroids
    step = math.ldexp(1.0, math.frexp(math.sqrt(sq_shift))[1] - 1)
    rounded: Any = (np.rint(centroids.astype(np.float64) / step) * step).astype(np.float32)
    return rounded
