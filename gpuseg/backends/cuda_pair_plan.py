"""How the pairs of a distance-sum pass are laid out and launched on a CUDA device.

Array code and arithmetic that run anywhere; ``kernels/silhouette.cu`` reads the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from gpuseg.backends.cuda_device import Device, DeviceLimits, LaunchShape
from gpuseg.backends.gpu.memory import BLOCK_SHARE, in_blocks, rows_per_block
from gpuseg.backends.gpu.rows import on_device, taken
from gpuseg.errors import DataError
from gpuseg.records import Array

# As in kernels/silhouette.cu; a test compares them.
BLOCK_THREADS = 256
TILE = 128
GROUP = 4

BLOCKS_PER_MULTIPROCESSOR = 2

# Differences cost 2 instructions per feature, the expanded form 1 and about 6 per pair.
MAX_FEATURES_BY_DIFFERENCES = 6

# A launch ends, and progress and Ctrl-C get their turn, after about so many pairs: an
# estimated 0.2 s on an H200, 1 s on a small device.
PAIRS_PER_LAUNCH = 2**37

# Waves of blocks that a launch should have, so that an uneven last one costs little.
WAVES = 8

# Adding a finished cell to its slots, in multiply-adds per segmentation. An estimate; it
# only decides when many small cells make several passes cheaper than one.
FLUSH_COST = 64

# Sums of one launch, all parts together.
PART_BYTES = 2**28

# Rows at a time while columns are prepared, to bound the float64 copies.
PREPARE_ROWS = 65_536

# What each of their values takes: it, scaled and centred in float32, centred and squared
# in float64.
PREPARE_VALUE_BYTES = 3 * 4 + 2 * 8


class Cells(NamedTuple):
    """Rows by the tuple of their labels, over one or more segmentations."""

    cell: Array  # (n_samples,) int64, numbered in the order of the tuples
    n_cells: int
    counts: Array  # (n_cells,) int64

    @property
    def n_columns(self) -> int:
        """Columns that the cells take when each fills whole groups and all whole tiles."""
        filled = int(_whole(self.counts, GROUP).sum())
        return int(_whole(filled, TILE))


class Pass(NamedTuple):
    """Segmentations that go through the pairs together."""

    segmentations: slice
    cells: Cells


class Frame(NamedTuple):
    """Where all rows lie, so that blocks of columns and rows are laid out alike."""

    scale: float  # a power of two; columns are X * scale
    centre: Array  # (n_features,) float32, of the scaled rows


class PairPlan(NamedTuple):
    """What the kernel reads, besides sizes; see the head of ``silhouette.cu``.

    Behind the columns there is room for the rows of a launch, in tiles of their own. A launch
    whose last part reaches into these adds them to a slot of their own, the last one.
    """

    columns: Array  # (n_features, n_columns + room) float32
    sq_norms: Array  # (n_columns + room,) float32
    frame: Frame
    tile_cells: Array  # ((n_columns + room) / 128,) int32
    cell_ends: Array  # (n_cells + 1,) int32
    cell_slots: Array  # (n_cells + 1, n_segmentations) int32
    column_of: Array  # (n_samples,) int64, column of each row
    n_columns: int  # without the room


class LaunchPlan(NamedTuple):
    """A launch shape and what the kernel must know of it."""

    shape: LaunchShape  # grid[1] parts of the columns, whose sums the caller adds up
    depth: int  # features per chunk: all of them if two blocks then fit a multiprocessor
    part_tiles: int  # column tiles of a part


def plan_passes(labels: Array, n_features: int, xp: ModuleType) -> list[Pass]:
    """Say which segmentations share a pass: all, unless that makes too many small cells."""
    n_segmentations = len(labels)
    return _cheapest(labels, slice(0, n_segmentations), n_features, xp) if n_segmentations else []


def _cheapest(labels: Array, part: slice, n_features: int, xp: ModuleType) -> list[Pass]:
    # not a function within a function: one that calls itself would keep the labels alive
    together = [Pass(part, joint_cells(labels[part], xp))]
    # two passes cost at least twice the rows, so mostly there is nothing to compare
    affordable = 2 * labels.shape[1] * (n_features + 6)
    if part.stop - part.start == 1 or _cost(together, n_features) <= affordable:
        return together
    middle = (part.start + part.stop) // 2
    halves = (slice(part.start, middle), slice(middle, part.stop))
    apart = [found for half in halves for found in _cheapest(labels, half, n_features, xp)]
    return min(together, apart, key=lambda passes: _cost(passes, n_features))


def _cost(passes: Sequence[Pass], n_features: int) -> int:
    """Return what passes take, in multiply-adds for each row."""
    return sum(
        cells.n_columns * (n_features + 6) + FLUSH_COST * cells.n_cells * (part.stop - part.start)
        for part, cells in passes
    )


def joint_cells(labels: Array, xp: ModuleType) -> Cells:
    """Number the tuples of labels that occur.

    Parameters
    ----------
    labels : Array of shape (m, n_samples), int32
    """
    cell = labels[0].astype(np.int64)
    tuples, cell = xp.unique(cell, return_inverse=True)
    for more in labels[1:]:
        # numbered anew each time, so that the product stays below n * max(n_clusters)
        joint = cell * (int(more.max()) + 1) + more
        tuples, cell = xp.unique(joint, return_inverse=True)
    n_cells = len(tuples)
    return Cells(cell, n_cells, xp.bincount(cell, minlength=n_cells))


def frame_of(device: Device, X: Array) -> Frame:
    """Find the scale and the centre of all rows, which may be on either side.

    Raises
    ------
    DataError
        If a value is not finite.
    """
    xp = device.xp
    largest = max(float(X.max()), -float(X.min()))
    if not math.isfinite(largest):
        raise DataError("X has values that are not finite; expected none")
    scale = _scale(largest)
    total = xp.zeros(X.shape[1], dtype=np.float64)

    def add(rows: slice) -> None:
        total[...] += on_device(device, X, rows).sum(axis=0, dtype=np.float64)

    block = rows_per_block(8 * X.shape[1], device.free_bytes(), at_most=PREPARE_ROWS)
    in_blocks(device, len(X), block, add, operation="silhouette")
    return Frame(scale, (total / len(X) * scale).astype(np.float32))


def plan_pairs(
    device: Device,
    X: Array,
    labels: Array,
    first_slots: Sequence[int],
    cells: Cells,
    *,
    frame: Frame,
    n_slots: int,
    most_rows: int,
) -> PairPlan:
    """Lay rows out as the kernel's columns: by cell, padded, feature-major, scaled.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, on either side
    labels : Array of shape (m, n_samples), int32, on the device
    first_slots
        For each segmentation, the column of the result where its clusters start.
    cells
        The joint cells of these labels.
    n_slots
        Columns of the result; there is one more in a launch.
    most_rows
        How many rows a launch will have, at most.
    """
    xp, (n_samples, n_features) = device.xp, X.shape
    column_of = _columns_of(cells, n_samples, xp)
    width = cells.n_columns + _ceil_div(most_rows, TILE) * TILE
    columns = xp.full((n_features, width), np.nan, dtype=np.float32)
    sq_norms = xp.zeros(width, dtype=np.float32)
    cell_ends = xp.cumsum(_whole(cells.counts, GROUP)) // GROUP
    cell_ends[-1] = cells.n_columns // GROUP  # the last cell takes the padding at the end
    cell_ends = xp.concatenate([cell_ends, xp.full(1, width // GROUP, dtype=cell_ends.dtype)])
    tile_starts = xp.arange(0, width, TILE) // GROUP
    tile_cells = xp.searchsorted(cell_ends, tile_starts, side="right")
    cell_slots = xp.full((cells.n_cells + 1, labels.shape[0]), n_slots, dtype=np.int32)
    offsets = xp.asarray(np.asarray(first_slots, dtype=np.int32))
    cell_slots[cells.cell] = labels.T + offsets
    plan = PairPlan(
        columns=columns,
        sq_norms=sq_norms,
        frame=frame,
        tile_cells=tile_cells.astype(np.int32),
        cell_ends=cell_ends.astype(np.int32),
        cell_slots=cell_slots,
        column_of=column_of,
        n_columns=cells.n_columns,
    )
    for part in _parts(device, n_samples, n_features):
        _put(plan, column_of[part], on_device(device, X, part))
    return plan


def put_rows(device: Device, plan: PairPlan, X: Array, rows: Array) -> Array:
    """Put rows, by their numbers, into the room behind the columns; return their columns."""
    places = plan.n_columns + device.xp.arange(len(rows), dtype=np.int64)
    for part in _parts(device, len(rows), X.shape[1]):
        _put(plan, places[part], taken(device, X, rows[part]))
    return places


def _parts(device: Device, n_rows: int, n_features: int) -> Iterator[slice]:
    """Cut rows so that what is made of them on the way is a share of the free memory."""
    fitting = int(BLOCK_SHARE * device.free_bytes()) // (PREPARE_VALUE_BYTES * n_features)
    length = max(1, min(PREPARE_ROWS, fitting))
    return (slice(start, start + length) for start in range(0, n_rows, length))


def _put(plan: PairPlan, places: Array, rows: Array) -> None:
    """Fill these columns with rows that are on the device."""
    scaled = rows * np.float32(plan.frame.scale)
    plan.columns[:, places] = scaled.T
    # float32 like the kernel's own difference, summed in float64
    centred = (scaled - plan.frame.centre).astype(np.float64)
    plan.sq_norms[places] = (centred * centred).sum(axis=1).astype(np.float32)


def plan_launch(
    n_rows: int,
    n_columns: int,
    n_features: int,
    n_slots: int,
    limits: DeviceLimits,
    part_bytes: int = PART_BYTES,
) -> LaunchPlan:
    """Choose the grid and how many features a block keeps in shared memory."""
    budget = min(
        limits.shared_bytes_per_block,
        # the device keeps 1 KiB of every block for itself
        limits.shared_bytes_per_multiprocessor // BLOCKS_PER_MULTIPROCESSOR - 1024,
    )
    per_feature = shared_bytes(1) - shared_bytes(0)
    depth = max(1, min(n_features, (budget - shared_bytes(0)) // per_feature))
    row_tiles = _ceil_div(n_rows, BLOCK_THREADS // 2)
    n_tiles = n_columns // TILE
    wanted = _ceil_div(WAVES * BLOCKS_PER_MULTIPROCESSOR * limits.n_multiprocessors, row_tiles)
    affordable = max(1, part_bytes // (8 * n_rows * n_slots))
    part_tiles = _ceil_div(n_tiles, min(wanted, affordable, n_tiles))
    grid = (row_tiles, _ceil_div(n_tiles, part_tiles))
    return LaunchPlan(LaunchShape(grid, BLOCK_THREADS, shared_bytes(depth)), depth, part_tiles)


def close_share(n_features: int) -> float:
    """Return the share of ``|x|^2 + |y|^2`` below which a squared distance is not expanded.

    Notes
    -----
    Rounding in the expanded form moves a squared distance by a normal error of about
    ``2e-8 * sqrt(d) * (|x|^2 + |y|^2)``: d additions to a sum that grows, each off by at
    most 2**-24 of it. Four deviations of that are 1e-5 of a distance at the share returned.
    """
    if n_features <= MAX_FEATURES_BY_DIFFERENCES:
        return 4.0  # all of them
    return 0.004 * math.sqrt(n_features)


def shared_bytes(depth: int) -> int:
    """Return the dynamic shared memory of a block, as the head of ``silhouette.cu`` says."""
    n_rows = BLOCK_THREADS // 2
    n_floats = TILE // GROUP * (n_rows + 4) + TILE + n_rows + depth * (TILE + n_rows)
    return 8 * n_rows + 4 * n_floats


def rows_per_launch(
    n_columns: int,
    n_slots: int,
    limits: DeviceLimits,
    *,
    n_features: int = 0,
    part_bytes: int = PART_BYTES,
) -> int:
    """Return how many rows one launch takes: whole waves of blocks if it can be.

    Neither their sums nor, with `n_features`, their values take more than `part_bytes`.
    """
    wave = BLOCK_THREADS // 2 * BLOCKS_PER_MULTIPROCESSOR * limits.n_multiprocessors
    fitting = part_bytes // max(8 * n_slots, 4 * (n_features + 1))
    rows = min(PAIRS_PER_LAUNCH // n_columns, fitting)
    return rows // wave * wave or min(wave, max(1, rows))


def _columns_of(cells: Cells, n_samples: int, xp: ModuleType) -> Array:
    """Return the column of each row: cells one after another, each from a new group on."""
    order = xp.argsort(cells.cell, kind="stable")
    widths = _whole(cells.counts, GROUP)
    # a cell's first column, less the rank of its first row
    shift = (xp.cumsum(widths) - widths) - (xp.cumsum(cells.counts) - cells.counts)
    columns = xp.empty(n_samples, dtype=np.int64)
    columns[order] = xp.arange(n_samples, dtype=np.int64) + shift[cells.cell[order]]
    return columns


def _scale(largest: float) -> float:
    """Return the power of two that brings the largest value to between 0.5 and 1.

    Squares can then neither overflow nor, where it would matter, underflow; a power of
    two changes no other bit.
    """
    exponent = math.frexp(largest)[1]
    # beyond this the scale itself would not be a normal float32
    return math.ldexp(1.0, -min(max(exponent, -126), 126))


def _whole(count: Array, unit: int) -> Array:
    """Round up to a multiple of `unit`."""
    return (count + unit - 1) // unit * unit


def _ceil_div(count: int, unit: int) -> int:
    return -(-count // unit)
