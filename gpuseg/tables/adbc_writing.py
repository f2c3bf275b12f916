"""Tables into a database through ADBC: loaded to the side, checked, exchanged together.

Everything happens in one transaction, which the database itself makes whole: until `commit`
everyone else sees the old tables, and a process or a server that dies leaves them as they
were, with nothing to clean up. What becomes of privileges, comments and views is in
``docs/decisions/databases.md``.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

import pyarrow as pa

from gpuseg.errors import DataError, GpusegError, SettingsError, SinkError, UnsureError
from gpuseg.tables import agreement
from gpuseg.tables.adbc_connection import Connection, LostError, check_names
from gpuseg.tables.adbc_dialect import identifier, literal
from gpuseg.tables.location import Location
from gpuseg.tables.newness import Newness, not_there_sql


class _Exchange(NamedTuple):
    """A table that waits at the side for its place."""

    schema: str
    name: str
    side: str
    fills: bool  # the old table, rather than replacing it
    is_first: bool  # there must be no old table


def find_table(connection: Connection, location: Location) -> tuple[str, str, str]:
    """Return kind (``table``, ``view`` or nothing), schema and name as they are spelt there.

    A name that is there as it was written is meant, else the one that differs in case only.

    Raises
    ------
    SettingsError
        If several differ in case only.
    """
    asked = (location.schema, location.table)
    alike = [
        found
        for found in connection.tables()
        if (found[1].lower(), found[2].lower()) == (asked[0].lower(), asked[1].lower())
    ]
    exact = [found for found in alike if found[1:] == asked]
    if len(alike) > 1 and not exact:
        names = ", ".join(f"{schema}.{table}" for _kind, schema, table in alike)
        raise SettingsError(
            f"'{location.display}' may be each of {names}; write the name as it is spelt there"
        )
    return (exact or alike or [("", _schema(connection, asked[0]), asked[1])])[0]


def _schema(connection: Connection, asked: str) -> str:
    """Return a schema's name as it is spelt where there are tables in it."""
    names = {schema for _kind, schema, _table in connection.tables()}
    alike = [name for name in names if name.lower() == asked.lower()]
    return alike[0] if asked not in names and len(alike) == 1 else asked


