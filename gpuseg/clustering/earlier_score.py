"""The silhouette of an earlier segmentation, measured on today's rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.clustering.silhouette import score_sweep
from gpuseg.records import FeatureMatrix, Progress, SweepResult, no_progress


def earlier_silhouette(
    backend: Backend,
    features: FeatureMatrix,
    earlier_ids: Any,
    swept: SweepResult,
    n_clusters: int,
    *,
    progress: Progress = no_progress,
) -> float | None:
    """Score where rows were before as today's segments are scored: in today's features.

    Parameters
    ----------
    earlier_ids
        Host array of shape (n_rows,), integer, in the table's order: the segment of each row
        before, by any ids; a negative one marks a row that was in none. Such rows are left out.
    swept
        Today's sweep, of the same features.
    n_clusters
        The k that was chosen, with which the earlier segments are going to be compared.

    Returns
    -------
    float or None
        Mean silhouette; None where the rows that are known are in fewer than two segments, or
        each in one of its own. Where the sweep scored some rows only, today's estimate plus
        the estimated difference over the same rows: the same segments get the same score.
    """
    ids = np.asarray(earlier_ids)[features.order]
    known = ids >= 0
    names, codes = np.unique(ids[known], return_inverse=True)
    rows = np.asarray(swept.scored_rows)
    is_exact = len(rows) == len(ids)
    was_known = known[rows]
    if not 2 <= len(names) < len(codes) or not was_known.any():
        return None
    X = features.X if known.all() else features.X[backend.from_host(np.flatnonzero(known))]
    among_known = (np.cumsum(known) - 1)[rows[was_known]]
    scored = score_sweep(
        backend,
        X,
        {"earlier": backend.from_host(codes.astype(np.int32))},
        rows=None if is_exact else among_known,
        progress=progress,
    )
    if is_exact:
        return float(scored.scores["earlier"])
    today = np.asarray(swept.samples[n_clusters], dtype=np.float64)[was_known]
    labels = backend.to_host(swept.fits[n_clusters].labels)
    difference = scored.samples["earlier"] - today
    shift = _mean_by_cluster(difference, labels[rows[was_known]], np.bincount(labels))
    return swept.scores[n_clusters].silhouette + shift


def _mean_by_cluster(values: np.ndarray, clusters: np.ndarray, sizes: np.ndarray) -> float:
    """Return the mean of some rows' values, each cluster weighing as much as it has rows."""
    n_met = np.bincount(clusters, minlength=len(sizes))
    means = np.bincount(clusters, weights=values, minlength=len(sizes)) / np.maximum(n_met, 1)
    return float(np.average(means, weights=np.where(n_met > 0, sizes, 0)))
