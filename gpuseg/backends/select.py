"""Which engine runs here, and why. Looks without importing any GPU library."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from typing import NamedTuple

from gpuseg.backends.base import Backend
from gpuseg.errors import BackendUnavailableError

#: Name of the driver's library on each platform.
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


class Engine(NamedTuple):
    """The backend of a run, and why it is this one."""

    backend: Backend
    reason: str


def select_backend(asked: str) -> Engine:
    """Return the engine to use and the reason, for the log, the manifest and the report.

    Parameters
    ----------
    asked
        ``auto``, ``numpy`` or ``gpu``.

    Raises
    ------
    BackendUnavailableError
        If ``gpu`` was asked for; it never falls back.
    """
    from gpuseg.backends.numpy import NumPyBackend

    if asked == "numpy":
        return Engine(NumPyBackend(), "asked for")
    obstacle = gpu_obstacle()
    if asked == "gpu":
        raise BackendUnavailableError(
            f"the GPU backend was asked for, but {obstacle}; use --backend auto or numpy"
        )
    return Engine(NumPyBackend(), f"auto: {obstacle}")


def gpu_obstacle() -> str:
    """Say in words what keeps the GPU backend from running here.

    This version has no GPU engine yet, so there is always an obstacle; a machine without
    a driver is told that first, because it would stay one after an upgrade.
    """
    driver = driver_version()
    if driver is None:
        return f"no NVIDIA driver was found ({DRIVER} cannot be loaded)"
    return f"this version of gpuseg has no GPU engine yet (the driver supports CUDA {driver})"


def driver_version() -> str | None:
    """Return the CUDA version that the driver supports, e.g. ``13.0``; None without one."""
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"
