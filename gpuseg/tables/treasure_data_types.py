"""What Treasure Data can hold, and how Arrow's types travel there and back.

It stores 64-bit integers, doubles, texts and arrays of these. Everything else travels as
text that Trino's CAST understands, or is refused; the decision depends on the type alone,
never on the values, so that two runs make the same columns.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from gpuseg.errors import DataError

TIME = "time"
MAX_LONG = 2**63 - 1
#: Digits that every value of a decimal type may have and still fit 64 bits.
LONG_DIGITS = 18

_TABLE_NAME = re.compile(r"[a-z0-9_]{3,128}")
_COLUMN_NAME = re.compile(r"[a-z_][a-z0-9_]*")

Convert = Callable[[pa.ChunkedArray], pa.ChunkedArray]


class Stored(NamedTuple):
    """How a column is stored: Treasure Data's type, and what makes the values so."""

    kind: str
    convert: Convert


# -- names -------------------------------------------------------------------------------


def check_table_name(name: str, what: str) -> None:
    """Refuse a name that no database or table can have.

    Raises
    ------
    DataError
    """
    if not _TABLE_NAME.fullmatch(name):
        raise DataError(
            f"'{name}' cannot be the name of a {what} in Treasure Data: it must have 3 to 128 "
            "lower-case letters, digits and _"
        )


def legal_name(name: str) -> str:
    """Return the nearest name that a column can have, as pytd makes it."""
    legal = re.sub(r"[^a-z0-9_]", "_", name.lower())
    return legal if _COLUMN_NAME.fullmatch(legal) else f"_{legal}"


