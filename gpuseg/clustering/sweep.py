"""Try every k: fit, score, and keep what the choice needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.clustering.kmeans import KMeansSweepFit, count_distinct_rows, sweep_kmeans
from gpuseg.clustering.rounds import score_in_rounds
from gpuseg.clustering.scorers import Scorer, scorer_of
from gpuseg.clustering.scores import calinski_harabasz, davies_bouldin
from gpuseg.clustering.screen import SquaredScreen
from gpuseg.errors import DataError
from gpuseg.records import Array, KMeansFit, KScore, Progress, SweepResult, no_progress, part
from gpuseg.stages import NO_DEADLINE, Deadline

#: Work that one silhouette sweep may take, in multiply-adds over pairs of rows. A fixed
#: number, not a time: whether a score is exact must not depend on the machine.
EXACT_BUDGET = 6e11
SAMPLED_BUDGET = 6e11

#: What a pair costs besides its d multiply-adds (square root, sums), in multiply-adds.
PAIR_OVERHEAD = 8

#: However many rows there are, the first round scores at least so many, and all rounds may:
#: about what k-means needs for its steps over all rows.
MIN_SAMPLE = 1_000
MIN_BUDGET_ROWS = 4_000

#: Rounds, each of twice the rows of the one before.
ROUNDS = 4

#: Rows that are scored to learn how fast this is, where there is a deadline.
TRIAL_ROWS = 256, 2_304

#: All pairs, each met once, against rows that meet all rows: a pair may take so much longer.
EXACT_CAUTION = 1.5

#: Part of a sweep's progress that k-means is given, and of its time where that is limited.
KMEANS_PART = 0.3
KMEANS_TIME = 0.6


def sweep(
    backend: Backend,
    X: Array,
    k_values: Sequence[int],
    *,
    n_init: int,
    random_state: int,
    sample_size: int | None = None,
    warm_starts: Mapping[int, Sequence[Any]] | None = None,
    min_cluster_share: float = 0.0,
    deadline: Deadline = NO_DEADLINE,
    progress: Progress = no_progress,
    kmeans: Callable[..., dict[int, KMeansSweepFit]] = sweep_kmeans,
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
    warm_starts
        See `sweep_kmeans`.
    kmeans
        `sweep_kmeans`, or what stands for it: the fits of an earlier run of the same.
    min_cluster_share
        As in the choice: more rows are scored to tell those k apart that can be chosen.
    deadline
        What is not finished then is left as good as it is, and `SweepResult.cut` says so.

    Raises
    ------
    DataError
        If the rows cannot make two clusters.
    """
    possible, warnings = possible_k_values(X, k_values)
    fits = kmeans(
        backend,
        X,
        possible,
        n_init=n_init,
        random_state=random_state,
        warm_starts=warm_starts,
        deadline=deadline.for_share(KMEANS_TIME),
        progress=part(progress, 0.0, KMEANS_PART),
    )
    scored = score_fits(
        backend,
        X,
        {k: (fits[k].fit, fits[k].stability) for k in possible},
        sample_size=sample_size,
        min_cluster_share=min_cluster_share,
        deadline=deadline,
        progress=part(progress, KMEANS_PART, 1.0),
    )
    cut = _words_of_cut_kmeans([k for k in possible if not fits[k].is_finished])
    return replace(scored, warnings=warnings, cut=cut + scored.cut)


