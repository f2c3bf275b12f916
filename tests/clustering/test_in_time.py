"""Where time is limited, the best so far comes back, labelled; where it suffices, the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering import sweep as sweep_module
from gpuseg.clustering.kmeans import sweep_kmeans
from gpuseg.clustering.placing import score_placed
from gpuseg.clustering.steps_in_time import lloyd_in_time
from gpuseg.clustering.sweep import sweep
from gpuseg.records import no_progress
from gpuseg.stages import NO_DEADLINE, Deadline

BACKEND = NumPyBackend()
X = make_blobs(6_000, 4, centers=6, cluster_std=3.0, random_state=0)[0].astype(np.float32)
LONG, PAST = Deadline.after(1e6), Deadline(0.0)


def run(deadline, **options):
    return sweep(BACKEND, X, range(2, 6), n_init=3, random_state=0, deadline=deadline, **options)


def test_no_deadline_reads_no_clock(monkeypatch):
    def clock():
        raise AssertionError("a clock was read")

    monkeypatch.setattr("gpuseg.stages.time.monotonic", clock)
    assert Deadline.after(None) == NO_DEADLINE
    assert NO_DEADLINE.for_share(0.5) == NO_DEADLINE
    assert NO_DEADLINE.allows(math.inf)
    assert not NO_DEADLINE.is_set


def test_a_share_of_a_deadline_is_earlier():
    whole = Deadline.after(1_000.0)
    assert 490 < whole.for_share(0.5).seconds_left < 500
    assert whole.allows(900)
    assert not whole.for_share(0.5).allows(900)
    assert Deadline.after(-1.0).for_share(0.5).seconds_left < 0


def test_steps_in_time_end_where_all_steps_end():
    starts = [X[:3].copy(), X[10:15].copy()]
    whole = BACKEND.lloyd(X, starts, max_iter=100, tol=1e-6, progress=no_progress)
    fits, finished = lloyd_in_time(
        BACKEND, X, starts, max_iter=100, tol=1e-6, deadline=LONG, progress=no_progress
    )
    assert finished == [True, True]
    for fit, expected in zip(fits, whole, strict=True):
        np.testing.assert_allclose(fit.centroids, expected.centroids, atol=1e-3)
        assert fit.inertia == pytest.approx(expected.inertia, rel=1e-6)
        assert abs(fit.n_iter - expected.n_iter) <= 2


@pytest.mark.parametrize("deadline", [LONG, PAST])
@pytest.mark.parametrize("max_iter", [0, 3])
def test_steps_are_bounded_and_labels_are_those_of_the_centroids(deadline, max_iter):
    fits, _finished = lloyd_in_time(
        BACKEND, X, [X[:5]], max_iter=max_iter, tol=0.0, deadline=deadline, progress=no_progress
    )
    assert fits[0].n_iter == (max_iter if deadline is LONG else 0)
    nearest = BACKEND.assign(X, fits[0].centroids, progress=no_progress)
    np.testing.assert_array_equal(fits[0].labels, nearest.labels)


def test_time_that_suffices_changes_nothing():
    expected, found = run(NO_DEADLINE), run(LONG)
    assert found.cut == ()
    for k, score in expected.scores.items():
        assert found.scores[k].method == "exact"
        assert found.scores[k].silhouette == pytest.approx(score.silhouette, abs=1e-4)
        assert found.scores[k].inertia == pytest.approx(score.inertia, rel=1e-5)


def test_time_that_is_up_gives_the_best_so_far_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(sweep_module, "TRIAL_ROWS", (10, 20))
    found = run(PAST)
    assert found.cut[0] == "k-means did not reach its end for k = 2, 3, 4, 5"
    assert "the silhouette was estimated from" in found.cut[1]
    full = run(NO_DEADLINE)
    inertia = [score.inertia for score in found.scores.values()]
    assert inertia == sorted(inertia, reverse=True)
    for k, score in found.scores.items():
        assert score.method.endswith("of 6,000 rows), cut short by max_seconds")
        # of the search on a sample; off by little
        assert score.inertia < 1.05 * full.scores[k].inertia
        assert score.silhouette_low < full.scores[k].silhouette + 0.05


def test_a_fit_in_a_hurry_is_marked():
    fits = sweep_kmeans(BACKEND, X, [3, 4], n_init=2, deadline=PAST)
    assert [fit.is_finished for fit in fits.values()] == [False, False]
    assert all(fit.is_finished for fit in sweep_kmeans(BACKEND, X, [3], n_init=2).values())


def test_placed_rows_are_scored_in_time(monkeypatch):
    monkeypatch.setattr(sweep_module, "TRIAL_ROWS", (10, 20))
    _scored, choice = score_placed(BACKEND, X, X[:3].copy(), None, deadline=PAST)
    assert choice.warnings[0].startswith("cut short by max_seconds: the silhouette was estimated")
    _scored, choice = score_placed(BACKEND, X, X[:3].copy(), None)
    assert choice.warnings == ()
