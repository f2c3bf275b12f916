"""The engines that must keep the contracts of the seam."""

from __future__ import annotations

import os

import pytest
from doubles.gpu_on_host import gpu_on_host, streaming_on_host

from gpuseg.backends.gpu import GpuBackend
from gpuseg.backends.numpy import NumPyBackend


def real_gpu():
    """Return the engine on a device, or skip; under GPUSEG_REQUIRE_GPU=1 absence fails."""
    try:
        import cupy  # noqa: TID251

        reason = None if cupy.cuda.is_available() else "no CUDA device"
    except ImportError as error:
        reason = f"CuPy cannot be imported: {error}"
    if reason is None:
        from gpuseg.backends.cuda_device import CupyDevice

        return GpuBackend(CupyDevice())
    if os.environ.get("GPUSEG_REQUIRE_GPU") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def streaming_gpu():
    """Return the engine on a device, with arrays in host memory."""
    return real_gpu().in_host_memory()


ENGINES = {
    "numpy": NumPyBackend,
    "gpu-on-host": gpu_on_host,
    "streaming-on-host": streaming_on_host,
    "gpu": real_gpu,
    "streaming-gpu": streaming_gpu,
}
ON_A_GPU = [pytest.param(name, marks=pytest.mark.gpu) for name in ("gpu", "streaming-gpu")]


@pytest.fixture(
    scope="module",
    params=["numpy", "gpu-on-host", "streaming-on-host", *ON_A_GPU],
)
def backend(request):
    return ENGINES[request.param]()


@pytest.fixture(scope="module", params=["gpu-on-host", "streaming-on-host", *ON_A_GPU])
def gpu(request):
    return ENGINES[request.param]()
