"""Which k, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.clustering.scores import cluster_sizes
from gpuseg.records import Array, Choice, KMeansFit, KScore, SweepResult, no_progress

#: Below this mean silhouette the groups overlap so much that they are hardly groups
#: (Kaufman and Rousseeuw, "Finding Groups in Data", 1990, table 4 of chapter 2).
WEAK_SILHOUETTE = 0.25

#: A cluster with fewer rows than both of these is called a handful.
HANDFUL_SHARE = 0.01
HANDFUL_ROWS = 100

#: How a result that time did not suffice for is labelled.
CUT = "cut short by max_seconds"


def choose(
    backend: Backend,
    X: Array,
    sweep: SweepResult,
    *,
    asked_for: int | None = None,
    largest_tried: int | None = None,
    min_cluster_share: float = 0.0,
) -> Choice:
    """Take the k with the highest mean silhouette; of equals, the smaller one.

    Parameters
    ----------
    asked_for
        The number of clusters that the user fixed, if any.
    largest_tried
        Upper end of the range the user gave; a winner there earns a warning.
    min_cluster_share
        A k whose smallest cluster holds less of the rows is passed over, unless that
        leaves none.

    Returns
    -------
    Choice
        Its clusters are numbered by size, 0 is the largest.
    """
    warnings: list[str] = []
    scores = [sweep.scores[k] for k in sorted(sweep.scores)]
    eligible = [s for s in scores if s.min_cluster_share >= min_cluster_share]
    if not eligible:
        warnings.append(
            f"no k keeps every cluster at {min_cluster_share:.1%} of the rows or more; "
            "the limit was not applied"
        )
    candidates = eligible or scores
    best = max(candidates, key=lambda s: (s.silhouette, -s.n_clusters))
    rivals = _rivals(best, candidates, sweep)
    warnings += _doubts(best, scores, X.shape[0], largest_tried if asked_for is None else None)
    if rivals and asked_for is None:
        warnings.append(_inseparable(best, rivals, len(sweep.scored_rows), X.shape[0]))
    if sweep.cut:
        warnings.append(f"{CUT}: {'; '.join(sweep.cut)}")
    reason = _reason(best, scores, rivals, asked_for, len(eligible))
    return Choice(
        n_clusters=best.n_clusters,
        fit=number_by_size(backend, X, sweep.fits[best.n_clusters]),
        reason=f"{reason} ({CUT})" if sweep.cut else reason,
        warnings=tuple(warnings),
    )


def number_by_size(backend: Backend, X: Array, fit: KMeansFit) -> KMeansFit:
    """Renumber clusters so that 0 is the largest; equals in the order of their centroids."""
    centroids = np.asarray(backend.to_host(fit.centroids))
    sizes = cluster_sizes(backend.xp, fit.labels, len(centroids))
    order = sorted(range(len(centroids)), key=lambda c: (-sizes[c], centroids[c].tolist()))
    centroids = np.ascontiguousarray(centroids[order])
    # Assigned again rather than looked up: a row exactly between two centroids goes to
    # the smaller number, and `gpuseg assign` must give it the same one later.
    found = backend.assign(X, centroids, progress=no_progress)
    return fit._replace(centroids=centroids, labels=found.labels)


def _rivals(best: KScore, candidates: Sequence[KScore], sweep: SweepResult) -> list[int]:
    """Return the other k that may well be as good as the best, ascending."""
    others = {score.n_clusters for score in candidates} - {best.n_clusters}
    return sorted(others.intersection(sweep.rivals.get(best.n_clusters, ())))


def _either(best: KScore, rivals: Sequence[int]) -> str:
    *first, last = sorted([best.n_clusters, *rivals])
    return f"k = {', '.join(map(str, first))} or {last}"


def _inseparable(best: KScore, rivals: Sequence[int], n_scored: int, n_samples: int) -> str:
    return (
        f"{_either(best, rivals)}, not separable at this budget ({n_scored:,} of {n_samples:,} "
        f"rows scored): k = {best.n_clusters}, the highest estimate, was taken; --sample-size "
        "scores more rows"
    )


def _reason(
    best: KScore,
    scores: Sequence[KScore],
    rivals: Sequence[int],
    asked_for: int | None,
    n_eligible: int,
) -> str:
    if asked_for is not None:
        return f"{best.n_clusters} clusters, as asked; mean silhouette {best.silhouette:.4f}"
    if len(scores) == 1:
        return f"k = {best.n_clusters} was the only possible number of clusters"
    second = max(
        (s for s in scores if s.n_clusters != best.n_clusters),
        key=lambda s: (s.silhouette, -s.n_clusters),
    )
    words = (
        f"k = {best.n_clusters} has the highest mean silhouette, {best.silhouette:.4f}, of "
        f"k = {scores[0].n_clusters} to {scores[-1].n_clusters}; next is k = {second.n_clusters} "
        f"with {second.silhouette:.4f}"
    )
    if n_eligible not in (0, len(scores)):
        words = words.replace("the highest", "the highest eligible", 1)
    if rivals:
        words = f"{_either(best, rivals)}, not separable at this budget: {words}"
    return words


def _doubts(
    best: KScore, scores: Sequence[KScore], n_samples: int, largest_tried: int | None
) -> list[str]:
    doubts = []
    if best.n_clusters == largest_tried and len(scores) > 1:
        doubts.append(
            f"k = {best.n_clusters} is the largest that was tried; more clusters may be better "
            "still (raise --max-clusters), or the data has no natural number of groups"
        )
    smallest = best.min_cluster_share * n_samples
    if smallest < HANDFUL_ROWS and best.min_cluster_share < HANDFUL_SHARE:
        doubts.append(
            f"the smallest cluster holds only {smallest:,.0f} of {n_samples:,} rows: k = "
            f"{best.n_clusters} may just split off outliers (--min-cluster-share avoids that)"
        )
    if best.silhouette < WEAK_SILHOUETTE:
        doubts.append(
            f"the best mean silhouette is {best.silhouette:.2f}, below {WEAK_SILHOUETTE}: the "
            "groups overlap, treat them as a useful division rather than as natural segments"
        )
    return doubts
