"""Gather what changed since the run before, and what the next night will want to know."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from gpuseg.change import Change, EarlierPlaces, Footprint, Lineage
from gpuseg.nightly.drift import (
    BASELINE,
    baseline,
    baseline_text,
    drift,
    largest,
    read_baseline,
)
from gpuseg.nightly.earlier import known_places
from gpuseg.nightly.identity import events, overlaps
from gpuseg.nightly.migration import churn, migration_table, movements_table
from gpuseg.nightly.trend import trend_table
from gpuseg.outputs.change_facts import DRIFT_SCHEMA
from gpuseg.outputs.model_names import model_folder
from gpuseg.outputs.models import StoredModel
from gpuseg.outputs.reuse import encoder_of
from gpuseg.records import FeatureMatrix, Progress, Segmentation, Table, part
from gpuseg.settings import Settings
from gpuseg.stages import Stage


def with_evidence(
    settings: Settings,
    table: Table,
    features: FeatureMatrix,
    result: Segmentation,
    earlier: StoredModel | None,
    places: EarlierPlaces | None,
    stage: Stage,
    *,
    earlier_silhouette: float | None = None,
) -> Segmentation:
    """Return the result with its change since the run before and its footprint.

    Parameters
    ----------
    earlier
        The model that was current before, or that placed the rows; None in a first run.
    places
        Where today's rows were in its run; None when no row can be compared, or when it placed
        the rows and nobody looked.
    """
    if earlier is not None and places is None:
        places = _places(settings, table, result, earlier)
    seen = baseline(table, features, progress=part(stage.progress, 0.0, 0.5))
    movements = None
    if settings.rowid_column is not None:
        rowids = table.select([settings.rowid_column])
        movements = movements_table(
            rowids, settings.rowid_column, result.labels, places, datetime.now(UTC)
        )
    footprint = Footprint(movements, {BASELINE: baseline_text(seen)})
    stage.detail = in_short(None)
    if earlier is None:
        return replace(result, footprint=footprint)
    assert places is not None
    drifted = _drift(settings, table, features, earlier, part(stage.progress, 0.5, 1.0))
    max_psi, max_psi_column = largest(drifted)
    change = Change(
        lineage=result.lineage or _went_on(result, earlier, places),
        churn=churn(places, result.labels),
        max_psi=max_psi,
        max_psi_column=max_psi_column,
        earlier_silhouette=earlier_silhouette,
        migration=migration_table(places, result.labels),
        movements=movements,
        drift=drifted,
        trend=trend_table(Path(settings.runs_dir), result.model_name),
    )
    stage.detail = in_short(change)
    return replace(result, change=change, footprint=footprint)


def in_short(change: Change | None) -> str:
    """Say what changed in a few words."""
    if change is None:
        return "nothing to compare with yet"
    moved = "no row is known" if math.isnan(change.churn) else f"{change.churn:.1%} of rows moved"
    if change.max_psi is None:
        return moved
    return f"{moved}, largest PSI {change.max_psi:.3f} ({change.max_psi_column})"


def _places(
    settings: Settings, table: Table, result: Segmentation, earlier: StoredModel
) -> EarlierPlaces:
    if result.lineage is not None:  # the new fit found out that nobody can tell
        unknown = np.full(table.n_rows, -1, dtype=np.int32)
        return EarlierPlaces(earlier.run_id, earlier.created, "nothing", unknown, None, {})
    # a stored model places rows where it would have placed them before
    known = known_places(settings, table, earlier).places
    placed = EarlierPlaces(earlier.run_id, earlier.created, "model", result.labels, None, {})
    return known or placed


def _went_on(result: Segmentation, earlier: StoredModel, places: EarlierPlaces) -> Lineage:
    """Say that every segment of a stored model goes on, and how many of its rows stayed."""
    ids = earlier.cluster_ids
    positions = np.searchsorted(np.asarray(ids), result.labels)
    shared = overlaps(positions, len(ids), places, ids)
    told = tuple(events(shared, ids, ids))
    return Lineage(earlier.run_id, places.matched_by, ids, earlier.next_cluster_id, told)


def _drift(
    settings: Settings,
    table: Table,
    features: FeatureMatrix,
    earlier: StoredModel,
    progress: Progress,
) -> pa.Table:
    folder = model_folder(Path(settings.runs_dir), earlier.name) / earlier.run_id
    before = read_baseline(folder)
    if before is None:
        return DRIFT_SCHEMA.empty_table()
    return drift(before, encoder_of(earlier), table, features, progress=progress)
