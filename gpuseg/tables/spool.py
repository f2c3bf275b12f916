"""Batches become one table: in memory as long as the room holds it, else in a mapped file.

The file holds Arrow's own layout, so the mapped table is a table like any other: nothing is
copied, and its pages come and go with the page cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from gpuseg.errors import SinkError
from gpuseg.memory import room
from gpuseg.memory.scratch import check_space, mapped, open_scratch
from gpuseg.records import Progress

#: Rows of a batch where the reader may choose.
BATCH_ROWS = 1 << 17


def collected(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Return all batches as one table.

    Parameters
    ----------
    batches
        Read one after another; each is let go when it is in the file.
    schema
        Of every batch.

    Raises
    ------
    SinkError
        If the disk has no room for a table that memory does not hold.
    """
    held: list[pa.RecordBatch] = []
    n_bytes, left = 0, iter(batches)
    for batch in left:
        held.append(batch)
        n_bytes += batch.nbytes
        if not room().holds_table(n_bytes):
            return _spooled(held, left, schema)
    return pa.Table.from_batches(held, schema)


def told(
    batches: Iterable[pa.RecordBatch],
    progress: Progress,
    *,
    expected: float,
    of: Callable[[pa.RecordBatch], int] = len,
) -> Iterator[pa.RecordBatch]:
    """Pass batches on and tell how far they are.

    Parameters
    ----------
    expected
        What the measures of all batches add up to, as far as is known; 0 for unknown.
    of
        The measure of a batch; by default its number of rows.
    """
    seen = 0
    for batch in batches:
        yield batch
        seen += of(batch)
        if expected:
            progress(min(1.0, seen / expected))


def _spooled(
    held: list[pa.RecordBatch], left: Iterable[pa.RecordBatch], schema: pa.Schema
) -> pa.Table:
    here = room()
    with open_scratch(here.folder, sum(batch.nbytes for batch in held)) as file:
        sink = pa.PythonFile(file, mode="w")
        # a stream, because unlike a file it may hold other dictionaries in each batch
        with pa.ipc.new_stream(sink, schema) as writer:
            while held:
                _write(writer, held.pop(0), here.folder)
            for batch in left:
                _write(writer, batch, here.folder)
        n_bytes = file.tell()
        pages = mapped(file, n_bytes)
    here.in_files_bytes += n_bytes
    here.pager.watch(pages)
    return pa.ipc.open_stream(pa.py_buffer(pages)).read_all()


def _write(writer: pa.RecordBatchWriter, batch: pa.RecordBatch, folder: Path) -> None:
    check_space(folder, batch.nbytes)
    try:
        writer.write_batch(batch)
    except OSError as error:
        said = error.strerror or str(error).partition("\n")[0]
        raise SinkError(f"a scratch file in '{folder}' could not be filled: {said}") from None


def kept(column: pa.ChunkedArray, *, of: int) -> pa.ChunkedArray:
    """Return a column that was made anew: as it is, or in a file.

    Parameters
    ----------
    of
        Columns of the table, each of which may be as large.
    """
    if room().holds_table(column.nbytes * of):
        return column
    table = pa.table({"": column})
    return _spooled([], table.to_batches(max_chunksize=BATCH_ROWS), table.schema).column(0)
