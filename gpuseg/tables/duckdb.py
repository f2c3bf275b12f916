"""DuckDB: tables out of a database file and into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from gpuseg.errors import (
    DataError,
    SettingsError,
    SinkError,
    SourceError,
    TableNotFoundError,
    did_you_mean,
)
from gpuseg.records import Progress, no_progress
from gpuseg.tables.agreement import SHOWN_NAMES, check_agreement, check_known, check_names
from gpuseg.tables.duckdb_file import DatabaseFile, opened, translated
from gpuseg.tables.duckdb_types import quoted, restored, to_arrow
from gpuseg.tables.location import Location
from gpuseg.tables.newness import Newness, Rows, not_there_sql
from gpuseg.tables.staging import check_folder

# -- reading -----------------------------------------------------------------------------


def read(
    location: Location,
    *,
    columns: Sequence[str] | None = None,
    query: str | None = None,
    where: Rows | None = None,
    progress: Progress = no_progress,
) -> pa.Table:
    """Read a table, or the rows of a query, with what is needed to write it back unchanged.

    Parameters
    ----------
    where
        Which rows; all of them when None.

    Raises
    ------
    TableNotFoundError
        If there is no such file, schema, table or column.
    SettingsError
        If the query is not one SELECT.
    DataError
        If the file is no DuckDB database, or a column cannot travel through Arrow.
    SourceError
        If the file stays locked or unreadable.
    """
    with opened(location.path, SourceError) as connection:
        rows = _relation(connection, location, query)
        if where is not None:
            there = _name_of(connection, where.absent_from) if where.absent_from else ""
            rows = rows.set_alias("gpuseg_in").filter(where.sql(there))
        if columns is not None:
            check_known(columns, rows.columns, location.display)
            rows = rows.project(", ".join(map(quoted, columns)))
        # a query would have to run twice for it
        n_rows = 0 if query is not None else int(rows.aggregate("count(*)").fetchall()[0][0])
        return to_arrow(rows, n_rows, progress)


def highest(location: Location, column: str) -> str | None:
    """Return the highest value of a column as text; None where there is no row, or no table."""
    if not location.path.exists():
        return None
    with opened(location.path, SourceError) as connection:
        there = _name_of(connection, location)
        if not there:
            return None
        check_known([column], connection.sql(f"FROM {there}").columns, location.display)
        [(top,)] = connection.execute(
            f"SELECT CAST(max({quoted(column)}) AS VARCHAR) FROM {there}"
        ).fetchall()
        return None if top is None else str(top)


def peek(
    location: Location, *, query: str | None = None, sample_rows: int
) -> tuple[int, list[tuple[str, str]], pa.Table]:
    """Return the number of rows, names and types of the columns, and the first rows."""
    with opened(location.path, SourceError) as connection:
        rows = _relation(connection, location, query)
        [(n_rows,)] = rows.aggregate("count(*)").fetchall()
        types = [str(kind) for kind in rows.types]
        return (
            int(n_rows),
            list(zip(rows.columns, types, strict=True)),
            to_arrow(rows.limit(sample_rows)),
        )


def _relation(
    connection: duckdb.DuckDBPyConnection, location: Location, query: str | None
) -> duckdb.DuckDBPyRelation:
    if query is not None:
        return _query(connection, query)
    name = _name_of(connection, location)
    if not name:
        raise _not_found(connection, location)
    return connection.sql(f"FROM {name}")


def _name_of(connection: duckdb.DuckDBPyConnection, location: Location) -> str:
    """Return the quoted name of a table or view, or nothing where there is none."""
    kind, schema, table = find_table(connection, location)
    return f"{_schema(connection, schema)}.{quoted(table)}" if kind else ""


def _schema(connection: duckdb.DuckDBPyConnection, schema: str) -> str:
    """Return a schema with its database: alone it may be taken for one of that name."""
    [(database,)] = connection.execute("SELECT current_database()").fetchall()
    return f"{quoted(database)}.{quoted(schema)}"


def _query(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyRelation:
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise SettingsError(f"the input query is no SQL that DuckDB understands: {error}") from None
    if len(statements) != 1:
        raise SettingsError(f"the input query holds {len(statements)} statements; expected one")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise SettingsError("the input query is no SELECT; a query may read and nothing else")
    try:
        names = connection.sql(query).columns
        _check_names(names)
        # the query may end in a semicolon and a comment, which no subquery may
        connection.execute(f"CREATE TEMP VIEW gpuseg_query AS {query}")
    except duckdb.Error as error:
        raise SettingsError(f"the input query does not run: {error}") from None
    return connection.sql("FROM temp.main.gpuseg_query")


def _check_names(names: Sequence[str]) -> None:
    counts = Counter(name.lower() for name in names)
    twice = next((name for name in names if counts[name.lower()] > 1), None)
    if twice is not None:
        raise DataError(f"the input query has two columns '{twice}'; give each a name with AS")


def find_table(connection: duckdb.DuckDBPyConnection, location: Location) -> tuple[str, str, str]:
    """Return kind (``table``, ``view`` or nothing), schema and name as they are spelt there."""
    for kind, schema, table in _tables(connection):
        spelt = (schema.lower(), table.lower())
        if spelt == (location.schema.lower(), location.table.lower()):
            return kind, schema, table
    return "", location.schema, location.table


def _tables(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    return connection.execute(
        "SELECT 'table', schema_name, table_name FROM duckdb_tables() "
        "WHERE database_name = current_database() "
        "UNION ALL SELECT 'view', schema_name, view_name FROM duckdb_views() "
        "WHERE database_name = current_database() AND NOT internal ORDER BY ALL"
    ).fetchall()


def _not_found(connection: duckdb.DuckDBPyConnection, location: Location) -> TableNotFoundError:
    names = [f"{schema}.{table}" for _kind, schema, table in _tables(connection)]
    asked = f"{location.schema}.{location.table}"
    if not names:
        return TableNotFoundError(
            f"table '{asked}' is not in '{location.path}', which holds no table; "
            f"gpuseg load FILE {asked} makes one"
        )
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return TableNotFoundError(
        f"table '{asked}' is not in '{location.path}', which has {', '.join(names[:SHOWN_NAMES])}"
        f"{more}{did_you_mean(asked, names)}"
    )


# -- writing -----------------------------------------------------------------------------


def begin(location: Location) -> Transaction:
    """Begin a transaction in a database file, which is made if it is not there.

    Raises
    ------
    SettingsError
        If the folder of the file is not there.
    SinkError
        If the file stays locked, or cannot be written to.
    """
    return Transaction(location.path)


class Transaction:
    """Tables of one database that appear together, or not at all.

    DuckDB itself does what matters: until `commit` everyone else sees the old tables, and
    a process that dies leaves them as they were, with nothing to clean up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        was_there = path.exists()
        self._committed = False
        check_folder(path)
        self._file = DatabaseFile(path, SinkError, read_only=False)
        self._connection = self._file.connection
        # somebody else may have made it in between
        self._is_new = not was_there and not _tables(self._connection)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.begin()

    def stage(
        self, location: Location, table: pa.Table, *, append: bool, new: Newness | None = None
    ) -> int:
        """Write a table inside the transaction, check what was written, return how many rows.

        Raises
        ------
        SettingsError
            If the name belongs to a view.
        DataError
            If a type has no place in DuckDB, or the columns to append differ.
        SinkError
        """
        check_names(table.schema.names, "a DuckDB table")
        with translated(self._path, SinkError):
            return self._stage(location, table, append, new)

    def check(self, location: Location, schema: pa.Schema, *, append: bool) -> None:
        """Find out whether `stage` would take columns like these; write nothing."""
        self.stage(location, schema.empty_table(), append=append)

    def mark(self, location: Location, *, append: bool) -> str:  # noqa: ARG002
        """Say what the table holds inside this transaction, whatever the order of its rows."""
        with translated(self._path, SinkError):
            kind, schema, name = find_table(self._connection, location)
            if not kind:
                return "nothing"
            rows = self._connection.sql(f"FROM {_schema(self._connection, schema)}.{quoted(name)}")
            columns = dict(zip(rows.columns, map(str, rows.types), strict=True))
            row = f"hash({', '.join(map(quoted, columns))})"
            [found] = rows.aggregate(f"count(*), bit_xor({row}), sum({row})").fetchall()
        return f"{columns} {found}"

    def commit(self) -> None:
        """Let all tables appear at once."""
        with translated(self._path, SinkError):
            self._connection.commit()
        self._committed = True

    def close(self) -> None:
        """Give the file free; what was not committed never was."""
        if self._is_new and not self._committed:
            # while the lock is still held: nobody else can have put anything there
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _stage(self, location: Location, table: pa.Table, append: bool, new: Newness | None) -> int:
        connection = self._connection
        kind, schema, name = find_table(connection, location)
        if kind == "view":
            raise SettingsError(f"'{location.display}' is a view; give the name of a table")
        here = _schema(connection, schema)
        target = f"{here}.{quoted(name)}"
        rows = f"SELECT {', '.join(map(restored, table.schema))} FROM gpuseg_rows"
        try:
            connection.register("gpuseg_rows", table)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {here}")
            before, expected = 0, table.num_rows
            if kind and append:
                self._check_columns(location, target, rows)
                if new is not None:
                    rows = f"FROM ({rows}) AS gpuseg_in WHERE {not_there_sql(new, target)}"
                    expected = self._count(f"({rows})")
                before = self._count(target)
                connection.execute(f"INSERT INTO {target} BY NAME {rows}")
            else:
                connection.execute(f"CREATE OR REPLACE TABLE {target} AS {rows}")
        except duckdb.NotSupportedError:
            raise _cannot_hold(table.schema) from None
        connection.unregister("gpuseg_rows")
        written = self._count(target) - before
        if written != expected:
            raise SinkError(
                f"{written} of {expected} rows arrived in '{location.display}'; the "
                "previous table stands"
            )
        return written

    def _check_columns(self, location: Location, target: str, rows: str) -> None:
        old, new = self._connection.sql(f"FROM {target}"), self._connection.sql(rows)
        check_agreement(
            location.display,
            dict(zip(old.columns, map(str, old.types), strict=True)),
            dict(zip(new.columns, map(str, new.types), strict=True)),
        )

    def _count(self, target: str) -> int:
        found = self._connection.execute(f"SELECT count(*) FROM {target}").fetchone()
        assert found is not None
        return int(found[0])


def _cannot_hold(schema: pa.Schema) -> DataError:
    """Find the column whose Arrow type has no place in DuckDB."""
    for field in schema:
        try:
            duckdb.from_arrow(pa.schema([field]).empty_table()).fetchall()
        except duckdb.NotSupportedError:
            return DataError(
                f"column '{field.name}' has the Arrow type {field.type}, which DuckDB cannot "
                "hold; write to a .parquet or .arrow file"
            )
    return DataError("DuckDB cannot hold these columns; write to a .parquet or .arrow file")
