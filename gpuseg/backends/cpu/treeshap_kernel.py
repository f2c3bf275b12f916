"""TreeSHAP of many rows at once: the compiled part of `treeshap`.

A leaf's share in a row's SHAP values depends only on which of the m features of its path
the row satisfies, so on m bits. Trees are cut into subtrees ("groups") whose every
outcome is decided by a few bits: the distinct features on the way to the subtree, and
the comparisons inside it. A table over all patterns of these bits is built once for a
group, and each row merely adds the entry of its own pattern.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.cpu.compile import jit
from gpuseg.backends.cpu.lanes import add_row, add_scaled_row

#: Rows that walk through a long path together, so that their products stay in L1.
DEEP_ROWS = 128


class Trees(NamedTuple):
    """The forest as the kernel wants it. Features and columns count only those in use."""

    offsets: Any  # (n_trees + 1,) int64
    left: Any  # (n_nodes,) int32, -1 in leaves
    right: Any  # (n_nodes,) int32
    parent: Any  # (n_nodes,) int32, -1 in roots
    feature: Any  # (n_nodes,) int32, -1 in leaves
    threshold: Any  # (n_nodes,) float32
    weight: Any  # (n_nodes,) float64
    value: Any  # (n_blocks, n_nodes, 4) float64: classes in blocks of four, over n_trees
    column: Any  # (n_features,) int32
    nodes: Any  # (q_max + 1, q_max) float64: nodes of the q-point rule on [0, 1]
    weights: Any  # (q_max + 1, q_max) float64


class Path(NamedTuple):
    """Scratch: the distinct features of a path, or the bits of a group."""

    feature: Any  # int32
    low: Any  # float32; satisfied by low < x <= high
    high: Any  # float32
    present: Any  # int64: bits of the group that must be 1
    absent: Any  # int64: bits of the group that must be 0
    share: Any  # float64: part of the training rows that satisfies it, given the others


class Group(NamedTuple):
    """Scratch: one group's table, and what it takes to build it."""

    stack: Any  # (max_nodes,) int32
    bit: Any  # (n_nodes,) int32: bit of an inner node
    slot: Any  # (n_columns,) int32: place of a column in the table, -1 if it has none
    columns: Any  # (max_bits,) int32: column in each place
    table: Any  # (max_bits, n_blocks, 2 ** max_bits, 4) float64
    leaf_table: Any  # (max_bits, 2 ** max_bits) float64
    product: Any  # (2 ** max_bits,) float64
    pattern: Any  # (2 ** max_bits,) int32


@jit()
def _entry(path, length, feature):
    """Find `feature` in the path, or start it; return where, and the new length."""
    i = 0
    while i < length and path.feature[i] != feature:
        i += 1
    if i == length:
        path.feature[i] = feature
        path.low[i] = -np.inf
        path.high[i] = np.inf
        path.present[i] = 0
        path.absent[i] = 0
        path.share[i] = 1.0
        length += 1
    return i, length


@jit()
def _path_to(trees, node, path):
    """Collect the distinct features from `node` to its root; return their number."""
    length = 0
    while trees.parent[node] >= 0:
        up = trees.parent[node]
        i, length = _entry(path, length, trees.feature[up])
        if trees.left[up] == node:
            path.high[i] = min(path.high[i], trees.threshold[up])
        else:
            path.low[i] = max(path.low[i], trees.threshold[up])
        path.share[i] *= trees.weight[node] / trees.weight[up]
        node = up
    return length


@jit()
def _leaf_conditions(trees, leaf, root, bits, n_path, group, path):
    """Express a leaf's path as bits of the group of `root`; return its distinct features."""
    length = 0
    node = leaf
    while node != root:
        up = trees.parent[node]
        i, length = _entry(path, length, trees.feature[up])
        if trees.left[up] == node:
            path.present[i] |= 1 << group.bit[up]
        else:
            path.absent[i] |= 1 << group.bit[up]
        path.share[i] *= trees.weight[node] / trees.weight[up]
        node = up
    for b in range(n_path):
        i, length = _entry(path, length, bits.feature[b])
        path.present[i] |= 1 << b
        path.share[i] *= bits.share[b]
    return length


@jit()
def _open_slot(group, n_slots, column):
    if group.slot[column] < 0:
        group.slot[column] = n_slots
        group.columns[n_slots] = column
        n_slots += 1
    return n_slots


@jit()
def _open_group(trees, root, bits, n_path, group):
    """Number the group's bits and columns; return how many there are of each."""
    n_bits, n_slots = n_path, 0
    for b in range(n_path):
        n_slots = _open_slot(group, n_slots, trees.column[bits.feature[b]])
    group.stack[0] = root
    height = 1
    while height:
        height -= 1
        node = group.stack[height]
        if trees.left[node] < 0:
            continue
        group.bit[node] = n_bits
        bits.feature[n_bits] = trees.feature[node]
        bits.low[n_bits] = -np.inf
        bits.high[n_bits] = trees.threshold[node]
        n_bits += 1
        n_slots = _open_slot(group, n_slots, trees.column[trees.feature[node]])
        group.stack[height] = trees.right[node]
        group.stack[height + 1] = trees.left[node]
        height += 2
    return n_bits, n_slots


