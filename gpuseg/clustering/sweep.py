"""Try every k: fit, score, and keep what the choice needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.backends.sample import first_members
from gpuseg.clustering.kmeans import count_distinct_rows, sweep_kmeans
from gpuseg.clustering.scores import (
    calinski_harabasz,
    cluster_sizes,
    davies_bouldin,
    mean_distances,
)
from gpuseg.clustering.silhouette import SilhouetteSweep, score_sweep
from gpuseg.errors import DataError
from gpuseg.records import Array, KMeansFit, KScore, Progress, SweepResult, no_progress, part

#: Work that one silhouette sweep may take, in multiply-adds over pairs of rows. A fixed
#: number, not a time: whether a score is exact must not depend on the machine.
EXACT_BUDGET = 6e11
SAMPLED_BUDGET = 2e11

#: What a pair costs besides its d multiply-adds (square root, sums), in multiply-adds.
PAIR_OVERHEAD = 8

MIN_SAMPLE = 1_000

#: A sampled cluster is judged on at least this many of its rows (all, if it has fewer).
MIN_ROWS_PER_CLUSTER = 30

#: Part of a sweep's progress that k-means is given; the rest goes to the silhouette.
KMEANS_PART = 0.3


def sweep(
    backend: Backend,
    X: Array,
    k_values: Sequence[int],
    *,
    n_init: int,
    random_state: int,
    sample_size: int | None = None,
    progress: Progress = no_progress,
) -> SweepResult:
    """Fit k-means for every k and score each with the mean Euclidean silhouette.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32
        Rows in content order, see `records.FeatureMatrix.order`.
    k_values
        Ascending. Those that the data cannot fill are left out, with a warning.
    sample_size
        Rows to score; ``None`` scores all of them while that is affordable.

    Raises
    ------
    DataError
        If the rows cannot make two clusters.
    """
    possible, warnings = possible_k_values(X, k_values)
    fits = sweep_kmeans(
        backend,
        X,
        possible,
        n_init=n_init,
        random_state=random_state,
        progress=part(progress, 0.0, KMEANS_PART),
    )
    scored = score_fits(
        backend,
        X,
        {k: (fits[k].fit, fits[k].stability) for k in possible},
        sample_size=sample_size,
        progress=part(progress, KMEANS_PART, 1.0),
    )
    return replace(scored, warnings=warnings)


def score_fits(
    backend: Backend,
    X: Array,
    fits: Mapping[int, tuple[KMeansFit, float]],
    *,
    sample_size: int | None = None,
    progress: Progress = no_progress,
) -> SweepResult:
    """Score fits of several k in one pass over the pairs of rows.

    Parameters
    ----------
    fits
        For each k, the fit and the stability of its restarts.
    """
    labels = {k: fit.labels for k, (fit, _stability) in fits.items()}
    rows = rows_to_score(backend, X, labels, sample_size)
    silhouettes = score_sweep(backend, X, labels, rows=rows, progress=progress)
    n_samples = int(X.shape[0])
    _mean, covariance = backend.covariance(X)
    total_inertia = float(np.trace(covariance)) * n_samples
    scores = {
        k: _score(backend, X, fit, stability, silhouettes, total_inertia)
        for k, (fit, stability) in fits.items()
    }
    return SweepResult(
        fits={k: fit for k, (fit, _stability) in fits.items()},
        scores=scores,
        samples=silhouettes.samples,
        scored_rows=np.arange(n_samples) if rows is None else rows,
    )


def possible_k_values(X: Array, k_values: Sequence[int]) -> tuple[list[int], tuple[str, ...]]:
    """Leave out every k that the rows cannot fill.

    A segmentation needs at least two clusters, at most as many as there are different
    rows, and fewer than there are rows (else every row is alone and nothing is said).

    Raises
    ------
    DataError
        If not even two clusters are possible.
    """
    n_samples = int(X.shape[0])
    n_distinct = count_distinct_rows(X, at_most=max(k_values))
    largest = min(n_distinct, n_samples - 1)
    if largest < 2:
        raise DataError(
            f"the table has {n_samples:,} rows, of which {n_distinct:,} differ in the columns "
            "that are used; two clusters need at least three rows, two of them different"
        )
    possible = [k for k in k_values if k <= largest]
    if len(possible) == len(k_values):
        return possible, ()
    what = (
        f"there are only {n_distinct:,} different rows"
        if n_distinct < n_samples
        else f"there are only {n_samples:,} rows"
    )
    possible = possible or [largest]
    return possible, (f"{what}: the number of clusters was limited to {possible[-1]}",)


class SilhouetteWork(NamedTuple):
    """What scoring a sweep takes; it does not depend on how many k there are."""

    n_scored: int
    multiply_adds: float


def silhouette_work(n_samples: int, n_features: int, sample_size: int | None) -> SilhouetteWork:
    """Decide how many rows are scored: all of them while `EXACT_BUDGET` allows it."""
    pair_cost = n_features + PAIR_OVERHEAD
    exact = SilhouetteWork(n_samples, n_samples * n_samples / 2 * pair_cost)
    if sample_size is None:
        if exact.multiply_adds <= EXACT_BUDGET:
            return exact
        sample_size = max(MIN_SAMPLE, int(SAMPLED_BUDGET / (n_samples * pair_cost)))
    if sample_size >= n_samples:
        return exact
    return SilhouetteWork(sample_size, float(sample_size) * n_samples * pair_cost)


def rows_to_score(
    backend: Backend, X: Array, labels: Mapping[int, Array], sample_size: int | None
) -> np.ndarray | None:
    """Choose the rows whose silhouette is computed; ``None`` means all of them.

    The rows of `X` look shuffled, so the first ones are a fair sample; rows of small
    clusters are added until each cluster of each k has `MIN_ROWS_PER_CLUSTER`.
    """
    n_samples, n_features = X.shape
    n_scored = silhouette_work(n_samples, n_features, sample_size).n_scored
    if n_scored == n_samples:
        return None
    chosen = np.zeros(n_samples, dtype=bool)
    chosen[:n_scored] = True
    for k, of_k in labels.items():
        host = backend.to_host(of_k)
        for cluster in range(k):
            chosen[first_members(host, cluster, MIN_ROWS_PER_CLUSTER)] = True
    return np.flatnonzero(chosen)


def _score(
    backend: Backend,
    X: Array,
    fit: KMeansFit,
    stability: float,
    silhouettes: SilhouetteSweep,
    total_inertia: float,
) -> KScore:
    n_samples, k = int(X.shape[0]), len(fit.centroids)
    sizes = cluster_sizes(backend.xp, fit.labels, k)
    found = backend.assign(X, fit.centroids, progress=no_progress)
    extents = mean_distances(backend, fit.labels, found.sq_distances, sizes)
    n_scored = len(silhouettes.samples[k])
    sampled = f"sampled ({n_scored:,} of {n_samples:,} rows)"
    return KScore(
        n_clusters=k,
        silhouette=float(silhouettes.scores[k]),
        silhouette_stderr=float(silhouettes.stderr[k]),
        method="exact" if n_scored == n_samples else sampled,
        inertia=float(fit.inertia),
        calinski_harabasz=calinski_harabasz(fit, sizes, total_inertia),
        davies_bouldin=davies_bouldin(backend.to_host(fit.centroids), extents),
        min_cluster_share=float(sizes.min() / n_samples),
        stability=stability,
    )
