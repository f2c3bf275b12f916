"""How DuckDB's types travel through Arrow and come back.

Arrow cannot say everything that DuckDB's types say. Where it cannot, a column travels as
text, as a decimal or as a dictionary, and its DuckDB type travels in the metadata of its
Arrow field; writing gives it back. A column that would not survive the way there and back
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from gpuseg.errors import DataError
from gpuseg.memory import room
from gpuseg.memory.room import held_bytes
from gpuseg.records import Progress, no_progress
from gpuseg.tables.spool import BATCH_ROWS, collected, told

#: Field metadata that holds the DuckDB type of a column.
TYPE_KEY = b"duckdb.type"

_PLAIN = re.compile(
    r"BOOLEAN|U?(?:TINY|SMALL|BIG)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(\d+,\s?\d+\)|VARCHAR|BLOB"
    r"|DATE|TIME|TIMESTAMP(?:_MS|_NS| WITH TIME ZONE)?"
)
_WIDE_INTEGERS = ("HUGEINT", "UHUGEINT")

#: With less DuckDB hardly works.
_LEAST_MEMORY = 128 << 20


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def within_room(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Let a connection take no more memory than a run has for a table; return it."""
    budget = room().budget_bytes
    if budget is not None:
        n_bytes = max(_LEAST_MEMORY, held_bytes(budget))
        connection.execute(f"SET memory_limit = '{n_bytes // 2**20}MiB'")
    return connection


def to_arrow(
    rows: duckdb.DuckDBPyRelation, n_rows: int = 0, progress: Progress = no_progress
) -> pa.Table:
    """Return rows of DuckDB as Arrow, with what is needed to write them back unchanged.

    Parameters
    ----------
    n_rows
        How many there are, for the progress; 0 if that is not known.

    Raises
    ------
    DataError
        If a column would not survive the way there and back.
    """
    names, types = rows.columns, list(rows.types)
    as_text = _text_columns(rows, names, types)
    travelling = (
        _travelling(name, kind, name in as_text) for name, kind in zip(names, types, strict=True)
    )
    reader = rows.project(", ".join(travelling)).to_arrow_reader(BATCH_ROWS)
    table = collected(told(reader, progress, expected=n_rows), reader.schema)
    fields = [
        field if _PLAIN.fullmatch(str(kind)) else field.with_metadata({TYPE_KEY: str(kind)})
        for field, kind in zip(table.schema, types, strict=True)
    ]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _travelling(name: str, kind: Any, as_text: bool) -> str:
    column = quoted(name)
    if as_text:
        return f"CAST({column} AS VARCHAR) AS {column}"
    if str(kind) in _WIDE_INTEGERS:  # sums of integers are HUGEINT, and must stay numbers
        return f"CAST({column} AS DECIMAL(38, 0)) AS {column}"
    return column


def _text_columns(
    rows: duckdb.DuckDBPyRelation, names: Sequence[str], types: Sequence[Any]
) -> set[str]:
    """Return the columns that travel as text, each proved to come back as it was."""
    odd = {
        name: str(kind) for name, kind in zip(names, types, strict=True) if not _fits_arrow(kind)
    }
    if not odd:
        return set()
    checks = ", ".join(f"{_lost(quoted(name), kind)}" for name, kind in odd.items())
    [lost] = rows.aggregate(checks).fetchall()
    text = set()
    for (name, kind), (n_decimal, n_text) in zip(odd.items(), _pairs(lost), strict=True):
        if kind in _WIDE_INTEGERS and not n_decimal:
            continue
        if n_text:
            raise DataError(
                f"column '{name}' has type {kind}, which cannot leave DuckDB unchanged; give "
                "an --input-query that casts it or leaves it out"
            )
        text.add(name)
    return text


def _lost(column: str, kind: str) -> str:
    """Count the values that a decimal, and a text, would not bring back."""
    counts = []
    for carrier in ("DECIMAL(38, 0)" if kind in _WIDE_INTEGERS else "VARCHAR", "VARCHAR"):
        back = f"TRY_CAST(TRY_CAST({column} AS {carrier}) AS {kind})"
        counts.append(f"count(*) FILTER ({back} IS DISTINCT FROM {column})")
    return ", ".join(counts)


def _pairs(values: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(values[::2], values[1::2], strict=True)


def _fits_arrow(kind: Any) -> bool:
    """Say whether Arrow, and the frames made from it, hold this type as it is."""
    # whole seconds fit Arrow, but become milliseconds in Parquet
    if kind.id in ("enum", "timestamp_s") or _PLAIN.fullmatch(str(kind)):
        return True
    if kind.id in ("list", "array", "struct", "map"):
        parts = (part for _name, part in kind.children if not isinstance(part, int))
        return all(_fits_arrow(part) for part in parts)
    return False


def restored(field: pa.Field) -> str:
    """Return the SQL that gives a column its DuckDB type back."""
    column = quoted(field.name)
    recorded = (field.metadata or {}).get(TYPE_KEY)
    if recorded is not None:
        try:
            kind = str(duckdb.type(recorded.decode()))
        except (duckdb.Error, UnicodeDecodeError):
            return column  # metadata of somebody else's file
        return f"CAST({column} AS {kind}) AS {column}"
    if pa.types.is_null(field.type):
        return f"CAST({column} AS VARCHAR) AS {column}"
    return column
