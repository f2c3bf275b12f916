"""The projection onto principal components: launch ``kernels/project.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseg.backends.cuda_device import Device, Kernel, LaunchShape, check_array
from gpuseg.backends.gpu.memory import in_blocks
from gpuseg.backends.gpu.rows import give_back, library_of, on_device, rows_at_once, to_fill
from gpuseg.records import Array

BLOCK_THREADS = 256

#: Blocks for each multiprocessor, at most; more coordinates loop.
BLOCKS_PER_MULTIPROCESSOR = 64

KERNEL = Kernel(
    file="project",
    function="project",
    arrays={"X": "float32", "mean": "float64", "components": "float64", "scores": "float32"},
    scalars={"n_rows": "int64", "n_features": "int32", "n_components": "int32"},
)


def project(device: Device, X: Array, mean: Any, components: Any) -> Array:
    """Return ``(X - mean) @ components.T`` as float32, each row for itself.

    Parameters
    ----------
    X : Array of shape (n_samples, n_features), float32, C order, on either side
    mean : host array of shape (n_features,), float64
    components : host array of shape (n_components, n_features), float64

    Returns
    -------
    scores : Array of shape (n_samples, n_components), float32
        The bits of the NumPy engine, on the side of `X`.
    """
    xp = device.xp
    check_array("X", X, "float32", 2, xp)
    by_feature = np.ascontiguousarray(np.asarray(components, dtype=np.float64).T)
    n_components = by_feature.shape[1]
    scores = library_of(device, X).empty((len(X), n_components), dtype=np.float32)
    if not scores.size:
        return scores
    map_there = (xp.asarray(np.asarray(mean, dtype=np.float64)), xp.asarray(by_feature))

    def fill(rows: slice) -> None:
        part = scores[rows]
        filled = to_fill(device, part)
        _launch(device, on_device(device, X, rows), *map_there, filled)
        give_back(device, part, filled)

    block = rows_at_once(device, X, 4 * (X.shape[1] + n_components))
    in_blocks(device, len(X), block, fill, operation="projection")
    return scores


def _launch(device: Device, X: Array, mean: Array, components: Array, scores: Array) -> None:
    most = BLOCKS_PER_MULTIPROCESSOR * device.limits.n_multiprocessors
    grid = (min(most, -(-scores.size // BLOCK_THREADS)), 1)
    arguments = {
        "X": X,
        "mean": mean,
        "components": components,
        "scores": scores,
        "n_rows": np.int64(len(X)),
        "n_features": np.int32(X.shape[1]),
        "n_components": np.int32(scores.shape[1]),
    }
    device.launch(KERNEL, LaunchShape(grid, BLOCK_THREADS, 0), arguments)
