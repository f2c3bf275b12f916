"""Forest and SHAP means: what must hold on any engine, whatever trees it grows."""

from __future__ import annotations

import numpy as np
import pytest
from contracts.compare import TOLERANCE

from gpuseg.errors import SettingsError
from gpuseg.records import no_progress


def clusters(n_samples=200, seed=0):
    """Three clusters told apart by features 0 and 1; 2 and 3 are noise, 4 is constant."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n_samples) % 3).astype(np.int32)
    X = rng.normal(size=(n_samples, 5))
    X[:, 0] += 8 * (labels == 1)
    X[:, 1] += 8 * (labels == 2)
    X[:, 4] = 1
    return X.astype(np.float32), labels


def grow(backend, X, labels, n_clusters=3, **changes):
    options = {"n_trees": 12, "max_depth": 5, "max_rows": 10**6, "random_state": 1}
    return backend.forest(
        backend.from_host(X),
        backend.from_host(labels),
        n_clusters,
        **(options | {"progress": no_progress} | changes),
    )


def explain(backend, forest, X, labels, *, column_of=None, rows=None, progress=no_progress):
    column_of = np.arange(X.shape[1], dtype=np.int32) if column_of is None else column_of
    return backend.shap_means(
        forest,
        backend.from_host(X),
        backend.from_host(labels),
        column_of,
        int(column_of.max()) + 1,
        rows=None if rows is None else backend.from_host(rows),
        progress=progress,
    )


def test_a_forest_learns_what_tells_clusters_apart(backend):
    X, labels = clusters()
    forest = grow(backend, X, labels)
    assert isinstance(forest.importance, np.ndarray)
    assert forest.importance.dtype == np.float64
    assert forest.importance.sum() == pytest.approx(1, rel=1e-12)
    assert set(np.argsort(-forest.importance)[:2]) == {0, 1}
    assert forest.importance[4] == 0
    assert forest.oob_accuracy > 0.95
    assert forest.n_fitted_rows == 200
    assert forest.trees.n_trees == 12
    assert 3 * 12 <= forest.trees.n_leaves <= 12 * 2**5


def test_rows_are_left_out_but_never_a_cluster(backend):
    X, labels = clusters(600)
    labels[-1] = 3
    forest = grow(backend, X, labels, 4, max_rows=150)
    assert 150 <= forest.n_fitted_rows + 3 <= 160
    means = explain(backend, forest, X, labels)
    assert means.expected[3] > 0


def test_the_seed_is_all_that_is_random(backend):
    X, labels = clusters()
    once, again, other = (grow(backend, X, labels, random_state=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once.importance, again.importance)
    assert (once.importance != other.importance).any()


def test_too_few_trees_to_judge_every_row(backend):
    X, labels = clusters()
    assert grow(backend, X, labels, n_trees=1).oob_accuracy > 0.6
    X, labels = np.arange(2, dtype=np.float32)[:, None], np.array([0, 1], np.int32)
    seeds = range(12)
    found = [grow(backend, X, labels, 2, n_trees=1, random_state=s).oob_accuracy for s in seeds]
    assert any(np.isnan(accuracy) for accuracy in found)
    assert any(not np.isnan(accuracy) for accuracy in found)


def test_nothing_to_split(backend):
    X, labels = np.ones((12, 3), np.float32), np.array([0, 1] * 6, np.int32)
    forest = grow(backend, X, labels, 2)
    assert forest.importance.tolist() == [0, 0, 0]
    means = explain(backend, forest, X, labels)
    assert not means.mean_abs.any()
    assert means.expected.sum() == pytest.approx(1, rel=TOLERANCE["shap"][0])


@pytest.mark.parametrize("occurring", [[1], [0, 2]])
def test_clusters_without_rows(backend, occurring):
    """A stored model may find no row for some of its clusters."""
    X, labels = clusters(120)
    labels = np.array(occurring, np.int32)[np.arange(120) % len(occurring)]
    forest = grow(backend, X, labels, 4)
    means = explain(backend, forest, X, labels)
    absent = [c for c in range(4) if c not in occurring]
    assert means.mean_abs.shape == (4, 5)
    np.testing.assert_allclose(means.mean_abs[absent], 0, atol=TOLERANCE["shap"][1])
    np.testing.assert_allclose(means.expected[absent], 0, atol=TOLERANCE["shap"][1])
    assert means.expected.sum() == pytest.approx(1, rel=TOLERANCE["shap"][0])
    if len(occurring) == 1:
        assert forest.oob_accuracy == 1.0
        assert not means.mean_abs.any()


def test_means_add_up_and_point_the_right_way(backend):
    X, labels = clusters()
    forest = grow(backend, X, labels)
    calls = []
    means = explain(backend, forest, X, labels, progress=calls.append)
    for array in means[:4]:
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float64
        assert np.isfinite(array).all()
    assert means.max_additivity_error < TOLERANCE["shap"][1]
    assert means.n_explained_rows == 200
    assert not means.mean_abs_stderr.any()
    assert means.mean_signed[1, 0] > 0.2  # a high feature 0 makes cluster 1
    assert means.mean_signed[2, 1] > 0.2
    # over all rows, the values of a class sum to its outputs less the mean output
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(means.expected, shares, atol=0.1)
    assert calls == sorted(calls)
    assert calls[-1] == 1.0


def test_columns_add_their_features_row_by_row(backend):
    """Two features that always pull apart cancel in a column of both, row by row."""
    X, labels = clusters()
    forest = grow(backend, X, labels)
    apart = explain(backend, forest, X, labels)
    together = explain(
        backend, forest, X, labels, column_of=np.array([0, 0, 1, 1, 1], dtype=np.int32)
    )
    limit = apart.mean_abs[:, :2].sum(axis=1)
    assert (together.mean_abs[:, 0] <= limit + 1e-9).all()
    assert (together.mean_abs[:, 0] < 0.999 * limit).any()
    tolerance = TOLERANCE["shap"][1]
    signed = apart.mean_signed[:, :2].sum(axis=1)
    np.testing.assert_allclose(together.mean_signed[:, 0], signed, atol=tolerance)


def test_a_sample_counts_each_cluster_by_its_share(backend):
    X, labels = clusters(300)
    labels = np.where((labels == 2) & (np.arange(300) % 4 > 0), 0, labels).astype(np.int32)
    forest = grow(backend, X, labels)
    everything = explain(backend, forest, X, labels)
    rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:20] for c in range(3)]))
    sample = explain(backend, forest, X, labels, rows=rows)
    assert sample.n_explained_rows == 60
    assert (sample.mean_abs_stderr > 0).any()
    off = np.abs(sample.mean_abs - everything.mean_abs)
    assert (off <= 5 * sample.mean_abs_stderr + 1e-6).all()
    assert off.max() > 1e-6


def test_depth_that_cannot_be_explained_is_refused(gpu):
    X, labels = clusters(30)
    with pytest.raises(SettingsError, match="max_depth is 32"):
        grow(gpu, X, labels, max_depth=32)
