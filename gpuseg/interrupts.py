"""Ctrl-C at moments that must not be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PUBLISHED = "interrupted, but the results had been published already; they are complete"


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Finish the block even when Ctrl-C or a SIGINT comes, and raise it afterwards.

    Only the main thread receives signals; elsewhere there is nothing to hold.

    Raises
    ------
    KeyboardInterrupt
        After the block, when one came meanwhile; it says that the results are published.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def remember(number: int, _frame: Any) -> None:
        came.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt(PUBLISHED)


@contextmanager
def after_publishing() -> Iterator[None]:
    """Let an interrupt in the block say that the results are published."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(PUBLISHED) from None
