"""Rows of a table that are not in another one yet, without reading more than it takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gpuseg.errors import TableNotFoundError
from gpuseg.records import no_progress
from gpuseg.tables import files
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.location import Location
from gpuseg.tables.newness import Newcomers, Newness, Rows, absent, from_low, highest, newcomers
from gpuseg.tables.reading import read_chosen, read_narrow
from gpuseg.tables.source import Stamp
from gpuseg.tables.systems import system

#: Row ids that are named in one statement; where more rows are new, all are read.
NAMED_IDS = 1_000
MOST_NAMED_IDS = 20_000


def stamp(location: Location) -> tuple[Stamp, ...] | None:
    """Return what changes whenever the table does, without looking into it.

    Returns
    -------
    stamps
        Of the files, or of a DuckDB database and its log; empty where nothing is there yet.
        None where only the server knows.

    Raises
    ------
    OSError
        Whatever the file system says.
    """
    if location.address:
        return None
    path = location.path.resolve()
    if location.kind == "folder" and path.is_dir():
        return tuple(sorted(_stamp(path / entry.name) for entry in os.scandir(path)))
    beside = [path.with_name(f"{path.name}.wal")] if location.in_warehouse else []
    return tuple(_stamp(file) for file in (path, *beside) if file.exists())


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return Stamp(path, status.st_size, status.st_mtime_ns)


def read_newcomers(
    source: Location, output: Location, new: Newness, *, csv: CsvOptions | None = None
) -> Newcomers:
    """Read the rows of a table that are not in the output yet.

    In one database it answers itself, and only new rows travel. Else the output gives its
    highest watermark and the row ids from there on, and the source the rows with others.

    Raises
    ------
    SettingsError
        If a column of `new` is not there, or the system cannot be watched.
    GpusegError
        As `read_table`.
    """
    low = None if new.watermark is None else _highest(output, new.watermark)
    if new.rowid is not None and source.in_warehouse and source.database == output.database:
        rows = _some(source, Rows(new, low, output))
    elif source.in_warehouse:
        rows = _by_ids(source, output, new, low)
    else:
        rows = _from_files(source, output, new, low, csv or CsvOptions())
    new.check(rows.column_names, source.display)
    return newcomers(rows, new)


def _some(source: Location, where: Rows, columns: tuple[str, ...] | None = None) -> pa.Table:
    door = system(source)
    return door.read(source, columns=columns, query=None, where=where, progress=no_progress)


def _by_ids(source: Location, output: Location, new: Newness, low: str | None) -> pa.Table:
    """Compare row ids here, because the two tables live in different places."""
    if new.rowid is None or not _is_there(output):
        return _some(source, Rows(new, low))
    ids = _some(source, Rows(new, low), (new.rowid,))[new.rowid]
    unknown = ids.filter(absent(ids, _known(output, new.rowid, ids)))
    if len(unknown) > MOST_NAMED_IDS:
        rows = _some(source, Rows(new, low))
        return rows.filter(absent(rows[new.rowid], _known(output, new.rowid, ids)))
    return _named(source, Rows(new, low), unknown)


def _from_files(
    source: Location, output: Location, new: Newness, low: str | None, csv: CsvOptions
) -> pa.Table:
    def choose(rows: pa.Table) -> Any:
        chosen = from_low(rows, new, low)
        if new.rowid is None or not _is_there(output):
            return chosen
        ids = rows[new.rowid]
        return pc.and_(chosen, absent(ids, _known(output, new.rowid, ids.filter(chosen))))

    return read_chosen(source, new.columns, choose, csv=csv)


def _known(output: Location, rowid: str, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return row ids of the output: all of them, or of these ids those that are there."""
    if not output.in_warehouse:
        return read_narrow(output, (rowid,))[rowid]
    try:
        if len(ids) > MOST_NAMED_IDS:
            return _some(output, Rows(Newness(rowid)), (rowid,))[rowid]
        return _named(output, Rows(Newness(rowid)), ids, (rowid,))[rowid]
    except TableNotFoundError:
        return ids.slice(0, 0)


def _named(
    location: Location, where: Rows, ids: pa.ChunkedArray, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """Read the rows of these ids, a block of them in each statement, and those without one."""
    texts = tuple(map(str, ids.drop_null().cast(pa.string()).unique().to_pylist()))
    blocks = [texts[first : first + NAMED_IDS] for first in range(0, len(texts), NAMED_IDS)]
    if ids.null_count or not blocks:
        blocks.append(())
    return pa.concat_tables(_some(location, where._replace(among=b), columns) for b in blocks)


def _highest(output: Location, column: str) -> str | None:
    if not _is_there(output):
        return None
    if output.in_warehouse:
        return system(output).highest(output, column)
    return highest(read_narrow(output, (column,))[column])


def _is_there(output: Location) -> bool:
    """Say whether there may be a table; of a server's only the server knows."""
    if output.kind == "folder":
        return output.path.is_dir() and any(map(files.is_part, output.path.iterdir()))
    return bool(output.address) or output.path.exists()
