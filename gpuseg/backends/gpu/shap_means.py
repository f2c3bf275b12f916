"""cuML's path-dependent TreeSHAP in large blocks of rows, reduced to means on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.forest import CumlForest
from gpuseg.backends.gpu.libraries import Libraries
from gpuseg.backends.gpu.memory import (
    MOST_SHAP_VALUES,
    in_blocks,
    rows_per_block,
    shap_path_bytes,
    shap_row_bytes,
)
from gpuseg.backends.gpu.rows import library_of, taken
from gpuseg.backends.gpu.sums import one_hot
from gpuseg.backends.sample import StratifiedSums, stratified_means
from gpuseg.explained import Forest, ShapMeans
from gpuseg.records import Array, Progress


def shap_means(
    device: Device,
    libraries: Libraries,
    forest: Forest,
    X: Array,
    labels: Array,
    column_of: Any,
    n_columns: int,
    *,
    rows: Array | None,
    progress: Progress,
) -> ShapMeans:
    """Reduce path-dependent TreeSHAP values to means; see ``Backend.shap_means``.

    Returns
    -------
    ShapMeans
        Host arrays, defined as the NumPy engine's. Values are float32, so sums differ from
        the forest's output by about 1e-6.
    """
    trees: CumlForest = forest.trees
    xp = device.xp
    population = np.bincount(xp.asnumpy(labels), minlength=trees.n_clusters)
    chosen = library_of(device, X).arange(len(X)) if rows is None else rows
    sums = _Sums(device, libraries, trees, xp.asnumpy(column_of), n_columns)
    if trees.model is not None:
        block = _block_rows(device, trees, X.shape[1], n_columns)
        in_blocks(
            device,
            len(chosen),
            block,
            lambda part: sums.add(
                taken(device, X, chosen[part]), taken(device, labels, chosen[part])
            ),
            operation="SHAP",
            progress=progress,
        )
    progress(1.0)
    return _means(trees, sums.on_host(), population, len(chosen))


def _block_rows(device: Device, trees: CumlForest, n_features: int, n_columns: int) -> int:
    """Return rows of a block: many, because cuML packs all paths again at each call."""
    n_classes = len(trees.clusters)
    device.release()
    paths = shap_path_bytes(trees.n_leaves, trees.max_depth, n_classes)
    free = max(0, device.free_bytes() - paths)
    row_bytes = shap_row_bytes(n_features, n_columns, n_classes, trees.n_clusters)
    at_most = MOST_SHAP_VALUES // (n_classes * (n_features + 1))
    return rows_per_block(row_bytes, free, at_most=at_most)


class _HostSums(NamedTuple):
    """What was added up over the explained rows."""

    totals: Any  # (3, n_clusters, n_columns, n_classes): signed, absolute, squared values
    counts: Any  # (n_clusters,) rows
    expected: Any  # (n_classes,)
    gap: float


class _Sums:
    """Sums over the rows that were explained so far, on the device."""

    def __init__(
        self,
        device: Device,
        libraries: Libraries,
        trees: CumlForest,
        column_of: Any,
        n_columns: int,
    ) -> None:
        self._device, self._libraries, self._trees = device, libraries, trees
        self._column_of, self._n_columns = column_of, n_columns
        width = n_columns * len(trees.clusters)
        # by the rows' own cluster: signed, absolute and squared values
        self._totals = device.xp.zeros((3, trees.n_clusters, width), dtype=np.float64)
        self._counts = device.xp.zeros(trees.n_clusters, dtype=np.float64)
        # of the one class, if there is only one
        self._expected: Any = np.ones(len(trees.clusters))
        self._largest_gap = 0.0
        self._explainer: Any = None

    def add(self, X: Array, labels: Array) -> None:
        """Explain rows and add them; all or, where memory runs out, nothing."""
        xp = self._device.xp
        if self._explainer is None:
            self._explainer = self._libraries.call("explainer", model=self._trees.model)
        # (n, d, classes), a view that is not contiguous
        values = self._libraries.call("explainer.shap_values", self._explainer, X)
        # unset before the first call, and a view of all that was computed
        expected = xp.asnumpy(self._explainer.expected_value).astype(np.float64)
        self._explainer.expected_value = None
        gap = self._gap(X, values, expected)
        by_column = self._by_column(values)
        del values
        own = one_hot(self._device, labels, self._trees.n_clusters).T
        parts = (own @ by_column, own @ xp.abs(by_column), own @ (by_column * by_column))
        counts = own.sum(axis=1)
        for total, part in zip(self._totals, parts, strict=True):
            total[...] += part
        self._counts += counts
        self._expected, self._largest_gap = expected, max(self._largest_gap, gap)

    def on_host(self) -> _HostSums:
        """Return the sums so far."""
        xp, n_clusters = self._device.xp, self._trees.n_clusters
        totals = xp.asnumpy(self._totals).reshape(3, n_clusters, self._n_columns, -1)
        return _HostSums(totals, xp.asnumpy(self._counts), self._expected, self._largest_gap)

    def _by_column(self, values: Array) -> Array:
        """Add up the features of each column: (n, n_columns * classes), float64."""
        xp = self._device.xp
        n, _, n_classes = values.shape
        by_column = xp.zeros((n, self._n_columns, n_classes), dtype=np.float64)
        for feature, column in enumerate(self._column_of.tolist()):
            by_column[:, column] += values[:, feature]
        return by_column.reshape(n, -1)

    def _gap(self, X: Array, values: Array, expected: Any) -> float:
        xp = self._device.xp
        total = values.sum(axis=1, dtype=np.float64) + xp.asarray(expected)
        predicted = self._libraries.call("forest.predict_proba", self._trees.model, X)
        return float(xp.abs(total - predicted).max())


def _means(trees: CumlForest, sums: _HostSums, population: Any, n_rows: int) -> ShapMeans:
    """Put the classes that occur among all clusters, and weigh the strata."""
    n_clusters, n_columns = sums.totals.shape[1:3]
    # (kind, cluster of the row, class, column)
    full = np.zeros((3, n_clusters, n_clusters, n_columns))
    full[:, :, trees.clusters] = sums.totals.transpose(0, 1, 3, 2)
    signed, absolute, squares = full
    means = stratified_means(StratifiedSums(absolute, squares, sums.counts), population)
    own = signed[np.arange(n_clusters), np.arange(n_clusters)]
    expected = np.zeros(n_clusters)
    expected[trees.clusters] = sums.expected
    return ShapMeans(
        mean_abs=means.mean,
        mean_abs_stderr=means.stderr,
        mean_signed=own / np.maximum(sums.counts, 1)[:, None],
        expected=expected,
        max_additivity_error=sums.gap,
        n_explained_rows=n_rows,
    )
