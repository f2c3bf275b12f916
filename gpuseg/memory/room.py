"""The room that a run has: arrays and tables in memory as long as there is place, then in files.

How much memory may be taken is a fact of the process, like its number of threads, so the
room is not handed from function to function: `room` returns the one of the run under way.

A quarter of the budget is for the table and a quarter for arrays as long as the table, less of
a small budget; what is longer lies in mapped scratch files. The rest is for work: one column at
a time, a block of rows, a forest.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuseg.memory.budget import memory_bytes
from gpuseg.memory.pager import Pager
from gpuseg.memory.scratch import mapped, open_scratch, scratch_folder

if TYPE_CHECKING:
    import numpy as np

#: Shares of the budget: the table, long arrays as much again, and work.
HELD_SHARE = 0.25
WORK_SHARE = 0.5

#: What is not for holding anything: Python, the libraries, the forest, rules of a million rows.
NEEDED_BYTES = 900 << 20

#: Beyond this share, pages of mapped files are given back.
PAGER_SHARE = 0.75

#: What the work on one column takes at its peak, in bytes for each row: the numbers, sorted
#: ones, and what is computed from them on the way.
COLUMN_BYTES = 56


def held_bytes(budget_bytes: int) -> int:
    """Return how much of a table, and as much of long arrays, stays in memory.

    Examples
    --------
    >>> held_bytes(8 << 30) >> 20, held_bytes(1 << 30) >> 20
    (2048, 62)
    """
    return min(int(HELD_SHARE * budget_bytes), max(0, budget_bytes - NEEDED_BYTES) // 2)


class Room:
    """What a run may take.

    Parameters
    ----------
    budget_bytes
        The memory of the whole process that it shall not exceed; None for no limit.
    folder
        Where scratch files go; by default as `scratch_folder` says.
    """

    def __init__(self, budget_bytes: int | None = None, folder: Path | None = None) -> None:
        self.budget_bytes = budget_bytes
        self._folder = folder
        self._in_memory = 0
        self.in_files_bytes = 0  # all that went to scratch files so far
        self.pager = Pager(int(PAGER_SHARE * (budget_bytes or 0)))

    @property
    def folder(self) -> Path:
        """Where scratch files go."""
        if self._folder is None:
            self._folder = scratch_folder()
        return self._folder

    def holds_table(self, n_bytes: float) -> bool:
        """Whether a table of this size stays in memory."""
        return self.budget_bytes is None or n_bytes <= held_bytes(self.budget_bytes)

    def holds_work(self, n_bytes: float) -> bool:
        """Whether work may take so much at a time."""
        return self.budget_bytes is None or n_bytes <= WORK_SHARE * self.budget_bytes

    def column_rows(self) -> int | None:
        """Return how long a column may be to be looked at as a whole; None for any length."""
        if self.budget_bytes is None:
            return None
        return max(1, int(WORK_SHARE * self.budget_bytes) // COLUMN_BYTES)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array without contents: in memory, or mapped where that is used up.

        Raises
        ------
        SinkError
            If the disk has no room for it.
        """
        import numpy as np

        kind = np.dtype(dtype)
        dimensions = (shape,) if isinstance(shape, int) else shape
        n_bytes = kind.itemsize * int(np.prod(dimensions, dtype=np.int64))
        if self.budget_bytes is None or n_bytes == 0:
            return np.empty(shape, kind)
        if self._in_memory + n_bytes <= held_bytes(self.budget_bytes):
            array = np.empty(shape, kind)
            self._in_memory += n_bytes
            weakref.finalize(array, self._freed, n_bytes).atexit = False
            return array
        pages = mapped(open_scratch(self.folder, n_bytes), n_bytes)
        self.in_files_bytes += n_bytes
        self.pager.watch(pages)
        return np.frombuffer(pages, kind).reshape(shape)

    def _freed(self, n_bytes: int) -> None:
        self._in_memory -= n_bytes


_NO_LIMIT = Room()
_current: ContextVar[Room] = ContextVar("room", default=_NO_LIMIT)


def room() -> Room:
    """Return the room of the run under way; one without limit where there is none."""
    return _current.get()


@contextmanager
def working_within(memory: str | None, *, of: Room | None = None) -> Iterator[Room]:
    """Give the work inside a room; the one around it, if there is one, holds.

    Parameters
    ----------
    memory
        As `memory_bytes` reads it.
    of
        A room to use instead.

    Raises
    ------
    SettingsError
        As `memory_bytes`.
    """
    around = _current.get()
    if of is None and around is not _NO_LIMIT:
        yield around
        return
    given = of or Room(memory_bytes(memory))
    token = _current.set(given)
    try:
        with given.pager.at_work():
            yield given
    finally:
        _current.reset(token)
