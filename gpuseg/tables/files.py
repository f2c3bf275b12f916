"""Files: Parquet, Arrow, JSON lines, CSV, and folders of Parquet parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from gpuseg.errors import DataError, TableNotFoundError
from gpuseg.memory import room
from gpuseg.records import Progress, no_progress
from gpuseg.tables.agreement import check_known, check_names
from gpuseg.tables.delimited import read_delimited
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.duckdb_types import quoted, within_room
from gpuseg.tables.json_lines import read_json
from gpuseg.tables.location import Location, format_suffix
from gpuseg.tables.spool import BATCH_ROWS, collected

#: Values in memory take up to this much more than in a Parquet file before compression, where
#: repeated ones are kept once.
LARGER_IN_MEMORY = 3

#: Rows of a row group that is written.
GROUP_ROWS = 1 << 20


def read(
    location: Location,
    *,
    columns: Sequence[str] | None,
    csv: CsvOptions,
    progress: Progress,
) -> tuple[pa.Table, tuple[str, ...]]:
    """Read a file or a folder of Parquet parts.

    Raises
    ------
    DataError
        If it is damaged, empty, or a part has another schema than the first.
    OSError
        Whatever the file system says.
    """
    notes: tuple[str, ...] = ()
    if location.kind == "folder":
        return _read_parts(location, columns, progress), notes
    if location.format == "parquet":
        return _read_parquet(location, location.path, columns, progress), notes
    if location.format == "csv":
        table, notes = read_delimited(location.path, csv, progress=progress)
    elif location.format == "arrow":
        table = _read_arrow(location.path, progress)
    else:
        table = read_json(location.path)
    return _selected(location, table, columns), notes


def _selected(location: Location, table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    if columns is None:
        return table
    check_known(columns, table.column_names, location.display)
    return table.select(list(columns))


def _read_parquet(
    location: Location, path: Path, columns: Sequence[str] | None, progress: Progress
) -> pa.Table:
    with pq.ParquetFile(path) as file:
        if columns is not None:
            check_known(columns, file.schema_arrow.names, location.display)
            return file.read(columns=list(columns)).select(list(columns))
        if room().holds_table(LARGER_IN_MEMORY * _stored_bytes(file)):
            return file.read()
        n_rows = file.metadata.num_rows
        return collected(_batches(file, part_of(progress, n_rows)), file.schema_arrow)


def _stored_bytes(file: pq.ParquetFile) -> int:
    """Return what the values take in the file before they are compressed."""
    groups = range(file.metadata.num_row_groups)
    return sum(file.metadata.row_group(number).total_byte_size for number in groups)


def _batches(file: pq.ParquetFile, tell: Callable[[int], None]) -> Iterator[pa.RecordBatch]:
    for batch in file.iter_batches(BATCH_ROWS):
        tell(batch.num_rows)
        yield batch


def part_of(progress: Progress, n_rows: int) -> Callable[[int], None]:
    """Return what to call with the rows that came in, so that progress is told."""
    done = 0

    def tell(n_more: int) -> None:
        nonlocal done
        done += n_more
        progress(min(1.0, done / max(n_rows, 1)))

    return tell


def parts(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder by name; hidden ones and ``_``-files are no parts.

    Raises
    ------
    TableNotFoundError
        If there is none.
    DataError
        If there are folders below, whose names would be columns in some systems.
    """
    shown = sorted(entry for entry in folder.iterdir() if entry.name[0] not in "._")
    below = next((entry for entry in shown if entry.is_dir()), None)
    if below is not None:
        raise DataError(
            f"'{folder}' holds the folder '{below.name}'; expected Parquet files and nothing "
            "below (read a partitioned table with --input-query)"
        )
    found = [entry for entry in shown if entry.suffix.lower() == ".parquet"]
    if not found:
        raise TableNotFoundError(f"'{folder}' holds no .parquet file")
    return found


def is_part(entry: Path) -> bool:
    """Say whether a folder's entry is a part."""
    return entry.name[0] not in "._" and entry.suffix.lower() == ".parquet" and entry.is_file()


def is_part_or_hidden(entry: Path) -> bool:
    """Say whether a folder's entry is a part, or one of those that readers pass over."""
    return entry.name[0] in "._" or is_part(entry)


def check_part(part: Path, schema: pa.Schema, first: pa.Schema) -> None:
    """Refuse a part whose columns are not those of the first.

    Raises
    ------
    DataError
    """
    if schema.equals(first):
        return
    old, new = ({field.name: str(field.type) for field in each} for each in (first, schema))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    raise DataError(
        f"part '{part.name}' of '{part.parent}' has other columns than the first part: "
        + ("another order" if not names else ", ".join(f"'{name}'" for name in names[:10]))
    )


def _read_parts(location: Location, columns: Sequence[str] | None, progress: Progress) -> pa.Table:
    files = parts(location.path)
    first = pq.read_schema(files[0])
    for part in files[1:]:  # all schemas before any rows
        check_part(part, pq.read_schema(part), first)
    if columns is None and not _held_in_parts(files):
        n_rows = sum(pq.read_metadata(part).num_rows for part in files)
        return collected(_batches_of(files, first, part_of(progress, n_rows)), first)
    tables = []
    for part in files:
        tables.append(_read_parquet(location, part, columns, no_progress))
        progress(len(tables) / len(files))
    # parts may carry other metadata; the first one's stands
    return pa.concat_tables(table.cast(tables[0].schema) for table in tables)


