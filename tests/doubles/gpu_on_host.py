"""The GPU engine without a GPU: strict arrays, our kernels' own text on the CPU, no cuML."""

from __future__ import annotations

from doubles import cuml_on_host
from doubles.device_arrays import PLACE, DeviceArray, xp
from kernels.cuda_on_host import HostDevice

from gpuseg.backends.cuda_device import checked_arguments
from gpuseg.backends.gpu import GpuBackend


class StrictDevice(HostDevice):
    """A `HostDevice` whose arrays can be reached only as a device's."""

    xp = xp

    def launch(self, kernel, shape, arguments):
        checked_arguments(kernel, arguments, xp, PLACE)
        there = {
            name: value._host if isinstance(value, DeviceArray) else value
            for name, value in arguments.items()
        }
        super().launch(kernel, shape, there)


class CountedDevice(StrictDevice):
    """A `StrictDevice` with so much memory and no more; see `device_arrays.counted`."""

    def __init__(self, memory, **options):
        super().__init__(**options)
        self.memory = memory

    def free_bytes(self):
        return int(min(self.memory.n_bytes - self.memory.used, 2**40))


def streaming_on_host() -> GpuBackend:
    """Return an engine that keeps arrays in host memory, on a device of 1 MiB."""
    return GpuBackend(StrictDevice(free=2**20), cuml_on_host.libraries(), streams=True)


def gpu_on_host() -> GpuBackend:
    return GpuBackend(StrictDevice(), cuml_on_host.libraries())
