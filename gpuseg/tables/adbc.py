"""Databases through ADBC: tables out of them and into them.

One door for all; what differs between systems is data (`gpuseg.tables.adbc_dialect`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa

from gpuseg.errors import (
    SourceError,
    TableNotFoundError,
    did_you_mean,
)
from gpuseg.records import Progress, no_progress
from gpuseg.tables.adbc_connection import Connection, retried, with_type
from gpuseg.tables.adbc_dialect import identifier
from gpuseg.tables.adbc_writing import Transaction, find_table
from gpuseg.tables.agreement import SHOWN_NAMES, check_known
from gpuseg.tables.location import Location
from gpuseg.tables.newness import Rows
from gpuseg.tables.spool import collected, kept, told


def read(
    location: Location,
    *,
    columns: Sequence[str] | None = None,
    query: str | None = None,
    where: Rows | None = None,
    progress: Progress = no_progress,
) -> pa.Table:
    """Read named columns of a table, or the rows of a query, in batches.

    Parameters
    ----------
    where
        Which rows; all of them when None.

    Raises
    ------
    TableNotFoundError
        If there is no such database, table or column.
    SettingsError
        If the user, the password or the query is refused.
    DataError
        If a column cannot travel through Arrow.
    SourceError
        If the server is not there, or gets lost, after several tries.
    """

    def once() -> pa.Table:
        with Connection(location, SourceError) as connection:
            rows, types = _rows(connection, location, query)
            if columns is not None:
                check_known(columns, list(types), location.display)
                types = {name: types[name] for name in columns}
            if where is not None:
                there = name_of(connection, where.absent_from) if where.absent_from else ""
                some = f"SELECT * FROM {rows} AS gpuseg_in WHERE {where.sql(there)}"
                rows = f"({some}) AS gpuseg_rows"
            return _fetched(connection, rows, types, progress)

    return retried(once)


def highest(location: Location, column: str) -> str | None:
    """Return the highest value of a column as text; None where there is no row, or no table."""

    def once() -> str | None:
        with Connection(location, SourceError) as connection:
            kind, schema, table = find_table(connection, location)
            if not kind:
                return None
            check_known([column], list(connection.columns(schema, table)), location.display)
            top = f"SELECT CAST(max({identifier(column)}) AS {connection.dialect.text})"
            [(found,)] = connection.run(f"{top} FROM {name_of(connection, location)}")
            return None if found is None else str(found)

    return retried(once)


def name_of(connection: Connection, location: Location) -> str:
    """Return the quoted name of a table or view, or nothing where there is none."""
    kind, schema, table = find_table(connection, location)
    return f"{identifier(schema)}.{identifier(table)}" if kind else ""


def peek(
    location: Location, *, query: str | None = None, sample_rows: int
) -> tuple[int, list[tuple[str, str]], pa.Table]:
    """Return the number of rows, names and types of the columns, and the first rows."""

    def once() -> tuple[int, list[tuple[str, str]], pa.Table]:
        with Connection(location, SourceError) as connection:
            rows, types = _rows(connection, location, query)
            [(n_rows,)] = connection.run(f"SELECT count(*) FROM {rows}")
            some = f"(SELECT * FROM {rows} LIMIT {sample_rows}) AS gpuseg_rows"
            sample = _fetched(connection, some, types, no_progress)
            return int(n_rows), list(types.items()), sample

    return retried(once)


def begin(location: Location) -> Transaction:
    """Begin a transaction in the location's database.

    Raises
    ------
    SettingsError
        If the user or the password is refused, or the database is one to read from only.
    SinkError
        If the server is not there after several tries.
    """
    return retried(lambda: Transaction(location))


def _rows(
    connection: Connection, location: Location, query: str | None
) -> tuple[str, dict[str, str]]:
    """Return what to select from, and the SQL type of each of its columns."""
    for statement in connection.dialect.reading:
        connection.run(statement)
    if query is not None:
        return _query_rows(connection, query)
    kind, schema, table = find_table(connection, location)
    if not kind:
        raise _not_found(connection, location)
    return f"{identifier(schema)}.{identifier(table)}", connection.columns(schema, table)


def _query_rows(connection: Connection, query: str) -> tuple[str, dict[str, str]]:
    dialect = connection.dialect
    bare = re.sub(r";\s*(--[^\n]*\s*)*$", "", query)
    if not dialect.view:
        rows = f"({bare}\n) AS gpuseg_query"
        schema = next(connection.batches(f"SELECT * FROM {rows} WHERE 1 = 0"))
        return rows, {field.name: str(field.type) for field in schema}
    # as a view the database itself refuses what is not one SELECT, and tells the types
    connection.run(dialect.view.format(query=query, bare=bare))
    connection.run(dialect.after_view)
    types = connection.columns("pg_temp", "gpuseg_query")
    return "gpuseg_query", types


def _fetched(
    connection: Connection, rows: str, types: Mapping[str, str], progress: Progress
) -> pa.Table:
    """Read all rows; columns with values that would arrive changed are read in another way."""
    dialect = connection.dialect
    travels = {name: dialect.travel(kind) for name, kind in types.items()}
    doubts = [name for name, travel in travels.items() if travel.doubt]
    selected = [_selected(travels[name].expression, name) for name in types]
    checks = [
        f"({travels[name].doubt.format(identifier(name))}) AS {identifier(f'gpuseg doubt {i}')}"
        for i, name in enumerate(doubts)
    ]
    table = _table(connection, f"SELECT {', '.join(selected + checks)} FROM {rows}", progress)
    columns = dict(zip(types, table.columns, strict=False))
    found = table.columns[len(types) :]
    odd = [name for name, flags in zip(doubts, found, strict=True) if _any(flags)]
    if odd:
        again = ", ".join(_selected(travels[name].otherwise, name) for name in types if name in odd)
        texts = _table(connection, f"SELECT {again} FROM {rows}", no_progress)
        columns |= dict(zip((n for n in types if n in odd), texts.columns, strict=True))
    for name, column in columns.items():
        changed = dialect.arrived(column, types[name], name)
        columns[name] = column if changed is column else kept(changed, of=len(types))
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    schema = pa.schema([with_type(f, dialect, types[f.name]) for f in fields])
    return pa.Table.from_arrays(list(columns.values()), schema=schema)


def _selected(expression: str, name: str) -> str:
    return f"{expression.format(identifier(name))} AS {identifier(name)}"


def _any(flags: pa.ChunkedArray) -> bool:
    return any(flags.unique().to_pylist())


def _table(connection: Connection, sql: str, progress: Progress) -> pa.Table:
    expected = _expected_rows(connection, sql)
    stream = connection.batches(sql)
    schema = next(stream)
    return collected(told(stream, progress, expected=expected), schema)


def _expected_rows(connection: Connection, sql: str) -> float:
    if not connection.dialect.estimate:
        return 0.0
    [(plan,)] = connection.run(connection.dialect.estimate.format(query=sql))
    return float((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"])


def _not_found(connection: Connection, location: Location) -> TableNotFoundError:
    names = [f"{schema}.{table}" for _kind, schema, table in connection.tables()]
    asked = f"{location.schema}.{location.table}"
    name = connection.dialect.name
    if not names:
        return TableNotFoundError(
            f"table '{asked}' is not in this {name} database, which holds no table; "
            f"gpuseg load FILE {asked} makes one"
        )
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return TableNotFoundError(
        f"table '{asked}' is not in this {name} database, which has "
        f"{', '.join(names[:SHOWN_NAMES])}{more}{did_you_mean(asked, names)}"
    )