def _held_in_parts(files: Sequence[Path]) -> bool:
    n_bytes = 0
    for part in files:
        with pq.ParquetFile(part) as file:
            n_bytes += _stored_bytes(file)
    return room().holds_table(LARGER_IN_MEMORY * n_bytes)


def _batches_of(
    files: Sequence[Path], schema: pa.Schema, tell: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    for part in files:
        with pq.ParquetFile(part) as file:
            for batch in _batches(file, tell):
                yield batch.cast(schema)


def _read_arrow(path: Path, progress: Progress) -> pa.Table:
    with pa.OSFile(str(path)) as source:
        try:
            reader = pa.ipc.open_file(source)
            numbers = range(reader.num_record_batches)
            batches: Iterator[pa.RecordBatch] = (reader.get_batch(number) for number in numbers)
        except pa.ArrowInvalid:
            source.seek(0)
            batches = reader = pa.ipc.open_stream(source)
        told = _told(batches, source, path.stat().st_size, progress)
        return collected(told, reader.schema)


def _told(
    batches: Iterable[pa.RecordBatch], source: pa.NativeFile, n_bytes: int, progress: Progress
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        progress(min(1.0, source.tell() / max(n_bytes, 1)))


# -- writing -----------------------------------------------------------------------------


def write(
    path: Path, table: pa.Table, kind: str, suffix: str, progress: Progress = no_progress
) -> int:
    """Write a table to a new file and return the number of rows that stand in it.

    Parameters
    ----------
    kind
        ``parquet``, ``arrow``, ``csv`` or ``jsonl``.
    suffix
        As in the name that the file will bear: tells separator and compression.

    Raises
    ------
    DataError
        If the format cannot hold a column.
    OSError, pa.ArrowException, duckdb.Error
        Whatever the file system says.
    """
    if kind == "parquet":
        write_parquet(path, table, progress=progress)
        return int(pq.read_metadata(path).num_rows)
    n_rows = WRITERS[kind](path, table, suffix)
    progress(1.0)
    return n_rows


def write_parquet(
    path: Path, table: pa.Table, *, compression: str = "snappy", progress: Progress = no_progress
) -> None:
    """Write a Parquet file, a row group at a time."""
    with pq.ParquetWriter(path, table.schema, compression=compression) as writer:
        for start in range(0, max(table.num_rows, 1), GROUP_ROWS):
            writer.write_table(table.slice(start, GROUP_ROWS))
            progress(min(1.0, (start + GROUP_ROWS) / max(table.num_rows, 1)))


def check_writable(schema: pa.Schema, kind: str) -> None:
    """Refuse columns that the format cannot hold, before any work is done for them.

    Raises
    ------
    DataError
    """
    if kind in ("csv", "jsonl"):
        check_names(schema.names, "such a file")
    if kind != "parquet" or _fits_parquet(schema):
        return
    for field in schema:
        if not _fits_parquet(pa.schema([field])):
            raise DataError(
                f"column '{field.name}' has type {field.type}, which Parquet cannot hold; write "
                "to a .arrow file or a DuckDB table"
            )


def _fits_parquet(schema: pa.Schema) -> bool:
    try:
        pq.write_table(schema.empty_table(), pa.BufferOutputStream())
    except pa.ArrowException:
        return False
    return True


def _write_arrow(path: Path, table: pa.Table, _suffix: str) -> int:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(path)) as written:
        reader = pa.ipc.open_file(written)
        batches = range(reader.num_record_batches)
        return sum(reader.get_batch(i).num_rows for i in batches)


def _write_csv(path: Path, table: pa.Table, suffix: str) -> int:
    separator = "\\t" if ".tsv" in suffix else ","
    return _copy(path, table, f"FORMAT csv, HEADER, DELIMITER E'{separator}'", suffix)


def _write_json(path: Path, table: pa.Table, suffix: str) -> int:
    return _copy(path, table, "FORMAT json", suffix)


WRITERS: dict[str, Callable[[Path, pa.Table, str], int]] = {
    "arrow": _write_arrow,
    "csv": _write_csv,
    "jsonl": _write_json,
}


def _copy(path: Path, table: pa.Table, options: str, suffix: str) -> int:
    """Write text with DuckDB, which quotes well and tells empty text from missing."""
    compression = "gzip" if suffix.endswith(".gz") else "none"
    columns = ", ".join(map(quoted, table.column_names))
    target = str(path).replace("'", "''")
    with within_room(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("gpuseg_rows", table)
        copied = connection.execute(
            f"COPY (SELECT {columns} FROM gpuseg_rows) TO '{target}' "
            f"({options}, COMPRESSION {compression}, USE_TMP_FILE false)"
        ).fetchone()
    assert copied is not None
    return int(copied[0])


def suffix_of(location: Location) -> str:
    """Return the suffix of the file, or of a folder's parts."""
    return format_suffix(location.path.name) if location.kind == "file" else ".parquet"
