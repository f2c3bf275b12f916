"""Which engine runs here, and why."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from gpuseg.backends.base import Backend
from gpuseg.backends.gpu_checks import Check, gpu_checks
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.errors import BackendUnavailableError

log = logging.getLogger("gpuseg")

T = TypeVar("T")


class Engine(NamedTuple):
    """The backend of a run, and why it is this one."""

    backend: Backend
    reason: str
    warnings: tuple[str, ...] = ()

    def where_it_fits(self, work: Callable[[Engine], T]) -> T:
        """Do the work with arrays on the device or, where they do not fit, in host memory.

        Parameters
        ----------
        work
            Done with this engine and, when memory runs out, from its start with one that
            keeps arrays in host memory.

        Raises
        ------
        DeviceMemoryError
            If memory runs out even so.
        """
        try:
            return work(self)
        except MemoryError as error:
            elsewhere = self.backend.in_host_memory()
            if elsewhere is self.backend:
                raise
            obstacle = str(error) or type(error).__name__
        # only here, with the failed attempt's frames and arrays gone, is there memory again
        gc.collect()
        what = in_host_memory(obstacle)
        log.warning(what)
        reason = f"{self.reason}; {what}"
        return work(Engine(elsewhere, reason, (*self.warnings, what)))


def in_host_memory(obstacle: str) -> str:
    """Say where rows are kept when the device cannot hold them, and why."""
    return f"rows are kept in host memory and pass through the GPU in blocks: {obstacle}"


def select_backend(asked: str) -> Engine:
    """Return the engine to use and the reason, for the log, the manifest and the report.

    Parameters
    ----------
    asked
        ``auto``, ``numpy`` or ``gpu``.

    Raises
    ------
    BackendUnavailableError
        If ``gpu`` was asked for and cannot run; it never falls back.
    """
    if asked == "numpy":
        return Engine(NumPyBackend(), "asked for")
    checks = []
    for check in gpu_checks():
        checks.append(check)
        if not check.passed:
            break
    return engine_after(asked, checks)


def engine_after(asked: str, checks: Sequence[Check]) -> Engine:
    """Return the engine that these checks of the GPU lead to.

    Raises
    ------
    BackendUnavailableError
        If ``gpu`` was asked for and a check did not pass.
    """
    obstacle = next((check for check in checks if not check.passed), None)
    if obstacle is None:
        from gpuseg.backends.cuda_device import CupyDevice
        from gpuseg.backends.gpu import GpuBackend

        seen = {check.name: check.detail for check in checks}
        facts = ", ".join(seen[name] for name in ("device", "memory", "CuPy", "RAPIDS"))
        how = "auto" if asked == "auto" else "asked for"
        return Engine(GpuBackend(CupyDevice()), f"{how}: {facts}")
    if asked == "gpu":
        raise BackendUnavailableError(
            f"the GPU backend was asked for, but {obstacle.detail}; {obstacle.remedy}; "
            "or use --backend auto or numpy"
        )
    return Engine(NumPyBackend(), f"auto: {obstacle.detail}")
