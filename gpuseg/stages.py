"""The stages of a run: their names, what they took, when they must end, and who watches."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpuseg.records import Progress, StageCost

log = logging.getLogger("gpuseg")


@dataclass(frozen=True)
class Deadline:
    """When a piece of work has to end. Where there is none, no clock is asked.

    Parameters
    ----------
    at
        In seconds of ``time.monotonic``; infinity for no deadline.
    """

    at: float = math.inf

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline so many seconds from now; None for none."""
        return cls() if seconds is None else cls(time.monotonic() + seconds)

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self.at < math.inf

    @property
    def seconds_left(self) -> float:
        """Seconds until then, infinity without a deadline; negative when it has passed."""
        return self.at - time.monotonic() if self.is_set else math.inf

    def allows(self, seconds: float) -> bool:
        """Whether work of so many seconds would still end in time."""
        return seconds <= self.seconds_left

    def for_share(self, share: float) -> Deadline:
        """Return the earlier deadline that gives work this share of the time that is left."""
        return self if not self.is_set else Deadline.after(share * self.seconds_left)


NO_DEADLINE = Deadline()


class Observer(Protocol):
    """Somebody who wants to see a run advance (the terminal, a notebook, nobody)."""

    def started(self, stage: str) -> None:
        """A stage begins."""

    def progress(self, stage: str, fraction: float, n_rows: int | None) -> None:
        """A stage has finished this fraction of its work, 0.0 to 1.0; None: rows unknown."""

    def finished(self, stage: str, cost: StageCost, detail: str) -> None:
        """A stage is done; `detail` says in a few words what came out."""


class Nobody:
    """The observer that looks away."""

    def started(self, stage: str) -> None:
        """Do nothing."""

    def progress(self, stage: str, fraction: float, n_rows: int | None) -> None:
        """Do nothing."""

    def finished(self, stage: str, cost: StageCost, detail: str) -> None:
        """Do nothing."""


class Stage:
    """One stage while it runs: its progress callback, and the words for its result."""

    def __init__(self, report: Progress) -> None:
        self.progress = report
        self.detail = ""


class Stages:
    """Runs stages one after another and keeps what each one took.

    Parameters
    ----------
    deadline
        When all of them should have ended.
    """

    def __init__(self, observer: Observer | None = None, deadline: Deadline = NO_DEADLINE) -> None:
        self.deadline = deadline
        self._observer: Observer = observer or Nobody()
        self.costs: dict[str, StageCost] = {}
        self.n_rows: int | None = None  # known once the table is read; gives rates

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Time a stage and tell the observer; an exception leaves no cost behind."""
        self._observer.started(name)
        stage = Stage(lambda fraction: self._observer.progress(name, fraction, self.n_rows))
        begin = time.perf_counter()
        yield stage
        cost = StageCost(seconds=time.perf_counter() - begin, peak_bytes=peak_bytes())
        self.costs[name] = cost
        self._observer.finished(name, cost, stage.detail)
        log.info("%s: %s (%.2f s)", name, stage.detail, cost.seconds)


def peak_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes; 0 if unknown."""
    try:
        facts = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return _peak_of_usage()
    found = re.search(r"VmHWM:\s+(\d+) kB", facts)
    return int(found[1]) * 1024 if found else _peak_of_usage()


def _peak_of_usage() -> int:
    """Return what the system accounts; on Linux that may be the peak of who started us."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
