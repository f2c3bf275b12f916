"""Reading of any table, and a look at one without reading it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpuseg.errors import DataError, SettingsError, SourceError, TableNotFoundError, did_you_mean
from gpuseg.records import Progress, Table, no_progress
from gpuseg.tables import files, parquet_parts
from gpuseg.tables.agreement import check_known
from gpuseg.tables.delimited import sample_delimited
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.json_lines import sample_json
from gpuseg.tables.location import Location
from gpuseg.tables.source import FileSource
from gpuseg.tables.systems import system

PEEK_ROWS = 10_000
GZIP_TRAILER_BYTES = 18
SURELY_UNDER_4_GIB = 1 << 28
_PLAIN_CSV = CsvOptions()


@dataclass(frozen=True)
class TableSummary:
    """What a table is, from a look at its beginning.

    Parameters
    ----------
    name
        As the user called it.
    n_rows
        Exact, or estimated from the size of the file when `rows_exact` is False.
    columns
        Names and types, in order; types are those of the place where the table lives.
    n_bytes
        What all rows take in memory, from those of the sample.
    sample
        The first rows.
    left_out
        Columns of the source that were ignored and therefore not fetched.
    """

    name: str
    n_rows: int
    rows_exact: bool
    columns: tuple[tuple[str, str], ...]
    n_bytes: int
    sample: pa.Table
    left_out: tuple[str, ...] = ()


def read_table(
    location: Location,
    *,
    columns: Sequence[str] | None = None,
    query: str | None = None,
    csv: CsvOptions = _PLAIN_CSV,
    progress: Progress = no_progress,
) -> Table:
    """Read a table with every column and value as it is.

    Parameters
    ----------
    columns
        Read these only, in this order.
    query
        One SELECT, run in the warehouse; the location is then the warehouse as a whole.
    csv
        What is known about a CSV file already; the rest is detected.

    Raises
    ------
    TableNotFoundError
        If the table, or what it should be in, is not there.
    DataError
        If it is empty of columns, damaged, ragged, or names a column twice.
    SettingsError
        If the query is not one SELECT, or goes to a file.
    SourceError
        If reading failed after retries.
    """
    notes: tuple[str, ...] = ()
    source = None
    if location.leave_out:
        notes = (f"ignored columns were not fetched: {', '.join(location.leave_out)}",)
    if location.in_warehouse:
        arrow = system(location).read(location, columns=columns, query=query, progress=progress)
    elif query is not None:
        raise SettingsError(f"an input query runs in a warehouse, not in '{location.display}'")
    else:
        with _file_errors(location):
            source = FileSource.of(location, csv) if columns is None else None
            arrow, notes = files.read(location, columns=columns, csv=csv, progress=progress)
    _check_columns(location, arrow.column_names)
    progress(1.0)
    return Table(location.display, arrow, notes, source, location.leave_out)


def read_narrow(location: Location, columns: Sequence[str]) -> pa.Table:
    """Read a few columns of a file or a folder that is read again soon.

    Raises
    ------
    GpusegError
        As `read_table`.
    """
    if location.format != "parquet":
        return read_table(location, columns=columns).arrow
    with _file_errors(location):
        return parquet_parts.read_narrow(location, columns)


def read_chosen(
    location: Location,
    columns: Sequence[str],
    choose: Callable[[pa.Table], Any],
    *,
    csv: CsvOptions = _PLAIN_CSV,
) -> pa.Table:
    """Read the rows of a file, or of a folder, that a look at some of its columns chooses.

    Parameters
    ----------
    choose
        Gets these columns and returns a truth value for each row.

    Raises
    ------
    GpusegError
        As `read_table`.
    """
    with _file_errors(location):
        if location.format == "parquet":
            return parquet_parts.read_chosen(location, columns, choose)
        rows, _notes = files.read(location, columns=None, csv=csv, progress=no_progress)
        check_known(columns, rows.column_names, location.display)
        return rows.filter(choose(rows))


def peek(
    location: Location, *, query: str | None = None, csv: CsvOptions = _PLAIN_CSV
) -> TableSummary:
    """Look at a table without reading it all.

    Raises
    ------
    GpusegError
        As `read_table`, as far as the first rows show it.
    """
    if location.in_warehouse:
        n_rows, columns, sample = system(location).peek(
            location, query=query, sample_rows=PEEK_ROWS
        )
        return _summary(location, n_rows, True, sample, columns)
    with _file_errors(location):
        n_rows, is_exact, sample = _peek_file(location, csv)
    return _summary(location, n_rows, is_exact, sample)


def _peek_file(location: Location, csv: CsvOptions) -> tuple[int, bool, pa.Table]:
    """Return the number of rows, whether it is exact, and the first rows."""
    if location.format == "parquet":
        parts = [location.path] if location.kind == "file" else files.parts(location.path)
        n_rows = sum(pq.read_metadata(part).num_rows for part in parts)
        with pq.ParquetFile(parts[0]) as first:
            batch = next(first.iter_batches(PEEK_ROWS), None)
            empty = first.schema_arrow.empty_table()
        return n_rows, True, empty if batch is None else pa.Table.from_batches([batch])
    if location.format in ("csv", "jsonl"):
        is_csv = location.format == "csv"
        sample, n_bytes = (
            sample_delimited(location.path, csv) if is_csv else sample_json(location.path)
        )
        n_all = _text_bytes(location.path)
        n_rows = round(sample.num_rows * n_all / n_bytes)
        return max(n_rows, sample.num_rows), n_all <= n_bytes, sample
    table, _notes = files.read(location, columns=None, csv=csv, progress=no_progress)
    return table.num_rows, True, table.slice(0, PEEK_ROWS)


def _text_bytes(path: Path) -> int:
    """Return the size of a text file; of a compressed one as its last bytes tell it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b" or size < GZIP_TRAILER_BYTES:
            return size
        file.seek(-4, 2)
        # gzip keeps the size modulo 2**32
        told = int.from_bytes(file.read(4), "little")
    return told if size < SURELY_UNDER_4_GIB else max(told, size * 4)


