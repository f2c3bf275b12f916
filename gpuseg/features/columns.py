"""The columns of a table on their way to where the backend computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.backends.base import Backend
from gpuseg.features.arrow import Floats, countable, ticks_of_dates
from gpuseg.memory import room
from gpuseg.records import Array, Table

#: Rows whose features are computed at a time, so that what is made on the way stays small.
BLOCK_ROWS = 1 << 20


def long_array(shape: tuple[int, ...], dtype: Any, xp: ModuleType) -> Array:
    """Return an array without contents, as long as the table, where `xp` keeps its arrays.

    On the host it lies in a file where memory is used up.
    """
    return room().empty(shape, dtype) if xp is np else xp.empty(shape, dtype=dtype)


def ascending(values: Array, xp: ModuleType) -> Array:
    """Return values sorted; on the host in their own place."""
    if xp is not np:
        return xp.sort(values)
    values.sort()
    return values


def blocks_of(n_rows: int) -> Iterator[slice]:
    """Cut rows into blocks."""
    return (slice(a, min(a + BLOCK_ROWS, n_rows)) for a in range(0, n_rows, BLOCK_ROWS))


class Columns:
    """A table, and the place where its numbers are wanted.

    The backend may read columns of numbers itself; it is asked for them once, when the
    first one is wanted, and what it read stays as long as this object.

    Parameters
    ----------
    names
        Columns of numbers that will be wanted.
    judges
        Whether a column of which most cannot be read is refused: not where the table is but
        a block of rows.
    """

    def __init__(
        self, backend: Backend, table: Table, names: Sequence[str] = (), *, judges: bool = True
    ) -> None:
        self.backend = backend
        self.judges = judges
        self.table = table
        self._names = names
        self._read: Mapping[str, Array] | None = None

    @property
    def xp(self) -> ModuleType:
        """The array library of the backend."""
        return self.backend.xp

    def numbers(self, name: str, column: pa.ChunkedArray) -> Array:
        """Return the numbers of a plain column as float64, NaN where there is none.

        Parameters
        ----------
        column
            The column of that name, of numbers, booleans, durations or times of day.
        """
        if self._read is None:
            self._read = self.backend.read_columns(self.table, self._names)
        if name in self._read:
            return self._read[name]
        return self.backend.numbers(countable(column))

    def days(self, column: pa.ChunkedArray) -> Array:
        """Return a plain column of dates or timestamps as days since 1970-01-01, in UTC."""
        ticks, per_day = ticks_of_dates(column)
        return self.backend.numbers(ticks) / per_day

    def spread(self, read: Floats, codes: npt.NDArray[np.int32]) -> tuple[Array, Array]:
        """Return for each row the number that its text was read as, and whether it has a text.

        Parameters
        ----------
        read : host array of float64
            What each different text says.
        codes : host array of shape (n,)
            Position of each row's text; -1 where there is none, which gives NaN.
        """
        there = self.backend.from_host(codes)
        # the last entry is what code -1 points at: nothing
        return self.backend.from_host(np.append(read, np.nan))[there], there >= 0