class Transaction:
    """Tables of one database that appear together, or not at all."""

    def __init__(self, location: Location) -> None:
        self._connection = Connection(location, SinkError)
        self._dialect = self._connection.dialect
        self._waiting: list[_Exchange] = []
        if not self._dialect.writes:
            self.close()
            raise SettingsError(
                f"'{location.display}': through this ADBC driver gpuseg reads only, because "
                "whether tables can be exchanged safely is not known; write to a file"
            )

    def stage(
        self, location: Location, table: pa.Table, *, append: bool, new: Newness | None = None
    ) -> int:
        """Load a table to the side, check what arrived, return how many rows are new.

        Raises
        ------
        SettingsError
            If the name belongs to a view, or the user may not write there.
        DataError
            If a type has no place in the database, or the columns to append differ.
        SinkError
        """
        names = table.column_names
        check_names(self._dialect, [location.schema, location.table, *names])
        if self._dialect.one_case:
            agreement.check_names(names, f"a {self._dialect.name} table")
        if new is not None and self._dialect.alone:
            self._connection.ask(self._dialect.alone, location.schema, location.table)
        kind, schema, name = find_table(self._connection, location)
        if kind == "view":
            raise SettingsError(f"'{location.display}' is a view; give the name of a table")
        if kind:
            self._check_permission(location, schema, name, append)
        else:
            self._make_schema(schema)
        side = self._loaded(location, table, schema)
        if kind and append:
            return self._append(location, schema, name, side, new)
        fills = bool(kind) and self._must_fill(location, schema, name, side)
        self._waiting.append(_Exchange(schema, name, side, fills, new is not None))
        return int(table.num_rows)

    def check(self, location: Location, schema: pa.Schema, *, append: bool) -> None:
        """Find out whether `stage` would take columns like these; nothing is committed."""
        self.stage(location, schema.empty_table(), append=append)

    def mark(self, location: Location, *, append: bool) -> str:  # noqa: ARG002
        """Say what the table will hold after `commit`, whatever the order of its rows."""
        if not self._dialect.row_hash:
            return ""
        kind, schema, name = find_table(self._connection, location)
        sides = {(waiting.schema, waiting.name): waiting.side for waiting in self._waiting}
        if not kind and (schema, name) not in sides:
            return "nothing"
        holds = sides.get((schema, name), name)
        if not self._connection.ask(self._dialect.readable, schema, holds):
            return ""  # somebody who may only add rows
        columns = self._connection.columns(schema, holds)
        found = self._connection.run(
            f"SELECT count(*), sum({self._dialect.row_hash})::text FROM {_full(schema, holds)} "
            "AS gpuseg_row"
        )
        return f"{columns} {found}"

    def commit(self) -> None:
        """Let all tables appear at once."""
        for exchange in self._waiting:
            self._exchange(exchange)
        try:
            self._connection.commit()
        except LostError as error:
            raise UnsureError(
                f"{error} (it was lost while the tables were being exchanged: all of them are the "
                "previous ones, or all are new; look at the table to see which)"
            ) from None

    def close(self) -> None:
        """Let go of the database; what was not committed never was."""
        self._connection.close()

    # -- to the side ---------------------------------------------------------------------

    def _check_permission(self, location: Location, schema: str, name: str, append: bool) -> None:
        if not self._dialect.permission:
            return
        word = "true" if append else "false"
        asked = self._connection.ask(self._dialect.permission, schema, name, append=word)
        for (reason,) in asked:
            if reason:
                raise SettingsError(f"'{location.display}' is there, and this user {reason}")

    def _make_schema(self, schema: str) -> None:
        asked = self._dialect.schema.format(schema=literal(schema))
        if asked and not self._connection.run(asked):
            self._connection.run(f"CREATE SCHEMA {identifier(schema)}")

    def _loaded(self, location: Location, table: pa.Table, schema: str) -> str:
        """Load rows into a table of their own, give its columns their types, count them."""
        side = f"gpuseg_{uuid.uuid4().hex[:12]}"
        fitting = pa.table(
            [
                _fitting(column, field)
                for column, field in zip(table.columns, table.schema, strict=True)
            ],
            names=table.column_names,
        )
        try:
            self._connection.ingest(fitting, schema, side)
        except LostError:
            raise
        except GpusegError as error:
            raise self._cannot_hold(schema, fitting) or error from None
        side = self._with_types(schema, side, table.schema)
        [(n_rows,)] = self._connection.run(f"SELECT count(*) FROM {_full(schema, side)}")
        if n_rows != table.num_rows:
            raise SinkError(
                f"{n_rows} of {table.num_rows} rows arrived for '{location.display}'; the previous "
                "table stands"
            )
        return side

    def _with_types(self, schema: str, loaded: str, wanted: pa.Schema) -> str:
        """Return a table with the SQL types that the columns came with."""
        types = self._connection.columns(schema, loaded)
        kinds = types | {f.name: k for f in wanted if (k := self._recorded(f)) is not None}
        if kinds == types:
            return loaded
        side = f"gpuseg_{uuid.uuid4().hex[:12]}"
        defined = ", ".join(f"{identifier(name)} {kind}" for name, kind in kinds.items())
        self._connection.run(f"CREATE TABLE {_full(schema, side)} ({defined})")
        cast = ", ".join(
            identifier(name)
            if kind == types[name]
            else self._dialect.insert.format(column=identifier(name), kind=kind)
            for name, kind in kinds.items()
        )
        self._connection.run(
            f"INSERT INTO {_full(schema, side)} SELECT {cast} FROM {_full(schema, loaded)}"
        )
        self._connection.run(f"DROP TABLE {_full(schema, loaded)}")
        return side

    def _recorded(self, field: pa.Field) -> str | None:
        """Return the SQL type that a column came with, if this database has such a type."""
        kind = (field.metadata or {}).get(self._dialect.type_key, b"").decode(errors="replace")
        if not kind or not self._dialect.type_exists:
            return None
        asked = self._dialect.type_exists.format(kind=literal(kind))
        [(n_types,)] = self._connection.run(asked)
        return kind if n_types else None

    def _cannot_hold(self, schema: str, table: pa.Table) -> DataError | None:
        """Find the column whose Arrow type has no place in the database."""
        for field in table.schema:
            # what was staged is given up: an error is on its way
            self._connection.rollback()
            self._make_schema(schema)
            try:
                # some drivers look at the type when there is a value only
                some = pa.table({field.name: table[field.name].drop_null().slice(0, 1)})
                self._connection.ingest(some, schema, "gpuseg_probe")
            except LostError:
                return None
            except SinkError:
                return _no_place(field, self._dialect.name)
        return None

    # -- into its place ------------------------------------------------------------------

    def _append(
        self, location: Location, schema: str, name: str, side: str, new: Newness | None
    ) -> int:
        there, added = (self._connection.columns(schema, table) for table in (name, side))
        agreement.check_agreement(location.display, there, added)
        names, place = ", ".join(map(identifier, added)), _full(schema, name)
        rows = f"{_full(schema, side)} AS gpuseg_in"
        if new is not None:
            rows += f" WHERE {not_there_sql(new, place)}"
        [(n_rows,)] = self._connection.run(f"SELECT count(*) FROM {rows}")
        self._connection.run(f"INSERT INTO {place} ({names}) SELECT {names} FROM {rows}")
        self._connection.run(f"DROP TABLE {_full(schema, side)}")
        return int(n_rows)

    def _must_fill(self, location: Location, schema: str, name: str, side: str) -> bool:
        """Say whether the old table must stay and be filled anew: something hangs on it."""
        if not self._dialect.bystanders:
            return False
        found = self._connection.ask(self._dialect.bystanders, schema, name)
        if not found:
            return False
        columns = [list(self._connection.columns(schema, table).items()) for table in (name, side)]
        if columns[0] != columns[1] or any(forbids for _what, forbids in found):
            needed = ", ".join(str(what) for what, _forbids in found[: agreement.SHOWN_NAMES])
            raise SettingsError(
                f"'{location.display}' cannot be replaced, because there is {needed}"
                f"{' and the columns change' if columns[0] != columns[1] else ''}; drop that "
                "first, or name another table"
            )
        return True

    def _exchange(self, exchange: _Exchange) -> None:
        schema, name, side, fills, is_first = exchange
        run, place = self._connection.run, _full(schema, name)
        if fills:
            run(f"TRUNCATE {place}")
            run(f"INSERT INTO {place} SELECT * FROM {_full(schema, side)}")
            run(f"DROP TABLE {_full(schema, side)}")
            return
        heirs = []
        if self._dialect.heirs:
            heir = literal(_full(schema, side))
            heirs = self._connection.ask(self._dialect.heirs, schema, name, heir=heir)
        for (statement,) in heirs:
            run(str(statement))
        if not is_first:
            run(f"DROP TABLE IF EXISTS {place}")
        run(f"ALTER TABLE {_full(schema, side)} RENAME TO {identifier(name)}")


