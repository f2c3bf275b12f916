"""JSON lines: one object a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from gpuseg.errors import DataError
from gpuseg.tables.encodings import open_bytes

SAMPLE_BYTES = 1 << 20
#: Beyond it a double leaves out whole numbers.
LARGEST_INTEGER = 2.0**53 - 1


def read_json(path: Path) -> pa.Table:
    """Read JSON lines; text stays text, also where it looks like a date.

    Raises
    ------
    DataError
        If a line is no object, a column changes its kind, or a whole number would be
        rounded.
    """
    table = _parse(path, None)
    rounded = _rounded(path, table)
    exact = pa.schema(
        [
            field.with_type(pa.decimal128(38, 0) if field.name in rounded else _as_text(field.type))
            for field in table.schema
        ]
    )
    return table if exact.equals(table.schema) else _parse(path, exact)


def sample_json(path: Path) -> tuple[pa.Table, int]:
    """Return the first rows of JSON lines and the number of bytes that they take."""
    with open_bytes(path) as stream:
        head = stream.read(SAMPLE_BYTES)
        rest = stream.read(1)
    if rest:
        head = head[: head.rfind(b"\n") + 1]
    if not head:  # one line is longer than the sample
        return read_json(path), path.stat().st_size
    table = _parse(path, None, head)
    schema = pa.schema([field.with_type(_as_text(field.type)) for field in table.schema])
    return _parse(path, schema, head), len(head)


def _parse(path: Path, schema: pa.Schema | None, head: bytes | None = None) -> pa.Table:
    options = pa.json.ParseOptions(explicit_schema=schema, newlines_in_values=False)
    try:
        with open_bytes(path) if head is None else pa.BufferReader(head) as stream:
            return pa.json.read_json(
                stream,
                read_options=pa.json.ReadOptions(block_size=1 << 24),
                parse_options=options,
            )
    except pa.ArrowInvalid as error:
        row = re.search(r"in row (\d+)", str(error))
        where = f", line {int(row.group(1)) + 1}" if row else ""
        said = (
            str(error).partition("\n")[0]
            if schema is None
            else ("whole numbers beyond 2^53 stand beside fractions; write them as text")
        )
        raise DataError(f"'{path}'{where} is not readable as JSON lines: {said}") from None


def _as_text(kind: pa.DataType) -> pa.DataType:
    """Return the type with every guessed timestamp as the text that it was."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_text(field.type)) for field in kind])
    return kind


def _rounded(path: Path, table: pa.Table) -> set[str]:
    """Return the columns of doubles that stand for whole numbers which no double holds."""
    suspects = [
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if pa.types.is_floating(column.type) and _is_large(column)
    ]
    if not suspects:
        return set()
    with open_bytes(path) as stream:
        rows = [json.loads(line) for line in stream.read().splitlines() if line.strip()]
    return {name for name in suspects if any(_is_rounded(row.get(name)) for row in rows)}


def _is_large(column: pa.ChunkedArray) -> bool:
    large = pc.greater(pc.abs(column), LARGEST_INTEGER)
    return bool(pc.any(large, min_count=0).as_py())


def _is_rounded(value: object) -> bool:
    return isinstance(value, int) and float(value) != value
