"""The engine that runs on an NVIDIA GPU: CuPy arrays, cuML, and kernels of our own.

All array work goes through ``device.xp``, so that the same code runs in the tests on a
machine without a GPU. What runs where, and why, is in ``docs/decisions/gpu-engine.md``.
"""

from gpuseg.backends.gpu.backend import GpuBackend

__all__ = ["GpuBackend"]
