"""Distance sums of a whole sweep on a CUDA device: plan, launch, collect.

`plan_pairs` and `launch_shape` are array code and arithmetic that run anywhere; only
``device.launch`` needs the device. The kernel is ``kernels/silhouette.cu``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from gpuseg.backends.cuda_device import Device, DeviceLimits, Kernel, LaunchShape
from gpuseg.errors import DataError, ShapeError
from gpuseg.records import Array, Progress

KERNEL = Kernel(
    file="silhouette",
    function="distance_sums",
    arrays={
        "columns": "float32",
        "sq_norms": "float32",
        "centre": "float32",
        "group_cell": "int32",
        "cell_slots": "int32",
        "row_columns": "int64",
        "sums": "float64",
    },
    scalars={
        "n_columns": "int64",
        "n_rows": "int64",
        "n_features": "int32",
        "n_segmentations": "int32",
        "n_slots": "int32",
        "depth": "int32",
        "expand": "int32",
    },
)

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


class PairPlan(NamedTuple):
    """What the kernel reads, besides sizes; see the head of ``silhouette.cu``."""

    columns: Array  # (n_features, n_columns) float32
    sq_norms: Array  # (n_columns,) float32
    centre: Array  # (n_features,) float32
    group_cell: Array  # (n_columns / 4,) int32
    cell_slots: Array  # (n_cells, n_segmentations) int32
    column_of: Array  # (n_samples,) int64, column of each row
    scale: float  # a power of two; columns are X * scale


def distance_sums(
    X: Array,
    labels: Array,
    n_clusters: Sequence[int],
    *,
    rows: Array | None,
    progress: Progress,
    device: Device,
) -> Array:
    """Sum each row's Euclidean distances to every cluster of every segmentation.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, C order, finite, on the device
    labels : Array of shape (m, n_samples), int32, C order, on the device
        Labels of m segmentations, each in ``[0, n_clusters[i])``.
    rows : Array of shape (r,), int64, or None for all rows
        Rows whose sums are wanted; the sums still run over all rows.
    device
        Where the arrays are and the kernel runs.

    Returns
    -------
    sums : Array of shape (r, sum(n_clusters)), float64
        The columns of segmentation i follow those of i - 1. An empty cluster gives 0.

    Raises
    ------
    ShapeError
        If an array has another type, order or shape than said above.
    DataError
        If a label or a row is out of range, or `X` is not finite.
    """
    xp = device.xp
    _check(X, labels, n_clusters, rows, xp)
    row_ids = xp.arange(X.shape[0], dtype=np.int64) if rows is None else rows
    slots = [0, *itertools.accumulate(n_clusters)]
    sums = xp.zeros((len(row_ids), slots[-1]), dtype=np.float64)
    passes = plan_passes(labels, X.shape[1], xp)
    progress(0.0)
    for done, (segmentations, cells) in enumerate(passes):
        plan = plan_pairs(X, labels[segmentations], slots[segmentations], cells, xp)

        def report(fraction: float, done: int = done) -> None:
            progress((done + fraction) / len(passes))

        _run_pass(plan, row_ids, sums, report, device)
    progress(1.0)
    return sums


def plan_passes(labels: Array, n_features: int, xp: ModuleType) -> list[Pass]:
    """Say which segmentations share a pass: all, unless that makes too many small cells."""
    n_segmentations, n_samples = labels.shape

    def cost(passes: list[Pass]) -> int:
        return sum(
            cells.n_columns * (n_features + 6)
            + FLUSH_COST * cells.n_cells * (part.stop - part.start)
            for part, cells in passes
        )

    def best(start: int, stop: int) -> list[Pass]:
        part = slice(start, stop)
        together = [Pass(part, joint_cells(labels[part], xp))]
        # two passes cost at least twice the rows, so mostly there is nothing to compare
        if stop - start == 1 or cost(together) <= 2 * n_samples * (n_features + 6):
            return together
        middle = (start + stop) // 2
        apart = best(start, middle) + best(middle, stop)
        return min(together, apart, key=cost)

    return best(0, n_segmentations) if n_segmentations else []


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


def plan_pairs(
    X: Array, labels: Array, first_slots: Sequence[int], cells: Cells, xp: ModuleType
) -> PairPlan:
    """Lay the rows out as the kernel's columns: by cell, padded, feature-major, scaled.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32
    labels : Array of shape (m, n_samples), int32
    first_slots
        For each segmentation, the column of the result where its clusters start.
    cells
        The joint cells of these labels.
    """
    n_samples, n_features = X.shape
    scale = _scale(X)
    column_of = _columns_of(cells, n_samples, xp)
    columns = xp.full((n_features, cells.n_columns), np.nan, dtype=np.float32)
    sq_norms = xp.zeros(cells.n_columns, dtype=np.float32)
    centre = (X.mean(axis=0, dtype=np.float64) * scale).astype(np.float32)
    for start in range(0, n_samples, PREPARE_ROWS):
        part = slice(start, start + PREPARE_ROWS)
        scaled = X[part] * np.float32(scale)
        columns[:, column_of[part]] = scaled.T
        # float32 like the kernel's own difference, summed in float64
        centred = (scaled - centre).astype(np.float64)
        sq_norms[column_of[part]] = (centred * centred).sum(axis=1).astype(np.float32)
    group_cell = xp.full(cells.n_columns // GROUP, cells.n_cells - 1, dtype=np.int32)
    group_cell[column_of // GROUP] = cells.cell.astype(np.int32)
    cell_slots = xp.empty((cells.n_cells, labels.shape[0]), dtype=np.int32)
    offsets = xp.asarray(np.asarray(first_slots, dtype=np.int32))
    cell_slots[cells.cell] = labels.T + offsets
    return PairPlan(columns, sq_norms, centre, group_cell, cell_slots, column_of, scale)


def launch_shape(
    n_rows: int, n_columns: int, n_features: int, n_slots: int, limits: DeviceLimits
) -> tuple[LaunchShape, int]:
    """Choose the grid and how many features a block keeps in shared memory.

    Returns
    -------
    shape
        ``grid[1]`` parts of the columns, whose sums the caller adds up.
    depth
        Features per chunk: all of them if two blocks then still fit a multiprocessor.
    """
    budget = min(
        limits.shared_bytes_per_block,
        # the device keeps 1 KiB of every block for itself
        limits.shared_bytes_per_multiprocessor // BLOCKS_PER_MULTIPROCESSOR - 1024,
    )
    per_feature = shared_bytes(1) - shared_bytes(0)
    depth = max(1, min(n_features, (budget - shared_bytes(0)) // per_feature))
    row_tiles = -(-n_rows // (BLOCK_THREADS // 2))
    wanted = WAVES * BLOCKS_PER_MULTIPROCESSOR * limits.n_multiprocessors
    affordable = max(1, PART_BYTES // (8 * n_rows * n_slots))
    n_parts = min(-(-wanted // row_tiles), n_columns // TILE, affordable)
    return LaunchShape((row_tiles, n_parts), BLOCK_THREADS, shared_bytes(depth)), depth


def shared_bytes(depth: int) -> int:
    """Return the dynamic shared memory of a block, as the head of ``silhouette.cu`` says."""
    n_rows = BLOCK_THREADS // 2
    n_floats = TILE // GROUP * (n_rows + 4) + TILE + n_rows + depth * (TILE + n_rows)
    return 8 * n_rows + 4 * n_floats


def rows_per_launch(n_columns: int, n_slots: int, limits: DeviceLimits) -> int:
    """Return how many rows one launch takes: whole waves of blocks if it can be."""
    wave = BLOCK_THREADS // 2 * BLOCKS_PER_MULTIPROCESSOR * limits.n_multiprocessors
    rows = min(PAIRS_PER_LAUNCH // n_columns, PART_BYTES // (8 * n_slots))
    return rows // wave * wave or min(wave, max(1, rows))


def _run_pass(
    plan: PairPlan, row_ids: Array, sums: Array, progress: Progress, device: Device
) -> None:
    """Add one pass to `sums`, launch by launch, rows in the order of their columns."""
    xp = device.xp
    n_features, n_columns = plan.columns.shape
    order = xp.argsort(plan.column_of[row_ids], kind="stable")
    step = rows_per_launch(n_columns, sums.shape[1], device.limits)
    for start in range(0, len(row_ids), step):
        batch = order[start : start + step]
        shape, depth = launch_shape(len(batch), n_columns, n_features, sums.shape[1], device.limits)
        parts = xp.zeros((shape.grid[1], len(batch), sums.shape[1]), dtype=np.float64)
        arguments = {
            "columns": plan.columns,
            "sq_norms": plan.sq_norms,
            "centre": plan.centre,
            "group_cell": plan.group_cell,
            "cell_slots": plan.cell_slots,
            "row_columns": plan.column_of[row_ids[batch]],
            "sums": parts,
            "n_columns": np.int64(n_columns),
            "n_rows": np.int64(len(batch)),
            "n_features": np.int32(n_features),
            "n_segmentations": np.int32(plan.cell_slots.shape[1]),
            "n_slots": np.int32(sums.shape[1]),
            "depth": np.int32(depth),
            "expand": np.int32(n_features > MAX_FEATURES_BY_DIFFERENCES),
        }
        device.launch(KERNEL, shape, arguments)
        sums[batch] += parts.sum(axis=0) / plan.scale
        device.synchronize()
        progress(min(1.0, (start + step) / len(row_ids)))


def _columns_of(cells: Cells, n_samples: int, xp: ModuleType) -> Array:
    """Return the column of each row: cells one after another, each from a new group on."""
    order = xp.argsort(cells.cell, kind="stable")
    widths = _whole(cells.counts, GROUP)
    # a cell's first column, less the rank of its first row
    shift = (xp.cumsum(widths) - widths) - (xp.cumsum(cells.counts) - cells.counts)
    columns = xp.empty(n_samples, dtype=np.int64)
    columns[order] = xp.arange(n_samples, dtype=np.int64) + shift[cells.cell[order]]
    return columns


def _scale(X: Array) -> float:
    """Return the power of two that brings the largest value of X to between 0.5 and 1.

    Squares can then neither overflow nor, where it would matter, underflow; a power of
    two changes no other bit.
    """
    largest = max(float(X.max()), -float(X.min()))
    exponent = math.frexp(largest)[1]
    # beyond this the scale itself would not be a normal float32
    return math.ldexp(1.0, -min(max(exponent, -126), 126))


def _whole(count: Array, unit: int) -> Array:
    """Round up to a multiple of `unit`."""
    return (count + unit - 1) // unit * unit


def _check(
    X: Array, labels: Array, n_clusters: Sequence[int], rows: Array | None, xp: ModuleType
) -> None:
    """Refuse what the kernel must not see."""
    _check_array("X", X, "float32", 2, xp)
    _check_array("labels", labels, "int32", 2, xp)
    if 0 in X.shape:
        raise ShapeError(f"X has shape {X.shape}; it needs at least one row and one column")
    if labels.shape != (len(n_clusters), X.shape[0]):
        raise ShapeError(
            f"labels have shape {labels.shape}; expected {(len(n_clusters), X.shape[0])}: "
            "one row of labels for each entry of n_clusters, one label for each row of X"
        )
    if not bool(xp.isfinite(X).all()):
        raise DataError("X has values that are not finite; expected none")
    for k, of_k in zip(n_clusters, labels, strict=True):
        if int(of_k.min()) < 0 or int(of_k.max()) >= k:
            found = f"from {int(of_k.min())} to {int(of_k.max())}"
            raise DataError(f"labels run {found}; expected 0 to {k - 1} for {k} clusters")
    if rows is None:
        return
    _check_array("rows", rows, "int64", 1, xp)
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= X.shape[0]):
        raise DataError(
            f"rows run from {int(rows.min())} to {int(rows.max())}; X has {X.shape[0]} rows"
        )


def _check_array(name: str, array: Array, dtype: str, ndim: int, xp: ModuleType) -> None:
    if not isinstance(array, xp.ndarray):
        raise ShapeError(f"{name} is {type(array).__name__}; expected {xp.__name__}.ndarray")
    if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous:
        raise ShapeError(
            f"{name} is {array.dtype}, {array.ndim}-dimensional"
            f"{'' if array.flags.c_contiguous else ', not in C order'}; "
            f"expected {dtype}, {ndim}-dimensional, in C order"
        )
