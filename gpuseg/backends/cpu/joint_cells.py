"""Rows that share their cluster in several segmentations, and where they stand.

Distances do not depend on the number of clusters. Rows that are in the same cluster of
every segmentation form a *joint cell*: a sum of distances over (part of) a cell is computed
once and then added to the cell's cluster in each segmentation, so a pair of rows costs the
same however many segmentations there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpuseg.backends.cpu.simd import LINE_BYTES, ROWS

#: Places are padded to whole float32 lines (which are also whole float64 lines).
LINE = LINE_BYTES // 4

#: What an ordered pair of rows costs beside its features, and what it costs to add a row's
#: sum over a cell to one segmentation, both in multiply-adds. Measured on AVX2; they only
#: choose between plans.
PAIR_OVERHEAD = 8
CELL_OVERHEAD = 50


#: Cells of so many rows fill lines of their own. The others come first, so that they are
#: the rows of the tiles and never their lines when they meet large cells: the sums of a line
#: are moved to other columns in whole vectors, those of a row are not.
LARGE_CELL = 12 * LINE


class Pass(NamedTuple):
    """Segmentations whose distance sums are computed in one pass over the pairs."""

    #: Columns of the result that this pass fills: so many, from the first on.
    first_column: int
    n_columns: int
    #: (n_cells, n_segmentations) int64: columns, counted from the pass's first, of each cell.
    cell_columns: np.ndarray
    #: (n_places,) int64: the row at each place, sorted by cell, -1 for padding. Each cell
    #: starts at a multiple of ROWS, a large one at a multiple of LINE; small cells come first.
    order: np.ndarray
    #: (n_places / ROWS,) int64: the cell of each group of ROWS places.
    group_cell: np.ndarray


def plan_passes(labels: np.ndarray, n_clusters: Sequence[int], n_features: int) -> list[Pass]:
    """Divide the segmentations into passes.

    One pass serves all as long as cells are large. Labels that have nothing in common make
    cells of a row or two, whose padding would cost more than a further pass over the pairs;
    so a segmentation joins the pass of those before it only where that is cheaper.

    Parameters
    ----------
    labels : array of shape (n_segmentations, n_samples), int32
    """
    starts = np.concatenate([[0], np.cumsum(n_clusters)])
    passes: list[Pass] = []
    first, cells = 0, labels[0].astype(np.int64)
    for following in range(1, len(labels) + 1):
        if following < len(labels):
            size = following - first
            joined = _join(cells, labels[following], n_clusters[following])
            alone = labels[following].astype(np.int64)
            together = _cost(joined, size + 1, n_features)
            if together <= _cost(cells, size, n_features) + _cost(alone, 1, n_features):
                cells = joined
                continue
        passes.append(_lay_out(cells, labels[first:following], starts[first : following + 1]))
        if following < len(labels):
            first, cells = following, alone
    return passes


def _join(cells: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Number the combinations of cell and label that occur, from 0."""
    code = cells * n_clusters + labels
    n_codes = (int(cells.max()) + 1) * n_clusters
    if n_codes > 8 * len(cells) + 4096:  # a table of all codes would outgrow the rows
        return np.unique(code, return_inverse=True)[1]
    occurs = np.bincount(code, minlength=n_codes) > 0
    numbers: np.ndarray = (np.cumsum(occurs) - 1)[code]
    return numbers


def _cost(cells: np.ndarray, n_segmentations: int, n_features: int) -> float:
    sizes = np.bincount(cells)
    n_places = float(ROWS * np.ceil(sizes / ROWS).sum())
    per_place = n_places * (n_features + PAIR_OVERHEAD)
    return n_places * (per_place + CELL_OVERHEAD * n_segmentations * np.count_nonzero(sizes))


def _lay_out(cells: np.ndarray, labels: np.ndarray, starts: np.ndarray) -> Pass:
    sizes = np.bincount(cells)
    large = sizes >= LARGE_CELL
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(large, kind="stable")] = np.arange(len(sizes))
    cells = rank[cells]
    by_cell = np.argsort(cells, kind="stable")
    sizes = np.bincount(cells)
    unit = np.where(sizes >= LARGE_CELL, LINE, ROWS)
    n_places = -(-sizes // unit) * unit
    first_place = np.cumsum(n_places) - n_places
    first_large = int(np.count_nonzero(~large))
    if first_large < len(sizes):  # the first large cell begins a line
        first_place[first_large:] += -first_place[first_large] % LINE
    first_row = np.cumsum(sizes) - sizes
    end = -(-int(first_place[-1] + n_places[-1]) // LINE) * LINE

    order = np.full(end, -1, dtype=np.int64)
    order[np.arange(len(cells)) + np.repeat(first_place - first_row, sizes)] = by_cell
    edges = np.append(first_place, end) // ROWS
    group_cell = np.repeat(np.arange(len(sizes)), np.diff(edges))

    cell_columns = np.zeros((len(sizes), len(labels)), dtype=np.int64)
    cell_columns[cells] = labels.T + (starts[:-1] - starts[0])
    n_columns = int(starts[-1] - starts[0])
    return Pass(int(starts[0]), n_columns, cell_columns, order, group_cell)
