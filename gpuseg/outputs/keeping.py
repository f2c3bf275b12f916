"""Keep a run and publish its tables: all of it, or nothing.

The order makes every crash harmless: the run folder is complete before any table
changes, all tables change together, and only then the model becomes the current one.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

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
from gpuseg.outputs.models import promote, save_model
from gpuseg.outputs.report import REPORT, ReportInput, write_report
from gpuseg.outputs.run_folder import RunFolder
from gpuseg.outputs.sketch import Sketch
from gpuseg.records import Segmentation, Table
from gpuseg.settings import Settings

#: Rows plus cluster_id, kept in the run folder when no output table was asked for.
ROWS = "rows"


def keep_run(
    result: Segmentation,
    table: Table,
    sketch: Sketch,
    settings: Settings,
    destinations: Destinations,
) -> Segmentation:
    """Write the run folder, publish the tables, and make the model the current one.

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
            output_table=_rows_place(folder, destinations),
        )
        _fill(folder, result, table, sketch, settings, destinations)
        published = False

        def make_current() -> None:
            nonlocal published
            published = True  # from here on the run folder describes tables that are there
            promote(runs_dir, result.model_name, folder.run_id)

        try:
            folder.complete()
            destinations.publish(result, then=make_current)
        except BaseException:
            if not published:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
    return result


def record_costs(result: Segmentation) -> None:
    """Put what publishing took into the manifest, which was complete before it."""
    path = Path(str(result.run_dir)) / MANIFEST
    with writing(path):
        facts = json.loads(path.read_bytes())
        facts["stages"] = stage_facts(result.stages)
        replace_file(path, manifest_bytes(facts))


def _rows_place(folder: RunFolder, destinations: Destinations) -> str:
    if destinations.rows is not None:
        return destinations.rows.display
    return str(folder.path / "tables" / f"{ROWS}.parquet")


def _fill(
    folder: RunFolder,
    result: Segmentation,
    table: Table,
    sketch: Sketch,
    settings: Settings,
    destinations: Destinations,
) -> None:
    save_model(folder.partial, result.model)
    for name, contents in result_tables(result).items():
        folder.write_table(name, contents)
    if destinations.rows is None:
        folder.write_table(ROWS, result.table)
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
            content_hash=table.content_hash() or content_hash(table.arrow),
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
    )


def _utc(seconds_ago: float) -> str:
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


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
        rows = np.zeros(table.num_rows, dtype=np.uint64)
        for position, column in enumerate(table.columns):
            rows = rows * np.uint64(0x9E3779B97F4A7C15) + _column_hashes(column, position)
        total = int(rows.sum(dtype=np.uint64))
        return cls(total, int(np.bitwise_xor.reduce(rows * (rows | np.uint64(1)), initial=0)))

    def plus(self, other: ContentSums) -> ContentSums:
        """Add other rows."""
        return ContentSums((self.total + other.total) % 2**64, self.mixed ^ other.mixed)

    def digits(self) -> str:
        """Return the hash."""
        return f"{self.total:016x}{self.mixed:016x}"


def _column_hashes(column: pa.ChunkedArray, seed: int) -> np.ndarray:
    try:
        series = pl.Series(values=column)
        return series.hash(seed=seed).to_numpy()
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError):
        # types that Polars does not know (intervals, extensions): by their text
        return pl.Series([str(value) for value in column.to_pylist()]).hash(seed=seed).to_numpy()
