"""The room: the chosen clusters in, the reasons for them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from gpuseg.backends.base import Backend
from gpuseg.backends.sample import stratified_rows
from gpuseg.explain.profiles import profiles
from gpuseg.explained import Explanation, Forest, ShapMeans
from gpuseg.memory import room
from gpuseg.records import Choice, FeatureMatrix, Progress, Table, no_progress, part

#: Work that SHAP may take, in rows x leaves x depth x classes. A fixed number, not a time:
#: which rows are explained must not depend on the machine. Half a million rows of the
#: default forest with five clusters just fit.
EXACT_BUDGET = 5e11
SAMPLED_BUDGET = 1e11

#: Below this out-of-bag accuracy the forest, and so what is said about it, misses too much.
FAITHFUL_ACCURACY = 0.8

#: The sum of SHAP values may differ from the forest's output by this much. float64 comes
#: within 1e-14, float32 (on the GPU) should come within a few 1e-6; a wrong value is off by
#: a tree's share at least, 1e-3 and more.
ADDITIVITY_TOLERANCE = 2e-5

#: Parts of the progress that the forest and SHAP are given; the rest goes to the profiles.
FOREST_PART, SHAP_PART = 0.4, 0.4


def explain(
    backend: Backend,
    features: FeatureMatrix,
    table: Table,
    choice: Choice,
    *,
    n_trees: int = 100,
    max_depth: int = 8,
    max_forest_rows: int = 100_000,
    random_state: int = 0,
    progress: Progress = no_progress,
) -> Explanation:
    """Say what makes each cluster what it is.

    A random forest learns the labels from the encoded features; its Gini importance and its
    SHAP values, which add up to its output row by row, are reported under the original
    columns. Profiles describe the members in the table's own units.

    Parameters
    ----------
    features
        What the labels of `choice` were found on, in the same order of rows.
    max_depth
        Bounded, because short paths are quick to explain and lose little accuracy.

    Returns
    -------
    Explanation
        Its notes say how well the forest knows the clusters and which rows were explained.
    """
    host_labels = np.asarray(backend.to_host(choice.fit.labels))
    done = FOREST_PART + SHAP_PART
    forest, shap = _forest_and_shap(
        backend,
        features,
        choice,
        host_labels,
        (n_trees, max_depth, max_forest_rows, random_state),
        part(progress, 0.0, done),
    )
    described = profiles(
        features,
        table,
        host_labels,
        choice.n_clusters,
        most_rows=room().column_rows(),
        progress=part(progress, done, 1.0),
    )
    return Explanation(
        feature_importance=_importance_table(forest, features),
        shap_values=_shap_table(shap, features.columns),
        profiles=described.table,
        oob_accuracy=forest.oob_accuracy,
        shap=shap,
        notes=_notes(forest, shap, len(host_labels)) + described.notes,
        warnings=_warnings(forest, shap),
        traits=described.traits,
    )


def _forest_and_shap(
    backend: Backend,
    features: FeatureMatrix,
    choice: Choice,
    host_labels: np.ndarray,
    growth: tuple[int, int, int, int],
    progress: Progress,
) -> tuple[Forest, ShapMeans]:
    """Grow the forest (trees, depth, rows, seed), and reduce its SHAP values to means."""
    n_trees, max_depth, max_rows, random_state = growth
    share = FOREST_PART / (FOREST_PART + SHAP_PART)
    forest = backend.forest(
        features.encoded,
        choice.fit.labels,
        choice.n_clusters,
        n_trees=n_trees,
        max_depth=max_depth,
        max_rows=max_rows,
        random_state=random_state,
        progress=part(progress, 0.0, share),
    )
    rows = _rows_to_explain(forest, host_labels, choice.n_clusters, max_depth)
    shap = backend.shap_means(
        forest,
        features.encoded,
        choice.fit.labels,
        backend.to_host(features.column_of),
        len(features.columns),
        rows=None if rows is None else backend.from_host(rows),
        progress=part(progress, share, 1.0),
    )
    return forest, shap


def _rows_to_explain(
    forest: Forest, labels: np.ndarray, n_clusters: int, max_depth: int
) -> np.ndarray | None:
    """Choose the rows that SHAP explains; None means all of them."""
    work_per_row = forest.trees.n_leaves * max_depth * n_clusters
    if len(labels) * work_per_row <= EXACT_BUDGET:
        return None
    return stratified_rows(labels, n_clusters, max(1000, int(SAMPLED_BUDGET / work_per_row)))


def _importance_table(forest: Forest, features: FeatureMatrix) -> pa.Table:
    """Add up the importance of each column's features, and rank; ties in table order."""
    importance = np.bincount(
        features.column_of, weights=forest.importance, minlength=len(features.columns)
    )
    order = np.argsort(-importance, kind="stable")
    return pa.table(
        {
            "feature": [features.columns[column] for column in order],
            "importance": importance[order],
            "rank": np.arange(1, len(order) + 1, dtype=np.int32),
        }
    )


def _shap_table(shap: ShapMeans, columns: tuple[str, ...]) -> pa.Table:
    """Rank the features within each cluster by mean absolute value; ties in table order."""
    order = np.argsort(-shap.mean_abs, axis=1, kind="stable")
    n_clusters, n_columns = order.shape
    return pa.table(
        {
            "cluster_id": np.repeat(np.arange(n_clusters, dtype=np.int32), n_columns),
            "feature": [columns[column] for column in order.ravel()],
            "mean_abs_shap": _sorted(shap.mean_abs, order),
            "mean_shap": _sorted(shap.mean_signed, order),
            "rank": np.tile(np.arange(1, n_columns + 1, dtype=np.int32), n_clusters),
        }
    )


def _sorted(values: Any, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(np.asarray(values), order, axis=1).ravel()


def _notes(forest: Forest, shap: ShapMeans, n_rows: int) -> tuple[str, ...]:
    fitted = (
        "all rows"
        if forest.n_fitted_rows == n_rows
        else f"{forest.n_fitted_rows:,} of {n_rows:,} rows, stratified by cluster"
    )
    accuracy = (
        "could not be measured, because every row is in every bag"
        if np.isnan(forest.oob_accuracy)
        else f"is {forest.oob_accuracy:.1%}"
    )
    explained = (
        f"SHAP values were computed for all {n_rows:,} rows"
        if shap.n_explained_rows == n_rows
        else (
            f"SHAP values were computed for a sample of {shap.n_explained_rows:,} of {n_rows:,} "
            "rows, stratified by cluster; the standard error of the mean absolute values is at "
            f"most {shap.mean_abs_stderr.max():.2g}"
        )
    )
    return (
        (
            f"the out-of-bag accuracy of the forest of {forest.trees.n_trees} trees, fitted on "
            f"{fitted}, {accuracy}"
        ),
        (
            f"{explained}; with the mean output they add up to the forest's output to within "
            f"{shap.max_additivity_error:.0e}"
        ),
    )


def _warnings(forest: Forest, shap: ShapMeans) -> tuple[str, ...]:
    warnings = []
    if forest.oob_accuracy < FAITHFUL_ACCURACY:
        warnings.append(
            f"the forest that explains the clusters is right about only {forest.oob_accuracy:.0%} "
            "of the rows it has not seen: importance and SHAP values describe the forest, and "
            "the clusters only as far as that"
        )
    if not shap.max_additivity_error <= ADDITIVITY_TOLERANCE:
        warnings.append(
            "SHAP values and the forest's output differ by up to "
            f"{shap.max_additivity_error:.1e}: do not rely on them, and please report this"
        )
    return tuple(warnings)
