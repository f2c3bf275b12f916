"""The silhouette of an earlier segmentation, measured on today's rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.clustering.silhouette import score_sweep
from gpuseg.records import FeatureMatrix, Progress, no_progress


def earlier_silhouette(
    backend: Backend,
    features: FeatureMatrix,
    earlier_ids: Any,
    scored_rows: Any,
    *,
    progress: Progress = no_progress,
) -> float | None:
    """Score where rows were before as today's segments are scored: in today's features.

    Parameters
    ----------
    earlier_ids
        Host array of shape (n_rows,), integer, in the table's order: the segment of each row
        before, by any ids; a negative one marks a row that was in none. Such rows are left out.
    scored_rows
        Rows of ``features.X`` that the sweep scored, ascending: `records.SweepResult`.

    Returns
    -------
    float or None
        Mean silhouette, an estimate where the sweep's is one; None where the rows that are
        known are in fewer than two segments, or each in one of its own.
    """
    ids = np.asarray(earlier_ids)[features.order]
    known = ids >= 0
    names, codes = np.unique(ids[known], return_inverse=True)
    if not 2 <= len(names) < len(codes):
        return None
    X = features.X
    rows = np.asarray(scored_rows)
    if not known.all():
        X = X[backend.from_host(np.flatnonzero(known))]
        rows = (np.cumsum(known) - 1)[rows[known[rows]]]
    if len(rows) == 0:
        return None
    every = len(rows) == len(codes)
    labels = backend.from_host(codes.astype(np.int32))
    scored = score_sweep(
        backend, X, {"earlier": labels}, rows=None if every else rows, progress=progress
    )
    return float(scored.scores["earlier"])
