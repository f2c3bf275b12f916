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


def watched(command: list[str], errors: Path, **environment: str) -> dict[str, Any]:
    """Run a command; return its output, wall and CPU seconds, peak and memory curve.

    What it writes to stderr goes to the file `errors`; its end is shown if the command fails.
    """
    begin, curve, peak = time.perf_counter(), [], 0.0
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, env=os.environ | environment
        )
        while True:
            memory = resident(process.pid)
            if memory is not None:
                peak, second = memory.peak, time.perf_counter() - begin
                curve.append(
                    (round(second, 2), round(memory.anonymous, 1), round(memory.mapped, 1))
                )
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
        "peak_mib": peak,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "curve": curve[:: max(1, len(curve) // CURVE_POINTS)],
        "output": output,
    }
