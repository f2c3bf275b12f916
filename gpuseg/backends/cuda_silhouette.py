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
    PART_BYTES,
    TILE,
    PairPlan,
    close_share,
    frame_of,
    joint_cells,
    plan_launch,
    plan_pairs,
    plan_passes,
    put_rows,
    rows_per_launch,
)
from gpuseg.backends.gpu.memory import (
    BLOCK_SHARE,
    in_blocks,
    pair_row_bytes,
    rows_per_block,
)
from gpuseg.backends.gpu.rows import is_there, library_of, on_device
from gpuseg.errors import DataError, ShapeError
from gpuseg.records import Array, Progress, part

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
    X : Array of shape (n_samples, n_features), float32, C order, finite, on either side
    labels : Array of shape (m, n_samples), int32, C order, on the side of `X`
        Labels of m segmentations, each in ``[0, n_clusters[i])``.
    rows : Array of shape (r,), int64, or None for all rows
        Rows whose sums are wanted; the sums still run over all rows.
    device
        Where the kernel runs.

    Returns
    -------
    sums : Array of shape (r, sum(n_clusters)), float64
        On the side of `X`. The columns of segmentation i follow those of i - 1. An empty
        cluster gives 0.

    Raises
    ------
    ShapeError
        If an array has another type, order or shape than said above.
    DataError
        If a label or a row is out of range, or `X` is not finite.
    """
    _check(X, labels, n_clusters, rows, device.xp)
    work = _Work(device, X, labels, n_clusters, rows)
    row_bytes = pair_row_bytes(X.shape[1], len(n_clusters))
    n_columns = rows_per_block(row_bytes, device.free_bytes(), at_most=len(X))

    def add(columns: slice) -> None:
        begin, end = columns.start / len(X), columns.stop / len(X)
        work.add(columns, part(progress, begin, end))

    progress(0.0)
    in_blocks(device, len(X), n_columns, add, operation="silhouette")
    progress(1.0)
    return work.sums


class _Work:
    """The sums of a call, which grow block of columns by block of columns."""

    def __init__(
        self,
        device: Device,
        X: Array,
        labels: Array,
        n_clusters: Sequence[int],
        rows: Array | None,
    ) -> None:
        home = library_of(device, X)
        self._device, self._X, self._labels = device, X, labels
        self._slots = [0, *itertools.accumulate(n_clusters)]
        self._frame = frame_of(device, X)
        row_ids = home.arange(X.shape[0], dtype=np.int64) if rows is None else rows
        self.sums = home.zeros((len(row_ids), self._slots[-1]), dtype=np.float64)
        # rows of a cell side by side: their distances are alike, and so is the kernel's way
        self._order = home.arange(len(row_ids), dtype=np.int64)
        if len(row_ids):
            of_rows = joint_cells(labels[:, row_ids], home)
            self._order = home.argsort(of_rows.cell, kind="stable")
        self._row_ids = row_ids[self._order]

    def add(self, columns: slice, progress: Progress) -> None:
        """Add the distances to these rows; all or, where memory runs out, nothing."""
        xp, free = self._device.xp, self._device.free_bytes()
        labels = xp.ascontiguousarray(on_device(self._device, self._labels[:, columns]))
        X = self._X[columns]
        target = self.sums
        if columns.start > 0:
            target = library_of(self._device, X).zeros(self.sums.shape, dtype=np.float64)
        target[...] = 0
        passes = plan_passes(labels, X.shape[1], xp)
        for done, (segmentations, cells) in enumerate(passes):
            # columns were given half of what is free; half of the rest is for launches
            part_bytes = min(PART_BYTES, int(BLOCK_SHARE * free) // 8)
            step = self._rows_per_launch(cells.n_columns, part_bytes)
            plan = plan_pairs(
                self._device,
                X,
                labels[segmentations],
                self._slots[segmentations],
                cells,
                frame=self._frame,
                n_slots=self._slots[-1],
                most_rows=step,
            )
            report = part(progress, done / len(passes), (done + 1) / len(passes))
            self._launch_all(plan, target, step, part_bytes, report)
            del plan
        if target is not self.sums:
            self.sums += target

    def _rows_per_launch(self, n_columns: int, part_bytes: int) -> int:
        """Return how many rows a launch takes, with room for them beside the columns."""
        step = rows_per_launch(
            n_columns,
            self._slots[-1] + 1,
            self._device.limits,
            n_features=self._X.shape[1],
            part_bytes=part_bytes,
        )
        # their room is whole tiles
        return max(1, min(max(TILE, step), len(self._row_ids)))

    def _launch_all(
        self, plan: PairPlan, target: Array, step: int, part_bytes: int, progress: Progress
    ) -> None:
        """Add one pass to `target`, launch by launch."""

        def add(rows: slice) -> None:
            found = self._launch(plan, self._row_ids[rows], part_bytes)
            batch = self._order[rows]
            if not is_there(self._device, target):
                found = self._device.xp.asnumpy(found)
            target[batch] += found
            self._device.synchronize()

        in_blocks(
            self._device,
            len(self._row_ids),
            step,
            add,
            operation="silhouette",
            progress=progress,
        )

    def _launch(self, plan: PairPlan, rows: Array, part_bytes: int) -> Array:
        """Return the sums of these rows over the plan's columns."""
        xp, device = self._device.xp, self._device
        n_features, width = plan.columns.shape
        n_slots = self._slots[-1] + 1
        launch = plan_launch(
            len(rows), plan.n_columns, n_features, n_slots, device.limits, part_bytes
        )
        parts = xp.zeros((launch.shape.grid[1], len(rows), n_slots), dtype=np.float64)
        arguments = {
            "columns": plan.columns,
            "sq_norms": plan.sq_norms,
            "centre": plan.frame.centre,
            "tile_cells": plan.tile_cells,
            "cell_ends": plan.cell_ends,
            "cell_slots": plan.cell_slots,
            "row_columns": put_rows(device, plan, self._X, rows),
            "sums": parts,
            "n_columns": np.int64(width),
            "n_rows": np.int32(len(rows)),
            "n_features": np.int32(n_features),
            "n_segmentations": np.int32(plan.cell_slots.shape[1]),
            "n_slots": np.int32(n_slots),
            "part_tiles": np.int32(launch.part_tiles),
            "depth": np.int32(launch.depth),
            "close_share": np.float32(close_share(n_features)),
        }
        device.launch(KERNEL, launch.shape, arguments)
        return parts.sum(axis=0)[:, :-1] / plan.frame.scale


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
