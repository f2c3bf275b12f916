"""Ctrl-C and SIGTERM: where they end the work, and at which moments they have to wait."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PUBLISHED = "interrupted, but the results had been published already; they are complete"

#: What asks a process to end: a person's Ctrl-C, and a scheduler's or a container's SIGTERM.
SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: After the first signal things are cleaned up; more of them are not heard for so long.
CLEANING_SECONDS = 10.0


class _Ending:
    """A signal handler that raises KeyboardInterrupt, but not again while that cleans up."""

    def __init__(self) -> None:
        self._deaf_until = 0.0

    def __call__(self, _number: int, _frame: Any) -> None:
        now = time.monotonic()
        if now < self._deaf_until:
            return
        self._deaf_until = now + CLEANING_SECONDS
        raise KeyboardInterrupt


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; a second signal does not stop the cleaning up.

    Signals that the process was told to ignore (as ``nohup`` does) stay ignored.
    """
    with _handlers(_Ending()):
        yield


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Finish the block even when Ctrl-C or SIGTERM comes, and act on it afterwards.

    Only the main thread receives signals; elsewhere there is nothing to hold.

    Raises
    ------
    KeyboardInterrupt
        After the block, when one came meanwhile; it says that the results are published.
    """
    came: list[int] = []

    def remember(number: int, _frame: Any) -> None:
        came.append(number)

    with _handlers(remember) as before:
        yield
    for number in came[:1]:
        if before[number] is signal.default_int_handler or isinstance(before[number], _Ending):
            raise KeyboardInterrupt(PUBLISHED)
        signal.raise_signal(number)  # whoever uses gpuseg as a library has a say of their own


@contextmanager
def after_publishing() -> Iterator[None]:
    """Let an interrupt in the block say that the results are published."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(PUBLISHED) from None


@contextmanager
def _handlers(handler: Any) -> Iterator[dict[int, Any]]:
    """Handle signals in this way for a while; give what handled them before."""
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    # None was installed by something other than Python and cannot be put back
    heard = [n for n in SIGNALS if before[n] not in (signal.SIG_IGN, None)]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number in heard:
            signal.signal(number, before[number])
