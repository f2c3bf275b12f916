"""Compiled loops over pairs of points: tiles of distances, summed per joint cell.

Arrays that all kernels share:

- ``panels`` (flat): coordinates in panels, see `simd`; ``lanes`` points in a line.
- ``group_cell``, ``cell_columns``: see `joint_cells.Pass`; a line has ``lanes / ROWS`` groups.
- ``line_cell``: the cell of a line, or -1 where its groups are of several cells.
- ``sums`` (n_lines, n_columns, lanes) float64: for each point, the sums of its distances.

Distances are added in the panels' type within a block of tiles, then in float64.
"""

from __future__ import annotations

import numpy as np

from gpuseg.backends.cpu.compile import jit
from gpuseg.backends.cpu.simd import (
    ROWS,
    WIDE,
    add_group,
    add_line,
    add_tile,
    add_wide_tile,
    fold_rows,
)

#: Most lines on the row side of a block of tiles, and on its line side. Sums are kept in short
#: precision within a block.
BLOCK_ROW_LINES = 32
BLOCK_LINES = 128

#: Bytes that a block's line side may have, coordinates and sums for all columns: together
#: with the rows they stay in a second-level cache.
BLOCK_BYTES = 512 * 1024


@jit()
def pack(X, mean, scale, order, panels, lanes, first_line, last_line):  # type: ignore[no-untyped-def]
    """Write ``X[order] * scale - mean`` into panels; NaN where there is no row."""
    n_features = X.shape[1]
    for place in range(first_line * lanes, last_line * lanes):
        row = order[place]
        start = place // lanes * n_features * lanes + place % lanes
        for feature in range(n_features):
            value = np.nan if row < 0 else X[row, feature] * scale - mean[feature]
            panels[start + feature * lanes] = value


@jit()
def unpack(sums, order, scale, result, first_column, first_line, last_line):  # type: ignore[no-untyped-def]
    """Write ``sums * scale`` to the rows of these lines, from `first_column` on."""
    n_columns, lanes = sums.shape[1:]
    for line in range(first_line, last_line):
        for lane in range(lanes):
            row = order[line * lanes + lane]
            if row >= 0:
                for column in range(n_columns):
                    result[row, first_column + column] = sums[line, column, lane] * scale


@jit()
def add_strip_pairs(panels, n_features, group_cell, line_cell, cell_columns, edges, pairs, sums):  # type: ignore[no-untyped-def]
    """Add the distances between the points of two strips, both ways, for each pair of strips.

    Parameters
    ----------
    edges : array of shape (n_strips + 1,), int64
        Strip i is the lines from ``edges[i]`` to ``edges[i + 1]``.
    pairs : array of shape (n_pairs, 2), int64
        The first is never greater than the second. A strip paired with itself stands for
        its unordered pairs. No strip may be in two pairs of concurrent calls.
    """
    n_columns, lanes = sums.shape[1:]
    totals = sums.reshape(-1)
    row_sums = np.zeros(ROWS * lanes, panels.dtype)
    folded = np.zeros(lanes, panels.dtype)
    line_sums = np.zeros((BLOCK_LINES + 1) * lanes, panels.dtype)
    columns = np.zeros((n_columns, BLOCK_LINES * lanes), panels.dtype)
    touched = np.zeros(n_columns, np.bool_)
    most = _most_lines(n_features + n_columns, lanes * panels.itemsize)
    for pair in range(len(pairs)):
        rows, lines = pairs[pair]
        n_rows = _even_block(edges[rows + 1] - edges[rows], BLOCK_ROW_LINES)
        n_lines = _even_block(edges[lines + 1] - edges[lines], most)
        for line in range(edges[lines], edges[lines + 1], n_lines):
            line_end = min(line + n_lines, edges[lines + 1])
            for row in range(edges[rows], min(edges[rows + 1], line_end), n_rows):
                row_end = min(row + n_rows, edges[rows + 1], line_end)
                _add_block(
                    panels, n_features, group_cell, line_cell, cell_columns,
                    row, row_end, line, line_end, row_sums, folded, line_sums, columns, touched,
                    totals, n_columns,
                )  # fmt: skip


