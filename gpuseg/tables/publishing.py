"""Results appear together: everything is staged and checked first, then all is swapped.

A process that dies at any moment leaves every table whole, the previous one or the new
one. Only one that dies between two swaps leaves some outputs new and others old: nothing
makes several files, or a file and a database, change in one step. Leftovers are hidden and
are removed by the next one that publishes there; in a database there are none, since a
transaction that was not committed never was.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from gpuseg.errors import SettingsError, SinkError, UnsureError
from gpuseg.interrupts import interrupts_held
from gpuseg.records import Progress, no_progress, part
from gpuseg.tables import files
from gpuseg.tables.agreement import check_agreement
from gpuseg.tables.location import Location
from gpuseg.tables.marks import Marks, file_marks
from gpuseg.tables.newness import Newness, not_there
from gpuseg.tables.reading import read_narrow, read_table
from gpuseg.tables.staging import FolderLock, StagingFolder, Swap, check_folder
from gpuseg.tables.systems import Transaction, system

TEXT_FORMATS = ("csv", "jsonl")
NOTHING = "nothing"


class Output(NamedTuple):
    """A table and where it goes; appended to what is there, or in its place.

    Rows that lie elsewhere have ``schema``, ``num_rows`` and ``here()``, which gives a table,
    and may have ``write_parts(folder)``.

    Parameters
    ----------
    new
        Append only rows that are not there yet: looked up in the very step that adds them, so
        that no row comes twice, whatever others do meanwhile.
    """

    location: Location
    arrow: Any
    append: bool = False
    new: Newness | None = None


def publish(
    outputs: Sequence[Output],
    *,
    last_look: Callable[[], None] | None = None,
    first: Callable[[list[Marks]], None] | None = None,
    then: Callable[[], None] | None = None,
    progress: Progress = no_progress,
) -> tuple[int, ...]:
    """Write tables so that all of them appear, or none.

    Parameters
    ----------
    outputs
        Files, and tables of one or more databases. To append, the columns must have the
        same names and types as those that are there, in any order; a table that is not
        there is made.
    last_look
        Called when all is written to the side and no other gpuseg can write there; if it
        raises, nothing appears.
    first
        Called when all is written to the side, before anything appears, with what tells later
        of each output whether it has appeared; if it raises, nothing appears.
    then
        Called when all of it has appeared; no interrupt comes between.

    Returns
    -------
    n_rows
        How many rows went to each.

    Raises
    ------
    SettingsError
        If two outputs have the same place, or its folder is not there.
    DataError
        If a place cannot hold a column, or the columns to append do not agree.
    SinkError
        If writing failed. In all cases the previous tables stand.
    """
    _check_places([output.location for output in outputs])
    with _Stage(marking=first is not None) as stage:
        written = []
        ends = _ends(outputs)
        for position, output in enumerate(outputs):
            reached(f"stage {position}")
            shown = part(progress, ends[position], ends[position + 1])
            written.append(stage.add(output, shown))
            shown(1.0)
        stage.lock()
        reached("staged")
        if last_look is not None:
            last_look()
        with interrupts_held():
            if first is not None:
                first(stage.marks)
            stage.swap()
            if then is not None:
                then()
    return tuple(written)


def check_output(location: Location, schema: pa.Schema, *, append: bool = False) -> None:
    """Find out before any work whether `publish` would take such a table there.

    Raises
    ------
    SettingsError, DataError, SinkError
        As `publish`.
    """
    _check_places([location])
    if location.in_warehouse:
        with contextlib.closing(system(location).begin(location)) as transaction:
            transaction.check(location, schema, append=append)
        return
    target = location.path.resolve()
    _check_file(location, target, schema, append)
    with _file_errors(location):
        StagingFolder(target.parent).close()  # only doing it shows that it may be done
    if append and target.exists() and location.kind == "file":
        _agreeing(location, schema.empty_table())
    elif append and target.exists():
        _next_part(location, target, schema.empty_table())


def here(table: Any) -> pa.Table:
    """Return the rows as a table of this machine, also where workers have them."""
    return table.here() if hasattr(table, "here") else table


def reached(_moment: str) -> None:
    """Mark a moment of publishing; tests stop the process here."""


def _ends(outputs: Sequence[Output]) -> list[float]:
    """Return up to which part of all values each output goes; 0 before the first."""
    sizes = [output.arrow.num_rows * len(output.arrow.schema) for output in outputs]
    return [sum(sizes[:number]) / max(sum(sizes), 1) for number in range(len(sizes) + 1)]


def _check_places(locations: Sequence[Location]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for location in locations:
        if location.in_warehouse and not location.table:
            raise SettingsError(f"'{location.display}' is no table to write to; give db.table")
        if location.place in seen:
            raise SettingsError(f"two outputs go to '{location.display}'; give each its own place")
        seen.add(location.place)


def _check_file(location: Location, target: Path, schema: pa.Schema, append: bool) -> None:
    check_folder(target)
    files.check_writable(schema, location.format)
    if location.kind != "folder" or not target.exists():
        return
    others = [entry.name for entry in target.iterdir() if not files.is_part_or_hidden(entry)]
    if others and not append:
        raise SettingsError(
            f"'{location.display}' would be replaced as a whole, but it also holds "
            f"'{min(others)}'; give a folder of its own, or a file"
        )


@dataclass
class _Stage:
    """All that is written but not yet seen."""

    marking: bool = False
    marks: list[Marks] = field(default_factory=list)
    transactions: dict[str, Transaction] = field(default_factory=dict)
    folders: dict[Path, StagingFolder] = field(default_factory=dict)
    swaps: list[Swap] = field(default_factory=list)
    locks: dict[Path, FolderLock] = field(default_factory=dict)

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *_error: object) -> None:
        for transaction in self.transactions.values():
            transaction.close()
        for folder in self.folders.values():
            folder.close()
        for lock in self.locks.values():
            lock.close()

    def add(self, output: Output, progress: Progress) -> int:
        """Write an output to the side, check it, and return how many rows it brings."""
        location, table, append, new = output
        if location.in_warehouse:
            return self._add_to_database(output)
        target = location.path.resolve()  # what a link points to is replaced, not the link
        _check_file(location, target, table.schema, append)
        if append:
            self._lock(target.parent)  # what is read now must be there still when it is replaced
        there = append and target.exists()
        if there and new is not None:
            table = _not_there(location, here(table), new)
        n_rows = int(table.num_rows)
        if there and not n_rows and new is not None:
            return 0
        if there and location.kind == "file":
            table = _appended(location, here(table))
        with _file_errors(location):
            if target.parent not in self.folders:
                self.folders[target.parent] = StagingFolder(target.parent)
            self._write(location, target, table, append, progress)
        return n_rows

    def _add_to_database(self, output: Output) -> int:
        location, table, append, new = output
        database = location.database
        if database not in self.transactions:
            if new is not None and not location.address:
                # threads of one process share a database's file, and so its own lock
                check_folder(location.path)
                self._lock(location.path.resolve().parent)
            self.transactions[database] = system(location).begin(location)
        transaction = self.transactions[database]
        before = transaction.mark(location, append=append) if self.marking else ""
        n_rows = transaction.stage(location, here(table), append=append, new=new)
        if self.marking:
            self.marks.append(Marks(before, transaction.mark(location, append=append)))
        return n_rows

    def lock(self) -> None:
        """Wait for others who replace or add to files in the same folders."""
        for folder in sorted(self.folders):
            self._lock(folder)

    def _lock(self, folder: Path) -> None:
        if folder not in self.locks:
            with _file_errors_at(folder):
                self.locks[folder] = FolderLock(folder)

    def _write(
        self, location: Location, target: Path, table: pa.Table, append: bool, progress: Progress
    ) -> None:
        suffix = files.suffix_of(location)
        file = staged = self.folders[target.parent].path / f"{len(self.swaps)}{suffix}"
        if location.kind == "folder" and append and target.exists():
            name, table = _next_part(location, target, here(table))
            target = target / name
        elif location.kind == "folder":
            staged = staged.with_suffix("")
            staged.mkdir()
            file = staged / "part-00000.parquet"
        if file.parent == staged and hasattr(table, "write_parts"):
            n_written = table.write_parts(staged)
        else:
            n_written = files.write(file, here(table), location.format, suffix, progress)
        if n_written != table.num_rows:
            raise SinkError(f"{n_written} of {table.num_rows} rows arrived in '{target}'")
        swap = Swap(staged, target)
        swap.prepare()
        self.swaps.append(swap)
        if self.marking:
            self.marks.append(file_marks(location.path.resolve(), target, staged))

    def swap(self) -> None:
        """Let everything appear; what fails on the way takes everything back."""
        try:
            for position, swap in enumerate(self.swaps):
                reached(f"swap {position}")
                with _file_errors_at(swap.target):
                    swap.swap()
            # last, because a commit cannot be taken back
            for transaction in self.transactions.values():
                reached("commit")
                transaction.commit()
        except BaseException:
            self._take_back()
            raise
        reached("swapped")

    def _take_back(self) -> None:
        for swap in reversed(self.swaps):
            try:
                swap.undo()
            except (OSError, SinkError) as error:
                raise UnsureError(
                    f"'{swap.target}' was written but not all tables were, and the previous one "
                    f"could not be put back ({error})"
                ) from error


@contextlib.contextmanager
def _file_errors(location: Location) -> Iterator[None]:
    with _file_errors_at(location.path):
        yield


@contextlib.contextmanager
def _file_errors_at(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise SinkError(f"'{path}' was not written ({said}); the previous one stands") from None


def _not_there(location: Location, table: pa.Table, new: Newness) -> pa.Table:
    """Return the rows that a file, or a folder of parts, does not hold."""
    if location.kind == "folder" and not any(map(files.is_part, location.path.iterdir())):
        return table
    columns = new.columns[:1]  # by its id a row is known; only without one by its watermark
    return not_there(table, read_narrow(location, columns), new)


# -- append ------------------------------------------------------------------------------


def _appended(location: Location, table: pa.Table) -> pa.Table:
    """Return the rows that are there already, and after them the new ones."""
    old, new = _agreeing(location, table)
    if location.format in TEXT_FORMATS:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("old", old)
            connection.register("new", new)
            return connection.sql("FROM old UNION ALL FROM new").to_arrow_table()
    return pa.concat_tables([old, new.cast(old.schema)])


def _agreeing(location: Location, table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return old and new rows with columns in the old order; refuse what does not agree."""
    old = read_table(location).arrow
    if location.format in TEXT_FORMATS:
        # text has no types of its own: what counts is whether the values are of one kind
        old_kinds, new_kinds = _kinds(old), _kinds(table)
        for name in old_kinds.keys() & new_kinds.keys():
            if NOTHING in (old_kinds[name], new_kinds[name]):
                new_kinds[name] = old_kinds[name]
    else:
        old_kinds, new_kinds = _type_names(old.schema), _type_names(table.schema)
    check_agreement(location.display, old_kinds, new_kinds)
    return old, table.select(old.column_names)


def _type_names(schema: pa.Schema) -> dict[str, str]:
    # the width of a text's offsets says nothing of its values; they are cast anyway
    return {column.name: str(column.type).removeprefix("large_") for column in schema}


def _kinds(table: pa.Table) -> dict[str, str]:
    return {
        name: NOTHING if column.null_count == len(column) else _kind(column.type)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_integer(kind) or (types.is_decimal(kind) and kind.scale == 0):
        return "whole number"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    for is_kind, name in (
        (types.is_boolean, "true or false"),
        (types.is_date, "date"),
        (types.is_timestamp, "timestamp"),
        (types.is_nested, "nested"),
    ):
        if is_kind(kind):
            return name
    return "text"


def _next_part(location: Location, folder: Path, table: pa.Table) -> tuple[str, pa.Table]:
    """Return the name of a new part, and the rows in the form of the parts that are there."""
    there = files.parts(folder) if any(folder.iterdir()) else []
    # no two processes may choose the same name
    name = f"part-{len(there):05d}-{uuid.uuid4().hex[:8]}.parquet"
    if not there:
        return name, table
    schema = pq.read_schema(there[0])
    check_agreement(location.display, _type_names(schema), _type_names(table.schema))
    return name, table.select(schema.names).cast(schema)
