"""Files: Parquet, Arrow, JSON lines, CSV, and folders of Parquet parts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from gpuseg.errors import DataError, TableNotFoundError
from gpuseg.records import Progress
from gpuseg.tables.agreement import check_names
from gpuseg.tables.delimited import read_delimited
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.duckdb_types import quoted
from gpuseg.tables.encodings import open_bytes
from gpuseg.tables.location import Location, format_suffix

#: Beyond it a double leaves out whole numbers.
LARGEST_INTEGER = 2.0**53 - 1


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
    if location.kind == "folder":
        return _read_parts(location.path, columns, progress), ()
    if location.format == "csv":
        table, notes = read_delimited(location.path, csv, progress=progress)
        return (table if columns is None else table.select(list(columns))), notes
    if location.format == "parquet":
        return pq.ParquetFile(location.path).read(columns=columns), ()
    table = _read_arrow(location.path) if location.format == "arrow" else _read_json(location.path)
    return (table if columns is None else table.select(list(columns))), ()


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


def is_part_or_hidden(entry: Path) -> bool:
    """Say whether a folder's entry is a part, or one of those that readers pass over."""
    is_part = entry.is_file() and entry.suffix.lower() == ".parquet"
    return is_part or entry.name[0] in "._"


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


def _read_parts(folder: Path, columns: Sequence[str] | None, progress: Progress) -> pa.Table:
    files = parts(folder)
    first = pq.read_schema(files[0])
    for part in files[1:]:  # all schemas before any rows
        check_part(part, pq.read_schema(part), first)
    tables = []
    for part in files:
        tables.append(pq.ParquetFile(part).read(columns=columns))
        progress(len(tables) / len(files))
    # parts may carry other metadata; the first one's stands
    return pa.concat_tables(table.cast(tables[0].schema) for table in tables)


def _read_arrow(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


# -- JSON lines --------------------------------------------------------------------------


def _read_json(path: Path) -> pa.Table:
    """Read JSON lines; text stays text, also where it looks like a date."""
    table = _parse_json(path, None)
    rounded = _rounded(path, table)
    exact = pa.schema(
        [
            field.with_type(pa.decimal128(38, 0) if field.name in rounded else _as_text(field.type))
            for field in table.schema
        ]
    )
    return table if exact.equals(table.schema) else _parse_json(path, exact)


def _parse_json(path: Path, schema: pa.Schema | None) -> pa.Table:
    options = pa.json.ParseOptions(explicit_schema=schema, newlines_in_values=False)
    try:
        with open_bytes(path) as stream:
            return pa.json.read_json(
                stream,
                read_options=pa.json.ReadOptions(block_size=1 << 24),
                parse_options=options,
            )
    except pa.ArrowInvalid as error:
        row = re.search(r"in row (\d+)", str(error))
        where = f", line {int(row.group(1)) + 1}" if row else ""
        said = (
            str(error).partition("\n")[0]
            if schema is None
            else ("whole numbers beyond 2^53 stand beside fractions; write them as text")
        )
        raise DataError(f"'{path}'{where} is not readable as JSON lines: {said}") from None


def _as_text(kind: pa.DataType) -> pa.DataType:
    """Return the type with every guessed timestamp as the text that it was."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_text(field.type)) for field in kind])
    return kind


def _rounded(path: Path, table: pa.Table) -> set[str]:
    """Return the columns of doubles that stand for whole numbers which no double holds."""
    suspects = [
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if pa.types.is_floating(column.type) and _is_large(column)
    ]
    if not suspects:
        return set()
    with open_bytes(path) as stream:
        rows = [json.loads(line) for line in stream.read().splitlines() if line.strip()]
    return {name for name in suspects if any(_is_rounded(row.get(name)) for row in rows)}


def _is_large(column: pa.ChunkedArray) -> bool:
    large = pc.greater(pc.abs(column), LARGEST_INTEGER)
    return bool(pc.any(large, min_count=0).as_py())


def _is_rounded(value: object) -> bool:
    return isinstance(value, int) and float(value) != value


# -- writing -----------------------------------------------------------------------------


def write(path: Path, table: pa.Table, kind: str, suffix: str) -> int:
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
    return WRITERS[kind](path, table, suffix)


def check_writable(schema: pa.Schema, kind: str) -> None:
    """Refuse columns that the format cannot hold, before any work is done for them.

    Raises
    ------
    DataError
    """
    if kind in ("csv", "jsonl"):
        check_names(schema.names, "such a file")
    if kind != "parquet":
        return
    for field in schema:
        try:
            pq.write_table(pa.schema([field]).empty_table(), pa.BufferOutputStream())
        except pa.ArrowException:
            raise DataError(
                f"column '{field.name}' has type {field.type}, which Parquet cannot hold; write "
                "to a .arrow file or a DuckDB table"
            ) from None


def _write_parquet(path: Path, table: pa.Table, _suffix: str) -> int:
    pq.write_table(table, path)
    return int(pq.read_metadata(path).num_rows)


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
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "csv": _write_csv,
    "jsonl": _write_json,
}


def _copy(path: Path, table: pa.Table, options: str, suffix: str) -> int:
    """Write text with DuckDB, which quotes well and tells empty text from missing."""
    compression = "gzip" if suffix.endswith(".gz") else "none"
    columns = ", ".join(map(quoted, table.column_names))
    target = str(path).replace("'", "''")
    with duckdb.connect() as connection:
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
