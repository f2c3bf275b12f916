"""Silhouettes against the definition, against scikit-learn, and by their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import silhouette_samples as oracle
from scipy import sparse
from sklearn import metrics
from sklearn.datasets import load_iris, make_blobs

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.silhouette import (
    score_sweep,
    silhouette_samples,
    silhouette_score,
    silhouette_sweep,
)
from gpuseg.errors import DataError, SettingsError, ShapeError

TOLERANCE = 1e-5


def blobs(n_samples, n_features, centers, seed=0, **options):
    return make_blobs(n_samples, n_features, centers=centers, random_state=seed, **options)


def tight_groups(distance):
    """Two far groups, each made of two clusters that lie close together."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(240, 3))
    labels = np.arange(240) % 4
    X[:, 0] += 6 * (labels % 2)
    X[:, 1] += distance * (labels // 2)
    return X, labels


def scaled(factor, offset=0.0, **shape):
    X, labels = blobs(**{"n_samples": 200, "n_features": 5, "centers": 4} | shape)
    return X * factor + offset, labels


def repeated(times):
    X, labels = blobs(40, 3, 3)
    return np.repeat(X, times, axis=0), np.repeat(labels, times)


def with_a_far_row():
    X, labels = blobs(150, 2, 3)
    return np.r_[X, [[1e8, 0]]], np.r_[labels, 3]


HARD = {
    "offset 1e6": lambda: scaled(1, 1e6),
    "offset 1e9, 1 feature": lambda: scaled(1, 1e9, n_features=1),
    "mixed scales": lambda: scaled(10.0 ** np.arange(-4, 6, 2)),
    "subnormal": lambda: scaled(1e-310),
    "huge": lambda: scaled(1e305),
    "500 features": lambda: blobs(150, 500, 3, cluster_std=30.0),
    "1 feature": lambda: blobs(150, 1, 3, cluster_std=5.0),
    "tight groups at 1e3": lambda: tight_groups(1e3),
    "tight groups at 1e6": lambda: tight_groups(1e6),
    "tight groups at 1e9": lambda: tight_groups(1e9),
    "one far row": with_a_far_row,
    "duplicates": lambda: repeated(5),
    "duplicates in all clusters": lambda: (np.repeat(np.eye(4), 9, axis=0), np.arange(36) % 4),
    "all rows equal": lambda: (np.full((12, 3), 0.1), np.arange(12) % 3),
    "singletons": lambda: (blobs(30, 3, 3)[0], np.maximum(np.arange(30) - 20, 0)),
    "n barely above k": lambda: (blobs(10, 3, 3)[0], np.r_[0, np.arange(9)]),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_data_against_the_definition(name):
    X, labels = HARD[name]()
    found = silhouette_samples(X, labels)
    # scaled for the oracle, which squares: 1e-310 would become 0, 1e305 infinite
    expected = oracle(X / np.abs(X).max(), labels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    assert silhouette_score(X, labels) == pytest.approx(found.mean(), abs=1e-12)


@pytest.mark.parametrize(
    "name", ["offset 1e6", "tight groups at 1e6", "mixed scales", "one far row"]
)
def test_hard_data_in_float32(name):
    X, labels = HARD[name]()
    X = X.astype(np.float32)
    np.testing.assert_allclose(
        silhouette_samples(X, labels), oracle(X, labels), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize(("n_features", "seed"), [(1, 0), (8, 1), (20, 2), (50, 3)])
def test_random_data_against_scikit_learn(n_features, seed):
    X, labels = blobs(1201, n_features, 6, seed, cluster_std=4.0)
    expected = metrics.silhouette_samples(X, labels)
    np.testing.assert_allclose(silhouette_samples(X, labels), expected, rtol=0, atol=TOLERANCE)
    sampled = {"sample_size": 500, "random_state": seed}
    assert silhouette_score(X, labels, **sampled) == pytest.approx(
        metrics.silhouette_score(X, labels, **sampled), abs=TOLERANCE
    )


# -- the cases of scikit-learn's own tests, in other words ---------------------


@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_matrix, sparse.coo_array])
def test_iris_dense_and_sparse(storage):
    X, y = load_iris(return_X_y=True)
    score = silhouette_score(storage(X), y)
    assert 0 < score == pytest.approx(metrics.silhouette_score(X, y), abs=TOLERANCE)
    half = silhouette_score(storage(X), y, sample_size=75, random_state=0)
    expected = metrics.silhouette_score(X, y, sample_size=75, random_state=0)
    assert half == pytest.approx(expected, abs=TOLERANCE)


def test_a_random_state_is_drawn_from_as_scikit_learn_does():
    X, y = load_iris(return_X_y=True)
    found, expected = (
        score(X, y, sample_size=60, random_state=np.random.RandomState(5))
        for score in (silhouette_score, metrics.silhouette_score)
    )
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_a_cluster_of_one_has_0_by_definition():
    X = [[0.0], [1.0], [1.0], [2.0], [3.0], [3.0]]
    found = silhouette_samples(X, [0, 1, 1, 1, 2, 2])
    np.testing.assert_allclose(found, [0, 0.5, 0.5, 0, 1, 1], atol=1e-6)
    assert silhouette_score(X, [0, 1, 1, 1, 2, 2]) == pytest.approx(0.5)


@pytest.mark.parametrize("n_labels", [1, 150])
def test_too_few_or_too_many_labels(n_labels):
    X, _ = load_iris(return_X_y=True)
    labels = np.arange(150) % n_labels
    for score in (silhouette_score, silhouette_samples):
        with pytest.raises(ValueError, match=rf"Number of labels is {n_labels}\. Valid values"):
            score(X, labels)
    with pytest.raises(DataError, match="Valid values are 2 to n_samples - 1"):
        silhouette_sweep(X, {3: labels})
    with pytest.raises(DataError, match="Number of labels is 1"):
        silhouette_score(X, np.r_[0, np.ones(149)], sample_size=5, random_state=0)


def test_labels_may_be_any_values():
    X, y = load_iris(return_X_y=True)
    expected = silhouette_samples(X, y)
    names = np.array(["versicolor", "setosa", "a b"])[y]
    for labels in (2 * y + 10, list(y), names, names.astype(object), y.astype(float) - 7.5):
        # names sort differently, which moves last digits
        np.testing.assert_allclose(silhouette_samples(X, labels), expected, atol=1e-6)
    np.testing.assert_array_equal(silhouette_samples(X.tolist(), y.tolist()), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64, bool, object])
def test_matrices_of_other_types(dtype):
    X = np.round(blobs(60, 3, 2)[0]).astype(dtype)
    labels = np.arange(60) % 3
    expected = oracle(X.astype(float), labels)
    np.testing.assert_allclose(silhouette_samples(X, labels), expected, atol=TOLERANCE)


# -- refused -------------------------------------------------------------------


def test_other_metrics_are_refused():
    X, y = load_iris(return_X_y=True)
    for score in (silhouette_score, silhouette_samples):
        with pytest.raises(SettingsError, match="cosine"):
            score(X, y, metric="cosine")
        with pytest.raises(SettingsError, match="precomputed"):
            score(X, y, metric="precomputed")
        with pytest.raises(SettingsError, match="squared"):
            score(X, y, squared=True)


def test_arrays_that_do_not_fit_are_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ShapeError, match="labels have shape"):
        silhouette_score(X, y[:-1])
    with pytest.raises(ShapeError, match="X has shape"):
        silhouette_score(X[:, 0], y)
    with pytest.raises(DataError, match="numbers were expected"):
        silhouette_score(np.full((150, 2), "x"), y)
    with pytest.raises(ShapeError, match="rows must be"):
        silhouette_sweep(X, {3: y}, rows=[150])
    for bad in (np.nan, np.inf):
        X[17, 2] = bad
        with pytest.raises(ValueError, match="NaN or infinity"):
            silhouette_samples(X, y)


