"""Tables into Treasure Data: written beside, counted, then swapped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from gpuseg.errors import SettingsError, SinkError, UnsureError
from gpuseg.tables.agreement import check_agreement
from gpuseg.tables.location import Location
from gpuseg.tables.newness import Newness
from gpuseg.tables.treasure_data_catalog import count_rows, quoted, tables_of
from gpuseg.tables.treasure_data_client import (
    NO_ANSWER,
    ask,
    connect,
    not_done,
    settle,
    translated,
)
from gpuseg.tables.treasure_data_import import Import, new_name, remove_leftovers
from gpuseg.tables.treasure_data_site import Site
from gpuseg.tables.treasure_data_types import TIME, check_table_name, declared, prepared

NO_NEWCOMERS = (
    "Treasure Data cannot look for rows and add the missing ones in one step, so that no row "
    "comes twice; schedule gpuseg assign instead, or watch a file, DuckDB or PostgreSQL"
)


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

    def stage(
        self, location: Location, table: pa.Table, *, append: bool, new: Newness | None = None
    ) -> int:
        """Write a table to the side, or rows to append into an import, and count them.

        Raises
        ------
        DataError
            If a name, a type or a value has no place in Treasure Data, or the columns to
            append differ.
        SinkError
            If the service failed, or rows did not arrive.
        """
        if new is not None:
            raise SettingsError(f"'{location.display}': {NO_NEWCOMERS}")
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
        return int(table.num_rows)

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

    def mark(self, location: Location, *, append: bool) -> str:
        """Say which table has the name after `commit`, and of one that grows, its rows."""
        place = database, target = location.schema.lower(), location.table.lower()
        sides = [str(side.id) for side in self._sides if (side.database, side.target) == place]
        if sides:
            return sides[0]  # a swap moves names, not ids
        with translated(self._site, SinkError):
            facts = tables_of(self._client, database).get(target)
            if facts is None:
                return "nothing"
            if not append:
                return str(facts.id)
            n_rows = ask(lambda: count_rows(self._client, quoted(database, target)))
        added = sum(staged.n_rows for staged in self._imports if staged.place == place)
        return f"{facts.id} {n_rows + added}"

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
        n_arrived = ask(lambda: count_rows(self._client, quoted(database, name)))
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
                raise UnsureError(
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
