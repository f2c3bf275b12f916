"""What a report is made from, kept in the run folder and read back.

Most of it is there anyway, in the manifest and in ``tables/``; ``report.json`` has the rest,
already without what must not be shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from gpuseg.errors import DataError, ModelError, did_you_mean
from gpuseg.outputs.json_safe import json_safe
from gpuseg.outputs.manifest import MANIFEST
from gpuseg.outputs.model_names import RUN_ID, check_model_name
from gpuseg.outputs.models import MODEL_FOLDER, load_model_folder
from gpuseg.outputs.report_input import ReportInput
from gpuseg.records import StageCost

REPORT_DATA = "report.json"
_FORMAT_VERSION = 1

#: How a file that is cut off, edited or of another kind shows itself.
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OSError, pa.ArrowException)

#: What neither the manifest nor a table has.
_OWN_FIELDS = (
    "created", "cluster_sizes", "cluster_ids", "oob_accuracy", "n_explained_rows", "notes",
    "sketch", "tree_text", "tree_fidelity",
)  # fmt: skip
#: Stages whose cost was not known yet when the report was first written.
_AFTER_THE_REPORT = ("publish",)
_TABLES = ("k_scores", "columns")
_OPTIONAL_TABLES = (
    "profiles", "feature_importance", "shap_values", "rules", "lineage", "migration", "drift",
    "trend",
)  # fmt: skip


def report_bytes(run: ReportInput) -> bytes:
    """Return ``report.json`` of a run."""
    own = {name: json_safe(getattr(run, name)) for name in _OWN_FIELDS}
    facts = {"format": "gpuseg-report", "format_version": _FORMAT_VERSION, **own}
    return json.dumps(facts, ensure_ascii=False, allow_nan=False).encode("utf-8")


def find_run(run: str, runs_dir: Path) -> Path:
    """Return the folder of a run: the path itself, or the newest run of a model's name.

    Raises
    ------
    DataError
        If there is no such run.
    """
    path = Path(run)
    if (path / MANIFEST).is_file():
        return path
    if len(path.parts) != 1:
        raise DataError(
            f"'{run}' is not the folder of a finished run: there is no {MANIFEST} in it; name a "
            "run folder (RUNS_DIR/<model>/<run_id>), or a model for its newest run"
        )
    newest = _newest_run(run, runs_dir)
    if newest is None:
        folders = runs_dir.iterdir() if runs_dir.is_dir() else ()
        known = sorted(folder.name for folder in folders if folder.is_dir())
        raise DataError(
            f"there is no run '{run}': neither a run folder nor a model with runs in "
            f"'{runs_dir}'{did_you_mean(run, known)}; models there: {', '.join(known) or 'none'}"
        )
    return newest


def read_run(folder: Path, *, hide_table_contents: bool = False) -> ReportInput:
    """Read what the report of a run is made from.

    Parameters
    ----------
    hide_table_contents
        Whether to hide them also where the run did not ask for it.

    Raises
    ------
    DataError
        If the folder is damaged, or was made by a version that kept no ``report.json``.
    """
    if not (folder / REPORT_DATA).is_file():
        raise DataError(
            f"the run in '{folder}' has no {REPORT_DATA}, from which its report is rebuilt: it "
            "is damaged or was made by an earlier version; run it again"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        own = json.loads((folder / REPORT_DATA).read_bytes())
        if own["format_version"] > _FORMAT_VERSION:
            raise ValueError("it was written by a newer gpuseg; upgrade")
        return _report_input(folder, manifest, own, hide_table_contents)
    except (
        ModelError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OSError,
        pa.ArrowException,
    ) as error:
        _damaged(folder, error)


def _report_input(
    folder: Path, manifest: dict[str, Any], own: dict[str, Any], hide_table_contents: bool
) -> ReportInput:
    tables = {name: pq.read_table(folder / "tables" / f"{name}.parquet") for name in _TABLES}
    for name in _OPTIONAL_TABLES:
        path = folder / "tables" / f"{name}.parquet"
        if path.is_file():
            tables[name] = pq.read_table(path)
    settings = manifest["settings"]
    return ReportInput(
        model_name=manifest["model_name"],
        run_id=manifest["run_id"],
        created=own["created"],
        input_name=manifest["input"]["name"],
        cluster_sizes=tuple(own["cluster_sizes"]),
        cluster_ids=tuple(own.get("cluster_ids", ())),  # of runs before there were ids, none
        silhouette=manifest["silhouette"],
        reason=manifest["extras"]["reason"],
        backend=manifest["backend"],
        backend_reason=manifest["backend_reason"],
        settings=settings,
        versions=manifest["versions"],
        stages={
            name: StageCost(**cost)
            for name, cost in manifest["stages"].items()
            if name not in _AFTER_THE_REPORT
        },
        oob_accuracy=own["oob_accuracy"],
        n_explained_rows=own["n_explained_rows"],
        sketch=own["sketch"],
        # names may have been changed since: the model has the present ones
        segments=load_model_folder(folder / MODEL_FOLDER).segments,
        tree_text=own["tree_text"],
        tree_fidelity=own["tree_fidelity"],
        notes=tuple(own["notes"]),
        warnings=tuple(manifest["warnings"]),
        hide_table_contents=hide_table_contents or bool(settings["hide_table_contents"]),
        change=manifest.get("change"),
        is_refused=manifest.get("status") == "refused",
        **tables,
    )


def _newest_run(name: str, runs_dir: Path) -> Path | None:
    parent = runs_dir / check_model_name(name)
    if not parent.is_dir():
        return None
    runs = [p for p in parent.iterdir() if RUN_ID.fullmatch(p.name) and (p / MANIFEST).is_file()]
    return max(runs, default=None)


def _damaged(folder: Path, error: Exception) -> NoReturn:
    raise DataError(
        f"the run in '{folder}' is damaged ({type(error).__name__}: {str(error)[:200]}); restore "
        "the folder from a copy, or run it again"
    ) from error
