"""What a run was: everything needed to repeat it or to doubt it, without secrets."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import gpuseg
from gpuseg.errors import ModelError
from gpuseg.outputs.json_safe import json_safe
from gpuseg.records import StageCost
from gpuseg.redaction import redact, redact_settings

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1

#: Libraries whose version can change a result. The GPU ones are listed where installed.
_LIBRARIES = (
    "numpy", "scipy", "scikit-learn", "numba", "pyarrow", "polars", "duckdb",
    "resvg-py", "cupy-cuda12x", "cupy-cuda13x", "cudf-cu12", "cudf-cu13", "cuml-cu12",
    "cuml-cu13",
)  # fmt: skip


class Fingerprint(NamedTuple):
    """What the input was, so that one can tell later whether it is still the same."""

    name: str  # without credentials
    n_rows: int
    columns: Mapping[str, str]  # column -> type, in table order
    content_hash: str


class Output(NamedTuple):
    """One thing that the run wrote for others."""

    kind: str  # rows | feature_importance | shap_values | …
    target: str  # db.table or a file
    n_rows: int


@dataclass(frozen=True)
class Manifest:
    """The facts of one run, as ``manifest.json`` keeps them."""

    model_name: str
    run_id: str
    started: str  # UTC, ISO 8601
    input: Fingerprint
    settings: Mapping[str, Any]
    random_state: int
    backend: str
    backend_reason: str
    n_clusters: int
    silhouette: float
    stages: Mapping[str, StageCost]
    outputs: tuple[Output, ...] = ()
    warnings: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    change: Mapping[str, Any] | None = None  # since the run before; None in a first run
    cluster_sizes: Mapping[int, int] = field(default_factory=dict)  # id -> rows
    status: str = "published"  # published | refused; what became of it later: see promotions
    gate: Mapping[str, Any] | None = None
    #: the run whose model was continued or placed the rows; None in a first run
    earlier_run_id: str | None = None
    #: what relative names in the settings are relative to
    working_folder: str | None = None


def manifest_dict(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as JSON knows it: secrets removed, NaN and infinity as None."""
    source = manifest.input
    facts = {
        "manifest_version": MANIFEST_VERSION,
        "model_name": manifest.model_name,
        "run_id": manifest.run_id,
        "status": manifest.status,
        "started": manifest.started,
        "input": {
            "name": source.name,
            "n_rows": source.n_rows,
            "columns": [{"name": n, "type": t} for n, t in source.columns.items()],
            "content_hash": source.content_hash,
        },
        "random_state": manifest.random_state,
        "backend": manifest.backend,
        "backend_reason": manifest.backend_reason,
        "n_clusters": manifest.n_clusters,
        "silhouette": manifest.silhouette,
        "cluster_sizes": {str(cluster): n for cluster, n in manifest.cluster_sizes.items()},
        "change": manifest.change,
        "stages": stage_facts(manifest.stages),
        "outputs": [output._asdict() for output in manifest.outputs],
        "warnings": manifest.warnings,
        "versions": versions(),
        "platform": machine(),
        "gate": manifest.gate,
        "earlier_run_id": manifest.earlier_run_id,
        "working_folder": manifest.working_folder,
        "extras": manifest.extras,
    }
    safe = redact(json_safe(facts))
    return {**safe, "settings": json_safe(redact_settings(manifest.settings))}


def read_manifest(where: Path) -> dict[str, Any]:
    """Return the manifest of a run folder, or one that was copied elsewhere.

    Raises
    ------
    ModelError
        If it is not there or damaged.
    """
    path = where / MANIFEST if where.is_dir() else where
    try:
        facts = json.loads(path.read_bytes())
        settings, source, run_id = facts["settings"], facts["input"], facts["run_id"]
    except FileNotFoundError as error:
        raise ModelError(f"there is no run in '{where}': it has no {MANIFEST}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"'{path}' is damaged; it cannot be read as a run's manifest") from error
    if not (isinstance(settings, dict) and isinstance(source, dict) and isinstance(run_id, str)):
        raise ModelError(f"'{path}' is damaged; it does not say what the run was")
    manifest: dict[str, Any] = facts
    return manifest


def stage_facts(stages: Mapping[str, StageCost]) -> dict[str, dict[str, float]]:
    """Return what each stage took, as the manifest keeps it."""
    return {name: cost._asdict() for name, cost in stages.items()}


def manifest_bytes(facts: Mapping[str, Any]) -> bytes:
    """Return ``manifest.json`` with these facts."""
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8")


def versions() -> dict[str, str]:
    """Return the versions of Python, gpuseg and the libraries that shape a result."""
    found = {"python": platform.python_version(), "gpuseg": gpuseg.__version__}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return the operating system, the processor and the number of its cores."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }
