"""Treasure Data: tables out of it through Trino, and into it by bulk import and swap."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytd
import tdclient.errors as td_errors

from gpuseg.errors import (
    DataError,
    SettingsError,
    SinkError,
    SourceError,
    TableNotFoundError,
    did_you_mean,
)
from gpuseg.records import Progress, no_progress
from gpuseg.tables.agreement import SHOWN_NAMES, check_agreement, check_known
from gpuseg.tables.location import Location
from gpuseg.tables.treasure_data_client import (
    NO_ANSWER,
    ask,
    connect,
    connected,
    not_done,
    settle,
    translated,
)
from gpuseg.tables.treasure_data_import import Import, new_name, remove_leftovers
from gpuseg.tables.treasure_data_site import Site
from gpuseg.tables.treasure_data_types import (
    TIME,
    arrow_schema,
    check_table_name,
    declared,
    prepared,
)

#: Rows that travel as Python objects at a time, some 60 bytes a value; the rest is Arrow.
BLOCK_ROWS = 50_000


class TableFacts(NamedTuple):
    """What Treasure Data's REST API tells about a table."""

    id: Any
    columns: dict[str, str]  # name in queries -> declared type; `time` last
    n_rows: int  # as last counted there


# -- reading -----------------------------------------------------------------------------


def read(
    location: Location,
    *,
    columns: Sequence[str] | None = None,
    query: str | None = None,
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
    with connected(SourceError) as client:
        if query is not None:
            text = _checked(query)
            return ask(lambda: _fetch(client, text, 0, progress))
        facts = find(client, location)
        sql = f"SELECT {_names(location, facts, columns)} FROM {_quoted_table(location)}"
        return ask(lambda: _fetch(client, sql, facts.n_rows, progress))


def peek(
    location: Location, *, query: str | None = None, sample_rows: int
) -> tuple[int, list[tuple[str, str]], pa.Table]:
    """Return the number of rows, names and types of the columns, and the first rows."""
    with connected(SourceError) as client:
        if query is not None:
            source, names = f"({_checked(query)})", "*"  # the query names its columns
        else:
            source = _quoted_table(location)
            names = _names(location, find(client, location), None)
        sql = f"SELECT {names} FROM {source} LIMIT {sample_rows}"
        n_rows = ask(lambda: _count(client, source))
        sample = ask(lambda: _fetch(client, sql, 0, no_progress))
        types = [(field.name, str(field.type)) for field in sample.schema]
        return n_rows, types, sample


def _fetch(client: pytd.Client, sql: str, n_expected: int, progress: Progress) -> pa.Table:
    cursor: Any = client.default_engine.cursor()
    try:
        cursor.execute(sql)
        schema = arrow_schema(cursor.description or [])
        batches: list[pa.RecordBatch] = []
        n_rows = 0
        while rows := cursor.fetchmany(BLOCK_ROWS):
            batches.append(_block(rows, schema))
            n_rows += len(rows)
            if n_expected:
                progress(min(n_rows / n_expected, 1.0))
        return pa.Table.from_batches(batches, schema)
    finally:
        with contextlib.suppress(*NO_ANSWER):
            cursor.close()


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


def _count(client: pytd.Client, source: str) -> int:
    cursor: Any = client.default_engine.cursor()
    cursor.execute(f"SELECT count(1) FROM {source}")
    [(n_rows,)] = cursor.fetchall()
    return int(n_rows)


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
    return ", ".join(map(_quoted, columns))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted_table(location: Location) -> str:
    return f"{_quoted(location.schema.lower())}.{_quoted(location.table.lower())}"


# -- what is there -----------------------------------------------------------------------


def find(client: pytd.Client, location: Location) -> TableFacts:
    """Return what is known of a table.

    Raises
    ------
    TableNotFoundError
        If there is no such database or table.
    """
    tables = tables_of(client, location.schema)
    name = location.table.lower()
    if name not in tables:
        asked = f"{location.schema}.{location.table}"
        raise TableNotFoundError(
            f"table '{asked}' is not in Treasure Data; database '{location.schema}' has "
            f"{_listed(tables)}{did_you_mean(name, tables)}"
        )
    return tables[name]


def tables_of(client: pytd.Client, database: str) -> dict[str, TableFacts]:
    """Return the tables of a database.

    Raises
    ------
    TableNotFoundError
        If there is no such database.
    """
    api = client.api_client.api
    try:
        tables = ask(lambda: api.list_tables(database.lower()))
    except td_errors.NotFoundError:
        raise _no_database(client, database) from None
    return {name: _facts(about) for name, about in tables.items()}


def _facts(about: dict[str, Any]) -> TableFacts:
    # a third entry is the name that queries must use when the first is no legal one
    columns = {str((*column[2:3], column[0])[0]): str(column[1]) for column in about["schema"]}
    columns.setdefault(TIME, "long")
    return TableFacts(about.get("id"), columns, int(about["count"]))


def _no_database(client: pytd.Client, database: str) -> TableNotFoundError:
    site = Site.of_environment()
    try:
        names = list(ask(client.api_client.api.list_databases))
    except td_errors.NotFoundError:
        return TableNotFoundError(
            f"{site.host} is no server of Treasure Data's REST API (404); TD_API_SERVER must "
            "name that of your region, for example https://api.eu01.treasuredata.com"
        )
    return TableNotFoundError(
        f"there is no database '{database}' at {site.host}, which has {_listed(names)}"
        f"{did_you_mean(database, names)}; create it there first, and if you expected others, "
        "see whether TD_API_SERVER names your region"
    )


def column_names(location: Location) -> tuple[str, ...]:
    """Return the names of a table's columns.

    Raises
    ------
    GpusegError
        As `read`.
    """
    with connected(SourceError) as client:
        return tuple(find(client, location).columns)


def _listed(names: Any) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN_NAMES} more" if len(ordered) > SHOWN_NAMES else ""
    return ", ".join(ordered[:SHOWN_NAMES]) + more if ordered else "nothing in it"


# -- writing -----------------------------------------------------------------------------


def begin(_location: Location) -> Transaction:
    """Begin a transaction: side tables now, swaps when it is committed."""
    return Transaction()


class _Side(NamedTuple):
    """A table that was written beside its place."""

    database: str
    target: str
    name: str
    id: Any
    is_new: bool  # the target was not there


class Transaction:
    """Tables that appear together by swaps; what was appended, by commits of its imports.

    A swap is its own inverse, so one that fails takes the earlier ones back. A process that
    dies between two swaps leaves whole tables, some new and some old. What dead processes
    left behind is removed two days later by the next one that writes to the database.
    """

    def __init__(self) -> None:
        self._site = Site.of_environment()
        self._client = connect(self._site)
        self._sides: list[_Side] = []
        self._imports: list[Import] = []
        self._kept: set[str] = set()

    def check(self, location: Location, schema: pa.Schema, *, append: bool) -> None:
        """Find out whether `stage` would take columns like these; write nothing.

        Raises
        ------
        TableNotFoundError
            If there is no such database.
        DataError, SettingsError, SinkError
            As `stage`.
        """
        check_table_name(location.schema.lower(), "database")
        check_table_name(location.table.lower(), "table")
        schema_to_declare = declared(schema)
        with translated(self._site, SinkError):
            there = tables_of(self._client, location.schema)
            facts = there.get(location.table.lower())
            if append and facts is not None:
                new = dict(schema_to_declare) | {TIME: "long"}
                check_agreement(location.display, _plain_types(facts.columns), new)

    def stage(self, location: Location, table: pa.Table, *, append: bool) -> None:
        """Write a table to the side, or rows to append into an import, and count them.

        Raises
        ------
        DataError
            If a name, a type or a value has no place in Treasure Data, or the columns to
            append differ.
        SinkError
            If the service failed, or rows did not arrive.
        """
        self.check(location, table.schema, append=append)
        rows, schema = prepared(table)
        database, target = location.schema.lower(), location.table.lower()
        with translated(self._site, SinkError):
            facts = tables_of(self._client, database).get(target)
            if not append or facts is None:
                self._stage_beside(database, target, rows, schema, is_new=facts is None)
            elif rows.num_rows:
                staged = Import(self._client, database, target)
                self._imports.append(staged)
                staged.stage(rows)

    def _stage_beside(
        self, database: str, target: str, rows: pa.Table, schema: list[list[str]], *, is_new: bool
    ) -> None:
        remove_leftovers(self._client, database)
        side = _Side(database, target, new_name(), None, is_new)
        self._sides.append(side)
        self._create(database, side.name)
        self._fill(database, side.name, rows, schema)
        # the swap moves names, not ids: so one can tell later who is who
        self._sides[-1] = side._replace(id=tables_of(self._client, database)[side.name].id)

    def commit(self) -> None:
        """Swap every side table with its target, then commit the imports.

        Raises
        ------
        SinkError
            The previous tables stand.
        """
        done: list[_Side] = []
        try:
            with translated(self._site, SinkError):
                for side in self._sides:
                    if side.is_new:
                        self._create(side.database, side.target)
                    done.append(side)
                    self._swap(side)
                for staged in self._imports:
                    staged.commit()
        except BaseException:
            self._take_back(done)
            raise

    def close(self) -> None:
        """Remove the side tables: what was not committed, or what was there before."""
        for side in self._sides:
            if side.name not in self._kept:
                self._remove(side.database, side.name)
        for staged in self._imports:
            staged.discard()
        self._client.close()

    def _fill(self, database: str, name: str, rows: pa.Table, schema: list[list[str]]) -> None:
        api = self._client.api_client.api
        if schema:
            # declared, so that nothing is guessed from the first records
            settle(lambda: api.update_schema(database, name, json.dumps(schema)), not_done)
        if not rows.num_rows:
            return  # an import of nothing fails, but an empty table is what was asked for
        staged = Import(self._client, database, name)
        try:
            staged.stage(rows)
            staged.commit()
        finally:
            staged.discard()
        table = f"{_quoted(database)}.{_quoted(name)}"
        n_arrived = ask(lambda: _count(self._client, table))
        if n_arrived != rows.num_rows:
            raise SinkError(
                f"{n_arrived} of {rows.num_rows} rows arrived in Treasure Data; the previous "
                "table stands"
            )

    def _create(self, database: str, name: str) -> None:
        api = self._client.api_client.api
        settle(
            lambda: api.create_log_table(database, name),
            lambda: name in tables_of(self._client, database),
        )

    def _swap(self, side: _Side) -> None:
        """Swap, and look who is who when the answer got lost."""
        api = self._client.api_client.api
        settle(
            lambda: api.swap_table(side.database, side.target, side.name),
            lambda: self._is_in_place(side),
        )

    def _is_in_place(self, side: _Side) -> bool:
        facts = tables_of(self._client, side.database).get(side.target)
        return facts is not None and facts.id == side.id

    def _take_back(self, done: Sequence[_Side]) -> None:
        for side in reversed(done):
            try:
                with translated(self._site, SinkError):
                    if self._is_in_place(side):
                        self._swap_back(side)
                    if side.is_new:
                        self._remove(side.database, side.target)
            except (SinkError, SettingsError):
                # the side table may hold the only copy of the old rows
                self._kept.add(side.name)
                raise SinkError(
                    f"Treasure Data ({self._site.host}) stopped answering between two swaps; "
                    f"'{side.database}.{side.target}' and '{side.database}.{side.name}' are "
                    "both whole, one holds the old rows and the other the new; see which is "
                    "which, and swap them if need be"
                ) from None

    def _swap_back(self, side: _Side) -> None:
        api = self._client.api_client.api
        settle(
            lambda: api.swap_table(side.database, side.target, side.name),
            lambda: not self._is_in_place(side),
        )

    def _remove(self, database: str, name: str) -> None:
        """Remove a table that nobody needs; if that fails, the next writer will."""
        try:
            self._client.api_client.api.delete_table(database, name)
        except NO_ANSWER:
            return


def _plain_types(columns: dict[str, str]) -> dict[str, str]:
    return {name: {"int": "long", "float": "double"}.get(k, k) for name, k in columns.items()}