def _full(schema: str, name: str) -> str:
    return f"{identifier(schema)}.{identifier(name)}"


def _no_place(field: pa.Field, system: str) -> DataError:
    return DataError(
        f"column '{field.name}' has the Arrow type {field.type}, which {system} cannot hold; "
        "write to a .parquet or .arrow file"
    )


def _fitting(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a column in a type that the drivers write without loss.

    They let unsigned numbers overflow and cut nanoseconds off without a word.

    Raises
    ------
    DataError
        If a value would be cut off.
    """
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks]
        return _fitting(
            pa.chunked_array(storage, type=kind.storage_type), field.with_type(kind.storage_type)
        )
    if pa.types.is_dictionary(kind):
        return _fitting(column.cast(kind.value_type), field.with_type(kind.value_type))
    target = {
        pa.uint64(): pa.decimal128(20, 0),
        pa.float16(): pa.float32(),
        pa.date64(): pa.date32(),
        pa.time64("ns"): pa.time64("us"),
        pa.null(): pa.string(),
        pa.string_view(): pa.string(),
    }.get(kind)
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        target = pa.timestamp("us", kind.tz)
    try:
        return column if target is None else column.cast(target)
    except pa.ArrowInvalid:
        raise DataError(
            f"column '{field.name}' has values of the Arrow type {kind} that are finer than the "
            "database's microseconds or days; round them, or write to a .parquet or .arrow file"
        ) from None
