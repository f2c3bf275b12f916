"""The k-means sweep: against the oracle, against scikit-learn, and by its laws."""

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from gpuseg.backends.cpu.lloyd import assign, lloyd
from gpuseg.backends.cpu.nearest_lines import TILE
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.kmeans import adjusted_rand, count_distinct_rows, sweep_kmeans
from gpuseg.clustering.seeding import Seeder
from gpuseg.errors import DataError, SettingsError, ShapeError
from gpuseg.records import no_progress

QUIET = {"progress": no_progress}
TO_THE_END = {"max_iter": 300, "tol": 0.0, **QUIET}


def blobs(n_samples, n_features, n_blobs=5, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_blobs, n_features)) * 2
    X = centres[rng.integers(n_blobs, size=n_samples)]
    return (X + rng.normal(scale=spread, size=X.shape)).astype(np.float32)


def first_rows(X, *ks):
    return [X[:k].copy() for k in ks]


def scaled(X):
    return np.ascontiguousarray((X - X.mean(axis=0)) / X.std(axis=0), np.float32)


@pytest.fixture(scope="module")
def mall():
    path = Path(__file__).parents[1] / "data" / "Mall_Customers.csv"
    with path.open() as file:
        rows = [list(row.values())[2:] for row in csv.DictReader(file)]
    return scaled(np.array(rows, np.float64))


# -- assign --------------------------------------------------------------------


@pytest.mark.parametrize("n_features", [1, 2, 4, 5, 50])
@pytest.mark.parametrize("n_clusters", [1, 2, 3, 8])
def test_assign_finds_the_two_nearest(n_features, n_clusters):
    X, centroids = blobs(200, n_features), blobs(n_clusters, n_features, seed=1)
    found = assign(X, centroids, **QUIET)
    distances = oracles.sq_distances(X, centroids)
    order = distances.argsort(axis=1, kind="stable")
    assert np.array_equal(found.labels, order[:, 0])
    np.testing.assert_allclose(found.sq_distances, distances.min(axis=1), rtol=1e-5, atol=1e-12)
    if n_clusters == 1:
        assert set(found.second_labels) == {-1}
        assert np.isinf(found.second_sq_distances).all()
    else:
        assert np.array_equal(found.second_labels, order[:, 1])
        second = np.take_along_axis(distances, order, axis=1)[:, 1]
        np.testing.assert_allclose(found.second_sq_distances, second, rtol=1e-5)


def test_assign_knows_no_other_rows():
    X, centroids = blobs(3 * TILE + 7, 13), blobs(7, 13, seed=1)
    whole = assign(X, centroids, **QUIET)
    rng = np.random.default_rng(0)
    for size in (1, 2, TILE - 1, TILE, TILE + 1, len(X)):
        rows = rng.choice(len(X), size, replace=False)
        part = assign(np.ascontiguousarray(X[rows]), centroids, **QUIET)
        for values, of_all in zip(part, whole, strict=True):
            assert np.array_equal(values, of_all[rows])


def test_ties_go_to_the_smaller_index():
    X = np.zeros((3, 1), np.float32)
    found = assign(X, np.array([[1.0], [-1.0], [1.0]]), **QUIET)
    assert set(found.labels) == {0}
    assert set(found.second_labels) == {1}
    X = np.array([[0.0], [-3.0], [3.0]], np.float32)
    fit = lloyd(X, [np.array([[1.0], [-1.0]])], max_iter=0, tol=0.0, **QUIET)[0]
    assert np.array_equal(fit.labels, [0, 1, 0])


def test_far_from_the_origin_no_digit_is_lost():
    X = blobs(500, 3)
    on_grid = np.round(X * 64) / 64
    far = (on_grid + 2.0**17).astype(np.float32)
    centroids = on_grid[:5]
    near = assign(on_grid, centroids, **QUIET)
    away = assign(far, centroids + 2.0**17, **QUIET)
    assert np.array_equal(near.labels, away.labels)
    assert np.array_equal(near.sq_distances, away.sq_distances)


