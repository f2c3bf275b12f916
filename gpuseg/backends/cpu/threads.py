"""How many threads to use, and how to use them so that results do not depend on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from gpuseg.errors import SettingsError

T = TypeVar("T")


def thread_count() -> int:
    """Return the number of threads: ``GPUSEG_THREADS``, else the cores this process may use.

    Raises
    ------
    SettingsError
        If ``GPUSEG_THREADS`` is not a positive whole number.
    """
    asked = os.environ.get("GPUSEG_THREADS")
    if asked is None:
        try:
            return len(os.sched_getaffinity(0))
        except AttributeError:  # macOS and Windows have no affinity call
            return os.cpu_count() or 1
    if not asked.isdecimal() or int(asked) < 1:
        raise SettingsError(f"GPUSEG_THREADS is '{asked}'; it must be a whole number from 1")
    return int(asked)


def in_threads(function: Callable[..., T], items: Iterable[Any]) -> Iterator[T]:
    """Call ``function(item)`` for each item in threads; yield results in the items' order.

    The partition into items is the caller's and must not depend on the thread count;
    reducing in the order of the items then gives the same bits on any machine.
    """
    work = list(items)
    n_threads = min(thread_count(), len(work))
    if n_threads <= 1:
        yield from (function(item) for item in work)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        yield from pool.map(function, work)
