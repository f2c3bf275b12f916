"""The command line as a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def gpuseg(
    folder: Path | str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``gpuseg`` in a folder; what it says and its exit code are for the test to judge."""
    return subprocess.run(
        [sys.executable, "-m", "gpuseg", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
