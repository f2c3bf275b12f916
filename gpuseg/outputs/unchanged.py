"""Whether a run would only do once more what the last one did.

With ``--no-force-refit`` the stored model places the rows. Where the rows, the settings, the
model and the versions are those of the run that made it current, and every output still holds
what that run left there, there is nothing to do. Anything in doubt is done again: that costs
time and nothing else. See docs/decisions/watching.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpuseg.errors import GpusegError
from gpuseg.outputs.destinations import Destinations
from gpuseg.outputs.json_safe import json_safe
from gpuseg.outputs.keeping import LEFT, hash_of
from gpuseg.outputs.manifest import MANIFEST, versions
from gpuseg.outputs.model_checks import NAMES
from gpuseg.outputs.model_names import model_folder
from gpuseg.outputs.models import MODEL_FOLDER, StoredModel
from gpuseg.outputs.report import REPORT
from gpuseg.outputs.results import CLUSTER_COLUMN
from gpuseg.outputs.run_folder import ROWS, read_kept_table
from gpuseg.records import Segmentation, StageCost, Table
from gpuseg.redaction import redact_settings
from gpuseg.settings import Settings
from gpuseg.tables import Location, mark

#: Parameters that change nothing that a run writes into its outputs. `force_refit` is not
#: among what makes a difference either: the current model is the one that was fitted then.
WITHOUT_EFFECT = ("force_refit", "log_format", "metrics_file", "keep", "memory")

#: What these show is the step from the run before, which is another one every time.
OF_CHANGE = ("export_lineage", "export_migration", "export_movements", "export_drift")


def unchanged_result(
    settings: Settings,
    table: Table,
    model: StoredModel,
    destinations: Destinations,
    stages: Mapping[str, StageCost],
) -> Segmentation | None:
    """Return what the last run brought if all of it still stands; None if there is work to do.

    Parameters
    ----------
    table
        The input as it is now, all of it: only its content decides.
    model
        The current model.
    """
    asks_for_more = settings.appends or settings.audience_name is not None
    if asks_for_more or any(getattr(settings, name) is not None for name in OF_CHANGE):
        return None
    run_dir = model_folder(Path(settings.runs_dir), model.name) / model.run_id
    try:
        manifest = json.loads((run_dir / MANIFEST).read_bytes())
        left = json.loads((run_dir / LEFT).read_bytes())
        same = _is_same_work(manifest, settings, table) and _stands(run_dir, left, destinations)
        if not same or not (run_dir / REPORT).is_file():
            return None
        rows = read_kept_table(run_dir, ROWS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, GpusegError):
        return None  # the run will do it, or say what is wrong
    return _result(run_dir, model, destinations, rows, manifest, stages)


def _is_same_work(manifest: Mapping[str, Any], settings: Settings, table: Table) -> bool:
    """Say whether the settings, the versions and the rows are those of a run."""
    if manifest.get("status", "published") != "published":
        return False
    if manifest["versions"] != versions():
        return False
    now, then = json_safe(redact_settings(asdict(settings))), dict(manifest["settings"])
    for name in WITHOUT_EFFECT:
        now.pop(name, None)
        then.pop(name, None)
    source = manifest["input"]
    columns = [{"name": field.name, "type": str(field.type)} for field in table.arrow.schema]
    shape = (table.name, table.n_rows, columns)
    if now != then or shape != (source["name"], source["n_rows"], source["columns"]):
        return False
    return bool(hash_of(table) == source["content_hash"])


def _stands(run_dir: Path, left: Mapping[str, str], destinations: Destinations) -> bool:
    """Say whether each output that is asked for holds what the run left there."""
    places: dict[str, Location] = dict(destinations.exports)
    if destinations.rows is not None:
        places[ROWS] = destinations.rows
    names = run_dir / MODEL_FOLDER / NAMES
    if names.exists() and names.stat().st_mtime_ns > (run_dir / LEFT).stat().st_mtime_ns:
        return False  # somebody has renamed a segment since
    if set(places) != set(left):
        return False
    return all(left[name] and mark(place) == left[name] for name, place in places.items())


def _result(
    run_dir: Path,
    model: StoredModel,
    destinations: Destinations,
    rows: pa.Table,
    manifest: Mapping[str, Any],
    stages: Mapping[str, StageCost],
) -> Segmentation:
    place = destinations.rows
    columns = run_dir / "tables" / "columns.parquet"
    return Segmentation(
        table=rows,
        labels=rows[CLUSTER_COLUMN].to_numpy(),
        n_clusters=model.n_clusters,
        cluster_ids=model.cluster_ids,
        silhouette=float(manifest["silhouette"]),
        reason=f"nothing to do: rows, settings and outputs are those of run {model.run_id}",
        k_scores=pa.Table.from_pylist([dict(row) for row in model.k_scores]),
        columns=pq.read_table(columns),
        explanation=None,
        rules=None,
        model=model,
        backend=str(manifest["backend"]),
        backend_reason=str(manifest["backend_reason"]),
        stages=stages,
        n_features=int(model.centroids.shape[1]),
        run_id=model.run_id,
        run_dir=str(run_dir),
        report=str(run_dir / REPORT),
        output_table=place.display if place else str(run_dir / "tables" / f"{ROWS}.parquet"),
        segments=model.segments,
        unchanged=True,
    )
