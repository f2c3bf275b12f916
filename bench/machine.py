"""What numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def facts(libraries: Sequence[str]) -> dict[str, Any]:
    """Return the machine, the versions of Python and of libraries, and the date."""
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
        "date": time.strftime("%Y-%m-%d"),
    }
