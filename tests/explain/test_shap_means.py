"""TreeSHAP means: by definition, against shap, and by the laws that Shapley values obey."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import oracles
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier

from gpuseg.backends.cpu import treeshap
from gpuseg.backends.cpu.forest import fit_forest
from gpuseg.backends.cpu.treeshap import shap_means
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.backends.sample import stratified_rows
from gpuseg.explained import Forest, TreeEnsemble
from gpuseg.features import FeatureSettings, prepare
from gpuseg.records import Table, no_progress

with warnings.catch_warnings():
    warnings.simplefilter("ignore", PendingDeprecationWarning)  # shap's, about matplotlib
    import shap

#: What float64 leaves of a mean of about 1.
EXACT = 1e-12


def blobs(n_samples, n_features, n_clusters, seed=0):
    """Overlapping clusters whose every number occurs."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_clusters, n_features))
    labels = np.arange(n_samples) % n_clusters
    rng.shuffle(labels)
    X = centres[labels] + rng.normal(size=(n_samples, n_features))
    return X.astype(np.float32), labels.astype(np.int32)


def fit(X, labels, *, n_trees=10, max_depth=4):
    n_clusters = int(labels.max()) + 1
    return fit_forest(
        X,
        labels,
        n_clusters,
        n_trees=n_trees,
        max_depth=max_depth,
        max_rows=10**9,
        random_state=3,
        progress=no_progress,
    )


def means(forest, X, labels, *, column_of=None, rows=None):
    column_of = np.arange(X.shape[1]) if column_of is None else np.asarray(column_of)
    n_columns = int(column_of.max()) + 1
    return shap_means(forest, X, labels, column_of, n_columns, rows=rows, progress=no_progress)


def reduced(values, labels):
    """Mean absolute and own signed values of (n_samples, n_columns, n_clusters)."""
    n_clusters = values.shape[2]
    own = [values[labels == c][:, :, c].mean(axis=0) for c in range(n_clusters)]
    return np.abs(values).mean(axis=0).T, np.array(own)


def by_shap(X, labels, *, n_trees, max_depth):
    """SHAP values from the forest that `fit` grows, (n_samples, n_features, n_clusters)."""
    model = RandomForestClassifier(n_trees, max_depth=max_depth, random_state=3).fit(X, labels)
    explainer = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    return explainer.shap_values(X, check_additivity=False), explainer.expected_value


def assert_means(found, values, labels, tolerance):
    mean_abs, signed = reduced(values, labels)
    for array in (found.mean_abs, found.mean_signed):
        assert np.isfinite(array).all()
    np.testing.assert_allclose(found.mean_abs, mean_abs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.mean_signed, signed, rtol=0, atol=tolerance)
    assert found.max_additivity_error < tolerance


@pytest.mark.parametrize("max_bits", [2, 3, 5, 12])
def test_means_are_those_of_the_definition(monkeypatch, max_bits):
    """Also where some paths are too long for a table (2, 3) and trees are cut (5)."""
    monkeypatch.setattr(treeshap, "MAX_BITS", max_bits)
    X, labels = blobs(24, 5, 3)
    forest = fit(X, labels, n_trees=3, max_depth=4)
    values = np.array([oracles.shapley_values(forest.trees, x) for x in X])
    assert_means(means(forest, X, labels), values, labels, EXACT)


@pytest.mark.parametrize("n_clusters", [2, 4, 5, 6, 20])
def test_any_number_of_clusters_agrees_with_shap(n_clusters):
    X, labels = blobs(80, 6, n_clusters)
    values, expected = by_shap(X, labels, n_trees=5, max_depth=6)
    found = means(fit(X, labels, n_trees=5, max_depth=6), X, labels)
    assert_means(found, values, labels, EXACT)
    np.testing.assert_allclose(found.expected, expected, atol=EXACT)


