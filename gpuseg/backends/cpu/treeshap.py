"""Exact path-dependent TreeSHAP of every row, reduced to means. Import lazily.

The values are those of ``shap.TreeExplainer(..., feature_perturbation=
"tree_path_dependent")`` (Lundberg, Erion and Lee, "Consistent individualized feature
attribution for tree ensembles", 2018) on class probabilities. How they are found is told
in `treeshap_kernel` and in ``docs/decisions/treeshap.md``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.cpu.lanes import LANES
from gpuseg.backends.cpu.threads import in_threads
from gpuseg.backends.cpu.treeshap_kernel import Trees, explain_rows
from gpuseg.backends.cpu.treeshap_sums import predict_rows, reduce_rows
from gpuseg.backends.sample import StratifiedSums, count_labels, stratified_means
from gpuseg.explained import Forest, ShapMeans, TreeEnsemble
from gpuseg.records import Array, Progress

#: Bits that decide a group. More bits make fewer and larger groups, whose tables then
#: leave the cache (at depths 8 and 10, 11 to 13 bits took the same time, 9 and 10 up to a
#: tenth longer).
MAX_BITS = 12

#: What one chunk's SHAP values may take, and its rows: tables are built once for a chunk.
CHUNK_BYTES = 64 << 20
MIN_CHUNK_ROWS, MAX_CHUNK_ROWS = 256, 16_384

#: Work of one chunk, in rows times leaves: about a second. A leaf whose path is too long
#: for a table costs as much as this many that are not.
CHUNK_VISITS = 5e8
DEEP_LEAF_COST = 30


class _Plan(NamedTuple):
    """The forest as the kernel wants it, and what was left out on the way."""

    trees: Trees
    inner: Array  # (n_nodes,) int32, inner nodes of each subtree
    max_path: int
    features: Array  # encoded features that some tree uses
    columns: Array  # original columns that some tree uses
    expected: Array  # (n_clusters,) float64
    visits_per_row: int  # leaves, the deep ones counted by their cost


class _Part(NamedTuple):
    """Sums over the rows of one chunk."""

    absolute: Array
    squares: Array
    signed: Array
    counts: Array
    gap: float

    def plus(self, other: _Part) -> _Part:
        sums = [mine + others for mine, others in zip(self[:4], other[:4], strict=True)]
        return _Part(sums[0], sums[1], sums[2], sums[3], max(self.gap, other.gap))


def shap_means(
    forest: Forest,
    X: Array,
    labels: Array,
    column_of: Any,
    n_columns: int,
    *,
    rows: Array | None = None,
    progress: Progress,
) -> ShapMeans:
    """Reduce path-dependent TreeSHAP values to means per cluster and original column.

    Parameters
    ----------
    X : array of shape (n_samples, n_encoded), float32, C order
    labels : array of shape (n_samples,), int32
    column_of : array of shape (n_encoded,), int32
        Original column of each encoded feature. The SHAP value of a column is the sum
        over its encoded features, taken row by row before the absolute value.
    rows : array of shape (r,), int64, or None for all rows
        Rows to explain, a sample stratified by cluster. Each cluster then counts by its
        share of all rows, and the standard errors are those of a stratified mean
        with finite population correction (Cochran, "Sampling Techniques", 1977, section
        5.6); a cluster of which one row of many was taken makes them a lower bound.

    Notes
    -----
    The same bits on any number of threads.
    """
    trees = forest.trees
    n_clusters = trees.value.shape[1]
    plan = _plan(trees, np.asarray(column_of))
    population = count_labels(labels, n_clusters)
    explained = np.arange(len(X)) if rows is None else np.asarray(rows)
    chunks = np.array_split(explained, _n_chunks(plan, len(explained)))
    shape = (n_clusters, n_clusters, len(plan.columns))
    total = _Part(np.zeros(shape), np.zeros(shape), np.zeros(shape[1:]), np.zeros(n_clusters), 0.0)
    parts = in_threads(lambda chunk: _explain_chunk(plan, X, labels, chunk), chunks)
    for done, part in enumerate(parts, start=1):
        total = total.plus(part)
        progress(done / len(chunks))
    return _means(plan, total, population, n_columns)


def _means(plan: _Plan, total: _Part, population: Array, n_columns: int) -> ShapMeans:
    """Weigh each stratum by its share of the population."""
    sums = StratifiedSums(total.absolute, total.squares, total.counts)
    means = stratified_means(sums, population)
    n_clusters = len(population)
    mean_abs, stderr, signed = np.zeros((3, n_clusters, n_columns))
    mean_abs[:, plan.columns] = means.mean
    stderr[:, plan.columns] = means.stderr
    signed[:, plan.columns] = total.signed / np.maximum(total.counts, 1)[:, None]
    return ShapMeans(mean_abs, stderr, signed, plan.expected, total.gap, int(total.counts.sum()))


def _n_chunks(plan: _Plan, n_rows: int) -> int:
    """Number of chunks: small enough for memory and for Ctrl-C, and an even number.

    It must not depend on the number of threads, or the last bits of the sums would.
    """
    bytes_per_row = max(1, len(plan.columns)) * int(plan.trees.value[:, 0].nbytes)
    chunk_rows = min(
        MAX_CHUNK_ROWS, CHUNK_BYTES // bytes_per_row, int(CHUNK_VISITS / plan.visits_per_row)
    )
    n_pairs = -(-n_rows // (2 * max(MIN_CHUNK_ROWS, chunk_rows)))
    return max(1, min(2 * n_pairs, n_rows))


def _explain_chunk(plan: _Plan, X: Array, labels: Array, rows: Array) -> _Part:
    trees, n_clusters, n_columns = plan.trees, len(plan.expected), len(plan.columns)
    own = labels[rows]
    block = np.ascontiguousarray(X[np.ix_(rows, plan.features)].T)
    sums = np.zeros((n_columns, len(trees.value), len(rows), LANES))
    # Few rows would not pay for large tables.
    max_bits = min(MAX_BITS, max(2, len(rows).bit_length()))
    explain_rows(trees, plan.inner, plan.max_path, max_bits, block, sums)
    part = _Part(
        np.zeros((n_clusters, n_clusters, n_columns)),
        np.zeros((n_clusters, n_clusters, n_columns)),
        np.zeros((n_clusters, n_columns)),
        np.bincount(own, minlength=n_clusters).astype(np.float64),
        0.0,
    )
    gaps = np.tile(plan.expected, (len(rows), 1))
    reduce_rows(sums, own, n_clusters, part.absolute, part.squares, part.signed, gaps)
    predicted = np.zeros((len(trees.value), len(rows), LANES))
    predict_rows(trees, block, predicted)
    probability = predicted.transpose(1, 0, 2).reshape(len(rows), -1)[:, : n_clusters - 1]
    gaps[:, :-1] -= probability
    gaps[:, -1] -= 1 - probability.sum(axis=1)
    return part._replace(gap=float(np.abs(gaps).max()))


def _plan(trees: TreeEnsemble, column_of: Array) -> _Plan:
    left, right = np.asarray(trees.left), np.asarray(trees.right)
    inner_nodes = np.flatnonzero(left >= 0)
    parent = np.full(len(left), -1, dtype=np.int32)
    parent[left[inner_nodes]] = parent[right[inner_nodes]] = inner_nodes
    features, feature = np.unique(trees.feature[inner_nodes], return_inverse=True)
    columns, column = np.unique(column_of[features], return_inverse=True)
    compact = np.full(len(left), -1, dtype=np.int32)
    compact[inner_nodes] = feature
    inner, depth = _subtrees(parent, left >= 0)
    max_path = int(depth.max())
    nodes, weights = _quadrature((max_path + 1) // 2)
    kernel_trees = Trees(
        offsets=np.asarray(trees.offsets, dtype=np.int64),
        left=left,
        right=right,
        parent=parent,
        feature=compact,
        threshold=np.asarray(trees.threshold),
        weight=np.asarray(trees.weight),
        value=_in_blocks(np.asarray(trees.value)[:, :-1] / trees.n_trees),
        column=column.astype(np.int32),
        nodes=nodes,
        weights=weights,
    )
    deep = depth[left < 0] > MAX_BITS
    visits = len(deep) + DEEP_LEAF_COST * int(deep.sum())
    return _Plan(kernel_trees, inner, max_path, features, columns, _expected(trees), visits)


def _subtrees(parent: Array, is_inner: Array) -> tuple[Array, Array]:
    """Inner nodes below each node, itself included, and its distance to the root."""
    depth = np.zeros(len(parent), dtype=np.int32)
    above = parent.copy()
    while (on_the_way := above >= 0).any():
        depth[on_the_way] += 1
        above[on_the_way] = parent[above[on_the_way]]
    inner = is_inner.astype(np.int32)
    for level in range(int(depth.max()), 0, -1):
        nodes = np.flatnonzero(depth == level)
        np.add.at(inner, parent[nodes], inner[nodes])
    return inner, depth


def _expected(trees: TreeEnsemble) -> Array:
    """Mean output of the forest over its own training rows, for each class."""
    total = np.zeros(trees.value.shape[1])
    for start, end in zip(trees.offsets[:-1], trees.offsets[1:], strict=True):
        leaves = np.flatnonzero(trees.left[start:end] < 0) + start
        total += np.average(trees.value[leaves], axis=0, weights=trees.weight[leaves])
    return total / trees.n_trees


def _in_blocks(value: Array) -> Array:
    """Cut (n_nodes, n) into blocks of four columns: (n_blocks, n_nodes, 4)."""
    n_nodes, n_values = value.shape
    n_blocks = max(1, -(-n_values // LANES))
    padded = np.zeros((n_nodes, n_blocks * LANES))
    padded[:, :n_values] = value
    return np.ascontiguousarray(padded.reshape(n_nodes, n_blocks, LANES).transpose(1, 0, 2))


def _quadrature(q_max: int) -> tuple[Array, Array]:
    """Gauss-Legendre rules on [0, 1] with 1 to `q_max` nodes; row q holds the one with q."""
    nodes, weights = np.zeros((2, q_max + 1, max(1, q_max)))
    for q in range(1, q_max + 1):
        x, w = np.polynomial.legendre.leggauss(q)
        nodes[q, :q], weights[q, :q] = (x + 1) / 2, w / 2
    return nodes, weights
