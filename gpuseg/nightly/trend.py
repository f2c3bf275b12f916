"""How the segments of a model did over its last runs, from what their manifests say."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpuseg.outputs.manifest import MANIFEST
from gpuseg.outputs.model_names import RUN_ID, model_folder

log = logging.getLogger("gpuseg")

#: Runs that a trend looks back on.
LAST_RUNS = 30

TREND_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("started", pa.string()),
        ("status", pa.string()),
        ("n_rows", pa.int64()),
        ("n_clusters", pa.int32()),
        ("silhouette", pa.float64()),
        ("churn", pa.float64()),
        ("max_psi", pa.float64()),
        (
            "sizes",
            pa.list_(pa.struct([("cluster_id", pa.int32()), ("n_rows", pa.int64())])),
        ),
    ]
)


def trend_table(runs_dir: Path, model_name: str, last: int = LAST_RUNS) -> pa.Table:
    """Return the last runs of a model, the oldest first, as `TREND_SCHEMA`.

    Runs whose manifest cannot be read are left out, with a word in the log. ``churn`` and
    ``max_psi`` are null in a first run, ``sizes`` is empty where a run did not note them.
    """
    newest = sorted(_run_folders(model_folder(runs_dir, model_name)), reverse=True)
    rows: list[dict[str, Any]] = []
    for folder in newest:
        if len(rows) == last:
            break
        try:
            rows.append(_row(json.loads((folder / MANIFEST).read_bytes())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("'%s' is not in the trend: %s", folder / MANIFEST, str(error)[:200])
    return pa.Table.from_pylist(rows[::-1], schema=TREND_SCHEMA)


def _run_folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        for path in parent.iterdir():
            if RUN_ID.fullmatch(path.name) and (path / MANIFEST).is_file():
                yield path


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    change = facts.get("change") or {}
    sizes = facts.get("cluster_sizes") or {}
    return {
        "run_id": str(facts["run_id"]),
        "started": str(facts["started"]),
        # runs from before there was a gate were all published
        "status": str(facts.get("status", "published")),
        "n_rows": int(facts["input"]["n_rows"]),
        "n_clusters": int(facts["n_clusters"]),
        "silhouette": _number(facts["silhouette"]),
        "churn": _number(change.get("churn")),
        "max_psi": _number(change.get("max_psi")),
        "sizes": [{"cluster_id": int(c), "n_rows": int(n)} for c, n in sizes.items()],
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
