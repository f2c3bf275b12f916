"""The assignment of rows to centroids: check, plan, launch ``kernels/nearest.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseg.backends.cuda_device import Device, DeviceLimits, Kernel, LaunchShape, check_array
from gpuseg.backends.gpu.memory import ASSIGNMENT_BYTES, in_blocks
from gpuseg.backends.gpu.rows import give_back, library_of, on_device, rows_at_once, to_fill
from gpuseg.errors import ShapeError
from gpuseg.records import Array, Assignment, Progress, no_progress

# As in kernels/nearest.cu; a test compares them.
BLOCK_THREADS = 128
BLOCK_ROWS = 2 * BLOCK_THREADS
WIDTH = 8

BLOCKS_PER_MULTIPROCESSOR = 3

#: A grid has at most so many blocks for each that can run at once; more rows loop.
WAVES = 16

KERNEL = Kernel(
    file="nearest",
    function="nearest",
    arrays={
        "X": "float32",
        "centroids": "float32",
        "labels": "int32",
        "sq_distances": "float32",
        "second_labels": "int32",
        "second_sq_distances": "float32",
    },
    scalars={"n_rows": "int64", "n_features": "int32", "n_clusters": "int32", "depth": "int32"},
)


def assign(
    device: Device, X: Array, centroids: Any, *, progress: Progress = no_progress
) -> Assignment:
    """Find the nearest and second nearest centroid of every row; see ``Backend.assign``.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, C order, finite, on either side
    centroids : host or device array of shape (n_clusters, n_features)

    Returns
    -------
    Assignment
        The bits of the NumPy engine, on the side of `X`.

    Raises
    ------
    ShapeError
        If an array has another type or shape than stated.
    """
    there = checked_centroids(device, X, centroids)
    home, (n_samples, n_features) = library_of(device, X), X.shape
    found = Assignment(
        labels=home.empty(n_samples, dtype=np.int32),
        sq_distances=home.empty(n_samples, dtype=np.float32),
        second_labels=home.empty(n_samples, dtype=np.int32),
        second_sq_distances=home.empty(n_samples, dtype=np.float32),
    )

    def find(rows: slice) -> None:
        parts = [array[rows] for array in found]
        filled = Assignment(*(to_fill(device, part) for part in parts))
        launch(device, on_device(device, X, rows), there, filled)
        for part, values in zip(parts, filled, strict=True):
            give_back(device, part, values)

    block = rows_at_once(device, X, 4 * n_features + ASSIGNMENT_BYTES)
    in_blocks(device, n_samples, block, find, operation="assignment", progress=progress)
    return found


def launch(device: Device, X: Array, centroids: Array, found: Assignment) -> None:
    """Fill an assignment; all arrays are on the device and as `KERNEL` declares them."""
    n_samples, n_features = X.shape
    shape, depth = plan_launch(n_samples, n_features, device.limits)
    scalars = {
        "n_rows": np.int64(n_samples),
        "n_features": np.int32(n_features),
        "n_clusters": np.int32(len(centroids)),
        "depth": np.int32(depth),
    }
    device.launch(KERNEL, shape, {"X": X, "centroids": centroids, **found._asdict(), **scalars})


def checked_centroids(device: Device, X: Array, centroids: Any) -> Array:
    """Return the centroids as the kernel reads them; ShapeError if it would misread either."""
    xp = device.xp
    there = xp.ascontiguousarray(xp.asarray(centroids, dtype=np.float32))
    check_array("X", X, "float32", 2, xp)
    if not X.size or there.ndim != 2 or not len(there) or there.shape[1] != X.shape[1]:
        raise ShapeError(
            f"X has shape {X.shape} and centroids {there.shape}; expected rows and features, "
            "and centroids of as many features"
        )
    return there


def plan_launch(n_rows: int, n_features: int, limits: DeviceLimits) -> tuple[LaunchShape, int]:
    """Choose the grid, and how many features a block keeps in shared memory."""
    budget = min(
        limits.shared_bytes_per_block,
        # the device keeps 1 KiB of every block for itself
        limits.shared_bytes_per_multiprocessor // BLOCKS_PER_MULTIPROCESSOR - 1024,
    )
    depth = max(1, min(n_features, budget // shared_bytes(1)))
    most = WAVES * BLOCKS_PER_MULTIPROCESSOR * limits.n_multiprocessors
    grid = (min(most, -(-n_rows // BLOCK_ROWS)), 1)
    return LaunchShape(grid, BLOCK_THREADS, shared_bytes(depth)), depth


def shared_bytes(depth: int) -> int:
    """Return the dynamic shared memory of a block, as the head of ``nearest.cu`` says."""
    return 4 * depth * (WIDTH + BLOCK_ROWS + 1)