# -- lloyd ---------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1, 2, TILE - 1, TILE, TILE + 1, 400])
@pytest.mark.parametrize("n_features", [1, 3, 8])
def test_lloyd_goes_where_the_oracle_goes(n_samples, n_features):
    X = blobs(n_samples, n_features)
    starts = first_rows(X, *{min(k, n_samples) for k in (1, 2, 5, 9)})
    for start, fit in zip(starts, lloyd(X, starts, **TO_THE_END), strict=True):
        centroids, labels, inertias = oracles.lloyd(X, start, max_iter=300)
        assert np.array_equal(fit.labels, labels)
        np.testing.assert_allclose(fit.centroids, centroids, rtol=1e-5, atol=1e-6)
        assert fit.inertia == pytest.approx(inertias[-1], rel=1e-5, abs=1e-9)
        assert fit.n_iter == len(inertias) - 1


def test_runs_do_not_touch_each_other():
    X = blobs(2000, 6)
    starts = [X[i : i + k] for i, k in enumerate((2, 9, 3, 260, 1, 5))]
    together = lloyd(X, starts, **TO_THE_END)
    for start, fit in zip(starts, together, strict=True):
        alone = lloyd(X, [start], **TO_THE_END)[0]
        assert np.array_equal(alone.labels, fit.labels)
        np.testing.assert_allclose(alone.centroids, fit.centroids, rtol=1e-6, atol=1e-7)
        assert alone.n_iter == fit.n_iter


@pytest.mark.parametrize("tol", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("max_iter", [0, 1, 3, 300])
def test_labels_are_those_of_the_returned_centroids(max_iter, tol):
    X = blobs(5000, 7)
    for fit in lloyd(X, first_rows(X, 2, 3, 9), max_iter=max_iter, tol=tol, **QUIET):
        found = assign(X, fit.centroids, **QUIET)
        assert np.array_equal(found.labels, fit.labels)
        assert fit.inertia == pytest.approx(found.sq_distances.sum(dtype=np.float64), rel=1e-12)
        assert fit.n_iter <= max_iter


def test_inertia_never_rises_over_iterations():
    X = blobs(2000, 5, spread=1.5)
    inertias = [
        lloyd(X, first_rows(X, 9), max_iter=i, tol=0.0, **QUIET)[0].inertia for i in range(30)
    ]
    assert all(after <= before * (1 + 1e-7) for before, after in pairwise(inertias))
    assert inertias[-1] < 0.9 * inertias[0]


def test_permuting_rows_permutes_labels():
    X = blobs(1500, 4)
    starts = first_rows(X, 2, 6)
    order = np.random.default_rng(0).permutation(len(X))
    there = lloyd(X, starts, **TO_THE_END)
    permuted = lloyd(np.ascontiguousarray(X[order]), starts, **TO_THE_END)
    for a, b in zip(there, permuted, strict=True):
        assert np.array_equal(a.labels[order], b.labels)


def test_whole_number_shifts_keep_the_partition():
    X = np.round(blobs(1500, 4) * 16) / 16
    starts = first_rows(X, 3, 5)
    shifted = lloyd(X + np.float32(1024), [s + 1024 for s in starts], **TO_THE_END)
    for a, b in zip(lloyd(X, starts, **TO_THE_END), shifted, strict=True):
        assert adjusted_rand(a.labels, b.labels) > 0.999


def test_empty_clusters_are_filled():
    X = np.array([[0.0], [0.0], [1.0], [10.0]], np.float32)
    far = np.full((4, 1), 100.0, np.float32)
    for k in (1, 2, 3):
        fit = lloyd(X, [far[:k]], **TO_THE_END)[0]
        assert len(set(fit.labels)) == k
    assert fit.inertia == 0.0


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=24),
    k=st.integers(1, 8),
    max_iter=st.integers(0, 4),
    seed=st.integers(0, 100),
)
def test_no_cluster_is_empty_where_rows_suffice(values, k, max_iter, seed):
    X = np.array(values, np.float32)[:, None]
    start = np.random.default_rng(seed).normal(scale=4, size=(k, 1))
    fit = lloyd(X, [start], max_iter=max_iter, tol=1e-4, **QUIET)[0]
    n_distinct = count_distinct_rows(X, k)
    assert len(set(fit.labels)) >= n_distinct
    assert np.array_equal(assign(X, fit.centroids, **QUIET).labels, fit.labels)


