"""Place rows with centroids that are there already, and score the result."""

from __future__ import annotations

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.clustering.choice import CUT
from gpuseg.clustering.sweep import score_fits
from gpuseg.records import Array, Choice, KMeansFit, Progress, SweepResult, no_progress
from gpuseg.stages import NO_DEADLINE, Deadline


def place(
    backend: Backend, X: Array, centroids: Array, *, progress: Progress = no_progress
) -> KMeansFit:
    """Give each row the nearest of the stored centroids, which keep their numbers.

    Returns
    -------
    KMeansFit
        With no iterations; clusters may be empty.
    """
    found = backend.assign(X, centroids, progress=progress)
    sq_distances = found.sq_distances
    if hasattr(sq_distances, "total"):  # rows that lie elsewhere are measured there
        inertia = float(sq_distances.total())
    else:
        inertia = float(backend.to_host(sq_distances).sum(dtype=np.float64))
    return KMeansFit(centroids=centroids, labels=found.labels, inertia=inertia, n_iter=0)


def score_placed(
    backend: Backend,
    X: Array,
    centroids: Array,
    sample_size: int | None,
    *,
    cluster_ids: tuple[int, ...] = (),
    deadline: Deadline = NO_DEADLINE,
    progress: Progress = no_progress,
) -> tuple[SweepResult, Choice]:
    """Place rows with stored centroids and score them as the sweep scores its fits."""
    fit = place(backend, X, centroids)
    n_clusters = len(centroids)
    scored = score_fits(
        backend,
        X,
        {n_clusters: (fit, 1.0)},
        sample_size=sample_size,
        deadline=deadline,
        progress=progress,
    )
    silhouette = scored.scores[n_clusters].silhouette
    reason = (
        f"{n_clusters} clusters placed by a stored model, nothing was fitted; mean silhouette "
        f"{silhouette:.4f}"
    )
    cut = tuple(f"{CUT}: {what}" for what in scored.cut)
    return scored, Choice(n_clusters, fit, reason, warnings=cut, cluster_ids=cluster_ids)
