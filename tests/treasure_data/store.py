"""What the loopback Treasure Data holds: tables in DuckDB, and what TD knows about them."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

#: Types that Treasure Data stores -> DuckDB and Arrow.
STORED_TYPES = {
    "long": ("BIGINT", pa.int64()),
    "int": ("BIGINT", pa.int64()),
    "double": ("DOUBLE", pa.float64()),
    "float": ("DOUBLE", pa.float64()),
    "string": ("VARCHAR", pa.string()),
    "array<long>": ("BIGINT[]", pa.list_(pa.int64())),
    "array<double>": ("DOUBLE[]", pa.list_(pa.float64())),
    "array<string>": ("VARCHAR[]", pa.list_(pa.string())),
}
TIME = ("time", "long")


def quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


@dataclass
class TableFacts:
    id: int
    schema: list[tuple[str, str]] = field(default_factory=list)  # without time


@dataclass
class ImportSession:
    database: str
    table: str
    parts: dict[str, bytes] = field(default_factory=dict)
    status: str = "uploading"
    frozen: bool = False
    job_id: str | None = None
    rows: pa.Table | None = None
    error_records: int = 0


class Store:
    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self._lock = threading.RLock()
        self._ids = itertools.count(101)
        self.tables: dict[tuple[str, str], TableFacts] = {}
        self.databases: list[str] = []
        self.sessions: dict[str, ImportSession] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.statements: dict[str, Any] = {}
        self.audiences: dict[str, dict[str, Any]] = {}
        self.folders: dict[str, dict[str, Any]] = {}
        self.segments: dict[str, dict[str, Any]] = {}
        self.executions: dict[str, list[dict[str, Any]]] = {}

    def close(self) -> None:
        self.connection.close()

    def next_id(self) -> int:
        return next(self._ids)

    # -- tables ----------------------------------------------------------------------

    def create_database(self, name: str) -> None:
        self.databases.append(name)
        self.connection.execute(f"CREATE SCHEMA {quoted(name)}")

    def create_table(self, database: str, table: str) -> None:
        self.connection.execute(f"CREATE TABLE {quoted(database, table)} ({quoted('time')} BIGINT)")
        self.tables[database, table] = TableFacts(self.next_id())

    def delete_table(self, database: str, table: str) -> None:
        self.connection.execute(f"DROP TABLE {quoted(database, table)}")
        del self.tables[database, table]

    def swap_tables(self, database: str, one: str, other: str) -> None:
        for old, new in ((one, "swap_"), (other, one), ("swap_", other)):
            self.connection.execute(f"ALTER TABLE {quoted(database, old)} RENAME TO {quoted(new)}")
        pair = (database, one), (database, other)
        self.tables[pair[0]], self.tables[pair[1]] = self.tables[pair[1]], self.tables[pair[0]]

    def set_schema(self, database: str, table: str, schema: list[tuple[str, str]]) -> None:
        facts = self.tables[database, table]
        known = {name for name, _kind in facts.schema}
        for name, kind in schema:
            if name not in known:
                self.connection.execute(
                    f"ALTER TABLE {quoted(database, table)} "
                    f"ADD COLUMN {quoted(name)} {STORED_TYPES[kind][0]}"
                )
        facts.schema = list(schema)

    def put(self, database: str, table: str, rows: pa.Table) -> None:
        """Put a table there at once: how tests arrange the state before they begin."""
        if database not in self.databases:
            self.create_database(database)
        if (database, table) in self.tables:
            self.delete_table(database, table)
        self.create_table(database, table)
        names = {pa.int64(): "long", pa.float64(): "double", pa.string(): "string"}
        schema = [(f.name, names[f.type]) for f in rows.schema if f.name != "time"]
        self.set_schema(database, table, schema)
        if "time" not in rows.column_names:
            rows = rows.append_column("time", pa.array([1_700_000_000] * len(rows)))
        self.insert(database, table, rows)

    def insert(self, database: str, table: str, rows: pa.Table) -> None:
        self.connection.register("incoming", rows)
        self.connection.execute(f"INSERT INTO {quoted(database, table)} BY NAME FROM incoming")
        self.connection.unregister("incoming")

    def rows(self, database: str, table: str, order: str = "ALL") -> pa.Table:
        found = self.connection.sql(f"FROM {quoted(database, table)} ORDER BY {order}")
        return found.to_arrow_table()

    def count(self, database: str, table: str) -> int:
        found = self.connection.execute(f"SELECT count(*) FROM {quoted(database, table)}")
        return found.fetchall()[0][0]

    def names(self, database: str) -> list[str]:
        return sorted(table for owner, table in self.tables if owner == database)
