"""Rows that the workers write: parts of a folder by themselves, one file through here."""

from __future__ import annotations

import io
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from gpuseg.distributed.cluster import Cluster
from gpuseg.errors import SinkError
from gpuseg.tables.pieces import Piece, read_pieces

log = logging.getLogger("gpuseg")


class RowsOnWorkers:
    """The rows of a table with more columns, which nobody holds as a whole.

    Parameters
    ----------
    partitions, schema
        The pieces of the table, and its columns.
    added
        Columns that come behind, as ``pa.Array`` of shape (n_rows,), here.
    """

    def __init__(
        self,
        cluster: Cluster,
        partitions: Sequence[tuple[Piece, ...]],
        schema: pa.Schema,
        added: Mapping[str, Any],
    ) -> None:
        self._cluster, self._partitions, self._own = cluster, partitions, schema
        self._added = pa.table(dict(added))
        self.schema = pa.schema([*schema, *self._added.schema], metadata=schema.metadata)
        self._spooled: pa.Table | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self._added.num_rows)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def column(self, name: str) -> Any:
        """Return one of the added columns."""
        return self._added.column(name)

    def write_parts(self, folder: Path) -> int:
        """Let the workers write Parquet parts into a folder; return the number of rows there.

        Workers that do not see the folder send their rows here.
        """
        if not self._is_seen(folder):
            log.info("not all workers see '%s': the rows are written from here", folder)
            pq.write_table(self.here(), folder / "part-00000.parquet")
            return self.num_rows
        n_rows = 0
        for number, written in self._each_part("write", write_part, folder=str(folder.resolve())):
            (folder / written.name).rename(folder / f"part-{number:05d}.parquet")
            n_rows += written.n_rows
        for leftover in folder.glob(".part-*"):  # of a worker that died while it wrote
            leftover.unlink()
        return n_rows

    def here(self) -> pa.Table:
        """Return all rows as a table on this machine's disk, mapped into memory."""
        if self._spooled is None:
            parts = (part for _number, part in self._each_part("write", joined))
            self._spooled = spooled(self._cluster, self.schema, parts)
        return self._spooled

    def _is_seen(self, folder: Path) -> bool:
        """Whether all workers see what was just made here."""
        mark = folder / f".seen-{uuid.uuid4().hex}"
        mark.touch()
        try:
            return all(self._cluster.on_every_worker(os.path.exists, str(mark.resolve())).values())
        finally:
            mark.unlink()

    def _each_part(self, stage: str, function: Any, **common: Any) -> Iterator[tuple[int, Any]]:
        """Do something with each part, a few at a time; yield what came out, in order."""
        sizes = [sum(piece.n_rows for piece in part) for part in self._partitions]
        firsts = [sum(sizes[:number]) for number in range(len(sizes))]
        common |= {"own": self._own, "schema": self.schema}
        step = max(1, self._cluster.n_threads)
        for begin in range(0, len(sizes), step):
            wave = range(begin, min(begin + step, len(sizes)))
            futures = self._cluster.each(
                stage,
                function,
                [self._partitions[number] for number in wave],
                [_packed(self._added.slice(firsts[n], sizes[n])) for n in wave],
                **common,
            )
            yield from zip(wave, self._cluster.results(futures), strict=True)


def spooled(cluster: Cluster, schema: pa.Schema, parts: Iterable[pa.Table]) -> pa.Table:
    """Return tables as one on this machine's disk, mapped into memory."""
    cluster.n_files += 1
    path = cluster.scratch / f"rows-{cluster.n_files}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for part in parts:
            writer.write_table(part)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


class Written:
    """A part that stands on the disk, under a name of its own for now."""

    def __init__(self, name: str, n_rows: int) -> None:
        self.name, self.n_rows = name, n_rows


def joined(pieces: Sequence[Piece], added: bytes, *, own: pa.Schema, schema: pa.Schema) -> pa.Table:
    """Return the rows of a part with the added columns; runs on a worker."""
    table = read_pieces(pieces, own)
    more = pa.ipc.open_stream(added).read_all()
    for name in more.column_names:
        table = table.append_column(name, more.column(name))
    return table.cast(schema)


def write_part(
    pieces: Sequence[Piece], added: bytes, *, own: pa.Schema, schema: pa.Schema, folder: str
) -> Written:
    """Write a part; runs on a worker.

    Under a new name each time, because a worker that was thought lost may still be writing.
    """
    table = joined(pieces, added, own=own, schema=schema)
    name = f".part-{uuid.uuid4().hex}"
    path = Path(folder) / name
    try:
        pq.write_table(table, path)
        n_rows = int(pq.read_metadata(path).num_rows)
    except OSError as error:
        said = error.strerror or str(error)
        raise SinkError(f"a worker could not write to '{folder}' ({said})") from None
    return Written(name, n_rows)


def _packed(table: pa.Table) -> bytes:
    """Return rows as bytes, those of a slice alone."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