def with_legal_names(table: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Rename columns that Treasure Data cannot hold, and say so.

    Raises
    ------
    DataError
        If two columns would get the same name.
    """
    _check_collisions(table.column_names)
    names = [legal_name(name) for name in table.column_names]
    notes = [
        f"column '{name}' is called '{legal}' in Treasure Data"
        for name, legal in zip(table.column_names, names, strict=True)
        if name != legal
    ]
    return table.rename_columns(names), tuple(notes)


def _check_collisions(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(legal_name(name), name)
        if other != name:
            raise DataError(
                f"columns '{other}' and '{name}' would both be '{legal_name(name)}' in Treasure "
                "Data; rename one of them"
            )


# -- to Treasure Data --------------------------------------------------------------------


def stored_columns(schema: pa.Schema) -> dict[str, Stored]:
    """Decide how each column is stored.

    Raises
    ------
    DataError
        If a column's name or type has no place in Treasure Data.
    """
    _check_collisions(schema.names)
    for name in schema.names:
        if not _COLUMN_NAME.fullmatch(name):
            raise DataError(
                f"column '{name}' cannot be the name of a column in Treasure Data (lower-case "
                f"letters, digits and _); call it '{legal_name(name)}', or write to a .parquet "
                "file"
            )
    return {field.name: _stored(field) for field in schema}


def _stored(field: pa.Field) -> Stored:
    name, kind = field.name, field.type
    if name == TIME:
        return _stored_time(kind)
    found = _scalar(name, kind) or _array(name, kind)
    if found is None:
        raise DataError(
            f"column '{name}' has the Arrow type {kind}, which Treasure Data cannot hold; leave "
            "it out, make it text, or write to a .parquet file"
        )
    return found


def _scalar(name: str, kind: pa.DataType) -> Stored | None:
    types = pa.types
    if types.is_dictionary(kind):
        inner = _scalar(name, kind.value_type)
        return inner and Stored(inner.kind, lambda v: inner.convert(v.cast(kind.value_type)))
    if types.is_integer(kind):
        return Stored("long", partial(_as_long, name))
    if types.is_floating(kind):
        return Stored("double", _as_double)
    if types.is_decimal(kind):
        if kind.scale == 0 and kind.precision <= LONG_DIGITS:
            return Stored("long", partial(_as_long, name))
        return Stored("string", lambda values: values.cast(pa.string()))
    if types.is_timestamp(kind):
        return Stored("string", _timestamp_text)
    texts = (
        types.is_string, types.is_large_string, types.is_string_view, types.is_boolean,
        types.is_date, types.is_time, types.is_null,
    )  # fmt: skip
    if any(is_kind(kind) for is_kind in texts):
        return Stored("string", lambda values: values.cast(pa.string()))
    return None


def _array(name: str, kind: pa.DataType) -> Stored | None:
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not is_list:
        return None
    inner = kind.value_type
    for is_kind, element, arrow in (
        (types.is_integer(inner), "long", pa.int64()),
        (types.is_floating(inner), "double", pa.float64()),
        (types.is_string(inner) or types.is_large_string(inner), "string", pa.string()),
    ):
        if is_kind:
            return Stored(f"array<{element}>", partial(_cast, name, target=pa.list_(arrow)))
    return None


def _as_long(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    return _cast(name, values, pa.int64())


def _cast(name: str, values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    try:
        return values.cast(target)
    except pa.ArrowInvalid:
        raise DataError(
            f"column '{name}' has values above {MAX_LONG}, the largest integer of Treasure "
            "Data; make the column text"
        ) from None


def _as_double(values: pa.ChunkedArray) -> pa.ChunkedArray:
    doubles = values.cast(pa.float64())
    # pytd sends NaN as null too; two kinds of missing would part GROUP BY and joins
    missing = pa.scalar(None, pa.float64())
    return pc.if_else(pc.is_nan(doubles), missing, doubles)


def _timestamp_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if values.type.tz is None:
        return values.cast(pa.string())
    utc = values.cast(pa.timestamp(values.type.unit, "UTC"))
    # Arrow would end the text in Z, which Trino's CAST does not read
    texts = utc.cast(pa.timestamp(values.type.unit)).cast(pa.string())
    return pc.binary_join_element_wise(texts, "UTC", " ")


def _stored_time(kind: pa.DataType) -> Stored:
    if pa.types.is_integer(kind):
        return Stored("long", _checked_time)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Stored("long", _seconds)
    raise DataError(
        f"column 'time' has the Arrow type {kind}; Treasure Data keeps unix seconds under that "
        "name: make it an integer or a timestamp, or rename it"
    )


def _seconds(values: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        seconds = values.cast(pa.timestamp("s", getattr(values.type, "tz", None)))
    except pa.ArrowInvalid:
        raise DataError(
            "column 'time' holds parts of seconds, which Treasure Data's unix seconds cannot "
            "hold; round or rename it"
        ) from None
    return _checked_time(seconds.cast(pa.int64()))


def _checked_time(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if values.null_count:
        raise DataError(
            f"column 'time' is missing in {values.null_count:,} rows; Treasure Data needs it in "
            "all: fill or rename it"
        )
    return _as_long(TIME, values)


def prepared(table: pa.Table) -> tuple[pa.Table, list[list[str]]]:
    """Return the rows as Treasure Data stores them, and the schema to declare.

    Returns
    -------
    rows : Table
        With ``time``, which is now for all rows where the table has none.
    schema
        Name and type of each column but ``time``, which every table has.

    Raises
    ------
    DataError
        As `stored_columns`, or if a value does not fit.
    """
    stored = stored_columns(table.schema)
    columns = {name: how.convert(table.column(name)) for name, how in stored.items()}
    if TIME not in columns:
        now = pa.scalar(int(time.time()), pa.int64())
        columns[TIME] = pa.chunked_array([pa.repeat(now, table.num_rows)])
    return pa.table(columns), declared(table.schema)


def declared(schema: pa.Schema) -> list[list[str]]:
    """Return the schema to declare, without ``time``.

    Raises
    ------
    DataError
        As `stored_columns`.
    """
    stored = stored_columns(schema)
    return [[name, how.kind] for name, how in stored.items() if name != TIME]


# -- from Trino --------------------------------------------------------------------------

_FIXED = {
    "boolean": pa.bool_(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double": pa.float64(),
    "varchar": pa.string(),
    "char": pa.string(),
    "json": pa.string(),
    "varbinary": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}


def arrow_type(trino: str) -> pa.DataType | None:
    """Return the Arrow type of a Trino type; None for those that gpuseg does not read.

    Examples
    --------
    >>> arrow_type("array(bigint)")
    ListType(list<item: int64>)
    >>> arrow_type("decimal(10,2)")
    Decimal128Type(decimal128(10, 2))
    """
    if trino.startswith("array(") and trino.endswith(")"):
        inner = arrow_type(trino[len("array(") : -1])
        return None if inner is None else pa.list_(inner)
    if decimal := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", trino):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    return _FIXED.get(re.sub(r"\(\d+\)", "", trino))


def arrow_schema(description: Sequence[Sequence[Any]]) -> pa.Schema:
    """Return the Arrow schema of what a cursor describes.

    Raises
    ------
    DataError
        If a column has a type that gpuseg does not read.
    """
    fields = []
    for name, trino, *_rest in description:
        kind = arrow_type(str(trino))
        if kind is None:
            raise DataError(
                f"column '{name}' has the Trino type {trino}, which gpuseg does not read; give "
                "an --input-query that casts it or leaves it out"
            )
        fields.append(pa.field(name, kind))
    return pa.schema(fields)
