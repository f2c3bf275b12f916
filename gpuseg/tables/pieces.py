"""Tables in pieces: runs of rows that any process can read for itself, some columns at a time.

Row groups of Parquet files are such pieces where they lie. What else there is, is read once
by the door and laid down as record batches of an Arrow file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from gpuseg.tables import files
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.location import Location
from gpuseg.tables.reading import peek, read_table

#: Rows of a record batch of a file that was laid down.
BATCH_ROWS = 1 << 16


class Piece(NamedTuple):
    """Rows of a row group of a Parquet file, or of a record batch of an Arrow file."""

    path: str
    format: str  # parquet | arrow
    number: int
    first: int  # row of the group
    n_rows: int


class InPieces(NamedTuple):
    """A table that is read piece by piece."""

    name: str
    schema: pa.Schema
    pieces: tuple[Piece, ...]
    notes: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(piece.n_rows for piece in self.pieces)


def has_pieces(location: Location) -> bool:
    """Whether the rows can be read in pieces where they lie."""
    return location.format == "parquet"


def pieces_of(location: Location) -> InPieces:
    """Find the pieces of Parquet files; no row is read but the first few.

    Raises
    ------
    GpusegError
        As ``tables.peek``; DataError if a part has other columns than the first.
    """
    summary = peek(location)
    schema = summary.sample.schema
    paths = [location.path] if location.kind == "file" else files.parts(location.path)
    found = []
    for path in paths:
        with pq.ParquetFile(path.resolve()) as file:
            if path != paths[0]:
                files.check_part(path, file.schema_arrow, schema)
            found += [
                Piece(str(path.resolve()), "parquet", number, 0, n_rows)
                for number in range(file.num_row_groups)
                if (n_rows := file.metadata.row_group(number).num_rows)
            ]
    return InPieces(location.display, schema, tuple(found))


def laid_down(location: Location, query: str | None, csv: CsvOptions, target: Path) -> InPieces:
    """Read a table by the door and write it to an Arrow file, from which pieces can be read.

    Raises
    ------
    GpusegError
        As ``tables.read_table``.
    """
    table = read_table(location, query=query, csv=csv)
    schema = table.arrow.schema
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.arrow, max_chunksize=BATCH_ROWS)
    with pa.memory_map(str(target)) as source:
        reader = pa.ipc.open_file(source)
        sizes = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
    pieces = tuple(Piece(str(target), "arrow", i, 0, n) for i, n in enumerate(sizes))
    return InPieces(location.display, table.arrow.schema, pieces, table.notes)


def read_pieces(
    pieces: Iterable[Piece], schema: pa.Schema, names: Sequence[str] | None = None
) -> pa.Table:
    """Read pieces one after another.

    Parameters
    ----------
    schema
        Of the whole table: the types that its columns have.
    names
        Columns to read, in this order; None for all.
    """
    names = schema.names if names is None else list(names)
    wanted = pa.schema([schema.field(name) for name in names])
    tables = [table.select(names).cast(wanted) for table in _groups(pieces, names)]
    return pa.concat_tables(tables) if tables else wanted.empty_table()


def _groups(pieces: Iterable[Piece], names: Sequence[str]) -> Iterator[pa.Table]:
    for (path, kind), of_file in itertools.groupby(pieces, key=lambda p: (p.path, p.format)):
        merged = list(_merged(of_file))
        if kind == "parquet":
            with pq.ParquetFile(path) as file:
                for piece in merged:
                    group = file.read_row_group(piece.number, columns=list(names))
                    yield group.slice(piece.first, piece.n_rows)
        else:
            with pa.memory_map(path) as source:
                reader = pa.ipc.open_file(source)
                for piece in merged:
                    batch = pa.Table.from_batches([reader.get_batch(piece.number)])
                    yield batch.slice(piece.first, piece.n_rows)


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Put pieces together that go on in the same row group, which is then read once."""
    last: Piece | None = None
    for piece in pieces:
        if last is None:
            last = piece
        elif piece.number == last.number and piece.first == last.first + last.n_rows:
            last = last._replace(n_rows=last.n_rows + piece.n_rows)
        else:
            yield last
            last = piece
    if last is not None:
        yield last


def partitioned(pieces: Sequence[Piece], most_rows: int) -> list[tuple[Piece, ...]]:
    """Put pieces together, or cut them, to partitions of about so many rows.

    Row groups that are no larger stay whole, so that none is read by two partitions.

    Examples
    --------
    >>> big, small = Piece("a", "parquet", 0, 0, 10), Piece("a", "parquet", 1, 0, 2)
    >>> [sum(p.n_rows for p in part) for part in partitioned([big, small, small], 4)]
    [3, 3, 4, 4]
    """
    parts: list[list[Piece]] = [[]]
    for piece in pieces:
        n_cuts = -(-piece.n_rows // most_rows)
        edges = [piece.n_rows * i // n_cuts for i in range(n_cuts + 1)]
        for begin, end in itertools.pairwise(edges):
            here = sum(p.n_rows for p in parts[-1])
            if parts[-1] and (n_cuts > 1 or here + end - begin > most_rows):
                parts.append([])
            parts[-1].append(piece._replace(first=piece.first + begin, n_rows=end - begin))
    return [tuple(part) for part in parts if part]