@jit(fastmath={"contract"})
def _fill_leaf_table(trees, path, m, group):
    """Shapley weights of a leaf, for each of its m features and all 2**m patterns.

    With o_j = 1 where the row satisfies feature j and z_j its share of training rows,

        weight_i = (o_i - z_i) * integral over [0, 1] of prod_{j != i} (z_j (1 - t) + o_j t) dt

    (Owen's multilinear extension, "Multilinear extensions of games", 1972). The
    polynomial has degree m - 1, so Gauss-Legendre with ceil(m / 2) nodes is exact.
    """
    n_nodes, size = (m + 1) // 2, 1 << m
    product = group.product
    group.leaf_table[:m, :size] = 0.0
    for q in range(n_nodes):
        t = trees.nodes[n_nodes, q]
        product[0] = trees.weights[n_nodes, q]
        for i in range(m):
            absent = path.share[i] * (1 - t)
            half = 1 << i
            for p in range(half):
                product[half + p] = product[p] * (absent + t)
                product[p] *= absent
        for i in range(m):
            weights = group.leaf_table[i]
            absent = -1.0 / (1 - t)
            present = (1 - path.share[i]) / (path.share[i] * (1 - t) + t)
            half = 1 << i
            for start in range(0, size, 2 * half):
                for p in range(start, start + half):
                    weights[p] += absent * product[p]
                for p in range(start + half, start + 2 * half):
                    weights[p] += present * product[p]


@jit()
def _add_leaf(trees, leaf, path, m, n_bits, group):
    """Add a leaf's values to the group's table."""
    size = 1 << n_bits
    pattern = group.pattern
    pattern[:size] = 0
    for i in range(m):
        care, wanted, bit = path.present[i] | path.absent[i], path.present[i], np.int32(1 << i)
        for p in range(size):
            pattern[p] |= bit if (p & care) == wanted else np.int32(0)
    for i in range(m):
        weights = group.leaf_table[i]
        slot = group.slot[trees.column[path.feature[i]]]
        for block in range(len(trees.value)):
            value, table = trees.value[block], group.table[slot, block]
            for p in range(size):
                add_scaled_row(table, p, value, leaf, weights[pattern[p]])


@jit()
def _row_patterns(bits, n_bits, X, pattern):
    pattern[:] = 0
    for b in range(n_bits):
        x, low, high, bit = X[bits.feature[b]], bits.low[b], bits.high[b], np.int32(1 << b)
        for r in range(len(pattern)):
            pattern[r] |= bit if (x[r] > low) & (x[r] <= high) else np.int32(0)


@jit()
def _explain_group(trees, root, bits, n_path, path, group, X, pattern, sums):
    """Build the table of one group and add each row's entry to its sums."""
    n_bits, n_slots = _open_group(trees, root, bits, n_path, group)
    group.table[:n_slots, :, : 1 << n_bits] = 0.0
    group.stack[0] = root
    height = 1
    while height:
        height -= 1
        node = group.stack[height]
        if trees.left[node] < 0:
            m = _leaf_conditions(trees, node, root, bits, n_path, group, path)
            _fill_leaf_table(trees, path, m, group)
            _add_leaf(trees, node, path, m, n_bits, group)
        else:
            group.stack[height] = trees.right[node]
            group.stack[height + 1] = trees.left[node]
            height += 2
    _row_patterns(bits, n_bits, X, pattern)
    for slot in range(n_slots):
        column = group.columns[slot]
        for block in range(sums.shape[1]):
            into, table = sums[column, block], group.table[slot, block]
            for r in range(len(pattern)):
                add_row(into, r, table, pattern[r])
        group.slot[column] = -1


@jit(fastmath={"contract"})
def _explain_deep_leaf(trees, leaf, path, m, X, satisfied, product, weight, sums):
    """Do for one leaf what a table cannot hold: each row's weights on their own."""
    n_nodes = (m + 1) // 2
    for start in range(0, X.shape[1], DEEP_ROWS):
        n = min(DEEP_ROWS, X.shape[1] - start)
        for i in range(m):
            x, low, high = X[path.feature[i]], path.low[i], path.high[i]
            for r in range(n):
                inside = (x[start + r] > low) & (x[start + r] <= high)
                satisfied[i, r] = 1.0 if inside else 0.0
        for q in range(n_nodes):
            t = trees.nodes[n_nodes, q]
            product[q, :n] = trees.weights[n_nodes, q]
            for i in range(m):
                absent = path.share[i] * (1 - t)
                for r in range(n):
                    product[q, r] *= absent + t * satisfied[i, r]
        for i in range(m):
            weight[:n] = 0.0
            for q in range(n_nodes):
                t = trees.nodes[n_nodes, q]
                absent = -1.0 / (1 - t)
                step = (1 - path.share[i]) / (path.share[i] * (1 - t) + t) - absent
                for r in range(n):
                    weight[r] += (absent + step * satisfied[i, r]) * product[q, r]
            column = trees.column[path.feature[i]]
            for block in range(sums.shape[1]):
                for r in range(n):
                    add_scaled_row(
                        sums[column, block], start + r, trees.value[block], leaf, weight[r]
                    )


