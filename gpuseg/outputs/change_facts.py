"""What changed since the run before, in numbers: for the manifest, JSON and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gpuseg.change import Change, Lineage, LineageEvent

LINEAGE_SCHEMA = pa.schema(
    [
        ("event", pa.string()),
        ("cluster_id", pa.int32()),
        ("previous_cluster_id", pa.int32()),
        ("n_shared", pa.int64()),
        ("share_of_previous", pa.float64()),
        ("share_of_current", pa.float64()),
    ]
)

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
        "churn": change.churn,
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


def lineage_table(lineage: Lineage) -> pa.Table:
    """Return what two segments have to do with each other, one row for each event."""
    events = [event._asdict() for event in lineage.events]
    assert LineageEvent._fields == tuple(LINEAGE_SCHEMA.names)
    return pa.Table.from_pylist(events, schema=LINEAGE_SCHEMA)


def without_values_of_rows(drift: pa.Table) -> pa.Table:
    """Return the drift table without what is in the units of a column."""
    return drift.drop_columns([name for name in _TOLD_VALUES if name in drift.column_names])
