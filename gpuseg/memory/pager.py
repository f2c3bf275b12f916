"""Keeps mapped scratch files from counting as memory of this process.

Pages of a mapped file count as resident once they were touched, although the system may
take them back at any time, and does so only when memory is short. The pager gives them back
when the process grows past its limit: they stay in the page cache, changed ones too, and
are mapped again when they are touched.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Seconds between two looks. At the speed of memory a few hundred MB come in meanwhile.
PAUSE_SECONDS = 0.05

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = mmap.PAGESIZE


class Pager:
    """Watches the resident size of this process while a run works.

    Parameters
    ----------
    limit_bytes
        Beyond this, mapped pages are given back.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, pages: mmap.mmap) -> None:
        """Look after a mapped file as long as somebody holds it."""
        with self._changing:
            self._maps.add(pages)
        if self._thread is None and _STATM.exists():
            self._thread = threading.Thread(target=self._work, name="gpuseg-pager", daemon=True)
            self._thread.start()

    def give_back(self) -> None:
        """Let go of all mapped pages now; what is in them stays."""
        with self._changing:
            maps = list(self._maps)
        for pages in maps:
            with suppress(ValueError, OSError):  # closed meanwhile
                pages.madvise(mmap.MADV_DONTNEED)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Stop watching at the end."""
        try:
            yield
        finally:
            self._stop.set()
            if self._thread is not None:
                self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            if resident_bytes() > self._limit_bytes:
                self.give_back()


def resident_bytes() -> int:
    """Return the memory that this process holds now, mapped files included; 0 if unknown."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