@jit()
def _new_path(length):
    return Path(
        np.empty(length, np.int32),
        np.empty(length, np.float32),
        np.empty(length, np.float32),
        np.empty(length, np.int64),
        np.empty(length, np.int64),
        np.empty(length),
    )


@jit()
def explain_rows(trees, inner, max_path, group_bits, leaf_bits, X, sums):
    """Add the SHAP values of some rows to `sums`.

    Parameters
    ----------
    trees : Trees
    inner : array of shape (n_nodes,), int32
        Inner nodes of the subtree below each node, itself included.
    max_path : int
        Most edges from a root to a leaf.
    group_bits, leaf_bits : int
        Most bits of a group, and of a group that is a leaf or a pair of leaves.
    X : array of shape (n_features, n_rows), float32, C order
    sums : array of shape (n_columns, n_blocks, n_rows, 4), float64, C order
    """
    n_nodes, n_rows = len(trees.left), X.shape[1]
    size = 1 << leaf_bits
    bits, path = _new_path(max_path + leaf_bits + 1), _new_path(max_path + leaf_bits + 1)
    group = Group(
        np.empty(n_nodes + 1, np.int32),
        np.empty(n_nodes, np.int32),
        np.full(sums.shape[0], -1, np.int32),
        np.empty(leaf_bits, np.int32),
        np.empty((leaf_bits, sums.shape[1], size, 4)),
        np.empty((leaf_bits, size)),
        np.empty(size),
        np.empty(size, np.int32),
    )
    pattern = np.empty(n_rows, np.int32)
    satisfied = np.empty((max_path + 1, DEEP_ROWS))
    product = np.empty((max_path // 2 + 1, DEEP_ROWS))
    weight = np.empty(DEEP_ROWS)
    todo = np.empty(n_nodes + 1, np.int32)
    for tree in range(len(trees.offsets) - 1):
        todo[0] = trees.offsets[tree]
        height = 1
        while height:
            height -= 1
            node = todo[height]
            n_path = _path_to(trees, node, bits)
            n_bits = n_path + inner[node]
            if n_bits <= group_bits or (n_bits <= leaf_bits and inner[node] <= 1):
                _explain_group(trees, node, bits, n_path, path, group, X, pattern, sums)
            elif trees.left[node] < 0:
                _explain_deep_leaf(trees, node, bits, n_path, X, satisfied, product, weight, sums)
            else:
                todo[height] = trees.right[node]
                todo[height + 1] = trees.left[node]
                height += 2


@jit()
def predict_rows(trees, X, predicted):
    """Add the forest's outputs to `predicted`, (n_blocks, n_rows, 4), by walking the trees."""
    for tree in range(len(trees.offsets) - 1):
        for r in range(X.shape[1]):
            node = trees.offsets[tree]
            while trees.left[node] >= 0:
                below = X[trees.feature[node], r] <= trees.threshold[node]
                node = trees.left[node] if below else trees.right[node]
            for block in range(len(predicted)):
                add_row(predicted[block], r, trees.value[block], node)


@jit()
def reduce_rows(sums, labels, n_clusters, absolute, squares, signed, gaps):
    """Add up the rows' SHAP values and start the additivity gaps.

    Parameters
    ----------
    sums : array of shape (n_columns, n_blocks, n_rows, 4), float64
        Classes in order; the last class is left out, because probabilities sum to 1 and
        so the SHAP values of a column sum to 0 over the classes.
    labels : array of shape (n_rows,), int32
    absolute, squares : arrays of shape (n_clusters of rows, n_clusters, n_columns), float64
    signed : array of shape (n_clusters, n_columns), float64
        Only the row's own cluster.
    gaps : array of shape (n_rows, n_clusters), float64
        The row's SHAP values, summed over columns, are added.
    """
    n_columns, _, n_rows, _ = sums.shape
    for column in range(n_columns):
        for r in range(n_rows):
            own = labels[r]
            rest = 0.0
            for c in range(n_clusters):
                if c < n_clusters - 1:
                    shap = sums[column, c // 4, r, c % 4]
                    rest -= shap
                else:
                    shap = rest
                absolute[own, c, column] += abs(shap)
                squares[own, c, column] += shap * shap
                gaps[r, c] += shap
                if c == own:
                    signed[own, column] += shap
