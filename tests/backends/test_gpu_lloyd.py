"""k-means on the GPU: what cuML leaves undone is done, and its noise is gone."""

from __future__ import annotations

import numpy as np
import pytest
from doubles import cuml_on_host
from doubles.device_arrays import xp
from doubles.gpu_on_host import StrictDevice

from gpuseg.backends.gpu import GpuBackend, lloyd
from gpuseg.backends.gpu.libraries import Libraries
from gpuseg.backends.gpu.lloyd import cuml_tol, round_centroids
from gpuseg.records import no_progress


def overlapping(n_samples=1500, seed=0):
    return np.random.default_rng(seed).normal(size=(n_samples, 3)).astype(np.float32)


def watched():
    """Return an engine and a list that takes cuML's models."""
    models = []

    def resolve(target):
        found = cuml_on_host.resolve(target)
        if target != "cuml.KMeans":
            return found

        def make(**options):
            models.append(found(**options))
            return models[-1]

        return make

    return GpuBackend(StrictDevice(), Libraries(resolve)), models


def run(engine, X, start, **limits):
    limits = {"max_iter": 300, "tol": 1e-4} | limits
    return engine.lloyd(xp.asarray(X), [start], **limits, progress=no_progress)[0]


def test_cuml_ends_in_other_bits_each_time_and_we_do_not():
    X = overlapping()
    engine, models = watched()
    fits = [run(engine, X, X[:6]) for _ in range(3)]
    ends = {model.cluster_centers_.get().tobytes() for model in models}
    assert len(ends) == 3  # else the next line would say nothing
    assert len({fit.centroids.tobytes() for fit in fits}) == 1
    assert len({fit.labels.get().tobytes() for fit in fits}) == 1


def test_cumls_centres_are_where_it_started_for_us_too(monkeypatch):
    X = overlapping()
    engine, models = watched()
    start = X[:6].copy()
    run(engine, X, start)
    assert start.tobytes() == X[:6].tobytes()
    assert models[0].n_clusters == 6
    monkeypatch.setattr(lloyd, "SETTLING_STEPS", 0)
    walked = run(engine, X, start)
    assert walked.n_iter == models[1].n_iter_


def test_the_last_steps_are_ours_and_few():
    X = overlapping()
    engine, models = watched()
    fit = run(engine, X, X[:6])
    assert models[0].n_iter_ < fit.n_iter <= models[0].n_iter_ + lloyd.SETTLING_STEPS


def test_an_empty_cluster_that_cuml_leaves_is_filled():
    X = overlapping(300)
    engine, models = watched()
    start = np.concatenate([X[:2], np.full((1, 3), 50, np.float32)])
    fit = run(engine, X, start)
    assert (models[0].cluster_centers_.get()[2] == 50).all()
    assert np.bincount(fit.labels.get(), minlength=3).min() > 0


def test_more_clusters_than_rows_never_reach_cuml():
    X = overlapping(4)
    engine, models = watched()
    fit = run(engine, X, np.concatenate([X, X + 1]))
    assert models == []
    assert fit.inertia == 0.0


@pytest.mark.parametrize("variance", [1e-8, 1.0, 1e8])
def test_neither_of_cumls_rules_stops_too_early(variance):
    """Its rules share one number: a squared shift, and a share of the inertia."""
    tol = cuml_tol(1e-4, variance)
    assert 0 < tol <= 1e-4 * variance
    assert tol <= 1e-4


def test_cuml_never_sees_a_tolerance_of_zero():
    assert cuml_tol(0.0, 1.0) > 0
    assert cuml_tol(1e-4, 0.0) > 0


def test_rounding_moves_no_farther_than_the_stopping_rule_allows():
    centroids = overlapping(200)
    for sq_shift in (1e-6, 1e-4, 0.3):
        rounded = round_centroids(centroids, sq_shift)
        assert rounded.dtype == np.float32
        assert np.abs(rounded - centroids).max() <= np.sqrt(sq_shift) / 2 + 1e-7
        noise = centroids + np.float32(1e-7)
        same = (round_centroids(noise, sq_shift) == rounded).mean()
        assert same > 0.99
    assert round_centroids(centroids, 0.0) is centroids


def test_rounding_that_would_merge_clusters_is_not_done(monkeypatch):
    """Two tight groups beside a far row: the mean variance is no measure of the groups."""
    monkeypatch.setattr(lloyd, "SETTLING_STEPS", 0)
    rng = np.random.default_rng(0)
    X = rng.normal(0, 1e-3, (300, 2)).astype(np.float32)
    X[150:] += np.float32(0.3)
    X[0] = 2000
    engine, models = watched()
    fit = run(engine, X, np.array([[2000, 2000], [0, 0], [0.3, 0.3]], np.float32))
    assert fit.centroids.tobytes() == models[0].cluster_centers_.get().tobytes()
    assert np.bincount(fit.labels.get()).tolist() == [1, 149, 150]
