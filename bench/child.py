"""Run a command in a process of its own and watch its memory.

``ru_maxrss`` would not do: on Linux a child starts with the peak of the process that started
it, which here has made tables before. ``VmHWM`` is of the new program alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PAUSE_SECONDS = 0.1

#: Points of a memory curve that are kept.
CURVE_POINTS = 400


class Resident(NamedTuple):
    """What a process has in memory, in MiB."""

    peak: float
    anonymous: float
    mapped: float  # pages of files


def resident(pid: int) -> Resident | None:
    """Return what a process has in memory; nothing once it has ended."""
    try:
        facts = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"(VmHWM|RssAnon|RssFile):\s+(\d+) kB", facts))
    if not found:
        return None
    return Resident(*(int(found[name]) / 1024 for name in ("VmHWM", "RssAnon", "RssFile")))


def family(pid: int) -> Iterator[int]:
    """Give a process and all that it started."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from family(int(child))


def watched(command: list[str], errors: Path, **environment: str) -> dict[str, Any]:
    """Run a command; return its output, wall and CPU seconds, peak and memory curve.

    CPU seconds include processes that it started; their peaks stand beside its own. What it
    writes to stderr goes to the file `errors`, whose end is shown if the command fails.
    """
    begin, curve, peaks = time.perf_counter(), [], dict[int, float]()
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, env=os.environ | environment
        )
        while True:
            for member in family(process.pid):
                memory = resident(member)
                if memory is not None:
                    peaks[member] = memory.peak
                if memory is not None and member == process.pid:
                    point = (time.perf_counter() - begin, memory.anonymous, memory.mapped)
                    curve.append(tuple(round(value, 2) for value in point))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(PAUSE_SECONDS)
    seconds = time.perf_counter() - begin
    output = process.stdout.read().decode() if process.stdout else ""
    if status != 0:
        sys.exit(f"{command[:4]} failed:\n{errors.read_text()[-3000:]}")
    return {
        "seconds": seconds,
        "peak_mib": peaks.pop(process.pid, 0.0),
        "children_peak_mib": sorted(round(peak, 1) for peak in peaks.values()),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "curve": curve[:: max(1, len(curve) // CURVE_POINTS)],
        "output": output,
    }
