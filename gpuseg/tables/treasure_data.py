"""Treasure Data: tables out of it through Trino, and into it by bulk import and swap."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gpuseg.errors import DataError, SettingsError, SourceError
from gpuseg.records import Progress, no_progress
from gpuseg.tables.agreement import check_known
from gpuseg.tables.location import Location
from gpuseg.tables.newness import Rows
from gpuseg.tables.spool import collected
from gpuseg.tables.treasure_data_catalog import (
    TableFacts,
    count_rows,
    find,
    quoted,
    quoted_table,
)
from gpuseg.tables.treasure_data_client import NO_ANSWER, ask, connected
from gpuseg.tables.treasure_data_types import arrow_schema
from gpuseg.tables.treasure_data_writing import NO_NEWCOMERS, Transaction

if TYPE_CHECKING:  # the client module says what to do where it is not installed
    import pytd

#: Rows that travel as Python objects at a time, some 60 bytes a value; the rest is Arrow.
BLOCK_ROWS = 50_000


def begin(_location: Location) -> Transaction:
    """Begin a transaction: side tables now, swaps when it is committed."""
    return Transaction()


def column_names(location: Location) -> tuple[str, ...]:
    """Return the names of a table's columns.

    Raises
    ------
    GpusegError
        As `read`.
    """
    with connected(SourceError) as client:
        return tuple(find(client, location).columns)


def read(
    location: Location,
    *,
    columns: Sequence[str] | None = None,
    query: str | None = None,
    where: Rows | None = None,
    progress: Progress = no_progress,
) -> pa.Table:
    """Read named columns of a table, or the rows of a query, block by block.

    Raises
    ------
    TableNotFoundError
        If there is no such database, table or column.
    SettingsError
        If the key is refused, or the query does not run.
    DataError
        If a column has a type that gpuseg does not read.
    SourceError
        If the service failed, also when asked again.
    """
    if where is not None:
        raise SettingsError(f"'{location.display}': {NO_NEWCOMERS}")
    with connected(SourceError) as client:
        if query is not None:
            text = _checked(query)
            return ask(lambda: _fetch(client, text, 0, progress))
        facts = find(client, location)
        sql = f"SELECT {_names(location, facts, columns)} FROM {quoted_table(location)}"
        return ask(lambda: _fetch(client, sql, facts.n_rows, progress))


def highest(location: Location, _column: str) -> str | None:
    """Refuse to be watched.

    Raises
    ------
    SettingsError
    """
    raise SettingsError(f"'{location.display}': {NO_NEWCOMERS}")


def peek(
    location: Location, *, query: str | None = None, sample_rows: int
) -> tuple[int, list[tuple[str, str]], pa.Table]:
    """Return the number of rows, names and types of the columns, and the first rows."""
    with connected(SourceError) as client:
        if query is not None:
            source, names = f"({_checked(query)})", "*"  # the query names its columns
        else:
            source = quoted_table(location)
            names = _names(location, find(client, location), None)
        sql = f"SELECT {names} FROM {source} LIMIT {sample_rows}"
        n_rows = ask(lambda: count_rows(client, source))
        sample = ask(lambda: _fetch(client, sql, 0, no_progress))
        types = [(field.name, str(field.type)) for field in sample.schema]
        return n_rows, types, sample


def _fetch(client: pytd.Client, sql: str, n_expected: int, progress: Progress) -> pa.Table:
    cursor: Any = client.default_engine.cursor()
    try:
        cursor.execute(sql)
        schema = arrow_schema(cursor.description or [])
        return collected(_blocks(cursor, schema, n_expected, progress), schema)
    finally:
        with contextlib.suppress(*NO_ANSWER):
            cursor.close()


def _blocks(
    cursor: Any, schema: pa.Schema, n_expected: int, progress: Progress
) -> Iterator[pa.RecordBatch]:
    n_rows = 0
    while rows := cursor.fetchmany(BLOCK_ROWS):
        yield _block(rows, schema)
        n_rows += len(rows)
        if n_expected:
            progress(min(n_rows / n_expected, 1.0))


def _block(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    values = zip(*rows, strict=True) if rows else ([] for _field in schema)
    try:
        arrays = [
            pa.array(column, type=field.type) for column, field in zip(values, schema, strict=True)
        ]
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        raise DataError(
            "Treasure Data returned a value that does not fit the type it declared; give an "
            "--input-query that casts the column"
        ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _checked(query: str) -> str:
    """Return a query without the semicolon that Trino does not take.

    Raises
    ------
    SettingsError
        If it does more than read.
    """
    text = re.sub(r"(;|\s|--[^\n]*$)+\Z", "", query)
    words = re.sub(r"--[^\n]*|/\*.*?\*/|\s+|\(", " ", text, flags=re.DOTALL).split()
    if not words or words[0].upper() not in ("SELECT", "WITH"):
        raise SettingsError("the input query is no SELECT; a query may read and nothing else")
    return text


def _names(location: Location, facts: TableFacts, columns: Sequence[str] | None) -> str:
    known = list(facts.columns)
    if columns is None:
        left_out = {name.casefold() for name in location.leave_out}
        columns = [name for name in known if name.casefold() not in left_out]
    check_known(columns, known, location.display)
    if not columns:
        raise DataError(f"'{location.display}' has no column that is not left out")
    return ", ".join(map(quoted, columns))
