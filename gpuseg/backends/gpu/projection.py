"""The projection onto principal components: launch ``kernels/project.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseg.backends.cuda_device import Device, Kernel, LaunchShape, check_array
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
    X : Array of shape (n_samples, n_features), float32, C order, on the device
    mean : host array of shape (n_features,), float64
    components : host array of shape (n_components, n_features), float64

    Returns
    -------
    scores : Array of shape (n_samples, n_components), float32
        The bits of the NumPy engine.
    """
    xp = device.xp
    check_array("X", X, "float32", 2, xp)
    n_samples, n_features = X.shape
    by_feature = np.ascontiguousarray(np.asarray(components, dtype=np.float64).T)
    scores = xp.empty((n_samples, by_feature.shape[1]), dtype=np.float32)
    if not scores.size:
        return scores
    most = BLOCKS_PER_MULTIPROCESSOR * device.limits.n_multiprocessors
    grid = (min(most, -(-scores.size // BLOCK_THREADS)), 1)
    arguments = {
        "X": X,
        "mean": xp.asarray(np.asarray(mean, dtype=np.float64)),
        "components": xp.asarray(by_feature),
        "scores": scores,
        "n_rows": np.int64(n_samples),
        "n_features": np.int32(n_features),
        "n_components": np.int32(by_feature.shape[1]),
    }
    device.launch(KERNEL, LaunchShape(grid, BLOCK_THREADS, 0), arguments)
    return scores