# -- the sweep -----------------------------------------------------------------


def some_sweep(n_samples=700, seed=0):
    X, _ = blobs(n_samples, 5, 4, seed)
    rng = np.random.default_rng(seed)
    return X, {k: rng.permutation(np.arange(n_samples) % k) for k in (2, 3, 7)}


def test_the_sweep_is_each_segmentation_alone():
    X, labels = some_sweep()
    sweep = silhouette_sweep(X, labels)
    assert list(sweep.scores) == list(sweep.samples) == list(sweep.stderr) == [2, 3, 7]
    for k, of_k in labels.items():
        np.testing.assert_allclose(sweep.samples[k], oracle(X, of_k), atol=TOLERANCE)
        assert sweep.scores[k] == pytest.approx(sweep.samples[k].mean(), abs=1e-12)
        assert sweep.stderr[k] == 0.0


def test_an_empty_sweep():
    assert silhouette_sweep(np.eye(3), {}).scores == {}


def test_score_sweep_over_a_backend_ignores_clusters_without_rows():
    X, _ = some_sweep()
    labels = np.where(np.arange(700) % 2, 3, 1).astype(np.int32)  # 0 and 2 are not there
    fractions = []
    sweep = score_sweep(
        NumPyBackend(), X.astype(np.float32), {4: labels}, progress=fractions.append
    )
    assert sweep.scores[4] == pytest.approx(oracle(X, labels).mean(), abs=TOLERANCE)
    assert fractions[-1] == 1.0


