"""KSweep among scikit-learn's estimators."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpuseg.errors import DataError, SettingsError
from gpuseg.estimator import KSweep


@parametrize_with_checks([KSweep(max_clusters=4), KSweep(n_clusters=3)])
def test_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    X, _ = make_blobs(600, 4, centers=4, cluster_std=0.7, random_state=1)
    return X


def test_finds_the_number_of_blobs(blobs):
    model = KSweep().fit(blobs)
    assert model.n_clusters_ == 4
    assert list(model.silhouette_scores_) == list(range(2, 10))
    assert model.silhouette_ == max(model.silhouette_scores_.values())
    assert model.silhouette_ == pytest.approx(silhouette_score(blobs, model.labels_), abs=1e-5)


def test_centres_and_inertia_are_those_of_the_labels(blobs):
    model = KSweep(n_clusters=4).fit(blobs)
    means = [blobs[model.labels_ == c].mean(axis=0) for c in range(4)]
    np.testing.assert_allclose(model.cluster_centers_, means, rtol=1e-6)
    inertia = ((blobs - model.cluster_centers_[model.labels_]) ** 2).sum()
    assert model.inertia_ == pytest.approx(inertia, rel=1e-6)


def test_predict_repeats_the_labels_and_transform_agrees(blobs):
    model = KSweep(n_clusters=4).fit(blobs)
    assert np.array_equal(model.predict(blobs), model.labels_)
    assert np.array_equal(model.predict(blobs[7:8]), model.labels_[7:8])
    distances = model.transform(blobs)
    exact = np.linalg.norm(blobs[:, None] - model.cluster_centers_[None], axis=2)
    np.testing.assert_allclose(distances, exact, rtol=1e-5)
    assert np.array_equal(distances.argmin(axis=1), model.labels_)


def test_equal_seeds_give_equal_results(blobs):
    model = KSweep(random_state=7)
    first, second = clone(model).fit(blobs), clone(model).fit(blobs)
    assert np.array_equal(first.labels_, second.labels_)
    assert np.array_equal(first.cluster_centers_, second.cluster_centers_)


@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1.0, 1e30, 1e150])
def test_any_unit_gives_the_same_partition(blobs, factor):
    model = KSweep().fit(blobs * factor)
    assert np.array_equal(model.labels_, KSweep().fit(blobs).labels_)
    assert np.isfinite(model.cluster_centers_).all()


def test_a_common_offset_gives_the_same_partition(blobs):
    shifted = KSweep().fit(blobs + 1e8)
    assert np.array_equal(shifted.labels_, KSweep().fit(blobs).labels_)


def test_float32_stays_float32(blobs):
    model = KSweep(n_clusters=2).fit(blobs.astype(np.float32))
    assert model.cluster_centers_.dtype == np.float32
    assert model.transform(blobs.astype(np.float32)).dtype == np.float32


def test_a_sample_is_scored_when_asked_for(blobs):
    sampled = KSweep(sample_size=300).fit(blobs)
    exact = KSweep().fit(blobs)
    assert np.array_equal(sampled.labels_, exact.labels_)
    assert sampled.silhouette_ != exact.silhouette_
    assert sampled.silhouette_ == pytest.approx(exact.silhouette_, abs=0.05)


def test_range_is_cut_where_rows_repeat():
    X = np.repeat([[0.0], [1.0], [5.0]], 4, axis=0)
    with pytest.warns(UserWarning, match="only up to 3 clusters"):
        model = KSweep().fit(X)
    assert model.n_clusters_ == 3
    assert model.silhouette_ == 1.0


def test_equal_scores_go_to_the_smaller_k():
    # Every pair is a point of its own: two, three and four clusters cannot all be equal,
    # but mirrored data give 2 clusters the same score whichever way they are numbered.
    X = np.array([[0.0], [0.0], [1.0], [1.0]])
    with pytest.warns(UserWarning, match="only up to 2"):
        assert KSweep().fit(X).n_clusters_ == 2


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"min_clusters": 1}, SettingsError, "at least 2"),
        ({"min_clusters": 5, "max_clusters": 4}, SettingsError, "not above the maximum"),
        ({"n_clusters": 0}, SettingsError, "at least 1"),
        ({"n_init": 0}, SettingsError, "n_init"),
        ({"n_clusters": 600}, DataError, "at most 599"),
    ],
)
def test_impossible_parameters_are_refused(blobs, parameters, error, message):
    with pytest.raises(error, match=message):
        KSweep(**parameters).fit(blobs)


@pytest.mark.parametrize("X", [np.zeros((5, 2)), np.array([[1.0], [2.0]]), np.array([[3.0]])])
def test_rows_that_make_no_clusters_are_refused(X):
    with pytest.raises(DataError, match="n_samples"):
        KSweep().fit(X)


def test_one_cluster_on_request_has_no_silhouette(blobs):
    model = KSweep(n_clusters=1).fit(blobs)
    assert set(model.labels_) == {0}
    assert np.isnan(model.silhouette_)


def test_columns_get_names(blobs):
    model = KSweep(n_clusters=3).fit(blobs)
    assert list(model.get_feature_names_out()) == ["ksweep0", "ksweep1", "ksweep2"]
