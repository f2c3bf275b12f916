"""What changed since the run before, in numbers: for the manifest, JSON and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gpuseg.change import Change
from gpuseg.outputs.results import LINEAGE_SCHEMA, lineage_table

MIGRATION_SCHEMA = pa.schema(
    [
        ("previous_cluster_id", pa.int32()),
        ("cluster_id", pa.int32()),
        ("n_rows", pa.int64()),
        ("share_of_previous", pa.float64()),
        ("share_of_current", pa.float64()),
    ]
)

DRIFT_SCHEMA = pa.schema(
    [
        ("column", pa.string()),
        ("kind", pa.string()),
        ("status", pa.string()),
        ("psi", pa.float64()),
        ("wasserstein", pa.float64()),
        ("wasserstein_scaled", pa.float64()),
        ("previous_mean", pa.float64()),
        ("mean", pa.float64()),
        ("previous_median", pa.float64()),
        ("median", pa.float64()),
        ("previous_missing_share", pa.float64()),
        ("missing_share", pa.float64()),
        ("previous_n_rows", pa.int64()),
        ("n_rows", pa.int64()),
    ]
)

#: The tables of a change that can be asked for; in a first run they are empty.
SCHEMAS: Mapping[str, pa.Schema] = {
    "lineage": LINEAGE_SCHEMA,
    "migration": MIGRATION_SCHEMA,
    "drift": DRIFT_SCHEMA,
}

#: Columns of the drift table that hold what rows have, in the table's own units.
_TOLD_VALUES = ("wasserstein", "previous_mean", "mean", "previous_median", "median")


def change_facts(change: Change | None) -> dict[str, Any] | None:
    """Return the figures of a change; None in a first run.

    Returns
    -------
    dict
        ``earlier_run_id``, ``matched_by``, ``churn``, ``max_psi``, ``max_psi_column``,
        ``earlier_silhouette``; numbers of rows: ``known`` (there in both runs), ``moved``
        (known, in another segment now), ``entrants`` and ``leavers``; and of segments:
        ``kept``, ``split``, ``merged``, ``born``, ``retired``.
    """
    if change is None:
        return None
    lineage = change.lineage
    events = [event.event for event in lineage.events]
    return {
        "earlier_run_id": lineage.earlier_run_id,
        "matched_by": lineage.matched_by,
        "churn": None if math.isnan(change.churn) else change.churn,
        "max_psi": change.max_psi,
        "max_psi_column": change.max_psi_column,
        "earlier_silhouette": change.earlier_silhouette,
        **row_counts(change.migration),
        **{event: events.count(event) for event in EVENTS},
    }


#: What can become of a segment, in the order in which people want to know.
EVENTS = ("kept", "split", "merged", "born", "retired")


def row_counts(migration: pa.Table) -> dict[str, int]:
    """Add up the migration table: ``known``, ``moved``, ``entrants`` and ``leavers``."""
    counts = dict.fromkeys(("known", "moved", "entrants", "leavers"), 0)
    for row in migration.to_pylist():
        was, now, n = row["previous_cluster_id"], row["cluster_id"], row["n_rows"]
        if was is None:
            counts["entrants"] += n
        elif now is None:
            counts["leavers"] += n
        else:
            counts["known"] += n
            counts["moved"] += n if was != now else 0
    return counts


def change_summary(change: Change | None, *, hide_table_contents: bool) -> dict[str, Any] | None:
    """Return the figures and the tables of a change, JSON-able, without those of rows."""
    facts = change_facts(change)
    if change is None or facts is None:
        return None
    drift = without_values_of_rows(change.drift) if hide_table_contents else change.drift
    tables: Mapping[str, pa.Table] = {
        "migration": change.migration, "drift": drift, "trend": change.trend,
    }  # fmt: skip
    lineage = [event._asdict() for event in change.lineage.events]
    return {**facts, "lineage": lineage} | {n: t.to_pylist() for n, t in tables.items()}


def change_tables(change: Change | None) -> dict[str, pa.Table]:
    """Return the tables of a change by the names of the contract; empty ones in a first run."""
    if change is None:
        return {name: schema.empty_table() for name, schema in SCHEMAS.items()}
    return {
        "lineage": lineage_table(change.lineage.events),
        "migration": change.migration,
        "drift": change.drift,
        "trend": change.trend,
    }


def without_values_of_rows(drift: pa.Table) -> pa.Table:
    """Return the drift table without what is in the units of a column."""
    return drift.drop_columns([name for name in _TOLD_VALUES if name in drift.column_names])
