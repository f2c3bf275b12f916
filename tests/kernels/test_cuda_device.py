"""Launches are held against what a kernel declares, and that against the kernel's text."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from gpuseg.backends import cuda_silhouette
from gpuseg.backends.cuda_device import CupyDevice, Kernel, checked_arguments
from gpuseg.backends.gpu import nearest, projection
from gpuseg.backends.kernel_loader import KERNEL_FOLDERS, kernel_text

KERNELS = [cuda_silhouette.KERNEL, nearest.KERNEL, projection.KERNEL]

PROBE = Kernel("probe", "probe", arrays={"x": "float32"}, scalars={"n": "int32"})
C_TYPES = {
    "float32": "float*",
    "float64": "double*",
    "int32": "int*",
    "int64": "long long*",
}


def arguments(**changes):
    return {"x": np.zeros((2, 3), dtype=np.float32), "n": np.int32(2)} | changes


def test_arguments_come_in_the_kernels_order():
    given = arguments()
    assert checked_arguments(PROBE, dict(reversed(given.items())), np, "cpu") == tuple(
        given.values()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 2}, "n must be int32, got int"),
        ({"n": np.int64(2)}, "n must be int32, got int64"),
        ({"x": np.zeros(6)}, "x must be float32, got ndarray float64"),
        ({"x": [1.0]}, "x must be float32, got list"),
        ({"x": np.zeros((3, 2), dtype=np.float32).T}, "x must be in C order"),
        ({"more": np.int32(1)}, "probe takes"),
    ],
)
def test_what_a_kernel_does_not_expect_is_refused(changes, message):
    with pytest.raises(TypeError, match=message):
        checked_arguments(PROBE, arguments(**changes), np, "cpu")


def test_arrays_of_another_device_are_refused():
    with pytest.raises(TypeError, match="x is on cpu, not on gpu 1"):
        checked_arguments(PROBE, arguments(), np, "gpu 1")


def test_every_kernel_file_is_declared():
    files = {path.stem for path in KERNEL_FOLDERS[1].glob("*.cu")}
    assert {kernel.file for kernel in KERNELS} == files


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.function)
def test_declared_parameters_are_those_of_the_text(kernel):
    text = kernel_text(kernel.file)
    parameters = re.search(
        rf"__global__ .*?\b{kernel.function}\((.*?)\) {{", text, flags=re.DOTALL
    )[1]
    found = {}
    for parameter in parameters.split(","):
        words = re.sub(r"const |__restrict__ ", "", " ".join(parameter.split()))
        kind, name = words.rsplit(" ", 1)
        found[name] = kind
    declared = {name: C_TYPES[dtype] for name, dtype in kernel.arrays.items()}
    declared |= {name: C_TYPES[dtype].rstrip("*") for name, dtype in kernel.scalars.items()}
    assert list(found.items()) == list(declared.items())


@pytest.mark.parametrize(
    ("limit", "used", "expected"), [(0, 50, 1030), (60, 50, 10), (40, 50, 0), (5000, 50, 1030)]
)
def test_free_memory_is_what_cupy_may_still_take(limit, used, expected):
    """The device's, with what the pool keeps unused, within the pool's limit; 0 is none."""
    pool = SimpleNamespace(free_bytes=lambda: 30, used_bytes=lambda: used, get_limit=lambda: limit)
    device = CupyDevice.__new__(CupyDevice)
    device.xp = SimpleNamespace(get_default_memory_pool=lambda: pool)
    device._device = SimpleNamespace(mem_info=(1000, 2000))
    assert device.free_bytes() == expected
