"""What differs between databases that are reached through ADBC, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from gpuseg.errors import GpusegError
from gpuseg.tables.newness import literal
from gpuseg.tables.newness import quoted as identifier

__all__ = ["STANDARD", "Dialect", "Failure", "Travel", "identifier", "literal"]


class Travel(NamedTuple):
    """How a column of one SQL type travels through Arrow.

    Parameters
    ----------
    expression
        SQL with ``{}`` for the quoted column: what is selected for it.
    doubt
        SQL with ``{}``: true for a value that would arrive changed. Then the column
        travels by `otherwise`.
    """

    expression: str = "{}"
    doubt: str = ""
    otherwise: str = ""


class Failure(NamedTuple):
    """What an error of the database means.

    Parameters
    ----------
    kind
        The error to raise; None for reading or writing that failed after all.
    said
        A sentence with ``{what}`` for the database's own words.
    again
        Whether it is worth another try.
    """

    kind: type[GpusegError] | None
    said: str
    again: bool = False


def _as_it_is(_kind: str) -> Travel:
    return Travel()


def _unchanged(column: pa.ChunkedArray, _kind: str, _name: str) -> pa.ChunkedArray:
    return column


@dataclass(frozen=True)
class Dialect:
    """One database system.

    Parameters
    ----------
    name
        For people.
    tables
        SQL that lists kind (``table`` or ``view``), schema and name.
    columns
        SQL with ``{schema}`` and ``{table}`` as literals: name and type of each column.
    opening, reading
        Run when a connection opens, and before something is read.
    view
        SQL that makes ``gpuseg_query`` of an input query, for names and types, and refuses
        all but a SELECT; empty where a subquery must do. The query goes into ``{query}``, or
        without what ends it into ``{bare}``.
    after_view
        Run after that: from here on nothing can be written.
    estimate
        SQL with ``{query}`` that tells about how many rows it has; empty where unknown.
    timeouts
        Options that the address gets unless it has them.
    statement_options, small_options
        Options of a statement that reads a table, and of every other one.
    travel
        How a type travels.
    arrived
        Makes a column as it arrived into what it is: (column, SQL type, name) -> column.
    writes
        Whether results may be written: tables appear in one transaction.
    schema
        SQL with ``{schema}``: a row if there is such a schema; empty where there are none.
    insert
        SQL with ``{column}`` and ``{kind}`` that gives a column its SQL type back.
    type_exists
        SQL with ``{kind}`` as a literal: whether there is such a type; empty where any
        word is one.
    text
        The type that any value can be cast to and read as.
    alone
        SQL with ``{schema}`` and ``{table}``: waits until no other gpuseg adds rows to the
        table, and keeps it so until the transaction ends; empty where the database's own
        transactions do.
    most_name_bytes
        Longer names are cut off by the database, so they are refused.
    one_case
        Whether names of columns that differ in case only are the same.
    permission
        SQL with ``{schema}``, ``{table}``, ``{append}``: a row with the reason why this
        user may not write there.
    bystanders
        SQL with ``{schema}`` and ``{table}``: what hangs on a table and would be lost with
        it, each with whether it also forbids to fill the table anew.
    heirs
        SQL with ``{schema}``, ``{table}`` and ``{heir}``: statements that give a new table
        what belongs to the old one.
    row_hash
        SQL of a number that depends on all of the row ``gpuseg_row``; empty where there is none.
    readable
        SQL with ``{schema}`` and ``{table}``: a row if this user may read the table.
    failures
        SQLSTATE or its first two signs -> meaning.
    phrases
        Regular expression -> meaning, where there is no SQLSTATE.
    """

    name: str
    tables: str
    columns: str
    opening: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()
    view: str = ""
    after_view: str = ""
    estimate: str = ""
    timeouts: Mapping[str, str] = field(default_factory=dict)
    statement_options: Mapping[str, str] = field(default_factory=dict)
    small_options: Mapping[str, str] = field(default_factory=dict)
    travel: Callable[[str], Travel] = _as_it_is
    arrived: Callable[[pa.ChunkedArray, str, str], pa.ChunkedArray] = _unchanged
    writes: bool = False
    schema: str = ""
    insert: str = "{column}"
    type_exists: str = ""
    text: str = "VARCHAR"
    alone: str = ""
    most_name_bytes: int | None = None
    one_case: bool = True
    permission: str = ""
    bystanders: str = ""
    heirs: str = ""
    row_hash: str = ""
    readable: str = ""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    phrases: Mapping[str, Failure] = field(default_factory=dict)

    @property
    def type_key(self) -> bytes:
        """Field metadata that holds the SQL type of a column."""
        return f"{self.name.lower()}.type".encode()


#: Any other database: what the SQL standard says, and reading only, because whether tables
#: can be exchanged in one transaction is not known.
STANDARD = Dialect(
    name="this database",
    tables="SELECT CASE WHEN table_type LIKE '%VIEW%' THEN 'view' ELSE 'table' END, "
    "table_schema, table_name FROM information_schema.tables ORDER BY 2, 3",
    columns="SELECT column_name, data_type FROM information_schema.columns "
    "WHERE table_schema = {schema} AND table_name = {table} ORDER BY ordinal_position",
)
