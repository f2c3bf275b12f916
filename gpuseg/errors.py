"""Everything that can go wrong, and the exit code of each branch.

::

    GpusegError                 1   a bug, or something nobody foresaw
    ├── SettingsError           2   a parameter is unknown, malformed or contradicts another
    ├── DataError               2   the table cannot be segmented as it is
    │   └── ShapeError          2   two arrays that belong together disagree
    ├── TableNotFoundError      2   the input (or its database, schema, file) is not there
    ├── ModelError              2   a stored model is missing, damaged or does not fit the table
    ├── BackendUnavailableError 2   the backend that was asked for cannot run here
    ├── DeviceMemoryError       2   the GPU has too little free memory, even for small blocks
    ├── GateRefusedError        3   a gate refused to publish; the previous result stands
    ├── SourceError             4   reading failed after retries; safe to run again
    ├── SinkError               4   writing failed after retries; the previous table stands
    │   └── UnsureError         4   …, or the new one: it was lost at the moment of the exchange
    └── ClusterError            4   the Dask cluster is out of reach or lost; safe to run again

A message says what was found, what was expected and what to do. It never carries
credentials or a customer's row.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class GpusegError(Exception):
    """Root of all errors that gpuseg raises on purpose."""

    exit_code = 1


class SettingsError(GpusegError, ValueError):
    """A parameter is unknown, malformed or contradicts another one."""

    exit_code = 2


class DataError(GpusegError, ValueError):
    """The table, or an array, cannot be segmented as it is."""

    exit_code = 2


class ShapeError(DataError):
    """Arrays that belong together disagree in length, width or type."""


class TableNotFoundError(GpusegError):
    """The input table, its schema, its database or its file is not there."""

    exit_code = 2


class ModelError(GpusegError):
    """A stored model is missing, damaged, or does not fit the table."""

    exit_code = 2


class BackendUnavailableError(GpusegError):
    """The backend that was asked for cannot run on this machine."""

    exit_code = 2


class DeviceMemoryError(GpusegError, MemoryError):
    """The GPU has too little free memory, even for small blocks."""

    exit_code = 2


class GateRefusedError(GpusegError):
    """A gate refused to publish; the previous result stands.

    Parameters
    ----------
    result
        The `records.Segmentation` that was refused; it is kept in its run folder.
    """

    exit_code = 3

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class SourceError(GpusegError):
    """Reading failed, also after retries. Running again is safe."""

    exit_code = 4


class SinkError(GpusegError):
    """Writing failed, also after retries. The previous table stands."""

    exit_code = 4


class UnsureError(SinkError):
    """Writing failed at the moment of the exchange: the previous table stands, or the new one."""


class ClusterError(GpusegError):
    """The Dask cluster cannot be reached, or has lost its workers. Running again is safe."""

    exit_code = 4


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known word, or nothing.

    Examples
    --------
    >>> did_you_mean("amout", ["amount", "age"])
    " (did you mean 'amount'?)"
    >>> did_you_mean("zzz", ["amount"])
    ''
    """
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{nearest[0]}'?)" if nearest else ""