@pytest.mark.parametrize("max_depth", [1, 8, None])
@pytest.mark.parametrize("load", [load_wine, load_breast_cancer, load_digits])
def test_real_tables_agree_with_shap(load, max_depth):
    X, labels = load(return_X_y=True)
    X, labels = X[:150].astype(np.float32), labels[:150].astype(np.int32)
    values, _ = by_shap(X, labels, n_trees=8, max_depth=max_depth)
    found = means(fit(X, labels, n_trees=8, max_depth=max_depth), X, labels)
    assert_means(found, values, labels, EXACT)


def test_customers_agree_with_shap():
    """The bundled table as gpuseg encodes it, with one-hot features added up by column."""
    path = Path(__file__).parents[2] / "examples" / "gluon_train.parquet"
    table = Table("gluon_train", pq.read_table(path).slice(0, 400))
    features = prepare(NumPyBackend(), table, FeatureSettings())
    X, column_of = features.encoded, features.column_of
    labels = KMeans(4, n_init=1, random_state=0).fit_predict(X).astype(np.int32)
    values, _ = by_shap(X, labels, n_trees=10, max_depth=8)
    columns = range(len(features.columns))
    values = np.stack([values[:, column_of == c].sum(axis=1) for c in columns], axis=1)
    forest = fit(X, labels, n_trees=10, max_depth=8)
    assert_means(means(forest, X, labels, column_of=column_of), values, labels, EXACT)


def test_paths_of_more_features_than_a_machine_word_has_bits():
    n = 90
    X = np.tri(n, n, -1, dtype=np.float32)  # one feature tells one row from the rest
    labels = (np.arange(n) % 2).astype(np.int32)
    model = {"n_trees": 4, "max_depth": 80}
    forest = fit(X, labels, **model)
    values, _ = by_shap(X, labels, **model)
    assert_means(means(forest, X, labels), values, labels, EXACT)


def test_long_paths_are_exact(monkeypatch):
    """A chain of 70 different features, checked by its symmetry and by additivity."""
    depth = 70
    n_nodes = 2 * depth + 1
    left = np.full(n_nodes, -1, np.int32)
    right = np.full(n_nodes, -1, np.int32)
    feature = np.full(n_nodes, -1, np.int32)
    inner = np.arange(0, 2 * depth, 2)
    left[inner], right[inner], feature[inner] = inner + 1, inner + 2, np.arange(depth)
    weight = np.zeros(n_nodes)
    weight[0] = 1.0
    for node in inner:
        weight[node + 1] = weight[node + 2] = weight[node] / 2
    value = np.tile([1.0, 0.0], (n_nodes, 1))
    value[-1] = [0.0, 1.0]  # only who is above everywhere
    trees = TreeEnsemble(
        np.array([0, n_nodes]), left, right, feature, np.zeros(n_nodes, np.float32), weight, value
    )
    forest = Forest(trees, np.zeros(depth), 1.0, 2)
    X = np.ones((2, depth), np.float32)
    X[1] = -1
    found = means(forest, X[:1], np.array([1], np.int32))
    # All features play the same part, so each has an equal share of 1 - 2 ** -70.
    np.testing.assert_allclose(found.mean_signed[1], 1 / depth, rtol=1e-12)
    assert means(forest, X, np.array([1, 0], np.int32)).max_additivity_error < EXACT


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_samples=st.integers(4, 60),
    n_features=st.integers(1, 8),
    n_clusters=st.integers(2, 7),
    n_values=st.integers(1, 9),
    max_depth=st.integers(1, 12),
)
def test_values_and_base_add_up_to_the_forest(
    seed, n_samples, n_features, n_clusters, n_values, max_depth
):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, n_values, (n_samples, n_features)).astype(np.float32)
    labels = (np.arange(n_samples) % min(n_clusters, n_samples)).astype(np.int32)
    found = means(fit(X, labels, n_trees=3, max_depth=max_depth), X, labels)
    assert found.max_additivity_error < EXACT
    np.testing.assert_allclose(found.expected.sum(), 1, rtol=EXACT)


