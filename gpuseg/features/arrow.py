"""One column of an Arrow table in a plain form: as something to count with, or as texts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from gpuseg.backends.numpy import NumPyBackend

Floats = npt.NDArray[np.float64]

#: Texts that say "nothing here", in lower case and without outer blanks.
PLACEHOLDERS = ("", "?", "null", "na", "n/a", "#n/a", "nan", "<na>", "nat", "-", "--", ".", "\\n")

SECONDS_PER_DAY = 86_400
_TICKS_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}

#: White space of the keyboard, of spreadsheets (no-break) and of a byte order mark.
_BLANKS = " \t\r\n\v\f\u00a0\u202f\u2007\u3000\ufeff\u200b"


class Texts(NamedTuple):
    """A column of texts, each different text held once.

    Parameters
    ----------
    codes : array of shape (n,), int32
        Position of each row's text in `values`; -1 where there is none. Texts are numbered
        in the order in which they first appear.
    values : pa.Array of string
        The different texts, without outer blanks and placeholders.
    """

    codes: npt.NDArray[np.int32]
    values: Any

    def counts(self) -> npt.NDArray[np.int64]:
        """Return how many rows hold each value."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.values))

    def rows(self) -> Any:
        """Return the text of each row as a ``pa.Array`` with nulls."""
        return self.values.take(pa.array(self.codes, mask=self.codes < 0))


def family(dtype: pa.DataType) -> str:
    """Return number, boolean, text, date, empty or other: what a column can be used as."""
    if pat.is_dictionary(dtype):
        return family(dtype.value_type)
    if isinstance(dtype, pa.BaseExtensionType):
        return family(dtype.storage_type)
    if pat.is_boolean(dtype):
        return "boolean"
    if pat.is_integer(dtype) or pat.is_floating(dtype) or pat.is_decimal(dtype):
        return "number"
    if pat.is_duration(dtype) or pat.is_time(dtype):
        return "number"
    if pat.is_date(dtype) or pat.is_timestamp(dtype):
        return "date"
    if pat.is_string(dtype) or pat.is_large_string(dtype) or pat.is_string_view(dtype):
        return "text"
    return "empty" if pat.is_null(dtype) else "other"


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Unwrap dictionaries and extension types, and cast texts to one type."""
    if isinstance(column.type, pa.BaseExtensionType):
        storage = column.type.storage_type
        return plain(pa.chunked_array([c.storage for c in column.chunks], type=storage))
    if pat.is_dictionary(column.type):
        return plain(column.cast(column.type.value_type))
    if family(column.type) == "text":
        return column.cast(pa.large_string())  # together, texts may take more than 2 GB
    return column


def countable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a plain column of numbers, booleans, durations or times of day as numbers.

    Durations and times count in the column's own unit.
    """
    if pat.is_duration(column.type) or pat.is_time(column.type):
        return column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return column.cast(pa.uint8()) if pat.is_boolean(column.type) else column


def ticks_of_dates(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """Return a plain column of dates or timestamps as whole numbers, and how many are a day.

    They count from 1970-01-01, in UTC.
    """
    if pat.is_date32(column.type):
        return column.cast(pa.int32()), 1
    per_day = _TICKS_PER_DAY["ms" if pat.is_date64(column.type) else column.type.unit]
    return column.cast(pa.int64()), per_day


def texts(column: pa.ChunkedArray) -> Texts:
    """Return a plain column of any readable family as texts.

    Whole numbers are written without a decimal point, whatever type they are stored in,
    so that ``1``, ``1.0`` and ``"1"`` are one category; booleans are ``true`` and ``false``.
    """
    if pat.is_null(column.type) or len(column) == 0:
        return Texts(np.full(len(column), -1, dtype=np.int32), pa.array([], pa.string()))
    encoded = column.dictionary_encode().combine_chunks()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    written = pc.utf8_trim(_written(encoded.dictionary), _BLANKS)
    # a second numbering, because trimming may have made texts equal
    trimmed = written.dictionary_encode()
    values = trimmed.dictionary
    empty = pc.is_in(pc.utf8_lower(values), value_set=pa.array(PLACEHOLDERS, values.type))
    present = ~empty.to_numpy(zero_copy_only=False)
    renumbered = np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)
    # the last entry is what code -1 points at: nothing
    new_code = np.append(renumbered[trimmed.indices.to_numpy()], np.int32(-1))
    return Texts(new_code[codes], values.filter(pa.array(present)))


def _written(values: Any) -> Any:
    if family(values.type) == "text":
        return values
    if family(values.type) == "number" and not pat.is_integer(values.type):
        as_floats = NumPyBackend().numbers(countable(pa.chunked_array([values])))
        return pa.array([_number_text(v) for v in as_floats.tolist()], pa.string())
    return values.cast(pa.string())


def _number_text(value: float) -> str:
    return f"{value + 0.0:.0f}" if value.is_integer() else repr(value)
