"""Numba compilation as gpuseg wants it: cached on disk, without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function on its first call and keep the result for later processes.

    Results go to a cache on disk unless there is no writable place for it (a read-only
    installation without a home directory); then every process compiles for itself.

    Notes
    -----
    Numba's cache key is the source file of the function itself. After a change in a
    function that is inlined from another file, delete ``__pycache__``.
    """
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"} | options

    def compile_lazily(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **settings)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(**settings)(function)

    return compile_lazily