def test_columns_add_their_features_row_by_row():
    X, labels = blobs(60, 6, 3)
    column_of = np.array([0, 2, 2, 1, 2, 0])
    values, _ = by_shap(X, labels, n_trees=6, max_depth=5)
    together = np.stack([values[:, column_of == c].sum(axis=1) for c in range(3)], axis=1)
    found = means(fit(X, labels, n_trees=6, max_depth=5), X, labels, column_of=column_of)
    assert_means(found, together, labels, EXACT)


def test_features_that_no_tree_uses_get_nothing():
    X, labels = blobs(60, 3, 2)
    X[:, 1] = 4.0
    found = means(fit(X, labels), X, labels)
    assert not found.mean_abs[:, 1].any()
    assert found.mean_abs[:, [0, 2]].all()


def test_no_split_no_reason():
    X, labels = np.ones((8, 2), np.float32), np.array([0, 1] * 4, np.int32)
    found = means(fit(X, labels), X, labels)
    assert not found.mean_abs.any()
    assert found.max_additivity_error < EXACT


def test_clusters_of_one_row():
    X, labels = blobs(40, 4, 2)
    labels[:] = 0
    labels[7], labels[21] = 1, 2
    values, _ = by_shap(X, labels, n_trees=6, max_depth=5)
    assert_means(means(fit(X, labels, n_trees=6, max_depth=5), X, labels), values, labels, EXACT)


def test_a_sample_counts_each_cluster_by_its_share():
    X, labels = blobs(400, 4, 3)
    labels = np.where(labels == 2, (np.arange(400) % 5 == 0) * 2, labels).astype(np.int32)
    forest = fit(X, labels, n_trees=8)
    rng = np.random.default_rng(0)
    everything = means(forest, X, labels)
    assert not everything.mean_abs_stderr.any()
    errors = []
    for _ in range(60):
        chosen = [rng.choice(np.flatnonzero(labels == c), 25, replace=False) for c in range(3)]
        found = means(forest, X, labels, rows=np.sort(np.concatenate(chosen)))
        assert found.n_explained_rows == 75
        errors.append((found.mean_abs - everything.mean_abs) / found.mean_abs_stderr)
    errors = np.array(errors)
    # unbiased, and about as wrong as the standard error says
    assert np.abs(errors.mean(axis=0)).max() < 0.6
    assert 0.8 < errors.std() < 1.25
    assert 0.9 < (np.abs(errors) < 2).mean() < 0.99


def test_bits_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(treeshap, "MAX_CHUNK_ROWS", 128)
    monkeypatch.setattr(treeshap, "MIN_CHUNK_ROWS", 128)
    X, labels = blobs(1500, 5, 4)
    forest = fit(X, labels)
    found = []
    for n_threads in ("1", "2", "7"):
        monkeypatch.setenv("GPUSEG_THREADS", n_threads)
        found.append(means(forest, X, labels))
    for other in found[1:]:
        for mine, theirs in zip(found[0][:4], other[:4], strict=True):
            assert np.array_equal(mine, theirs)


def test_chunks_change_nothing_but_the_last_bits(monkeypatch):
    X, labels = blobs(1500, 5, 4)
    forest = fit(X, labels)
    whole = means(forest, X, labels)
    monkeypatch.setattr(treeshap, "MAX_CHUNK_ROWS", 33)
    monkeypatch.setattr(treeshap, "MIN_CHUNK_ROWS", 33)
    calls = []
    column_of = np.arange(5)
    cut = shap_means(forest, X, labels, column_of, 5, rows=None, progress=calls.append)
    np.testing.assert_allclose(cut.mean_abs, whole.mean_abs, rtol=0, atol=EXACT)
    assert cut.n_explained_rows == 1500
    assert len(calls) > 40
    assert calls == sorted(calls)
    assert calls[-1] == 1.0


def test_a_sample_holds_every_cluster():
    labels = np.zeros(10_000, np.int32)
    labels[9_990:] = 1
    labels[9_999] = 2
    rows = stratified_rows(labels, 3, 1000)
    assert np.array_equal(rows, np.unique(rows))
    assert np.bincount(labels[rows]).tolist() == [999, 9, 1]
    assert len(stratified_rows(labels, 3, 10_000)) == 10_000
