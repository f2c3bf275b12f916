"""Scores beside the silhouette, from centroids and inertia alone: no second look at pairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.backends.sample import BLOCK_ROWS, count_labels
from gpuseg.memory import room
from gpuseg.records import Array, KMeansFit


def cluster_sizes(xp: Any, labels: Array, n_clusters: int) -> np.ndarray:
    """Return the number of rows of each cluster, (n_clusters,) int64, on the host."""
    if hasattr(labels, "sizes"):  # labels that lie elsewhere are counted there
        return np.asarray(labels.sizes(n_clusters), dtype=np.int64)
    if xp is np:
        return count_labels(labels, n_clusters)
    counts = xp.bincount(labels, minlength=n_clusters)
    return np.asarray(counts.get() if hasattr(counts, "get") else counts, dtype=np.int64)


def side_by_side(backend: Backend, labels: Iterable[Array]) -> Array:
    """Return labels of several segmentations as one array, (m, n_samples).

    It is int32, or as short as the labels are where they come as short from k-means because
    memory is.
    """
    held = list(labels)
    xp, kinds = backend.xp, {np.dtype(of_k.dtype) for of_k in held}
    short = xp is np and kinds == {np.dtype(np.uint8)}
    if xp is not np:
        return xp.stack([of_k.astype(xp.int32) for of_k in held])
    matrix: Array = room().empty((len(held), len(held[0])), np.uint8 if short else np.int32)
    for own, of_k in zip(matrix, held, strict=True):
        own[:] = of_k
    return matrix


def mean_distances(
    backend: Backend, labels: Array, sq_distances: Array, sizes: np.ndarray
) -> np.ndarray:
    """Return the mean distance of each cluster's rows to its centroid, (n_clusters,) float64.

    Parameters
    ----------
    labels, sq_distances : Arrays of shape (n_samples,)
    sizes : array of shape (n_clusters,)
    """
    sums = np.zeros(len(sizes))
    for start in range(0, len(labels), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        distances = np.sqrt(backend.to_host(sq_distances[rows]).astype(np.float64))
        sums += np.bincount(backend.to_host(labels[rows]), weights=distances, minlength=len(sizes))
    means: np.ndarray = sums / np.maximum(sizes, 1)
    return means


def calinski_harabasz(fit: KMeansFit, sizes: np.ndarray, total_inertia: float) -> float:
    """Ratio of the scatter between to the scatter within clusters; higher is better.

    Parameters
    ----------
    fit
        Its centroids are the means of their clusters.
    sizes : array of shape (n_clusters,)
    total_inertia
        Sum of squared distances of all rows to the mean of all rows.

    References
    ----------
    Caliński and Harabasz (1974), "A dendrite method for cluster analysis".
    """
    n_samples, n_clusters = int(sizes.sum()), len(sizes)
    if fit.inertia <= 0 or n_samples <= n_clusters:
        return 1.0  # scikit-learn's convention for clusters without extent
    between = max(total_inertia - fit.inertia, 0.0)
    return (between / (n_clusters - 1)) / (fit.inertia / (n_samples - n_clusters))


def davies_bouldin(centroids: np.ndarray, mean_distances: np.ndarray) -> float:
    """Mean over clusters of the worst ratio of extents to separation; lower is better.

    Parameters
    ----------
    centroids : array of shape (n_clusters, n_features)
    mean_distances : array of shape (n_clusters,)
        Mean Euclidean distance of each cluster's rows to its centroid.

    References
    ----------
    Davies and Bouldin (1979), "A cluster separation measure".
    """
    centroids = centroids.astype(np.float64)
    separation = np.linalg.norm(centroids[:, None, :] - centroids[None, :, :], axis=2)
    extents = mean_distances[:, None] + mean_distances[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(separation > 0, extents / separation, 0.0)
    np.fill_diagonal(ratios, 0.0)
    return float(ratios.max(axis=1).mean())
