"""Batches become one table: in memory as long as the room holds it, else in a mapped file.

The file holds Arrow's own layout, so the mapped table is a table like any other: nothing is
copied, and its pages come and go with the page cache.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.ipc

from gpuseg.memory import room
from gpuseg.memory.scratch import check_space, mapped, open_scratch

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


def _spooled(
    held: list[pa.RecordBatch], left: Iterable[pa.RecordBatch], schema: pa.Schema
) -> pa.Table:
    here = room()
    file = open_scratch(here.folder, sum(batch.nbytes for batch in held))
    sink = pa.PythonFile(file, mode="w")
    # a stream, because unlike a file it may hold other dictionaries in each batch
    with pa.ipc.new_stream(sink, schema) as writer:
        while held:
            writer.write_batch(held.pop(0))
        for batch in left:
            check_space(here.folder, batch.nbytes)
            writer.write_batch(batch)
    n_bytes = file.tell()
    pages = mapped(file, n_bytes)
    here.in_files_bytes += n_bytes
    here.pager.watch(pages)
    return pa.ipc.open_stream(pa.py_buffer(pages)).read_all()


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
