"""k-means for every k of a sweep as one job.

Restarts of all k run together on a sample; the best two of each k are finished on all rows.
Why that is enough, and what it costs, is in ``docs/decisions/kmeans-sweep.md``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.backends.sample import count_labels
from gpuseg.clustering.proposals import Centres, propose
from gpuseg.clustering.seeding import Seeder
from gpuseg.clustering.steps_in_time import lloyd_in_time
from gpuseg.errors import DataError, SettingsError
from gpuseg.records import Array, KMeansFit, Progress, no_progress, part
from gpuseg.stages import NO_DEADLINE, Deadline

#: Rows of the samples on which starts are tried, before the finalists see all rows. On the
#: last one the finalists only come closer to their end.
LEVELS = (8_192, 32_768, 131_072)

#: Runs on samples stop at this multiple of `tol`: they only have to show where they lead.
COARSE = 3

#: Runs on all rows stop at `tol`, or on few rows at this multiple: a split of a round cluster
#: turns slowly and is not where it should be when its steps are small.
FINE = 0.1

#: Runs of the same k that go on to more rows: the best ones that ended in different optima,
#: as far as a sample of n rows can tell them from the best, within this share of its inertia
#: over the root of n.
N_FINALISTS = 3
FINALIST_MARGIN = 0.2

#: Rounds of new starts end after so many in a row without improvement that one step of each k
#: in each of them takes so many multiply-adds; but at least once and at most so often.
PATIENCE_WORK = 12_000_000
MAX_PATIENCE = 32

#: Two runs whose inertia differs by less than this share found the same optimum.
SAME_OPTIMUM = 1e-4

#: Rows on which labels of restarts are compared.
STABILITY_ROWS = 2048

#: Squared distances over up to 10,000 features stay below float32's 3.4e38 up to here.
LARGEST_VALUE = 1e16


class KMeansSweepFit(NamedTuple):
    """The best run for one k, and how surely other restarts find it."""

    fit: KMeansFit
    stability: float  # mean adjusted Rand index of the other restarts; nan without others
    is_finished: bool = True  # False when time was up before it came to its end


def sweep_kmeans(
    backend: Backend,
    X: Array,
    k_values: Sequence[int],
    *,
    n_init: int = 10,
    random_state: int = 0,
    max_iter: int = 300,
    tol: float = 1e-4,
    warm_starts: Mapping[int, Sequence[Any]] | None = None,
    deadline: Deadline = NO_DEADLINE,
    progress: Progress = no_progress,
) -> dict[int, KMeansSweepFit]:
    """Fit k-means for every k, all together.

    Parameters
    ----------
    backend
        Supplies ``lloyd``, ``assign`` and ``to_host``.
    X : Array of shape (n_samples, n_features), float32, C order, finite
        In random order: the first rows serve as the sample. Values up to 1e16.
    k_values : sequence of int
        From 1 to the number of distinct rows; see `count_distinct_rows`.
    n_init : int
        k-means++ restarts for each k.
    warm_starts : mapping of k to host arrays of shape (k, n_features), optional
        Starts that compete with the finalists on all rows, e.g. an earlier model's centroids.
    deadline
        The search on samples is always finished; steps on all rows end in time, but every
        row gets the nearest centroid of what was found.

    Returns
    -------
    dict of int to KMeansSweepFit
        Inertia never rises with k. Equal for equal input, on any number of threads.

    Raises
    ------
    SettingsError
        If a k or `n_init` is below 1, or a k exceeds the number of rows.
    DataError
        If a value of `X` is not finite, or so large that squares overflow.
    """
    ks = sorted(set(k_values))
    _check(X, ks, n_init)
    coarse = {"max_iter": max_iter, "tol": COARSE * tol}
    rng = np.random.default_rng(random_state)
    restarts, found = _search(backend, X, ks, n_init, coarse, rng, part(progress, 0.0, 0.3))
    finalists = _finalists(backend, found)
    for k in ks:
        finalists[k] += list((warm_starts or {}).get(k, []))
    fine = {"max_iter": max_iter, "tol": tol * (FINE if len(X) <= LEVELS[-1] else 1)}
    last, unfinished = _last_runs(backend, X, finalists, fine, deadline, part(progress, 0.3, 0.9))
    if unfinished:
        fine["max_iter"] = 0
    best = _never_rising(backend, X, {k: _best(last[k]) for k in ks}, fine)
    progress(1.0)
    stability = {k: _stability(backend, best[k], restarts[k]) for k in ks}
    return {k: KMeansSweepFit(best[k], stability[k], k not in unfinished) for k in ks}


def count_distinct_rows(X: Array, at_most: int) -> int:
    """Count distinct rows, but stop counting at `at_most`.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features)
    at_most : int

    Examples
    --------
    >>> count_distinct_rows(np.array([[1.0], [2.0], [1.0]]), at_most=10)
    2
    """
    if hasattr(X, "few_distinct"):  # rows that lie elsewhere: each part names a few of its own
        X = X.few_distinct(at_most)
    return len(distinct_rows(X, at_most))


def distinct_rows(X: Array, at_most: int) -> list[Array]:
    """Return the first distinct rows, at most so many."""
    seen: list[Array] = []
    for start in range(0, len(X), LEVELS[0]):
        rest = X[start : start + LEVELS[0]]
        for row in seen:
            rest = rest[(rest != row).any(axis=1)]
        while len(rest):
            if len(seen) == at_most:
                return seen
            seen.append(rest[0])
            rest = rest[(rest != rest[0]).any(axis=1)]
    return seen


def adjusted_rand(a: Any, b: Any) -> float:
    """Return how far two labellings agree beyond chance: 1 is equal, about 0 is chance.

    Parameters
    ----------
    a, b : host arrays of shape (n_samples,), int, from 0

    References
    ----------
    Hubert, L. and Arabie, P. (1985). Comparing partitions. Journal of Classification 2.
    """
    n_labels = int(b.max()) + 1
    table = np.bincount(a.astype(np.int64) * n_labels + b).astype(np.float64)
    both = _pairs(table)
    in_a = _pairs(np.bincount(a).astype(np.float64))
    in_b = _pairs(np.bincount(b).astype(np.float64))
    chance = in_a * in_b / max(_pairs(np.array([float(len(a))])), 1.0)
    most = (in_a + in_b) / 2
    return 1.0 if most == chance else float((both - chance) / (most - chance))


def _pairs(counts: Any) -> float:
    """Number of pairs within groups of these sizes."""
    return float((counts * (counts - 1) / 2).sum())


def _check(X: Array, ks: Sequence[int], n_init: int) -> None:
    """Refuse what no sweep can work with."""
    if not ks or ks[0] < 1 or ks[-1] > len(X):
        raise SettingsError(
            f"k_values are {list(ks)}; expected whole numbers from 1 to the {len(X)} rows of X"
        )
    if n_init < 1:
        raise SettingsError(f"n_init is {n_init}; expected at least 1")
    largest = max(float(X.max()), -float(X.min()))
    if not largest <= LARGEST_VALUE:
        raise DataError(
            f"the largest absolute value of X is {largest}; expected at most {LARGEST_VALUE:g}, "
            "because squared distances overflow: scale the columns first"
        )


def _search(
    backend: Backend,
    X: Array,
    ks: Sequence[int],
    n_init: int,
    limits: Mapping[str, Any],
    rng: np.random.Generator,
    progress: Progress,
) -> tuple[dict[int, list[KMeansFit]], dict[int, list[KMeansFit]]]:
    """Look for good runs of every k on samples; return the restarts, and what came of them."""
    sample = X[: LEVELS[0]]
    seeder = Seeder(backend.to_host(sample), ks[-1], rng)
    sequences = [seeder.sequence(ks[-1]) for _ in range(n_init)]
    starts = {k: [sequence[:k] for sequence in sequences] for k in ks}
    restarts = _lloyd_by_k(backend, sample, starts, limits, part(progress, 0.0, 0.3))
    found = _improve(backend, sample, seeder, restarts, limits, rng, part(progress, 0.3, 0.6))
    for level in LEVELS[1:]:
        if len(sample) < len(X):
            sample = X[:level]
            found = _lloyd_by_k(backend, sample, _finalists(backend, found), limits, no_progress)
            if level < LEVELS[-1]:
                later = part(progress, 0.6, 1.0)
                found = _improve(backend, sample, seeder, found, limits, rng, later)
    return restarts, found


def _lloyd_by_k(
    backend: Backend,
    X: Array,
    starts: Mapping[int, Sequence[Any]],
    limits: Mapping[str, Any],
    progress: Progress,
) -> dict[int, list[KMeansFit]]:
    """Run all starts of all k together; return the runs of each k."""
    flat = [start for k in starts for start in starts[k]]
    fits = iter(backend.lloyd(X, flat, **limits, progress=progress))
    return {k: [next(fits) for _ in starts[k]] for k in starts}


def _last_runs(
    backend: Backend,
    X: Array,
    starts: Mapping[int, Sequence[Any]],
    limits: Mapping[str, Any],
    deadline: Deadline,
    progress: Progress,
) -> tuple[dict[int, list[KMeansFit]], set[int]]:
    """Run the finalists on all rows; return also for which k time did not suffice."""
    if not deadline.is_set:
        return _lloyd_by_k(backend, X, starts, limits, progress), set()
    if not deadline.allows(0.0):  # the most promising one of each k, as it is
        starts = {k: starts[k][:1] for k in starts}
    flat = [(k, start) for k in starts for start in starts[k]]
    ks, all_starts = [k for k, _start in flat], [start for _k, start in flat]
    fits, finished = lloyd_in_time(
        backend, X, all_starts, **limits, deadline=deadline, progress=progress
    )
    by_k = {k: [fit for of, fit in zip(ks, fits, strict=True) if of == k] for k in starts}
    return by_k, {k for k, is_done in zip(ks, finished, strict=True) if not is_done}


def _best(fits: Sequence[KMeansFit]) -> KMeansFit:
    """Return the run of the smallest inertia, the first of equals."""
    return min(fits, key=lambda fit: fit.inertia)


def _improve(
    backend: Backend,
    X: Array,
    seeder: Seeder,
    found: Mapping[int, list[KMeansFit]],
    limits: Mapping[str, Any],
    rng: np.random.Generator,
    progress: Progress,
) -> dict[int, list[KMeansFit]]:
    """Add runs that start from what other k have found, until they improve no k any more."""
    found, failures = dict(found), 0
    patience = min(MAX_PATIENCE, max(1, PATIENCE_WORK // (int(X.size) * sum(found))))
    for tried in range(4 * patience):
        progress(tried / (tried + 2 * patience))  # when it ends is not known
        best = {k: _centres(backend, _best(fits)) for k, fits in found.items()}
        starts = propose(best, seeder, rng)
        fits = _lloyd_by_k(backend, X, starts, limits, no_progress)
        better = any(_is_better(fits[k], found[k]) for k in found)
        found = {k: found[k] + fits[k] for k in found}
        failures = 0 if better else failures + 1
        if failures == patience:
            break
    return found


def _is_better(fits: Sequence[KMeansFit], found: Sequence[KMeansFit]) -> bool:
    """Tell whether the fits hold a better optimum than was found before."""
    best = min((fit.inertia for fit in fits), default=math.inf)
    return best < _best(found).inertia * (1 - SAME_OPTIMUM)


def _finalists(backend: Backend, found: Mapping[int, Sequence[KMeansFit]]) -> dict[int, list[Any]]:
    """Return the centroids of the best runs of each k that found different optima."""
    return {
        k: [backend.to_host(fit.centroids) for fit in _different(fits)[:N_FINALISTS]]
        for k, fits in found.items()
    }


def _different(fits: Sequence[KMeansFit]) -> list[KMeansFit]:
    """Return the best run of each optimum that may be the best one on all rows."""
    first, *others = sorted(fits, key=lambda fit: fit.inertia)
    limit = first.inertia * (1 + FINALIST_MARGIN / math.sqrt(len(first.labels)))
    chosen = [first]
    for fit in others:
        if chosen[-1].inertia * (1 + SAME_OPTIMUM) < fit.inertia <= limit:
            chosen.append(fit)
    return chosen


def _centres(backend: Backend, fit: KMeansFit) -> Centres:
    labels = backend.to_host(fit.labels)
    sizes = count_labels(labels, len(fit.centroids))
    return Centres(backend.to_host(fit.centroids), sizes)


def _grown(backend: Backend, X: Array, fit: KMeansFit) -> Any:
    """Add the row that is farthest from its centroid to the centroids."""
    farthest = backend.farthest(X, fit.centroids)
    return np.concatenate([backend.to_host(fit.centroids), farthest.row[None]])


def _never_rising(
    backend: Backend, X: Array, best: dict[int, KMeansFit], limits: Mapping[str, Any]
) -> dict[int, KMeansFit]:
    """Replace a fit that is worse than the one of a smaller k by one that grew from that."""
    ks = list(best)
    for smaller, k in itertools.pairwise(ks):
        if best[k].inertia > best[smaller].inertia:
            grown = best[smaller]
            for _ in range(k - smaller):
                start = _grown(backend, X, grown)
                # Without iterations no row can be farther from its centroid than before,
                # not even by rounding; iterations may lose that last bit again.
                grown = backend.lloyd(X, [start], max_iter=0, tol=0.0, progress=no_progress)[0]
            polished = backend.lloyd(X, [grown.centroids], **limits, progress=no_progress)[0]
            best[k] = _best([polished, grown])
    return best


def _stability(backend: Backend, best: KMeansFit, restarts: Sequence[KMeansFit]) -> float:
    """Mean adjusted Rand index of the restarts against the best run, on a sample.

    The restart that comes nearest to the best run is taken for its source and left out.
    """
    own = backend.to_host(best.labels[:STABILITY_ROWS])
    scores = sorted(
        adjusted_rand(own, backend.to_host(fit.labels[:STABILITY_ROWS])) for fit in restarts
    )
    return float(np.mean(scores[:-1])) if len(scores) > 1 else math.nan
