"""A CUDA device as the launchers see it: its array library, its limits, a checked launch.

CuPy checks neither the number nor the type of a raw kernel's arguments, so each kernel
declares its parameters here and every launch is held against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpuseg.backends.kernel_loader import compiled_kernel
from gpuseg.errors import ShapeError
from gpuseg.records import Array


class DeviceLimits(NamedTuple):
    """What a launch shape depends on."""

    n_multiprocessors: int
    shared_bytes_per_block: int  # at most, when asked for
    shared_bytes_per_multiprocessor: int


class Kernel(NamedTuple):
    """A function of a kernel file, and the type of each parameter in its order."""

    file: str
    function: str
    arrays: Mapping[str, str]  # name to dtype; these come first
    scalars: Mapping[str, str]


class LaunchShape(NamedTuple):
    """How many blocks, of how many threads, with how much dynamic shared memory."""

    grid: tuple[int, int]
    n_threads: int
    shared_bytes: int


class Device(Protocol):
    """Where kernels run."""

    xp: ModuleType
    limits: DeviceLimits

    def launch(self, kernel: Kernel, shape: LaunchShape, arguments: Mapping[str, Any]) -> None:
        """Start the kernel; `arguments` go by name and through `checked_arguments`."""

    def synchronize(self) -> None:
        """Wait until everything that was launched is done."""

    def free_bytes(self) -> int:
        """Return how much memory could be allocated now."""

    def release(self) -> None:
        """Hand memory that the array library keeps for later back to the device.

        cuML allocates for itself and cannot use what CuPy keeps.
        """


class CupyDevice:
    """The current CUDA device, driven by CuPy."""

    def __init__(self) -> None:
        import cupy

        self.xp: ModuleType = cupy
        self._device = cupy.cuda.Device()
        attributes = self._device.attributes
        self.limits = DeviceLimits(
            n_multiprocessors=attributes["MultiProcessorCount"],
            shared_bytes_per_block=attributes["MaxSharedMemoryPerBlockOptin"],
            shared_bytes_per_multiprocessor=attributes["MaxSharedMemoryPerMultiprocessor"],
        )

    def launch(self, kernel: Kernel, shape: LaunchShape, arguments: Mapping[str, Any]) -> None:
        """Start the kernel on the current stream."""
        checked = checked_arguments(kernel, arguments, self.xp, self._device)
        function = compiled_kernel(kernel.file, kernel.function)
        # more than 48 KiB must be asked for, and only then
        if function.max_dynamic_shared_size_bytes < shape.shared_bytes:
            function.max_dynamic_shared_size_bytes = shape.shared_bytes
        function(shape.grid, (shape.n_threads,), checked, shared_mem=shape.shared_bytes)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self.xp.cuda.get_current_stream().synchronize()

    def free_bytes(self) -> int:
        """Return what the device has free and what CuPy keeps unused, within CuPy's limit."""
        pool = self.xp.get_default_memory_pool()
        free, _total = self._device.mem_info
        available = int(free) + int(pool.free_bytes())
        limit = int(pool.get_limit())  # of CUPY_GPU_MEMORY_LIMIT or the process; 0 is none
        return min(available, max(0, limit - int(pool.used_bytes()))) if limit else available

    def release(self) -> None:
        """Free what CuPy keeps unused."""
        self.xp.get_default_memory_pool().free_all_blocks()


def checked_arguments(
    kernel: Kernel, arguments: Mapping[str, Any], xp: ModuleType, place: Any
) -> tuple[Any, ...]:
    """Return the arguments in the kernel's order, once each is what the kernel declares.

    Raises
    ------
    TypeError
        If a name, an array library, a dtype or a memory order is not as declared, or an
        array is not on the device `place`.
    """
    expected = {**kernel.arrays, **kernel.scalars}
    if set(arguments) != set(expected):
        raise TypeError(f"{kernel.function} takes {list(expected)}; got {list(arguments)}")
    for name, dtype in expected.items():
        argument = arguments[name]
        kind = xp.ndarray if name in kernel.arrays else np.generic
        if not isinstance(argument, kind) or argument.dtype != dtype:
            found = f"{type(argument).__name__} {getattr(argument, 'dtype', '')}".rstrip()
            raise TypeError(f"{kernel.function}: {name} must be {dtype}, got {found}")
        if kind is np.generic:
            continue
        if not argument.flags.c_contiguous:
            raise TypeError(f"{kernel.function}: {name} must be in C order")
        if argument.device != place:
            raise TypeError(f"{kernel.function}: {name} is on {argument.device}, not on {place}")
    return tuple(arguments[name] for name in expected)


def check_array(name: str, array: Array, dtype: str, ndim: int, xp: ModuleType) -> None:
    """Refuse an array of another library, dtype, dimension or memory order: ShapeError.

    It may be on the device or in host memory.
    """
    if not isinstance(array, (xp.ndarray, np.ndarray)):
        raise ShapeError(f"{name} is {type(array).__name__}; expected {xp.__name__}.ndarray")
    if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous:
        raise ShapeError(
            f"{name} is {array.dtype}, {array.ndim}-dimensional"
            f"{'' if array.flags.c_contiguous else ', not in C order'}; "
            f"expected {dtype}, {ndim}-dimensional, in C order"
        )
