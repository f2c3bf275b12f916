"""How close an operation must come to its oracle, on any backend: one table."""

from __future__ import annotations

import numpy as np

#: operation -> (relative, absolute) tolerance. Absolute ones belong to data of size 1 to 10.
TOLERANCE = {
    "covariance": (1e-9, 1e-9),
    "mean": (1e-12, 1e-12),
    "project": (1e-6, 1e-5),
    "assign": (2e-6, 1e-6),  # float32 sums of squares
    "inertia": (1e-6, 1e-6),
    "optimum": (1e-4, 1e-6),  # another run into the same optimum
    "centroids": (1e-6, 1e-6),  # means, rounded to float32
    "distance_sums": (1e-5, 1e-30),
    "importance": (1e-6, 1e-6),  # float32 on the GPU
    "shap": (1e-5, 2e-6),
}


def assert_close(backend, found, expected, operation):
    """Compare an array of the backend, or of the host, with what an oracle says."""
    host = np.asarray(backend.to_host(found))
    assert np.isfinite(host).all(), f"{operation}: not finite"
    assert host.shape == np.shape(expected)
    relative, absolute = TOLERANCE[operation]
    np.testing.assert_allclose(host, expected, rtol=relative, atol=absolute, err_msg=operation)


def assert_on_backend(backend, array, dtype):
    """The array lives where the backend lives: nothing fell back to the host on the way."""
    assert isinstance(array, backend.xp.ndarray), type(array)
    assert array.dtype == dtype
    assert array.flags.c_contiguous
