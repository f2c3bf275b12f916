"""Which rows to take when all of them are too many, and what they say about all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: A cluster is represented by at least this many of its rows (all, if it has fewer).
MIN_ROWS_PER_CLUSTER = 30


#: Labels that are looked at a time.
BLOCK_ROWS = 1 << 20


def count_labels(labels: np.ndarray, n_labels: int) -> np.ndarray:
    """Return how many rows have each label, (n_labels,) int64, without a copy of the labels."""
    counts = np.zeros(n_labels, dtype=np.int64)
    for start in range(0, len(labels), BLOCK_ROWS):
        counts += np.bincount(labels[start : start + BLOCK_ROWS], minlength=n_labels)
    return counts


def first_members(labels: np.ndarray, label: int, n_rows: int) -> np.ndarray:
    """Return the first rows of a label, at most `n_rows` of them, ascending."""
    found: list[np.ndarray] = []
    for start in range(0, len(labels), BLOCK_ROWS):
        found.append(start + np.flatnonzero(labels[start : start + BLOCK_ROWS] == label))
        n_rows -= len(found[-1])
        if n_rows <= 0:
            found[-1] = found[-1][: len(found[-1]) + n_rows]
            break
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def stratified_rows(labels: np.ndarray, n_clusters: int, n_rows: int) -> np.ndarray:
    """Take about `n_rows` rows, each cluster by its share and none left out.

    Parameters
    ----------
    labels : array of shape (n_samples,), int32
        Of rows in content order (`records.FeatureMatrix.order`): it looks random, so the
        first rows of a cluster are a fair sample of it.

    Returns
    -------
    rows : array of shape (m,), int64, ascending
        All rows if there are no more than `n_rows`; otherwise at most
        ``n_rows + n_clusters * MIN_ROWS_PER_CLUSTER``.
    """
    if n_rows >= len(labels):
        return np.arange(len(labels))
    parts = []
    for cluster, size in enumerate(count_labels(labels, n_clusters).tolist()):
        quota = max(MIN_ROWS_PER_CLUSTER, n_rows * size // len(labels))
        parts.append(first_members(labels, cluster, quota))
    return np.sort(np.concatenate(parts))


def accuracy_over_all_rows(votes: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> float:
    """Return the out-of-bag accuracy, each cluster weighed by its share of all rows.

    Parameters
    ----------
    votes : array of shape (n_fitted, n_classes)
        All 0 or NaN for a row that was in every bag; it is not judged.
    labels : array of shape (n_fitted,), int, in ``[0, n_classes)``
    sizes : array of shape (n_classes,)
        Rows of each cluster, also those that were not fitted.

    Returns
    -------
    accuracy : float
        NaN when no row can be judged.
    """
    judged = votes.sum(axis=1) > 0
    if not judged.any():
        return float("nan")
    labels = labels[judged]
    right = votes[judged].argmax(axis=1) == labels
    n_judged = np.bincount(labels, minlength=len(sizes))
    weight = np.divide(sizes, n_judged, out=np.zeros(len(sizes)), where=n_judged > 0)
    return float(np.average(right, weights=weight[labels]))


class StratifiedSums(NamedTuple):
    """Sums over sampled rows, by the cluster that they are in."""

    total: np.ndarray  # (n_clusters, ...)
    squares: np.ndarray  # same shape
    counts: np.ndarray  # (n_clusters,), rows in the sample


class StratifiedMeans(NamedTuple):
    """Means over all rows, estimated from a sample."""

    mean: np.ndarray
    stderr: np.ndarray  # 0.0 when every row is in the sample


def stratified_means(sums: StratifiedSums, population: np.ndarray) -> StratifiedMeans:
    """Weigh each cluster by its share of all rows.

    Parameters
    ----------
    population : array of shape (n_clusters,)
        Rows of each cluster, in the sample or not.

    References
    ----------
    Cochran (1977), "Sampling Techniques", section 5.6, with finite population correction.
    """
    by_cluster = (-1,) + (1,) * (sums.total.ndim - 1)
    found = sums.counts.reshape(by_cluster)
    counts = np.maximum(found, 1)
    share = (population / population.sum()).reshape(by_cluster)
    # A cluster that is in no sampled row has no say; the caller's sample holds them all.
    mean = sums.total / counts
    variance = np.maximum(sums.squares - counts * mean**2, 0) / np.maximum(counts - 1, 1)
    left_out = 1 - found / np.maximum(population, 1).reshape(by_cluster)
    return StratifiedMeans(
        mean=(share * mean).sum(axis=0),
        stderr=np.sqrt((share**2 * left_out * variance / counts).sum(axis=0)),
    )
