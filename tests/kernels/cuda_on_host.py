"""A `Device` that runs the kernels' own text on the host, through ``cuda_on_host.hpp``."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from gpuseg.backends.cuda_device import DeviceLimits, checked_arguments
from gpuseg.backends.kernel_loader import kernel_text

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "kernels"
SHIM = HERE / "cuda_on_host.hpp"

#: A small device, so that a few rows already make several launches, parts and chunks.
SMALL_LIMITS = DeviceLimits(
    n_multiprocessors=2, shared_bytes_per_block=49_152, shared_bytes_per_multiprocessor=65_536
)

#: Ends the host run at an access outside an array, or at one that a device would refuse
#: because it is not aligned.
SANITIZE = ("-O0", "-fsanitize=address,alignment", "-fno-sanitize-recover=alignment")


class KernelFailedError(Exception):
    """The host run ended with an error: its message."""


def require_gxx() -> str:
    """Return the compiler, or skip; under GPUSEG_REQUIRE_GXX=1 its absence is a failure."""
    gxx = shutil.which("g++")
    if gxx:
        return gxx
    reason = "g++ is not installed, so the kernels cannot run on the host"
    if os.environ.get("GPUSEG_REQUIRE_GXX") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def build(text: str, function: str, *, n_threads: int = 256, options: tuple[str, ...] = ()) -> Path:
    """Compile a kernel for the host, unless the same text was compiled before."""
    source = f'#include "{SHIM}"\n{text}\n'
    source += f"int main(int, char** argv) {{ return host::run({function}, argv); }}\n"
    command = [
        *(require_gxx(), "-std=c++17", "-O2", "-march=native", "-ffp-contract=off"),
        *("-Wno-unknown-pragmas", f"-DBLOCK_THREADS={n_threads}", *options),
    ]
    key = "\0".join([source, SHIM.read_text(), *command, platform.node(), platform.processor()])
    binary = BUILD / f"{function}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not binary.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            made = Path(folder) / "kernel"
            done = subprocess.run(
                [*command, "-x", "c++", "-", "-o", made],
                input=source,
                text=True,
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            made.rename(binary)
    return binary


class HostDevice:
    """Runs launches one after another in a process of their own."""

    xp = np

    def __init__(
        self, text=None, *, schedule="forward", options=(), limits=SMALL_LIMITS, free=2**30
    ):
        self.text = text
        self.schedule = schedule
        self.options = options
        self.limits = limits
        self.free = free
        self.shapes = []
        self.n_barriers = 0
        self.n_releases = 0

    def launch(self, kernel, shape, arguments):
        self.shapes.append(shape)
        checked = checked_arguments(kernel, arguments, np, "cpu")
        text = self.text or kernel_text(kernel.file)
        binary = build(text, kernel.function, n_threads=shape.n_threads, options=self.options)
        with tempfile.TemporaryDirectory() as folder:
            given, taken = Path(folder) / "arguments", Path(folder) / "result"
            blobs = [argument.tobytes() for argument in checked]
            given.write_bytes(b"".join(np.int64(len(b)).tobytes() + b for b in blobs))
            numbers = [*shape.grid, shape.n_threads, shape.shared_bytes]
            done = subprocess.run(
                [binary, given, taken, self.schedule, *map(str, numbers)],
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            if done.returncode:
                raise KernelFailedError(f"exit {done.returncode}: {done.stderr}")
            result = taken.read_bytes()
        self.n_barriers += int(done.stdout)
        start = 0
        for argument, blob in zip(checked, blobs, strict=True):
            if isinstance(argument, np.ndarray):
                flat = np.frombuffer(result, argument.dtype, argument.size, start)
                argument[...] = flat.reshape(argument.shape)
            start += len(blob)

    def synchronize(self):
        """Nothing is under way after a launch."""

    def free_bytes(self):
        return self.free

    def release(self):
        self.n_releases += 1