def test_constant_columns_change_nothing():
    X = blobs(600, 3)
    wide = np.hstack([X, np.full((600, 2), 7.0, np.float32)])
    plain = lloyd(X, first_rows(X, 4), **TO_THE_END)[0]
    assert np.array_equal(lloyd(wide, first_rows(wide, 4), **TO_THE_END)[0].labels, plain.labels)


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_threads_do_not_change_a_bit(monkeypatch, threads):
    # float64 adds float32 numbers of one magnitude exactly, in any order: mix magnitudes
    magnitudes = 10.0 ** np.random.default_rng(1).uniform(-9, 9, size=(40_000, 1))
    X = (blobs(40_000, 9) * magnitudes).astype(np.float32)
    starts = first_rows(X, 4, 9, 9)
    monkeypatch.setenv("GPUSEG_THREADS", "3")
    expected = lloyd(X, starts, max_iter=8, tol=1e-4, **QUIET)
    monkeypatch.setenv("GPUSEG_THREADS", threads)
    for a, b in zip(expected, lloyd(X, starts, max_iter=8, tol=1e-4, **QUIET), strict=True):
        assert np.array_equal(a.centroids, b.centroids)
        assert np.array_equal(a.labels, b.labels)
        assert (a.inertia, a.n_iter) == (b.inertia, b.n_iter)


def test_progress_ends_at_one():
    seen = []
    X = blobs(300, 2)
    lloyd(X, first_rows(X, 2, 3), max_iter=50, tol=0.0, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize(
    "X",
    [np.zeros((4, 2)), np.zeros((0, 2), np.float32), np.zeros((4, 4), np.float32)[:, ::2]],
)
def test_other_arrays_are_refused(X):
    with pytest.raises(ShapeError, match="float32, C order"):
        assign(X, np.zeros((1, 2)), **QUIET)


def test_centroids_of_another_width_are_refused():
    with pytest.raises(ShapeError, match=r"expected \(n_clusters, 2\)"):
        lloyd(np.zeros((4, 2), np.float32), [np.zeros((1, 3))], **TO_THE_END)


# -- seeding -------------------------------------------------------------------


def test_a_sequence_visits_every_blob():
    X = blobs(2000, 6, n_blobs=6, spread=0.05)
    sequence = Seeder(X, 6, np.random.default_rng(0)).sequence(6)
    assert len(set(assign(X, sequence, **QUIET).labels)) == 6
    assert oracles.sq_distances(sequence, sequence)[~np.eye(6, dtype=bool)].min() > 0.5


def test_seeding_starts_from_given_centroids_and_survives_duplicates():
    X = np.zeros((5, 2), np.float32)
    seeder = Seeder(X, 3, np.random.default_rng(0))
    sequence = seeder.sequence(3, centroids=np.ones((1, 2)))
    assert np.array_equal(sequence, [[1, 1], [0, 0], [0, 0]])


# -- the sweep -----------------------------------------------------------------


def sweep(X, ks=range(2, 10), **options):
    return sweep_kmeans(NumPyBackend(), X, ks, **options)


def inertia_of_scikit_learn(X, k):
    # one thread: its own pool waits in a busy loop when the cores are taken
    with threadpool_limits(limits=1):
        return KMeans(k, n_init=10, random_state=0).fit(X).inertia_


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.5])
def test_inertia_is_as_good_as_scikit_learns(spread):
    X = blobs(3000, 8, n_blobs=6, spread=spread)
    fits = sweep(X)
    for k, (fit, *_) in fits.items():
        assert fit.inertia <= 1.0002 * inertia_of_scikit_learn(X, k)


def test_mall_customers(mall):
    for k, (fit, *_) in sweep(mall).items():
        assert fit.inertia <= 1.0002 * inertia_of_scikit_learn(mall, k)
        assert np.bincount(fit.labels, minlength=k).min() > 0


def test_more_rows_than_the_samples():
    X = blobs(40_000, 3, n_blobs=4)
    fits = sweep(X, range(2, 7))
    for k, (fit, stability, _) in fits.items():
        assert np.array_equal(fit.labels, assign(X, fit.centroids, **QUIET).labels)
        assert fit.inertia <= 1.0002 * inertia_of_scikit_learn(X, k)
        assert -0.5 < stability <= 1.0
    assert fits[4].stability > 0.8


