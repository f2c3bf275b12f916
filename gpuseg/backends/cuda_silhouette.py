"""Distance sums of a whole sweep on a CUDA device: check, plan, launch, collect.

Nothing here but ``device.launch`` needs a device. The kernel is ``kernels/silhouette.cu``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from gpuseg.backends.cuda_device import Device, Kernel, check_array
from gpuseg.backends.cuda_pair_plan import (
    PairPlan,
    close_share,
    plan_launch,
    plan_pairs,
    plan_passes,
    rows_per_launch,
)
from gpuseg.backends.gpu.memory import in_blocks
from gpuseg.errors import DataError, ShapeError
from gpuseg.records import Array, Progress

KERNEL = Kernel(
    file="silhouette",
    function="distance_sums",
    arrays={
        "columns": "float32",
        "sq_norms": "float32",
        "centre": "float32",
        "tile_cells": "int32",
        "cell_ends": "int32",
        "cell_slots": "int32",
        "row_columns": "int64",
        "sums": "float64",
    },
    scalars={
        "n_columns": "int64",
        "n_rows": "int32",
        "n_features": "int32",
        "n_segmentations": "int32",
        "n_slots": "int32",
        "part_tiles": "int32",
        "depth": "int32",
        "close_share": "float32",
    },
)


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


def _run_pass(
    plan: PairPlan, row_ids: Array, sums: Array, progress: Progress, device: Device
) -> None:
    """Add one pass to `sums`, launch by launch, rows in the order of their columns."""
    xp = device.xp
    n_features, n_columns = plan.columns.shape
    order = xp.argsort(plan.column_of[row_ids], kind="stable")
    step = rows_per_launch(n_columns, sums.shape[1], device.limits)

    def add(rows: slice) -> None:
        batch = order[rows]
        launch = plan_launch(len(batch), n_columns, n_features, sums.shape[1], device.limits)
        parts = xp.zeros((launch.shape.grid[1], len(batch), sums.shape[1]), dtype=np.float64)
        arguments = {
            "columns": plan.columns,
            "sq_norms": plan.sq_norms,
            "centre": plan.centre,
            "tile_cells": plan.tile_cells,
            "cell_ends": plan.cell_ends,
            "cell_slots": plan.cell_slots,
            "row_columns": plan.column_of[row_ids[batch]],
            "sums": parts,
            "n_columns": np.int64(n_columns),
            "n_rows": np.int32(len(batch)),
            "n_features": np.int32(n_features),
            "n_segmentations": np.int32(plan.cell_slots.shape[1]),
            "n_slots": np.int32(sums.shape[1]),
            "part_tiles": np.int32(launch.part_tiles),
            "depth": np.int32(launch.depth),
            "close_share": np.float32(close_share(n_features)),
        }
        device.launch(KERNEL, launch.shape, arguments)
        sums[batch] += parts.sum(axis=0) / plan.scale
        device.synchronize()

    in_blocks(device, len(row_ids), step, add, operation="silhouette", progress=progress)


def _check(
    X: Array, labels: Array, n_clusters: Sequence[int], rows: Array | None, xp: ModuleType
) -> None:
    """Refuse what the kernel must not see."""
    check_array("X", X, "float32", 2, xp)
    check_array("labels", labels, "int32", 2, xp)
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
    check_array("rows", rows, "int64", 1, xp)
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= X.shape[0]):
        raise DataError(
            f"rows run from {int(rows.min())} to {int(rows.max())}; X has {X.shape[0]} rows"
        )
