"""The GPU of a benchmark: what it is, how fast it can be at best, and how to time it."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from gpuseg.backends.cuda_driver import Driver
from gpuseg.backends.gpu_checks import CUPY_BUILDS, gpu_checks

LIBRARIES = (
    "gpuseg", *CUPY_BUILDS, "cuml-cu13", "cuml-cu12", "cuml", "cudf-cu13", "cudf-cu12", "cudf",
    "numpy", "scikit-learn",
)  # fmt: skip

#: FP32 lanes of a multiprocessor where they are not 128, by compute capability; and its
#: units for square roots. From the CUDA C++ programming guide.
FP32_LANES = {(7, 5): 64, (8, 0): 64}
OTHER_FP32_LANES, ROOT_LANES = 128, 16

#: What a pair costs besides a multiply-add per feature when |x|² + |y|² - 2xy is rooted: two
#: additions, a maximum against negative rounding, and the root's own issue slot.
PAIR_EXTRA = 4

MIN_REPEATS, MIN_SECONDS = 3, 1.0


class Device(NamedTuple):
    """What a device says of itself."""

    name: str
    capability: tuple[int, int]
    n_multiprocessors: int
    clock_hz: float  # the highest that it may run at

    @property
    def fp32_per_second(self) -> float:
        """FP32 instructions of single lanes that it can issue in a second."""
        lanes = FP32_LANES.get(self.capability, OTHER_FP32_LANES)
        return self.n_multiprocessors * lanes * self.clock_hz

    @property
    def roots_per_second(self) -> float:
        """Approximate square roots that it can do in a second."""
        return self.n_multiprocessors * ROOT_LANES * self.clock_hz


def silhouette_floor_seconds(n_rows: int, n_features: int, device: Device) -> float:
    """Return the least time for all ordered pairs of rows, at the full rate of one unit.

    The limiting one of plain FP32 instructions and square roots. Symmetry and tensor cores,
    which the kernel does not use, would lower it.
    """
    pairs = float(n_rows) ** 2
    arithmetic = pairs * (n_features + PAIR_EXTRA) / device.fp32_per_second
    return max(arithmetic, pairs / device.roots_per_second)


def obstacle() -> str | None:
    """Say in one line what keeps the GPU from being used here; None if nothing does."""
    for check in gpu_checks():
        if not check.passed:
            return f"{check.detail}; {check.remedy}"
    return None


def device() -> Device:
    """Return what the first GPU says of itself."""
    import cupy

    driver = Driver()
    driver.start()
    name, capability = driver.device(0)
    attributes = cupy.cuda.Device(0).attributes
    return Device(
        name=name,
        capability=capability,
        n_multiprocessors=int(attributes["MultiProcessorCount"]),
        clock_hz=attributes["ClockRate"] * 1e3,  # it is in kHz
    )


def facts() -> dict[str, Any]:
    """Return hardware, driver, versions and revision: what a number is worth nothing without."""
    found = device()
    return {
        "gpu": found._asdict()
        | {"fp32_per_second": found.fp32_per_second, "roots_per_second": found.roots_per_second},
        "checks": {check.name: check.detail for check in gpu_checks()},
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "libraries": versions(),
        **revision(),
        "date": time.strftime("%Y-%m-%d"),
    }


def versions() -> dict[str, str]:
    """Return the versions of those libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def revision() -> dict[str, Any]:
    """Return the commit of the checkout, and whether files differ from it."""
    changes = _output("git", "status", "--porcelain", "--untracked-files=no")
    return {"revision": _output("git", "rev-parse", "HEAD"), "dirty": bool(changes)}


def _output(*command: str) -> str | None:
    """Return what a command prints; None where there is no such command, or it fails."""
    try:
        ran = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()


def agree(what: str, found: float, tolerance: float) -> float:
    """Return a difference that is small enough; end the benchmark at any other, and at NaN."""
    if not abs(found) <= tolerance:
        sys.exit(f"not timed: {what} differ by {found:.1e}, {tolerance:.0e} is allowed")
    return abs(found)


def timed(
    run: Callable[[], Any], *, repeats: int = MIN_REPEATS, warm: bool = False
) -> dict[str, Any]:
    """Time a call after a warm-up: wall clock, and the device's own clock between its ends.

    `warm` says that it has run before, where once more would take minutes.
    """
    import cupy

    if not warm:
        run()
    walls: list[float] = []
    events: list[float] = []
    while len(walls) < repeats or (sum(walls) < MIN_SECONDS and repeats > 1):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        cupy.cuda.get_current_stream().synchronize()
        begin = time.perf_counter()
        start.record()
        run()
        end.record()
        end.synchronize()
        walls.append(time.perf_counter() - begin)
        events.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)  # it counts milliseconds
    return {
        "seconds": statistics.median(walls),
        "spread": [min(walls), max(walls)],
        "device_seconds": statistics.median(events),
        "repeats": len(walls),
    }
