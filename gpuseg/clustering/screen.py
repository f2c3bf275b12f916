"""A rough silhouette of every row from centroids alone, and what else one look at them gives.

The mean *squared* distance of a row to a cluster has a closed form: the squared distance to
its centroid plus the cluster's own mean squared distance to it. Silhouettes of their roots
need no second look at pairs. They are not silhouettes, are never shown and decide nothing;
but they rise and fall with them, and their mean over all rows is known. What is sampled is
the difference (see `estimation`), which varies far less than the silhouette itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.backends.base import Backend
from gpuseg.clustering.scores import cluster_sizes
from gpuseg.records import Array, Assignment, KMeansFit, no_progress

#: Rows that are placed at a time.
BLOCK_ROWS = 1 << 18


class SquaredScreen(NamedTuple):
    """What centroids say about the rows of a fit.

    Parameters
    ----------
    sizes : host array of shape (k,), int64
        Rows of each cluster.
    extents : host array of shape (k,), float64
        Mean Euclidean distance of each cluster's rows to its centroid.
    values : host array of shape (r,), float64
        The rough silhouette of the rows that were asked for.
    mean : float
        Of the rough silhouettes of all rows.
    """

    sizes: npt.NDArray[np.int64]
    extents: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    mean: float


def squared_screen(
    backend: Backend, X: Array, fit: KMeansFit, rows: npt.NDArray[np.int64]
) -> SquaredScreen:
    """Look at all rows once, block by block.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, in random order
    rows : host array of shape (r,), int64, ascending
        Rows whose rough silhouettes are wanted one by one.
    """
    k, n_samples = len(fit.centroids), len(X)
    sizes = cluster_sizes(backend.xp, fit.labels, k)
    values, total = np.empty(len(rows)), 0.0
    distance_sums, spreads = np.zeros(k), None
    for begin in range(0, n_samples, BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, n_samples)
        placed = backend.assign(X[begin:end], fit.centroids, progress=no_progress)
        found = Assignment(*(np.asarray(backend.to_host(part)) for part in placed))
        if spreads is None:  # any number would do, if it is the same for all rows
            spreads = spreads_of(found, k)
        labels = np.asarray(backend.to_host(fit.labels[begin:end]))
        distances = np.sqrt(found.sq_distances, dtype=np.float64)
        distance_sums += np.bincount(labels, distances, minlength=k)
        rough = rough_silhouettes(found, spreads)
        total += float(rough.sum())
        inside = slice(*np.searchsorted(rows, (begin, end)))
        values[inside] = rough[rows[inside] - begin]
    return SquaredScreen(sizes, distance_sums / np.maximum(sizes, 1), values, total / n_samples)


def spreads_of(found: Assignment, k: int) -> npt.NDArray[np.float64]:
    """Return the mean squared distance to its centroid within each cluster, (k,)."""
    counts = np.bincount(found.labels, minlength=k)
    sums = np.bincount(found.labels, found.sq_distances, minlength=k)
    return np.where(counts > 0, sums / np.maximum(counts, 1), sums.sum() / counts.sum())


def rough_silhouettes(
    found: Assignment, spreads: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the rough silhouette of each row, from its assignment on the host."""
    if len(spreads) == 1:  # there is no other cluster
        return np.zeros(len(found.labels))
    own = np.sqrt(found.sq_distances + spreads[found.labels])
    other = np.sqrt(found.second_sq_distances + spreads[found.second_labels])
    larger = np.maximum(own, other)
    rough: npt.NDArray[np.float64] = (other - own) / np.where(larger > 0, larger, 1.0)
    return rough
