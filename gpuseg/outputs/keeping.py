"""Keep a run and publish its tables: all of it, or nothing.

The order makes every crash harmless: the run folder is complete before any table
changes, all tables change together, and only then the model becomes the current one. What
a crash leaves in between is finished by whoever comes next, see `publication`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from gpuseg.interrupts import after_publishing
from gpuseg.outputs.change_facts import change_facts
from gpuseg.outputs.destinations import Destinations, result_tables
from gpuseg.outputs.durable import replace_file, writing
from gpuseg.outputs.manifest import (
    MANIFEST,
    Fingerprint,
    Manifest,
    manifest_bytes,
    stage_facts,
    versions,
)
from gpuseg.outputs.models import save_model
from gpuseg.outputs.publication import publish_run
from gpuseg.outputs.report import REPORT, ReportInput, write_report
from gpuseg.outputs.run_folder import ROWS, RunFolder, table_files
from gpuseg.outputs.sketch import Sketch
from gpuseg.records import Progress, Segmentation, Table, no_progress, part
from gpuseg.settings import Settings
from gpuseg.tables import publishing

#: Rows that are hashed at a time.
_HASHED_ROWS = 1 << 19

#: In the run folder: result table -> what its place held when it was published.
LEFT = "left.json"


def keep_run(
    result: Segmentation,
    table: Table,
    sketch: Sketch,
    settings: Settings,
    destinations: Destinations,
    progress: Progress = no_progress,
) -> Segmentation:
    """Write the run folder, publish the tables, and make the model the current one.

    What the gate refused is kept in its run folder, and nothing else changes.

    Parameters
    ----------
    sketch
        What the report shows of the rows.

    Returns
    -------
    Segmentation
        The same result, which now knows where it is kept.

    Raises
    ------
    SinkError, SettingsError, DataError
        Nothing was published then, and there is no run folder.
    """
    runs_dir = Path(settings.runs_dir)
    with RunFolder.create(runs_dir, result.model_name) as folder:
        result = replace(
            result,
            model=replace(result.model, run_id=folder.run_id),
            run_id=folder.run_id,
            run_dir=str(folder.path),
            report=str(folder.path / REPORT),
            output_table=_rows_place(folder, result, destinations),
        )
        half = part(progress, 0.0, 0.5)
        _fill(folder, result, table, sketch, settings, destinations, half)
        publishing.reached("run folder")
        if _is_refused(result):
            folder.complete()
            return result
        left = publish_run(
            runs_dir,
            result.model_name,
            folder.run_id,
            destinations.outputs(result),
            complete=folder.complete,
            progress=part(progress, 0.5, 1.0),
        )
    with after_publishing():
        record_left(folder.path, left)
    return result


def record_left(run_dir: Path, marks: Mapping[str, str]) -> None:
    """Keep what the places of the outputs hold now; without it the next run does it all again."""
    with contextlib.suppress(OSError):
        replace_file(run_dir / LEFT, json.dumps(dict(marks), indent=1).encode())


def record_costs(result: Segmentation) -> None:
    """Put what publishing took into the manifest, which was complete before it."""
    path = Path(str(result.run_dir)) / MANIFEST
    with writing(path):
        facts = json.loads(path.read_bytes())
        facts["stages"] = stage_facts(result.stages)
        replace_file(path, manifest_bytes(facts))


def _is_refused(result: Segmentation) -> bool:
    return result.gate is not None and not result.gate.passed


def _rows_place(folder: RunFolder, result: Segmentation, destinations: Destinations) -> str:
    if destinations.rows is not None and not _is_refused(result):
        return destinations.rows.display
    return str(table_files(folder.path, ROWS)[0])


def _fill(
    folder: RunFolder,
    result: Segmentation,
    table: Table,
    sketch: Sketch,
    settings: Settings,
    destinations: Destinations,
    progress: Progress,
) -> None:
    save_model(folder.partial, result.model)
    for name, contents in result_tables(result).items():
        folder.write_table(name, contents)
    if destinations.rows is None:
        # for others too, so it is Parquet in any case
        folder.write_table(ROWS, result.table, progress)
    else:
        folder.write_rows(result.table, progress)
    if result.footprint is not None:
        for name, text in result.footprint.texts.items():
            folder.write_text(name, text)
    if result.tree is not None:
        folder.write_text("tree.txt", result.tree.text)
        folder.write_text("tree.sql", result.tree.sql)
    report = ReportInput.of(
        result,
        sketch,
        settings=asdict(settings),
        versions=versions(),
        input_name=table.name,
        run_id=folder.run_id,
        created=_utc(0.0),
        hide_table_contents=settings.hide_table_contents,
    )
    write_report(folder.partial, report)
    folder.write_manifest(_manifest(folder, result, table, settings, destinations))


def _manifest(
    folder: RunFolder,
    result: Segmentation,
    table: Table,
    settings: Settings,
    destinations: Destinations,
) -> Manifest:
    return Manifest(
        model_name=result.model_name,
        run_id=folder.run_id,
        started=_utc(sum(cost.seconds for cost in result.stages.values())),
        input=Fingerprint(
            name=table.name,
            n_rows=table.n_rows,
            columns={column.name: str(column.type) for column in table.arrow.schema},
            content_hash=hash_of(table),
        ),
        settings=asdict(settings),
        random_state=settings.random_state,
        backend=result.backend,
        backend_reason=result.backend_reason,
        n_clusters=result.n_clusters,
        silhouette=result.silhouette,
        stages=result.stages,
        outputs=tuple(destinations.written(result)),
        warnings=result.warnings,
        extras={"notes": table.notes, "reason": result.reason},
        change=change_facts(result.change),
        cluster_sizes=dict(zip(result.cluster_ids, result.cluster_sizes, strict=True)),
        status="refused" if _is_refused(result) else "published",
        gate=result.gate.as_dict() if result.gate else None,
        earlier_run_id=result.earlier_run_id,
        working_folder=str(Path.cwd()),
    )


def _utc(seconds_ago: float) -> str:
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def hash_of(table: Table) -> str:
    """Return the content hash of a table, wherever its rows lie."""
    return table.content_hash() or content_hash(table.arrow)


def content_hash(table: pa.Table) -> str:
    """Return 32 hexadecimal digits that depend on the rows but not on their order."""
    return ContentSums.of(table).digits()


class ContentSums(NamedTuple):
    """What a content hash is made of; sums over parts of the rows add up."""

    total: int
    mixed: int

    @classmethod
    def of(cls, table: pa.Table) -> ContentSums:
        """Look at all rows."""
        total = mixed = np.uint64(0)
        with np.errstate(over="ignore"):  # sums are taken modulo 2**64
            for start in range(0, table.num_rows, _HASHED_ROWS):
                rows = row_hashes(table.slice(start, _HASHED_ROWS))
                total += rows.sum(dtype=np.uint64)
                mixed ^= np.bitwise_xor.reduce(rows * (rows | np.uint64(1)), initial=0)
        return cls(int(total), int(mixed))

    def plus(self, other: ContentSums) -> ContentSums:
        """Add other rows."""
        return ContentSums((self.total + other.total) % 2**64, self.mixed ^ other.mixed)

    def digits(self) -> str:
        """Return the hash."""
        return f"{self.total:016x}{self.mixed:016x}"


def row_hashes(table: pa.Table) -> np.ndarray:
    """Return a number for the content of each row, (n_rows,) uint64."""
    rows = np.zeros(table.num_rows, dtype=np.uint64)
    for position, column in enumerate(table.columns):
        rows = rows * np.uint64(0x9E3779B97F4A7C15) + _column_hashes(column, position)
    return rows


def _column_hashes(column: pa.ChunkedArray, seed: int) -> np.ndarray:
    try:
        series = pl.Series(values=column)
        return series.hash(seed=seed).to_numpy()
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError):
        # types that Polars does not know (intervals, extensions): by their text
        return pl.Series([str(value) for value in column.to_pylist()]).hash(seed=seed).to_numpy()
