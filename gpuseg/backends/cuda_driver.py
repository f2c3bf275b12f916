"""The NVIDIA driver, asked directly: what is there, without importing a GPU library."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, NamedTuple

#: Name of the driver's library on each platform.
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

#: Codes and attributes as in cuda.h.
NO_DEVICE = 100
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


class DriverCallError(RuntimeError):
    """A call of the driver failed, or the driver has no such call."""

    def __init__(self, function: str, code: int, meaning: str) -> None:
        super().__init__(f"{function} failed with {meaning}")
        self.code = code


class DeviceFacts(NamedTuple):
    """What the driver says about a device."""

    name: str
    capability: tuple[int, int]  # compute capability, e.g. (9, 0)


class Driver:
    """The driver's library, loaded but not yet initialised.

    Raises
    ------
    OSError
        If it cannot be loaded.
    """

    def __init__(self, library: str = DRIVER) -> None:
        self._library = ctypes.CDLL(library)

    def start(self) -> None:
        """Initialise the driver.

        Raises
        ------
        DriverCallError
            With the code `NO_DEVICE` where it sees no device.
        """
        self._call("cuInit", 0)

    def cuda_version(self) -> tuple[int, int]:
        """Return the newest CUDA version that the driver supports; needs no start."""
        version = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        return version.value // 1000, version.value % 1000 // 10

    def device_count(self) -> int:
        """Return the number of devices that this process may use."""
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def device(self, ordinal: int) -> DeviceFacts:
        """Return what a device is."""
        handle = self._handle(ordinal)
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, len(name), handle)
        numbers = (ctypes.c_int(), ctypes.c_int())
        for number, attribute in zip(numbers, (_CAPABILITY_MAJOR, _CAPABILITY_MINOR), strict=True):
            self._call("cuDeviceGetAttribute", ctypes.byref(number), attribute, handle)
        text = name.value.decode("utf-8", "replace")
        return DeviceFacts(text, (numbers[0].value, numbers[1].value))

    def memory(self, ordinal: int) -> tuple[int, int]:
        """Return the free and the total bytes of a device.

        Only a context can tell; the one that the run would use is made, and left again.
        """
        handle, context = self._handle(ordinal), ctypes.c_void_p()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        try:
            self._call("cuCtxPushCurrent_v2", context)
            self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
            self._call("cuCtxPopCurrent_v2", ctypes.byref(context))
        finally:
            self._call("cuDevicePrimaryCtxRelease_v2", handle)
        return free.value, total.value

    def _handle(self, ordinal: int) -> ctypes.c_int:
        handle = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), ordinal)
        return handle

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            code = int(getattr(self._library, function)(*arguments))
        except AttributeError:
            raise DriverCallError(function, -1, "no such function: no NVIDIA driver") from None
        if code != 0:
            raise DriverCallError(function, code, self._meaning(code))

    def _meaning(self, code: int) -> str:
        """Return the driver's name of an error, e.g. CUDA_ERROR_UNKNOWN (999)."""
        name = ctypes.c_char_p()
        try:
            self._library.cuGetErrorName(code, ctypes.byref(name))
        except AttributeError:
            return f"error {code}"
        return f"{name.value.decode()} ({code})" if name.value else f"error {code}"
