"""How a kept column is read: from whatever type a table brings to clean values."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gpuseg.errors import ModelError, did_you_mean
from gpuseg.features.arrow import Texts, family, plain, texts
from gpuseg.features.columns import Columns
from gpuseg.features.stored import Stored
from gpuseg.features.text import DATE_STYLES, NUMBER_STYLES, NumberStyle, read_dates, read_numbers
from gpuseg.records import Array

#: Numbers beyond this are cut to it: their squares must still be numbers.
LARGEST = 1e150

#: Dates outside of these years (as days since 1970) are placeholders such as 9999-12-31.
FIRST_DAY = -62_091  # 1800-01-01
LAST_DAY = 84_006  # 2200-01-01

KINDS = ("numeric", "categorical", "datetime")


class Cleaned(NamedTuple):
    """The values of one column, without placeholders.

    Parameters
    ----------
    kind
        ``numeric``, ``categorical`` or ``datetime``.
    values
        Categorical: `Texts`. Else array of the backend, of shape (n,), float64, NaN where
        missing; dates are days since 1970-01-01 (UTC).
    warnings
        What was turned into missing values on the way, in words.
    """

    kind: str
    values: Any
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How one column is read.

    Parameters
    ----------
    column
        Its name.
    kind
        What becomes of it: ``numeric``, ``categorical`` or ``datetime``.
    arrow_type
        Its type in the table that was fitted, for messages.
    number_style
        How its texts write numbers.
    date_style
        How its texts write dates, one of `gpuseg.features.text.DATE_STYLES`.
    """

    column: str
    kind: str
    arrow_type: str
    number_style: NumberStyle = NUMBER_STYLES[0]
    date_style: str = DATE_STYLES[0]

    def read(self, columns: Columns) -> Cleaned:
        """Find the column in the table and clean it; see `find` and `clean`."""
        return self.clean(self.find(columns.table.arrow), columns)

    def find(self, table: pa.Table) -> pa.ChunkedArray:
        """Return the column of the table.

        Raises
        ------
        ModelError
            If the table lacks it.
        """
        # a list of all names, made anew for each of thousands of columns, takes seconds
        place = table.schema.get_field_index(self.column)
        if place < 0:
            raise ModelError(
                f"the model needs column '{self.column}', which the table lacks"
                f"{did_you_mean(self.column, table.column_names)}; its columns: "
                f"{', '.join(table.column_names[:10])}"
                f"{', …' if table.num_columns > 10 else ''}"
            )
        return table.column(place)

    def clean(self, column: pa.ChunkedArray, columns: Columns) -> Cleaned:
        """Read the column, which is one of `columns`, to where those are wanted.

        A column may come in another type than it was fitted with: texts that hold numbers
        or dates are read as such, numbers for a column of categories are compared as their
        text, and a column of nulls is all missing.

        Raises
        ------
        ModelError
            If the column cannot be read as what the model needs.
        """
        column = plain(column)
        found = family(column.type)
        if found == "empty":
            column = column.cast(pa.string())
            found = "text"
        if found == "other":
            raise self._retyped(column)
        if self.kind == "categorical":
            held = texts(column)
            if self.arrow_type == "bool":
                held = _as_booleans(held)
            return Cleaned(self.kind, held)
        if self.kind == "datetime":
            return self._clean_dates(column, found, columns)
        return self._clean_numbers(column, found, columns)

    def _clean_numbers(self, column: pa.ChunkedArray, found: str, columns: Columns) -> Cleaned:
        if found == "text":
            values, unread = self._read_texts(column, columns)
        elif found == "date":
            raise self._retyped(column)
        else:
            values, unread = columns.numbers(self.column, column), ()
        values, warnings = finite(values, self.column, columns.xp)
        return Cleaned(self.kind, values, unread + warnings)

    def _clean_dates(self, column: pa.ChunkedArray, found: str, columns: Columns) -> Cleaned:
        if found == "text":
            values, warnings = self._read_texts(column, columns)
        elif found == "date":
            values, warnings = columns.days(column), ()
        else:
            raise self._retyped(column)
        odd = (values < FIRST_DAY) | (values >= LAST_DAY)
        if odd.any():
            values = columns.xp.where(odd, np.nan, values)
            warnings += (
                f"column '{self.column}': {_values(odd)} outside 1800 to 2199, treated as missing",
            )
        return Cleaned(self.kind, values, warnings)

    def _read_texts(
        self, column: pa.ChunkedArray, columns: Columns
    ) -> tuple[Array, tuple[str, ...]]:
        held = texts(column)
        if self.kind == "datetime":
            read = read_dates(held.values, self.date_style)
        else:
            read = read_numbers(held.values, self.number_style)
        values, written = columns.spread(read, held.codes)
        unread = columns.xp.isnan(values) & written
        if not unread.any():
            return values, ()
        if columns.judges and int(unread.sum()) * 2 > int(written.sum()):
            raise self._retyped(column)
        what = "dates" if self.kind == "datetime" else "numbers"
        return values, (
            f"column '{self.column}': {_values(unread)} not readable as {what}, treated as missing",
        )

    def _retyped(self, column: pa.ChunkedArray) -> ModelError:
        wanted = {"numeric": "numbers", "datetime": "dates", "categorical": "categories"}
        return ModelError(
            f"column '{self.column}' has type {column.type} and cannot be read as "
            f"{wanted[self.kind]}; the model was fitted on type {self.arrow_type}. Convert the "
            "column, or fit the model anew"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {
            "column": self.column,
            "kind": self.kind,
            "arrow_type": self.arrow_type,
            "number_style": list(self.number_style),
            "date_style": self.date_style,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Reading:
        """Rebuild what `to_dict` described; raises ModelError if it is damaged."""
        stored = Stored(data, "how to read a column")
        style = stored.texts("number_style")
        stored.expect(len(style) == 2, "number_style must be two texts")
        return cls(
            column=stored.text("column"),
            kind=stored.one_of("kind", KINDS),
            arrow_type=stored.text("arrow_type"),
            number_style=NumberStyle(
                stored.member("number_style", style[0], (".", ",")),
                stored.member("number_style", style[1], ("", ".", ",", " ", "'")),
            ),
            date_style=stored.one_of("date_style", DATE_STYLES),
        )


def finite(values: Array, column: str, xp: ModuleType) -> tuple[Array, tuple[str, ...]]:
    """Turn infinities into missing values and cut huge numbers; say so."""
    warnings: tuple[str, ...] = ()
    sizes = xp.abs(values)
    endless = xp.isinf(sizes)
    if endless.any():
        values = xp.where(endless, np.nan, values)
        warnings += (f"column '{column}': {_values(endless)} infinite, treated as missing",)
    huge = ~endless & (sizes > LARGEST)
    if huge.any():
        values = xp.where(huge, xp.copysign(LARGEST, values), values)
        warnings += (f"column '{column}': {_values(huge)} beyond {LARGEST:g} cut to that",)
    return values, warnings


def _as_booleans(held: Texts) -> Texts:
    """Read 1, 0 and any spelling of true and false as a boolean column holds them."""
    spellings = {"1": "true", "0": "false"}
    lower = [value.lower() for value in held.values.to_pylist()]
    written = pa.array([spellings.get(value, value) for value in lower], pa.string())
    encoded = written.dictionary_encode()
    new_code = np.append(encoded.indices.to_numpy(), -1).astype(np.int32)
    return Texts(new_code[held.codes], encoded.dictionary)


def _values(chosen: Array) -> str:
    count = int(chosen.sum())
    return f"{count:,} value{'s' if count != 1 else ''}"