def score_fits(
    backend: Backend,
    X: Array,
    fits: Mapping[int, tuple[KMeansFit, float]],
    *,
    sample_size: int | None = None,
    min_cluster_share: float = 0.0,
    deadline: Deadline = NO_DEADLINE,
    progress: Progress = no_progress,
) -> SweepResult:
    """Score fits of several k in one pass over the pairs of rows, or in a few.

    Parameters
    ----------
    fits
        For each k, the fit and the stability of its restarts.
    """
    scorer = scorer_of(backend, X, [fit for fit, _stability in fits.values()])
    n_samples, n_features = int(X.shape[0]), int(X.shape[1])
    work = silhouette_work(n_samples, n_features, sample_size)
    if not work.is_exact:
        found = _sampled(scorer, fits, work.ends, min_cluster_share, deadline, progress)
    elif not deadline.is_set or deadline.allows(_exact_seconds(scorer, n_samples)):
        found = _exact(scorer, n_samples, progress)
    else:
        ends = _in_rounds(n_samples, n_features, max(1, n_samples // 2)).ends
        found = _sampled(scorer, fits, ends, min_cluster_share, deadline, progress)
        if not found.cut:
            found = _cut(found, "all would have taken too long")
    _mean, covariance = backend.covariance(X)
    total_inertia = float(np.trace(covariance)) * n_samples
    scores = {
        k: _score(backend, fits[k], found.silhouettes[i], found.screens[i], total_inertia)
        for i, k in enumerate(fits)
    }
    return SweepResult(
        fits={k: fit for k, (fit, _stability) in fits.items()},
        scores=scores,
        samples=dict(zip(fits, found.values, strict=True)),
        scored_rows=found.rows,
        rivals=found.rivals,
        cut=found.cut,
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
    """What scoring a sweep takes at most; it does not depend on how many k there are."""

    n_scored: int
    multiply_adds: float
    ends: tuple[int, ...]  # rows scored after each round, ascending
    is_exact: bool


def silhouette_work(n_samples: int, n_features: int, sample_size: int | None) -> SilhouetteWork:
    """Decide how many rows are scored: all of them while `EXACT_BUDGET` allows it."""
    pair_cost = n_features + PAIR_OVERHEAD
    pairs = n_samples * n_samples / 2
    exact = SilhouetteWork(n_samples, pairs * pair_cost, (n_samples,), is_exact=True)
    if sample_size is None:
        if exact.multiply_adds <= EXACT_BUDGET or n_samples <= 2 * MIN_BUDGET_ROWS:
            return exact
        affordable = int(SAMPLED_BUDGET / (n_samples * pair_cost))
        return _in_rounds(n_samples, n_features, max(MIN_BUDGET_ROWS, affordable))
    if sample_size >= n_samples:
        return exact
    work = float(sample_size) * n_samples * pair_cost
    return SilhouetteWork(sample_size, work, (sample_size,), is_exact=False)


def _in_rounds(n_samples: int, n_features: int, most: int) -> SilhouetteWork:
    """Plan rounds of twice the rows each, up to `most` of them."""
    first = min(most, max(MIN_SAMPLE, most >> (ROUNDS - 1)))
    ends = [first << number for number in range(ROUNDS - 1) if first << number < most]
    work = float(most) * n_samples * (n_features + PAIR_OVERHEAD)
    return SilhouetteWork(most, work, (*ends, most), is_exact=False)


# -- exact or sampled ----------------------------------------------------------------


class _Silhouette(NamedTuple):
    """The mean of one k, and how it was found."""

    mean: float
    stderr: float
    interval: tuple[float, float]
    method: str


class _Found(NamedTuple):
    rows: np.ndarray
    values: np.ndarray  # (m, len(rows))
    silhouettes: list[_Silhouette]
    screens: list[SquaredScreen]
    rivals: Mapping[int, tuple[int, ...]]
    cut: tuple[str, ...]


def _exact(scorer: Scorer, n_samples: int, progress: Progress) -> _Found:
    values = scorer.every(progress)
    means = values.mean(axis=1).tolist()
    found = [_Silhouette(mean, 0.0, (mean, mean), "exact") for mean in means]
    return _Found(np.arange(n_samples), values, found, scorer.extents(), {}, ())


def _sampled(
    scorer: Scorer,
    fits: Mapping[int, Any],
    ends: Sequence[int],
    min_cluster_share: float,
    deadline: Deadline,
    progress: Progress,
) -> _Found:
    trial = min(MIN_SAMPLE, ends[0]) if deadline.is_set else None
    frame, screens = scorer.frame(trial or ends[0], ends[-1])
    n_samples = int(scorer.sizes[0].sum())
    shares = [sizes.min() / n_samples for sizes in scorer.sizes]
    allowed = [i for i, share in enumerate(shares) if share >= min_cluster_share]
    sampled = score_in_rounds(
        scorer.some,
        frame,
        ends,
        eligible=allowed or range(len(shares)),
        trial=trial,
        deadline=deadline,
        progress=progress,
    )
    rows, values = scorer.called(sampled.rows, sampled.values)
    method = f"sampled ({len(sampled.rows):,} of {n_samples:,} rows)"
    estimates = sampled.estimates
    numbers = zip(estimates.means, estimates.stderr, estimates.intervals, strict=True)
    ks = list(fits)
    found = _Found(
        rows,
        values,
        [
            _Silhouette(float(mean), float(stderr), (float(low), float(high)), method)
            for mean, stderr, (low, high) in numbers
        ],
        screens,
        {k: tuple(ks[j] for j in sampled.rivals[i]) for i, k in enumerate(ks)},
        (),
    )
    return _cut(found, "more were wanted") if sampled.is_cut else found


def _cut(found: _Found, what: str) -> _Found:
    """Label what time was too short for."""
    words = f"the silhouette was estimated from {len(found.rows):,} rows, {what}"
    labelled = [
        one._replace(method=f"{one.method}, cut short by max_seconds") for one in found.silhouettes
    ]
    return found._replace(silhouettes=labelled, cut=(words,))


def _exact_seconds(scorer: Scorer, n_samples: int) -> float:
    """Expect how long all pairs take, from a few rows and some more of them."""
    few, more = (min(n_rows, n_samples) for n_rows in TRIAL_ROWS)
    if more == n_samples:
        return 0.0
    seconds = []
    for n_rows in (few, few, more):  # once for kernels that are loaded with their first rows
        begin = time.monotonic()
        scorer.first(n_rows)
        seconds.append(time.monotonic() - begin)
    pace = max(seconds[2] - seconds[1], 0.0) / (more - few)
    return EXACT_CAUTION * pace * n_samples / 2


def _score(
    backend: Backend,
    fitted: tuple[KMeansFit, float],
    silhouette: _Silhouette,
    screen: SquaredScreen,
    total_inertia: float,
) -> KScore:
    fit, stability = fitted
    low, high = silhouette.interval
    return KScore(
        n_clusters=len(fit.centroids),
        silhouette=silhouette.mean,
        silhouette_stderr=silhouette.stderr,
        method=silhouette.method,
        inertia=float(fit.inertia),
        calinski_harabasz=calinski_harabasz(fit, screen.sizes, total_inertia),
        davies_bouldin=davies_bouldin(backend.to_host(fit.centroids), screen.extents),
        min_cluster_share=float(screen.sizes.min() / screen.sizes.sum()),
        stability=stability,
        silhouette_low=low,
        silhouette_high=high,
    )


def _words_of_cut_kmeans(ks: Sequence[int]) -> tuple[str, ...]:
    words = f"k-means did not reach its end for k = {', '.join(map(str, ks))}"
    return (words,) if ks else ()
