"""The forest: scikit-learn's, as flat arrays, and independent of everything but its input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.ensemble import RandomForestClassifier

from gpuseg.backends.cpu.forest import _as_float32, fit_forest
from gpuseg.records import no_progress


def fit(X, labels, **changes):
    options = {
        "n_trees": 12,
        "max_depth": 5,
        "max_rows": 10**6,
        "random_state": 1,
        "progress": no_progress,
    }
    return fit_forest(X, labels, int(labels.max()) + 1, **(options | changes))


def two_moons(n=600, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    return X, (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(np.int32)


def outputs(trees, X):
    """Walk every tree for every row."""
    found = np.zeros((len(X), trees.value.shape[1]))
    for root in trees.offsets[:-1]:
        for row, x in enumerate(X):
            node = root
            while trees.left[node] >= 0:
                left = x[trees.feature[node]] <= trees.threshold[node]
                node = trees.left[node] if left else trees.right[node]
            found[row] += trees.value[node]
    return found / trees.n_trees


def test_flat_trees_give_scikit_learns_outputs():
    X, labels = two_moons()
    model = RandomForestClassifier(25, max_depth=5, random_state=1, oob_score=True).fit(X, labels)
    forest = fit(X, labels, n_trees=25)
    np.testing.assert_allclose(outputs(forest.trees, X), model.predict_proba(X), atol=1e-12)
    np.testing.assert_allclose(forest.importance, model.feature_importances_, atol=1e-12)
    assert forest.trees.n_trees == 25
    assert forest.trees.threshold.dtype == np.float32


def test_out_of_bag_accuracy_is_scikit_learns():
    X, labels = two_moons()
    model = RandomForestClassifier(40, max_depth=5, random_state=1, oob_score=True).fit(X, labels)
    assert fit(X, labels, n_trees=40).oob_accuracy == pytest.approx(model.oob_score_, abs=1e-12)


@given(
    hnp.arrays(np.float64, 1, elements=st.floats(-(2.0**99), 2.0**99)),
    hnp.arrays(np.float32, 5, elements=st.floats(-(2.0**99), 2.0**99, width=32)),
)
def test_thresholds_in_float32_decide_alike(threshold, x):
    near = np.float32(threshold)
    x = np.concatenate([x, near, np.nextafter(near, np.float32(np.inf)), -near])
    assert np.array_equal(x <= _as_float32(threshold), x.astype(np.float64) <= threshold)


def test_the_threads_do_not_matter(monkeypatch):
    X, labels = two_moons()
    found = []
    for n_threads in ("1", "3"):
        monkeypatch.setenv("GPUSEG_THREADS", n_threads)
        found.append(fit(X, labels, n_trees=30))
    for mine, theirs in zip(*(vars(forest.trees).values() for forest in found), strict=True):
        assert np.array_equal(mine, theirs)
    assert np.array_equal(found[0].importance, found[1].importance)
    assert found[0].oob_accuracy == found[1].oob_accuracy


def test_rows_are_left_out_but_never_a_cluster():
    X, labels = two_moons(2000)
    labels = labels.copy()
    labels[-1] = 2
    X[-1] = 9.0
    forest = fit(X, labels, max_rows=500)
    assert 500 <= forest.n_fitted_rows + 2 <= 560
    assert forest.trees.value[:, 2].any()
    assert 0.8 < forest.oob_accuracy <= 1.0


def test_left_out_rows_count_for_the_accuracy():
    """The large cluster is easy, the small one is noise: the large one must dominate."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2)).astype(np.float32)
    labels = np.zeros(4000, np.int32)
    noise = rng.choice(4000, 40, replace=False)
    labels[noise] = 1
    assert fit(X, labels, max_rows=60).oob_accuracy > 0.8


def test_nothing_to_split():
    X, labels = np.ones((10, 3), np.float32), np.array([0, 1] * 5, np.int32)
    forest = fit(X, labels)
    assert forest.importance.tolist() == [0, 0, 0]
    assert (forest.trees.left == -1).all()
    assert forest.trees.n_trees == 12


def test_too_few_trees_to_judge():
    X, labels = np.arange(2, dtype=np.float32)[:, None], np.array([0, 1], np.int32)
    accuracies = [fit(X, labels, n_trees=1, random_state=seed).oob_accuracy for seed in range(12)]
    assert any(np.isnan(accuracy) for accuracy in accuracies)
    assert any(not np.isnan(accuracy) for accuracy in accuracies)


def test_progress_ends_at_one():
    X, labels = two_moons(50)
    calls = []
    fit(X, labels, n_trees=45, progress=calls.append)
    assert calls == [20 / 45, 40 / 45, 1.0]
