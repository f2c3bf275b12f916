"""What each warehouse system must be able to do; its module is imported when it is named."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

import pyarrow as pa

from gpuseg.records import Progress
from gpuseg.tables.location import SYSTEMS, Location
from gpuseg.tables.newness import Newness, Rows


class Transaction(Protocol):
    """Tables of one database that appear together, or not at all."""

    def stage(
        self, location: Location, table: pa.Table, *, append: bool, new: Newness | None = None
    ) -> int:
        """Write a table where nobody sees it yet, check it, and return how many rows it has.

        Parameters
        ----------
        new
            Append only rows that are not there; nobody else adds any until the commit.
        """

    def check(self, location: Location, schema: pa.Schema, *, append: bool) -> None:
        """Find out whether `stage` would take such a table; leave nothing behind."""

    def mark(self, location: Location, *, append: bool) -> str:
        """Say what the place will hold after `commit`; another text whenever that changes.

        "nothing" where there is no such table, and an empty text where it cannot be told.
        `append` says whether rows are added, for a system that tells it in another way then.
        """

    def commit(self) -> None:
        """Let all tables appear at once."""

    def close(self) -> None:
        """Let go of the database; what was not committed never was."""


class System(Protocol):
    """The module of a warehouse system."""

    def read(
        self,
        location: Location,
        *,
        columns: Sequence[str] | None,
        query: str | None,
        where: Rows | None = None,
        progress: Progress,
    ) -> pa.Table:
        """Read a table, or the rows of a query; all rows, or those of `where`."""

    def highest(self, location: Location, column: str) -> str | None:
        """Return the highest value of a column as text; None where there is no row or table."""

    def peek(
        self, location: Location, *, query: str | None, sample_rows: int
    ) -> tuple[int, list[tuple[str, str]], pa.Table]:
        """Return the number of rows, names and types of the columns, and the first rows."""

    def begin(self, location: Location) -> Transaction:
        """Begin a transaction in the location's database."""


def system(location: Location) -> System:
    """Return the module that knows the location's warehouse."""
    return cast(System, importlib.import_module(f"gpuseg.tables.{SYSTEMS[location.kind]}"))
