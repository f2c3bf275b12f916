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

    stack: Any  # (n_nodes + 1,) int32
    bit: Any  # (n_nodes,) int32: bit of an inner node
    slot: Any  # (n_columns,) int32: place of a column in the table, -1 if it has none
    columns: Any  # (max_bits,) int32: column in each place
    table: Any  # (max_bits, n_blocks, 2 ** max_bits, 4) float64, a row for a used pattern
    leaf_table: Any  # (max_bits, 2 ** max_bits) float64
    product: Any  # (2 ** max_bits,) float64
    used: Any  # (2 ** max_bits,) int32: the patterns that some row has
    rank: Any  # (2 ** max_bits,) int32: place of a pattern among the used ones
    leaf_pattern: Any  # (2 ** max_bits,) int32: what a used pattern means for a leaf


@jit()
def _entry(path: Path, length: int, feature: int) -> tuple[int, int]:
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
def _path_to(trees: Trees, node: int, path: Path) -> int:
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
def _leaf_conditions(
    trees: Trees, leaf: int, root: int, bits: Path, n_path: int, group: Group, path: Path
) -> int:
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
def _open_slot(group: Group, n_slots: int, column: int) -> int:
    if group.slot[column] < 0:
        group.slot[column] = n_slots
        group.columns[n_slots] = column
        n_slots += 1
    return n_slots


@jit()
def _open_group(trees: Trees, root: int, bits: Path, n_path: int, group: Group) -> tuple[int, int]:
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
def _fill_leaf_table(trees: Trees, path: Path, m: int, group: Group) -> None:
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
            bit = np.int32(1 << i)
            for p in range(size):
                weights[p] += (present if np.int32(p) & bit else absent) * product[p]


@jit()
def _add_leaf(trees: Trees, leaf: int, path: Path, m: int, n_used: int, group: Group) -> None:
    """Add a leaf's values to the group's table."""
    pattern = group.leaf_pattern
    pattern[:n_used] = 0
    for i in range(m):
        care, wanted = np.int32(path.present[i] | path.absent[i]), np.int32(path.present[i])
        bit = np.int32(1 << i)
        for p in range(n_used):
            pattern[p] |= bit if (group.used[p] & care) == wanted else np.int32(0)
    for i in range(m):
        weights = group.leaf_table[i]
        slot = group.slot[trees.column[path.feature[i]]]
        for block in range(len(trees.value)):
            value, table = trees.value[block], group.table[slot, block]
            for p in range(n_used):
                add_scaled_row(table, p, value, leaf, weights[pattern[p]])


@jit()
def _row_patterns(bits: Path, n_bits: int, X: Any, pattern: Any) -> None:
    pattern[:] = 0
    for b in range(n_bits):
        x, low, high, bit = X[bits.feature[b]], bits.low[b], bits.high[b], np.int32(1 << b)
        for r in range(len(pattern)):
            above = bit if x[r] > low else np.int32(0)
            pattern[r] |= above if x[r] <= high else np.int32(0)


@jit()
def _rank_patterns(pattern: Any, size: int, group: Group) -> int:
    """Number the patterns that occur, replace each row's by its number; return how many."""
    group.rank[:size] = 0
    for r in range(len(pattern)):
        group.rank[pattern[r]] = 1
    n_used = 0
    for p in range(size):
        if group.rank[p]:
            group.used[n_used] = p
            group.rank[p] = n_used
            n_used += 1
    for r in range(len(pattern)):
        pattern[r] = group.rank[pattern[r]]
    return n_used


@jit()
def _explain_group(
    trees: Trees,
    root: int,
    bits: Path,
    n_path: int,
    path: Path,
    group: Group,
    X: Any,
    pattern: Any,
    sums: Any,
) -> None:
    """Build the table of one group and add each row's entry to its sums."""
    n_bits, n_slots = _open_group(trees, root, bits, n_path, group)
    _row_patterns(bits, n_bits, X, pattern)
    n_used = _rank_patterns(pattern, 1 << n_bits, group)
    group.table[:n_slots, :, :n_used] = 0.0
    group.stack[0] = root
    height = 1
    while height:
        height -= 1
        node = group.stack[height]
        if trees.left[node] < 0:
            m = _leaf_conditions(trees, node, root, bits, n_path, group, path)
            _fill_leaf_table(trees, path, m, group)
            _add_leaf(trees, node, path, m, n_used, group)
        else:
            group.stack[height] = trees.right[node]
            group.stack[height + 1] = trees.left[node]
            height += 2
    for slot in range(n_slots):
        column = group.columns[slot]
        for block in range(sums.shape[1]):
            into, table = sums[column, block], group.table[slot, block]
            for r in range(len(pattern)):
                add_row(into, r, table, pattern[r])
        group.slot[column] = -1


@jit(fastmath={"contract"})
def _explain_deep_leaf(
    trees: Trees,
    leaf: int,
    path: Path,
    m: int,
    X: Any,
    satisfied: Any,
    product: Any,
    weight: Any,
    sums: Any,
) -> None:
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
def _new_path(length: int) -> Path:
    return Path(
        np.empty(length, np.int32),
        np.empty(length, np.float32),
        np.empty(length, np.float32),
        np.empty(length, np.int64),
        np.empty(length, np.int64),
        np.empty(length),
    )


@jit()
def explain_rows(trees: Trees, inner: Any, max_path: int, max_bits: int, X: Any, sums: Any) -> None:
    """Add the SHAP values of some rows to `sums`.

    Parameters
    ----------
    trees : Trees
    inner : array of shape (n_nodes,), int32
        Inner nodes of the subtree below each node, itself included.
    max_path : int
        Most edges from a root to a leaf.
    max_bits : int
        Most bits of a group; a leaf with a longer path is done row by row.
    X : array of shape (n_features, n_rows), float32, C order
    sums : array of shape (n_columns, n_blocks, n_rows, 4), float64, C order
    """
    n_nodes, n_rows = len(trees.left), X.shape[1]
    size = 1 << max_bits
    bits, path = _new_path(max_path + max_bits + 1), _new_path(max_path + max_bits + 1)
    group = Group(
        np.empty(n_nodes + 1, np.int32),
        np.empty(n_nodes, np.int32),
        np.full(sums.shape[0], -1, np.int32),
        np.empty(max_bits, np.int32),
        np.empty((max_bits, sums.shape[1], size, 4)),
        np.empty((max_bits, size)),
        np.empty(size),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
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
            if n_bits <= max_bits:
                _explain_group(trees, node, bits, n_path, path, group, X, pattern, sums)
            elif trees.left[node] < 0:
                _explain_deep_leaf(trees, node, bits, n_path, X, satisfied, product, weight, sums)
            else:
                todo[height] = trees.right[node]
                todo[height + 1] = trees.left[node]
                height += 2
