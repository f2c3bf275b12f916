"""A random forest that learns the cluster labels, grown by cuML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.libraries import Libraries
from gpuseg.backends.gpu.memory import with_fewer_rows
from gpuseg.backends.gpu.rows import is_there, taken
from gpuseg.backends.sample import accuracy_over_all_rows, stratified_rows
from gpuseg.errors import SettingsError
from gpuseg.explained import Forest
from gpuseg.records import Array, Progress

#: cuML's SHAP holds at most 32 elements of a path, one of them for the root.
MOST_DEPTH = 31

#: Candidate thresholds of a feature, at quantiles; cuML warns where rows are fewer.
N_BINS = 128


class CumlForest(NamedTuple):
    """What this backend keeps of a forest; nobody else looks inside.

    Parameters
    ----------
    model
        cuML's classifier, None where all rows are in one cluster.
    clusters
        Ascending; cuML's class i is cluster ``clusters[i]``. Those without rows are missing.
    n_leaves
        At most; cuML does not say how many there are.
    """

    model: Any
    clusters: Any  # host array, int64
    n_clusters: int
    max_depth: int
    n_trees: int
    n_leaves: int


def fit_forest(
    device: Device,
    libraries: Libraries,
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
    """Fit cuML's random forest on the labels; see ``Backend.forest``.

    Returns
    -------
    Forest
        `trees` is a `CumlForest`; importance on the host. Accuracy as the NumPy engine's.

    Raises
    ------
    SettingsError
        If `max_depth` is more than cuML can explain.
    """
    if max_depth > MOST_DEPTH:
        raise SettingsError(
            f"max_depth is {max_depth}; on the GPU trees are explained to depth {MOST_DEPTH}"
        )
    host_labels = device.xp.asnumpy(labels)
    growth = {"n_estimators": n_trees, "max_depth": max_depth, "random_state": random_state}

    def grow(most_rows: int) -> Forest:
        rows = stratified_rows(host_labels, n_clusters, most_rows)
        return _grown(device, libraries, X, host_labels, rows, n_clusters, growth)

    n_rows = min(max_rows, len(X))
    forest = with_fewer_rows(device, n_rows, grow, operation="forest")
    progress(1.0)
    return forest


def _grown(
    device: Device,
    libraries: Libraries,
    X: Array,
    host_labels: Any,
    rows: Any,
    n_clusters: int,
    growth: Mapping[str, int],
) -> Forest:
    """Fit the forest on these rows."""
    xp = device.xp
    all_there = len(rows) == len(X) and is_there(device, X)
    fitted_X = X if all_there else taken(device, X, rows)
    clusters, codes = np.unique(host_labels[rows], return_inverse=True)
    model, importance, accuracy = None, np.zeros(X.shape[1]), 1.0
    if len(clusters) > 1:
        device.release()
        model = libraries.call("forest", n_bins=min(N_BINS, len(rows)), **growth)
        libraries.call("forest.fit", model, fitted_X, xp.asarray(codes.astype(np.int32)))
        importance = _importance(xp.asnumpy(model.feature_importances_))
        votes = xp.asnumpy(model.oob_decision_function_)
        sizes = np.bincount(host_labels, minlength=n_clusters)[clusters]
        accuracy = accuracy_over_all_rows(votes, codes, sizes)
    n_trees, max_depth = growth["n_estimators"], growth["max_depth"]
    n_leaves = n_trees * min(len(rows), 2**max_depth)
    return Forest(
        trees=CumlForest(model, clusters, n_clusters, max_depth, n_trees, n_leaves),
        importance=importance,
        oob_accuracy=accuracy,
        n_fitted_rows=len(rows),
    )


def _importance(found: Any) -> Any:
    """Return float64 that sums to 1 again; zeros where no tree split (cuML may divide by 0)."""
    importance = np.nan_to_num(found.astype(np.float64))
    return importance / max(float(importance.sum()), np.finfo(np.float64).tiny)
