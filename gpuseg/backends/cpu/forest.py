"""A random forest that learns the cluster labels. Import lazily: it brings scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from gpuseg.backends.cpu.threads import thread_count
from gpuseg.backends.sample import accuracy_over_all_rows, count_labels, stratified_rows
from gpuseg.explained import Forest, TreeEnsemble
from gpuseg.records import Array, Progress

#: Trees grown between two reports of progress.
TREES_PER_STEP = 20


def fit_forest(
    X: Array,
    labels: Array,
    n_clusters: int,
    *,
    n_trees: int,
    max_depth: int,
    max_rows: int,
    random_state: int,
    progress: Progress,
) -> Forest:
    """Fit scikit-learn's random forest (Breiman, "Random forests", 2001) on the labels.

    Parameters
    ----------
    X : array of shape (n_samples, n_encoded), float32, C order, rows in content order
    labels : array of shape (n_samples,), int32, in ``[0, n_clusters)``
    max_rows
        About so many rows are fitted, each cluster by its share, none left out.

    Returns
    -------
    Forest
        Its out-of-bag accuracy weighs each cluster by its share of all rows, also of
        those that were not fitted; it is NaN when every row was in every bag.

    Notes
    -----
    The result does not depend on the number of threads.
    """
    rows = stratified_rows(labels, n_clusters, max_rows)
    fitted_X, fitted_labels = (X, labels) if len(rows) == len(X) else (X[rows], labels[rows])
    model = RandomForestClassifier(
        max_depth=max_depth,
        max_features="sqrt",
        n_jobs=thread_count(),
        random_state=random_state,
        warm_start=True,
    )
    grown = 0
    while grown < n_trees:
        grown = min(grown + TREES_PER_STEP, n_trees)
        model.set_params(n_estimators=grown, oob_score=grown == n_trees)
        with warnings.catch_warnings():
            # Few trees leave rows that were in every bag: they are left out of the score.
            warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")
            # scikit-learn takes many clusters for a mistake: labels that should be numbers
            warnings.filterwarnings("ignore", message="The number of unique classes")
            model.fit(fitted_X, fitted_labels)
        progress(grown / n_trees)
    sizes = count_labels(labels, n_clusters)
    return Forest(
        trees=_flat_trees(model, n_clusters),
        importance=model.feature_importances_,
        oob_accuracy=_oob_accuracy(model, fitted_labels, sizes),
        n_fitted_rows=len(rows),
    )


def _oob_accuracy(model: Any, labels: Array, sizes: Array) -> float:
    votes = np.nan_to_num(model.oob_decision_function_)
    codes = np.asarray(np.searchsorted(model.classes_, labels))
    return accuracy_over_all_rows(votes, codes, sizes[model.classes_])


def _flat_trees(model: Any, n_clusters: int) -> TreeEnsemble:
    """Lay scikit-learn's trees one after another."""
    trees = [estimator.tree_ for estimator in model.estimators_]
    offsets = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])])
    shift = np.repeat(offsets[:-1], np.diff(offsets))
    left = np.concatenate([tree.children_left for tree in trees])
    right = np.concatenate([tree.children_right for tree in trees])
    inner = left >= 0
    counts = np.concatenate([tree.value[:, 0, :] for tree in trees])
    value = np.zeros((len(left), n_clusters))
    value[:, model.classes_] = counts / counts.sum(axis=1, keepdims=True)
    threshold = np.concatenate([tree.threshold for tree in trees])
    return TreeEnsemble(
        offsets=offsets.astype(np.int64),
        left=np.where(inner, left + shift, -1).astype(np.int32),
        right=np.where(inner, right + shift, -1).astype(np.int32),
        feature=np.where(inner, np.concatenate([t.feature for t in trees]), -1).astype(np.int32),
        threshold=_as_float32(threshold),
        weight=np.concatenate([tree.weighted_n_node_samples for tree in trees]),
        value=value,
    )


def _as_float32(threshold: Array) -> Array:
    """Largest float32 that is no larger: ``x <= threshold`` stays the same for float32 x."""
    rounded = threshold.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded > threshold, below, rounded)
