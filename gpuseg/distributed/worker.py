"""Loaded by the worker processes of ``local:N`` when they begin."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(_worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that was started.

    It closes the cluster then, and its workers with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
