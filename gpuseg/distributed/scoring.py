"""The sweep on workers: the search of one machine, and scores from sums over all parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.kmeans import sweep_kmeans
from gpuseg.clustering.scores import calinski_harabasz, davies_bouldin
from gpuseg.clustering.silhouette import SilhouetteSweep, sweep_of_sums
from gpuseg.clustering.sweep import (
    KMEANS_PART,
    MIN_ROWS_PER_CLUSTER,
    possible_k_values,
    silhouette_work,
)
from gpuseg.distributed import steps
from gpuseg.distributed.backend import DaskBackend
from gpuseg.distributed.matrix import Matrix, Rows, bring, label, rows_of, sums_of
from gpuseg.records import (
    Array,
    Choice,
    KMeansFit,
    KScore,
    Progress,
    SweepResult,
    no_progress,
    part,
)


def sweep(
    backend: DaskBackend,
    X: Matrix,
    k_values: Sequence[int],
    *,
    n_init: int,
    random_state: int,
    sample_size: int | None = None,
    progress: Progress = no_progress,
) -> SweepResult:
    """Fit k-means for every k and score each; see `clustering.sweep.sweep`.

    Returns
    -------
    SweepResult
        Its `scored_rows` are numbered in the order of the table.
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
    of_k = {k: (fits[k].fit, fits[k].stability) for k in possible}
    scored = score_fits(X, of_k, sample_size, part(progress, KMEANS_PART, 1.0))
    return replace(scored, warnings=warnings)


def place(
    backend: DaskBackend, X: Matrix, centroids: Array, *, progress: Progress = no_progress
) -> KMeansFit:
    """Give each row the nearest of the stored centroids, which keep their numbers."""
    (seen,) = backend.lloyd_sums(X, [centroids])
    found = backend.assign(X, centroids, progress=progress)
    return KMeansFit(centroids=centroids, labels=found.labels, inertia=seen.inertia, n_iter=0)


def score_placed(
    backend: DaskBackend,
    X: Matrix,
    centroids: Array,
    sample_size: int | None,
    *,
    progress: Progress = no_progress,
) -> tuple[SweepResult, Choice]:
    """Place rows with stored centroids and score them; see `clustering.placing`."""
    fit, n_clusters = place(backend, X, centroids), len(centroids)
    scored = score_fits(X, {n_clusters: (fit, 1.0)}, sample_size, progress)
    silhouette = scored.scores[n_clusters].silhouette
    reason = (
        f"{n_clusters} clusters placed by a stored model, nothing was fitted; mean silhouette "
        f"{silhouette:.4f}"
    )
    return scored, Choice(n_clusters=n_clusters, fit=fit, reason=reason)


class _Labelled(NamedTuple):
    """All rows labelled for every k."""

    parts: list[Any]  # futures of steps.Labelled
    total: steps.Labelled


def score_fits(
    X: Matrix,
    fits: Mapping[int, tuple[KMeansFit, float]],
    sample_size: int | None,
    progress: Progress,
) -> SweepResult:
    """Score fits of several k from the distances of the scored rows to all rows.

    Parameters
    ----------
    fits
        For each k, the fit and the stability of its restarts.
    """
    parts = label(X, [np.asarray(fit.centroids) for fit, _stability in fits.values()])
    labelled = _Labelled(parts, sums_of(X.cluster, parts))
    rows = _rows_to_score(X, labelled, sample_size)
    sizes = {k: labelled.total.sizes[i] for i, k in enumerate(fits)}
    silhouettes, numbers = _silhouettes(X, labelled, sizes, rows, progress)
    total_inertia = float(np.trace(X.moments[1])) * len(X)
    scores = {
        k: _score(len(X), fit, stability, silhouettes, labelled.total, i, total_inertia)
        for i, (k, (fit, stability)) in enumerate(fits.items())
    }
    return SweepResult(
        fits={k: fit for k, (fit, _stability) in fits.items()},
        scores=scores,
        samples=silhouettes.samples,
        scored_rows=numbers,
    )