def _summary(
    location: Location,
    n_rows: int,
    rows_exact: bool,
    sample: pa.Table,
    columns: Sequence[tuple[str, str]] | None = None,
) -> TableSummary:
    _check_columns(location, sample.column_names)
    n_bytes = sample.nbytes * n_rows / max(sample.num_rows, 1)
    named = columns or [(field.name, str(field.type)) for field in sample.schema]
    return TableSummary(
        location.display, n_rows, rows_exact, tuple(named), round(n_bytes), sample,
        location.leave_out,
    )  # fmt: skip


def _check_columns(location: Location, names: Sequence[str]) -> None:
    if not names:
        raise DataError(f"'{location.display}' has no columns")
    if "" in names:
        raise DataError(
            f"'{location.display}': column {names.index('') + 1} has no name; give it one"
        )
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"'{location.display}' has two columns called '{twice}'")


@contextmanager
def _file_errors(location: Location) -> Iterator[None]:
    """Say what is wrong with a file in the words of the house."""
    name = location.display
    try:
        yield
    except FileNotFoundError:
        folder = location.path.parent
        beside = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        where = "" if folder.is_dir() else f" (nor is there a folder '{folder}')"
        hint = did_you_mean(location.path.name, beside)
        raise TableNotFoundError(f"there is no file '{name}'{where}{hint}") from None
    except pa.ArrowInvalid as error:
        said = str(error).partition("\n")[0]
        raise DataError(
            f"'{name}' is no {location.format} file, or a damaged one: {said}; get the file anew"
        ) from None
    except EOFError:
        raise DataError(f"'{name}' ends too early; it is damaged") from None
    except OSError as error:
        if error.errno is None:  # the contents are at fault, not the system
            said = str(error).partition("\n")[0]
            raise DataError(f"'{name}' is damaged: {said}; get the file anew") from None
        raise SourceError(f"'{name}' cannot be read: {error.strerror}") from None
    except pa.ArrowException as error:
        raise DataError(f"'{name}' is not readable: {type(error).__name__}") from None
