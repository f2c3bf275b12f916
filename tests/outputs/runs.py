"""Small run folders, as a run leaves them."""

import json

import pyarrow as pa
from outputs.test_models import make_model

from gpuseg.outputs.manifest import Fingerprint, Manifest
from gpuseg.outputs.models import promote, save_model
from gpuseg.outputs.run_folder import RunFolder

NAME = "customers"


def run_id_of(number):
    return f"20261123T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-4f2a9c"


def add_run(
    runs_dir, number, *, status="published", name=NAME, rows=True, next_cluster_id=0, **changes
):
    """Make the folder of a finished run; promote it where it was published."""
    run_id = run_id_of(number)
    parent = runs_dir / name
    parent.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(name, run_id, parent / f".{run_id}.partial", parent / run_id)
    folder.partial.mkdir()
    (folder.partial / ".owner.json").write_text("{}")
    save_model(
        folder.partial,
        make_model(name=name, run_id=run_id, n_rows=3, next_cluster_id=next_cluster_id),
    )
    if rows:
        folder.write_table("rows", pa.table({"id": [1, 2, 3], "cluster_id": [0, 1, 0]}))
    facts = {
        "model_name": name,
        "run_id": run_id,
        "started": "2026-11-23T22:30:45Z",
        "input": Fingerprint("shop.customers", 3, {"id": "int64"}, "ab12"),
        "settings": {},
        "random_state": 0,
        "backend": "numpy",
        "backend_reason": "",
        "n_clusters": 3,
        "silhouette": 0.5,
        "stages": {},
        "status": status,
    }
    folder.write_manifest(Manifest(**(facts | changes)))
    folder.complete()
    if status == "published":
        promote(runs_dir, name, run_id)
    return run_id


def edit_manifest(run_dir, **changes):
    path = run_dir / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
