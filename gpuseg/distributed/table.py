"""A table whose rows stay where they are: known by its pieces, read by the workers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpuseg.distributed import steps, writing
from gpuseg.distributed.cluster import Cluster
from gpuseg.distributed.matrix import Rows, bring
from gpuseg.distributed.writing import spooled
from gpuseg.errors import DataError, SettingsError
from gpuseg.outputs.keeping import ContentSums
from gpuseg.records import Progress, Table, no_progress
from gpuseg.settings import Settings
from gpuseg.tables.input import csv_options, input_location
from gpuseg.tables.location import Location
from gpuseg.tables.pieces import InPieces, Piece, has_pieces, laid_down, partitioned, pieces_of

#: Rows of a partition: enough to be worth a task, few enough that a worker holds several.
FEWEST_ROWS, MOST_ROWS = 1 << 13, 1 << 20

#: Values of a partition, at most: wide tables have shorter ones.
MOST_VALUES = 1 << 25

#: Partitions for each task that the workers can do at the same time, where there are enough
#: rows: so that all are busy till the end.
PARTS_PER_THREAD = 4


@dataclass(frozen=True)
class PartitionedTable(Table):
    """A table in partitions; `arrow` has its columns, and no rows.

    Parameters
    ----------
    partitions
        The pieces of each.
    """

    cluster: Cluster = field(kw_only=True)
    partitions: tuple[tuple[Piece, ...], ...] = field(kw_only=True)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """Rows of each partition."""
        return [sum(piece.n_rows for piece in part) for part in self.partitions]

    @property
    def whole(self) -> steps.WholeTable:
        """What a task needs that reads all rows of a column."""
        pieces = tuple(piece for part in self.partitions for piece in part)
        return steps.WholeTable(self.name, pieces, self.arrow.schema)

    def select(self, names: Sequence[str]) -> pa.Table:
        """Bring columns of all rows here, to a file that is mapped into memory."""
        parts = self.read(list(names))
        schema = pa.schema([self.arrow.schema.field(name) for name in names])
        return spooled(self.cluster, schema, map(self.cluster.result, parts))

    def bring_rows(self, rows: Rows, names: Sequence[str] | None = None) -> Table:
        """Bring some rows here, in their order, and of them some columns."""
        common = {"schema": self.arrow.schema, "names": names}
        given = bring(self.cluster, steps.take_rows, self.partitions, rows, **common)
        together = pa.concat_tables([part for _where, part in given])
        order = np.argsort(np.concatenate([where for where, _part in given]))
        return Table(self.name, together.take(pa.array(order)), self.notes)

    def read(self, names: list[str] | None = None) -> list[Any]:
        """Start reading all partitions; return the futures of the Arrow tables."""
        common = {"schema": self.arrow.schema, "names": names or self.arrow.column_names}
        return self.cluster.each("read", steps.read, self.partitions, **common)

    def content_hash(self) -> str:
        """Return the hash of the rows: the same as on one machine."""
        common = {"schema": self.arrow.schema}
        parts = self.cluster.each("fingerprint", content_sums, self.partitions, **common)
        total: ContentSums = self.cluster.total("fingerprint", parts, add_content)
        return total.digits()

    def with_columns(self, columns: Mapping[str, Any]) -> writing.RowsOnWorkers:
        """Return the rows with more columns, to be written by the workers."""
        return writing.RowsOnWorkers(self.cluster, self.partitions, self.arrow.schema, columns)


def content_sums(pieces: tuple[Piece, ...], *, schema: Any) -> ContentSums:
    """Look at a partition's rows for the content hash."""
    return ContentSums.of(steps.read(pieces, schema=schema, names=schema.names))


def add_content(one: ContentSums, other: ContentSums) -> ContentSums:
    """Add what was seen of two partitions."""
    return one.plus(other)


def read_on_workers(
    cluster: Cluster,
    settings: Settings,
    progress: Progress = no_progress,
    *,
    n_partitions: int | None = None,
) -> PartitionedTable:
    """Find the table's pieces, and cut it into partitions; no rows are read but the first.

    Parquet is read where it lies. Anything else is read by one worker, and laid down on the
    disk for the others.

    Raises
    ------
    SettingsError
        If a worker does not see the files.
    GpusegError
        As ``tables.read_table``.
    """
    location = input_location(settings)
    if has_pieces(location):
        _check_visible(cluster, location)
        found: InPieces = cluster.result(cluster.one("read", pieces_of, _resolved(location)))
        found = found._replace(name=location.display)
    else:
        found = _laid_down(cluster, settings, location)
    progress(1.0)
    if not found.n_rows:
        raise DataError(f"{location.display} has no rows; a table with rows was expected")
    most = n_partitions and -(-found.n_rows // n_partitions)
    return PartitionedTable(
        name=location.display,
        arrow=found.schema.empty_table(),
        notes=found.notes,
        cluster=cluster,
        partitions=tuple(partitioned(found.pieces, most or _most_rows(cluster, found))),
    )


def _most_rows(cluster: Cluster, found: InPieces) -> int:
    share = found.n_rows // (PARTS_PER_THREAD * cluster.n_threads) + 1
    by_width = MOST_VALUES // len(found.schema)
    return max(FEWEST_ROWS, min(share, by_width, MOST_ROWS))


def _laid_down(cluster: Cluster, settings: Settings, location: Location) -> InPieces:
    if location.kind == "td":
        raise SettingsError(
            "workers cannot read from Treasure Data; run without --dask, or export the table to "
            "Parquet files that all workers see"
        )
    folder = cluster.scratch
    if not cluster.shared_scratch:
        folder = Path(settings.runs_dir).resolve()
        if not folder.is_dir() or not all(sees(cluster, folder).values()):
            raise SettingsError(
                f"'{location.display}' would have to be read by one worker and laid down in "
                f"'{folder}' for the others, which do not all see that folder; give a Parquet file "
                "or folder that all workers see"
            )
    if not location.in_warehouse or location.kind == "duckdb":
        _check_visible(cluster, location)
    cluster.n_files += 1
    target = folder / f".gpuseg-rows-{os.getpid()}-{cluster.n_files}.arrow"
    cluster.leftovers.append(target)
    csv = csv_options(settings)
    task = cluster.one("read", laid_down, _resolved(location), settings.input_query, csv, target)
    found: InPieces = cluster.result(task)
    return found._replace(name=location.display)


def _resolved(location: Location) -> Location:
    """Return the location as workers find it, wherever they were started."""
    from dataclasses import replace

    return location if location.address else replace(location, path=location.path.resolve())


def _check_visible(cluster: Cluster, location: Location) -> None:
    path = location.path.resolve()
    seen = sees(cluster, path)
    blind = [worker for worker, is_there in seen.items() if not is_there]
    if len(blind) == len(seen):
        return  # then it is not there at all, and reading says so
    if blind:
        raise SettingsError(
            f"worker {blind[0]} does not see '{path}'; with --dask the input must lie where all "
            "workers find it under the same path"
        )


def sees(cluster: Cluster, path: Path) -> dict[str, bool]:
    """Ask every worker whether a path is there."""
    return cluster.on_every_worker(os.path.exists, str(path))
