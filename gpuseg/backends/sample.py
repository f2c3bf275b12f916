"""Which rows to take when all of them are too many."""

from __future__ import annotations

import numpy as np

#: A cluster is represented by at least this many of its rows (all, if it has fewer).
MIN_ROWS_PER_CLUSTER = 30


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
    for cluster in range(n_clusters):
        members = np.flatnonzero(labels == cluster)
        quota = max(MIN_ROWS_PER_CLUSTER, n_rows * len(members) // len(labels))
        parts.append(members[:quota])
    return np.sort(np.concatenate(parts))