def _rows_to_score(X: Matrix, labelled: _Labelled, sample_size: int | None) -> Rows | None:
    """Choose the rows that one machine chooses; ``None`` means all of them."""
    n_scored = silhouette_work(len(X), X.shape[1], sample_size).n_scored
    if n_scored == len(X):
        return None
    firsts = first_of_clusters(X, labelled.parts, MIN_ROWS_PER_CLUSTER)
    return X.first_rows(n_scored).union(firsts)


def first_of_clusters(X: Matrix, parts: Sequence[Any], n_rows: int) -> Rows:
    """Find the first rows of each cluster of each segmentation, by the order of content."""
    found = X.cluster.results(
        X.cluster.each("sample", steps.first_of_each, parts, X.keys, n_rows=n_rows)
    )
    chosen = [
        rows_of([of_part[i][cluster] for of_part in found]).first(n_rows)
        for i, clusters in enumerate(found[0])
        for cluster in range(len(clusters))
    ]
    return Rows.of(chosen)


def _silhouettes(
    X: Matrix,
    labelled: _Labelled,
    sizes: Mapping[int, npt.NDArray[np.int64]],
    rows: Rows | None,
    progress: Progress,
) -> tuple[SilhouetteSweep, npt.NDArray[np.int64]]:
    """Score the rows; return also their numbers in the table, ascending."""
    firsts = np.concatenate([[0], np.cumsum(X.sizes)[:-1]])
    if rows is None:
        sums, labels = _exact_sums(X, labelled, progress)
        numbers = np.arange(len(X))
    else:
        numbers = firsts[rows.part] + rows.place
        in_table_order = np.argsort(numbers)
        rows = rows.at(in_table_order)
        numbers = numbers[in_table_order]
        sums, labels = _sampled_sums(X, labelled, rows, progress)
    own = {k: labels[i].astype(np.int32) for i, k in enumerate(sizes)}
    return sweep_of_sums(NumPyBackend(), sums, own, sizes), numbers


def _sampled_sums(
    X: Matrix, labelled: _Labelled, rows: Rows, progress: Progress
) -> tuple[Any, Any]:
    """Let the scored rows meet all rows, part by part."""
    cluster = X.cluster
    common = {"rows": X.take(rows), "on": cluster.engine}
    parts = cluster.each("silhouette", steps.sums_to_part, X.parts, labelled.parts, **common)
    cluster.results(cluster.each("silhouette", steps.is_done, parts), progress)
    sums = cluster.total("silhouette", parts, steps.add)
    labels = np.empty((len(labelled.total.sizes), len(rows)), np.int32)
    for where, values in bring(cluster, steps.take_labels, labelled.parts, rows):
        labels[:, where] = values
    return sums, labels


def _exact_sums(X: Matrix, labelled: _Labelled, progress: Progress) -> tuple[Any, Any]:
    """Let all rows meet all rows. There are few of them, so each task may have them all."""
    cluster = X.cluster
    n_parts = len(X.parts)
    futures = cluster.each(
        "silhouette",
        steps.sums_within,
        [X.parts] * n_parts,
        [labelled.parts] * n_parts,
        list(range(n_parts)),
        on=cluster.engine,
    )
    sums = np.concatenate(cluster.results(futures, progress))
    every = cluster.each("silhouette", steps.take_labels, labelled.parts, [slice(None)] * n_parts)
    return sums, np.concatenate(cluster.results(every), axis=1)


def _score(
    n_samples: int,
    fit: KMeansFit,
    stability: float,
    silhouettes: SilhouetteSweep,
    total: steps.Labelled,
    number: int,
    total_inertia: float,
) -> KScore:
    k, sizes = len(fit.centroids), total.sizes[number]
    extents = total.distances[number] / np.maximum(sizes, 1)
    n_scored = len(silhouettes.samples[k])
    sampled = f"sampled ({n_scored:,} of {n_samples:,} rows)"
    return KScore(
        n_clusters=k,
        silhouette=float(silhouettes.scores[k]),
        silhouette_stderr=float(silhouettes.stderr[k]),
        method="exact" if n_scored == n_samples else sampled,
        inertia=float(fit.inertia),
        calinski_harabasz=calinski_harabasz(fit, sizes, total_inertia),
        davies_bouldin=davies_bouldin(np.asarray(fit.centroids), extents),
        min_cluster_share=float(sizes.min() / n_samples),
        stability=stability,
    )
