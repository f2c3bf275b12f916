"""Suggested buckets as a table, as JSON, and as a place that takes the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from gpuseg.errors import SettingsError
from gpuseg.explain.bucket_columns import BucketReport
from gpuseg.explain.buckets import Bucketing, ColumnBuckets
from gpuseg.outputs.destinations import refuse_to_overwrite_input
from gpuseg.settings import Settings
from gpuseg.tables import Location, check_output, locate

BUCKETS_SCHEMA = pa.schema(
    [
        ("column", pa.string()),
        ("method", pa.string()),
        ("bucket", pa.int32()),
        ("label", pa.string()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("unit", pa.string()),
        ("n_rows", pa.int64()),
        ("share", pa.float64()),
        ("sql", pa.string()),
        ("explained", pa.float64()),
        ("silhouette", pa.float64()),
        ("separation", pa.float64()),
    ]
)


def bucket_place(settings: Settings) -> Location | None:
    """Return where the table of buckets goes, after checking that it can be written there.

    Raises
    ------
    SettingsError, DataError, SinkError
        If it cannot, or would overwrite the input.
    """
    if settings.output_table is None:
        return None
    place = locate(settings.output_table, warehouse=settings.warehouse)
    source = settings.input_table and locate(settings.input_table, warehouse=settings.warehouse)
    refuse_to_overwrite_input({"the table of buckets": place}, source or None, settings)
    check_output(place, BUCKETS_SCHEMA)
    return place


def check_plots_folder(folder: Path | None) -> None:
    """Refuse a place for pictures that cannot be a folder.

    Raises
    ------
    SettingsError
        If something else is there.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise SettingsError(f"'{folder}' is a file; --plots names a folder for pictures")


def buckets_table(report: BucketReport) -> pa.Table:
    """Return one row for each bucket of each method and column.

    Returns
    -------
    table
        `low` belongs to the bucket and `high` does not; null where it is open. They count in
        `unit`: as the column does, or in days before the reference date, which `sql` names.
        `share` is of all rows. `explained`, `silhouette` and `separation` are the method's,
        see `gpuseg.explain.buckets.Bucketing`.
    """
    rows = [
        row
        for column in report.columns
        for bucketing in column.bucketings
        for row in _rows(column, bucketing, report.n_rows)
    ]
    return pa.Table.from_pylist(rows, schema=BUCKETS_SCHEMA)


def _rows(column: ColumnBuckets, bucketing: Bucketing, n_rows: int) -> list[dict[str, Any]]:
    ends = [None, *bucketing.cuts, None]
    return [
        {
            "column": column.column,
            "method": bucketing.method,
            "bucket": i,
            "label": label,
            "low": ends[i],
            "high": ends[i + 1],
            "unit": column.axis.unit,
            "n_rows": bucketing.n_rows[i],
            "share": bucketing.n_rows[i] / n_rows,
            "sql": bucketing.conditions[i] if bucketing.conditions else None,
            "explained": bucketing.explained,
            "silhouette": bucketing.silhouette,
            "separation": bucketing.separation,
        }
        for i, label in enumerate(bucketing.labels)
    ]


def buckets_summary(report: BucketReport) -> dict[str, Any]:
    """Return the JSON object that ``gpuseg buckets --json`` prints."""
    return {
        "table": report.table,
        "n_rows": report.n_rows,
        "n_clusters": report.n_clusters,
        "columns": [_summary(column) for column in report.columns],
        "output_table": report.output_table,
        "plots": list(report.plots),
        "warnings": list(report.warnings),
    }


def _summary(column: ColumnBuckets) -> dict[str, Any]:
    return {
        "column": column.column,
        "kind": column.kind,
        "scale": column.axis.scale,
        "unit": column.axis.unit,
        "n_different": len(column.values),
        "n_missing": column.n_missing,
        "k_scores": [score._asdict() for score in column.k_scores],
        "bucketings": [
            {
                "method": bucketing.method,
                "cuts": list(bucketing.cuts),
                "labels": list(bucketing.labels),
                "n_rows": list(bucketing.n_rows),
                "explained": bucketing.explained,
                "silhouette": bucketing.silhouette,
                "separation": bucketing.separation,
                "sql": bucketing.sql,
            }
            for bucketing in column.bucketings
        ],
    }