@jit()
def _most_lines(n_vectors, vector_bytes):  # type: ignore[no-untyped-def]
    return max(2, min(BLOCK_LINES, BLOCK_BYTES // (n_vectors * vector_bytes)))


@jit()
def _even_block(length, most):  # type: ignore[no-untyped-def]
    """Return the length of blocks of at most `most` that leave no short one over."""
    n_blocks = -(-length // most)
    return -(-length // n_blocks)


@jit()
def _add_block(  # type: ignore[no-untyped-def]
    panels, n_features, group_cell, line_cell, cell_columns,
    row, row_end, line, line_end, row_sums, folded, line_sums, columns, touched,
    totals, n_columns,
):  # fmt: skip
    """Add the distances of the pairs whose line comes after the row's, and within a line."""
    lanes = len(folded)
    groups = lanes // ROWS
    panel = n_features * lanes
    unused = BLOCK_LINES * lanes
    cell = group_cell[row * groups]
    for group in range(row * groups, row_end * groups):
        if group_cell[group] != cell:
            _move_to_columns(line_sums, line_end - line, cell_columns[cell], columns, touched)
            cell = group_cell[group]
        own = group // groups
        start = own * panel + group % groups * ROWS
        if line <= own:
            # every ordered pair within the line is met from its row; a point and itself
            # have distance 0
            add_tile(panels, start, panels, own * panel, n_features, row_sums, line_sums, unused)
            _add_row_sums(
                row_sums, folded, group, own, group_cell, line_cell, cell_columns, totals, n_columns
            )
        following = max(line, own + 1)
        while following < line_end:
            run = following
            following += 1
            if line_cell[run] >= 0:
                while following < line_end and line_cell[following] == line_cell[run]:
                    following += 1
            other = run
            while other + WIDE <= following:
                add_wide_tile(
                    panels, start, panels, other * panel, n_features,
                    row_sums, line_sums, (other - line) * lanes,
                )  # fmt: skip
                other += WIDE
            while other < following:
                add_tile(
                    panels, start, panels, other * panel, n_features,
                    row_sums, line_sums, (other - line) * lanes,
                )  # fmt: skip
                other += 1
            _add_row_sums(
                row_sums, folded, group, run, group_cell, line_cell, cell_columns, totals, n_columns
            )
    _move_to_columns(line_sums, line_end - line, cell_columns[cell], columns, touched)
    _move_to_totals(columns, touched, line, line_end, totals, n_columns, lanes)


@jit(inline="always")
def _add_row_sums(  # type: ignore[no-untyped-def]
    row_sums, folded, group, line, group_cell, line_cell, cell_columns, totals, n_columns
):
    """Move the sums of a group of rows over a run of lines to the columns of the run's cells."""
    fold_rows(row_sums, folded)
    lanes = len(folded)
    groups = lanes // ROWS
    place = group // groups * n_columns * lanes + group % groups * ROWS
    first, last = line * groups, (line + 1) * groups
    if line_cell[line] >= 0:
        for other in range(ROWS, lanes, ROWS):
            add_group(folded, other, folded, 0)
        last = first + 1
    for other in range(first, last):
        cell = group_cell[other]
        for segmentation in range(cell_columns.shape[1]):
            column = cell_columns[cell, segmentation]
            add_group(folded, (other - first) * ROWS, totals, place + column * lanes)


@jit(inline="always")
def _move_to_columns(line_sums, n_lines, cell_columns, columns, touched):  # type: ignore[no-untyped-def]
    """Move the sums of a block's lines over rows of one cell to the columns of that cell.

    Where cells are small this happens after every few rows, so the columns are kept for the
    block alone, in short precision and in the cache.
    """
    lanes = columns.shape[1] // BLOCK_LINES
    for column in cell_columns:
        touched[column] = True
        start = column * columns.shape[1]
        for place in range(0, n_lines * lanes, lanes):
            add_line(line_sums, place, columns, start + place)
    line_sums[: n_lines * lanes] = 0


@jit(inline="always")
def _move_to_totals(columns, touched, line, line_end, totals, n_columns, lanes):  # type: ignore[no-untyped-def]
    """Move the sums of a block to those of its lines."""
    for column in range(n_columns):
        if not touched[column]:
            continue
        touched[column] = False
        start = column * columns.shape[1]
        for own in range(line, line_end):
            place = (own * n_columns + column) * lanes
            add_line(columns, start + (own - line) * lanes, totals, place)
        columns[column] = 0


@jit(inline="always")
def _add_line_sums(  # type: ignore[no-untyped-def]
    line_sums, line, line_end, cell, cell_columns, totals, n_columns, lanes
):
    """Move the sums of lines over rows of one cell to the columns of that cell."""
    for own in range(line, line_end):
        start = (own - line) * lanes
        for segmentation in range(cell_columns.shape[1]):
            place = (own * n_columns + cell_columns[cell, segmentation]) * lanes
            add_line(line_sums, start, totals, place)
        for lane in range(lanes):
            line_sums[start + lane] = 0


@jit()
def add_chosen_lines(  # type: ignore[no-untyped-def]
    panels, n_features, group_cell, cell_columns, chosen, first_line, last_line, sums
):
    """Add the distances of chosen points, in panels of their own, to all points.

    Only the lines from `first_line` to `last_line` of `chosen` are done; `sums` is theirs.
    """
    n_columns, lanes = sums.shape[1:]
    totals = sums.reshape(-1)
    groups = lanes // ROWS
    panel = n_features * lanes
    unused = np.zeros(ROWS * lanes, panels.dtype)
    line_sums = np.zeros((BLOCK_LINES + 1) * lanes, panels.dtype)
    n_lines = _most_lines(n_features + n_columns, lanes * panels.itemsize)
    for line in range(first_line, last_line, n_lines):
        line_end = min(line + n_lines, last_line)
        pending = 0
        for group in range(len(group_cell)):
            start = group // groups * panel + group % groups * ROWS
            other = line
            while other + WIDE <= line_end:
                add_wide_tile(
                    panels, start, chosen, other * panel, n_features,
                    unused, line_sums, (other - line) * lanes,
                )  # fmt: skip
                other += WIDE
            while other < line_end:
                add_tile(
                    panels, start, chosen, other * panel, n_features,
                    unused, line_sums, (other - line) * lanes,
                )  # fmt: skip
                other += 1
            pending += 1
            cell = group_cell[group]
            last = group + 1 == len(group_cell) or group_cell[group + 1] != cell
            if last or pending == BLOCK_ROW_LINES * groups:
                _add_line_sums(
                    line_sums, line, line_end, cell, cell_columns, totals, n_columns, lanes
                )
                pending = 0


@jit()
def far_rows(X, mean, scale, rows, sums, factors, edges):  # type: ignore[no-untyped-def]
    """Mark rows that are far from the mean, measured by their distances to clusters.

    Parameters
    ----------
    sums : array of shape (n_rows, n_columns), float64
    factors : array of shape (n_columns,), float64
        What a sum is to be multiplied by to become a multiple of the mean distance to the
        cluster; infinite where there is no cluster.
    edges : array of shape (n_segmentations + 1,), int64
        Where the columns of each segmentation start.

    Returns
    -------
    far : array of shape (n_rows,), bool
        Where the distance from the mean is more than the second smallest of the multiples,
        in any segmentation.
    """
    far = np.zeros(len(rows), np.bool_)
    for i in range(len(rows)):
        limit = np.inf
        for segmentation in range(len(edges) - 1):
            nearest = second = np.inf
            for column in range(edges[segmentation], edges[segmentation + 1]):
                if factors[column] < np.inf:
                    distance = sums[i, column] * factors[column]
                    second = min(second, max(nearest, distance))
                    nearest = min(nearest, distance)
            limit = min(limit, second)
        sq_norm = 0.0
        for feature in range(X.shape[1]):
            sq_norm += (X[rows[i], feature] * scale - mean[feature]) ** 2
        far[i] = sq_norm > limit**2
    return far