@pytest.mark.parametrize("n_init", [1, 3])
def test_inertia_never_rises_with_k(n_init):
    for seed in range(3):
        X = blobs(12, 2, spread=3.0, seed=seed)
        inertias = [entry.fit.inertia for entry in sweep(X, range(1, 13), n_init=n_init).values()]
        assert inertias == sorted(inertias, reverse=True)
        assert inertias[-1] == 0.0


def test_a_sweep_with_gaps_and_out_of_order():
    X = blobs(300, 2)
    fits = sweep(X, [9, 2, 5, 2])
    assert list(fits) == [2, 5, 9]
    assert fits[9].fit.inertia <= fits[5].fit.inertia <= fits[2].fit.inertia


def test_a_worse_fit_is_grown_from_the_smaller_k():
    class Stubborn(NumPyBackend):
        """Finds nothing but its first start, as if every restart were unlucky."""

        def lloyd(self, X, starts, *, max_iter, tol, progress):
            if max_iter:
                starts = [
                    X[:1].repeat(len(start), axis=0) if len(start) == 5 else start
                    for start in starts
                ]
            return super().lloyd(X, starts, max_iter=min(max_iter, 1), tol=tol, progress=progress)

    X = blobs(200, 2)
    fits = sweep_kmeans(Stubborn(), X, [4, 5], n_init=1)
    assert fits[5].fit.inertia <= fits[4].fit.inertia


def test_same_seed_same_result_on_any_thread_count(monkeypatch):
    X = blobs(12_000, 5)
    monkeypatch.setenv("GPUSEG_THREADS", "1")
    first = sweep(X, range(2, 6), random_state=3)
    monkeypatch.setenv("GPUSEG_THREADS", "4")
    second = sweep(X, range(2, 6), random_state=3)
    for k in first:
        assert np.array_equal(first[k].fit.centroids, second[k].fit.centroids)
        assert np.array_equal(first[k].fit.labels, second[k].fit.labels)
        assert first[k].stability == second[k].stability


def test_warm_starts_compete():
    X = blobs(2000, 2, n_blobs=8, spread=0.1)
    best = sweep(X, [8])[8].fit
    unlucky = sweep(X, [8], n_init=1, max_iter=1, warm_starts={8: [best.centroids]})
    assert unlucky[8].fit.inertia == pytest.approx(best.inertia, rel=1e-6)


def test_stability_needs_other_restarts():
    X = blobs(500, 2)
    assert np.isnan(sweep(X, [3], n_init=1)[3].stability)


@pytest.mark.parametrize(
    ("X", "k"),
    [(np.ones((1, 1)), 1), (np.arange(5.0)[:, None], 5), (np.ones((9, 2)), 1), (np.eye(4), 4)],
)
def test_tiny_tables(X, k):
    fit = sweep(np.ascontiguousarray(X, np.float32), [k])[k].fit
    assert len(set(fit.labels)) == k
    assert fit.inertia == 0.0


@pytest.mark.parametrize("ks", [[], [0], [2, 11]])
def test_impossible_k_values_are_refused(ks):
    with pytest.raises(SettingsError, match="from 1 to"):
        sweep(blobs(10, 2), ks)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_values_whose_squares_overflow_are_refused(bad):
    X = blobs(10, 2)
    X[3, 1] = bad
    with pytest.raises(DataError, match="overflow"):
        sweep(X, [2])


def test_count_distinct_rows():
    X = np.array([[0.0, 1.0], [0.0, 1.0], [-0.0, 1.0], [2.0, 1.0]], np.float32)
    assert count_distinct_rows(X, 10) == 2
    assert count_distinct_rows(X, 1) == 1
    late = np.vstack([np.zeros((20_000, 1)), np.ones((1, 1))]).astype(np.float32)
    assert count_distinct_rows(late, 9) == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40))
def test_adjusted_rand_is_scikit_learns(pairs):
    a, b = np.array(pairs).T
    assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)


def test_a_sweep_of_very_many_k_ends():
    X = blobs(150, 2)
    fits = sweep(X, range(2, 120), n_init=1)
    inertias = [entry.fit.inertia for entry in fits.values()]
    assert inertias == sorted(inertias, reverse=True)