def test_scored_rows_are_exact_and_the_mean_is_weighted_by_cluster():
    X, labels = some_sweep()
    rows = np.flatnonzero((labels[2] == 0) | (np.arange(700) % 5 == 0))  # cluster 0 is overdone
    sweep, exact = silhouette_sweep(X, labels, rows=rows), silhouette_sweep(X, labels)
    for k, of_k in labels.items():
        np.testing.assert_allclose(sweep.samples[k], exact.samples[k][rows], atol=2e-6)
        shares = np.bincount(of_k) / 700
        by_cluster = [sweep.samples[k][of_k[rows] == c].mean() for c in range(k)]
        assert sweep.scores[k] == pytest.approx(shares @ by_cluster, abs=1e-12)
        assert sweep.stderr[k] > 0


def test_the_standard_error_is_what_estimates_scatter_by():
    X, _ = blobs(900, 3, 3, cluster_std=6.0)
    labels = {3: np.arange(900) % 3}
    exact = silhouette_sweep(X, labels).scores[3]
    rng = np.random.default_rng(0)
    sweeps = [silhouette_sweep(X, labels, rows=rng.permutation(900)[:450]) for _ in range(150)]
    deviations = np.array([(sweep.scores[3] - exact) / sweep.stderr[3] for sweep in sweeps])
    assert abs(deviations.mean()) < 0.3
    assert 0.8 < deviations.std() < 1.2


def test_all_rows_given_is_exact_and_a_cluster_left_out_is_an_error():
    X, labels = some_sweep()
    everything = silhouette_sweep(X, labels, rows=np.arange(700))
    assert everything.stderr == {2: 0.0, 3: 0.0, 7: 0.0}
    with pytest.raises(DataError, match="no row of cluster 1"):
        silhouette_sweep(X, {2: labels[2]}, rows=np.flatnonzero(labels[2] == 0))


# -- laws ----------------------------------------------------------------------

tables = st.integers(0, 2**31).map(np.random.default_rng)


@settings(max_examples=40, deadline=None)
@given(rng=tables, n_samples=st.integers(4, 90), n_features=st.integers(1, 6), k=st.integers(2, 5))
def test_laws(rng, n_samples, n_features, k):
    X = rng.choice([0.0, 1.0, 1e4], n_features) + rng.integers(-3, 4, (n_samples, n_features))
    labels = rng.permutation(np.arange(n_samples) % min(k, n_samples - 1))
    found = silhouette_samples(X, labels)
    np.testing.assert_allclose(found, oracle(X, labels), atol=TOLERANCE)
    assert (np.abs(found) <= 1).all()

    shuffle = rng.permutation(n_samples)
    np.testing.assert_allclose(
        silhouette_samples(X[shuffle], labels[shuffle]), found[shuffle], atol=2e-6
    )
    renamed = rng.permutation(100)[labels]
    np.testing.assert_allclose(silhouette_samples(X, renamed), found, atol=2e-6)
    np.testing.assert_allclose(silhouette_samples(4 * X - 64, labels), found, atol=2e-6)

    rows = rng.permutation(n_samples)[: 1 + n_samples // 2]
    if len(np.unique(labels[rows])) == len(np.unique(labels)):
        sweep = silhouette_sweep(X, {0: labels}, rows=rows)
        np.testing.assert_allclose(sweep.samples[0], found[np.sort(rows)], atol=2e-6)


@settings(max_examples=20, deadline=None)
@given(rng=tables, times=st.integers(2, 20))
def test_repeated_rows_share_a_silhouette(rng, times):
    X = rng.normal(size=(12, 3))
    labels = np.arange(12) % 3
    found = silhouette_samples(np.repeat(X, times, axis=0), np.repeat(labels, times))
    np.testing.assert_allclose(found.reshape(12, times) - found[::times, None], 0, atol=2e-6)


# -- what a drop-in is given ------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, np.nan, 0.0], "labels hold NaN"),
        ([0, 1, None, 0], "cannot be compared"),
        ([[0, 1], [1, 0], [0, 1], [1, 0]], "labels have shape"),
    ],
)
def test_labels_that_say_nothing_are_refused(labels, message):
    with pytest.raises((DataError, ShapeError), match=message):
        silhouette_samples(np.arange(8.0).reshape(4, 2), np.array(labels))


def test_labels_may_be_a_column():
    X, labels = np.arange(8.0).reshape(4, 2), np.array([0, 0, 1, 1])
    assert silhouette_score(X, labels[:, None]) == silhouette_score(X, labels)


def test_complex_numbers_are_refused():
    with pytest.raises(DataError, match="complex"):
        silhouette_score(np.ones((4, 2)) * 1j, [0, 0, 1, 1])


@pytest.mark.parametrize("sample_size", [2.5, 0, -3])
def test_impossible_sample_sizes_are_refused(sample_size):
    with pytest.raises(SettingsError, match="sample_size"):
        silhouette_score(np.ones((4, 2)), [0, 0, 1, 1], sample_size=sample_size)


def test_a_sweep_is_given_by_k():
    with pytest.raises(ShapeError, match="mapping of k to labels"):
        silhouette_sweep(np.ones((4, 2)), [[0, 0, 1, 1]])
