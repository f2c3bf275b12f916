"""The run folder is there whole or not at all."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuseg.errors import ModelError, SettingsError, SinkError
from gpuseg.outputs.manifest import Fingerprint, Manifest, Output
from gpuseg.outputs.run_folder import RunFolder
from gpuseg.records import StageCost

SECRET = "Zx9-s3cret"


def make_manifest(run, **changes):
    facts = {
        "model_name": run.model_name,
        "run_id": run.run_id,
        "started": "2026-11-23T22:30:45Z",
        "input": Fingerprint("shop.customers", 200, {"age": "int64", "api_key": "string"}, "ab12"),
        "settings": {"random_state": 0, "foreign_key": "id"},
        "random_state": 0,
        "backend": "numpy",
        "backend_reason": "no GPU was found",
        "n_clusters": 5,
        "silhouette": 0.5547,
        "stages": {"read": StageCost(0.1, 1_000)},
        "outputs": (Output("rows", "shop.segments", 200),),
        "warnings": ("w",),
    }
    return Manifest(**(facts | changes))


def test_a_completed_run_is_found_under_its_id(tmp_path):
    table = pa.table({"k": [2, 3], "silhouette": [0.5, 0.4]})
    with RunFolder.create(tmp_path, "customers") as run:
        assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run.run_id)
        run.write_table("k_scores", table)
        run.write_manifest(make_manifest(run))
        assert not run.path.exists()
        assert run.complete() == tmp_path / "customers" / run.run_id
    assert [p.name for p in (tmp_path / "customers").iterdir()] == [run.run_id]
    assert sorted(p.name for p in run.path.iterdir()) == ["manifest.json", "tables"]
    assert pq.read_table(run.path / "tables" / "k_scores.parquet") == table


def test_an_error_leaves_nothing(tmp_path):
    def interrupted():
        with RunFolder.create(tmp_path, "customers") as run:
            run.write_table("t", pa.table({"a": [1]}))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "customers").iterdir()) == []


def test_runs_of_one_second_get_different_folders(tmp_path, monkeypatch):
    digits = iter(["aaaaaa", "aaaaaa", "bbbbbb", "aaaaaa", "bbbbbb", "cccccc"])
    monkeypatch.setattr("secrets.token_hex", lambda _n: next(digits))
    now = datetime(2026, 11, 23, 22, 30, 45, tzinfo=UTC)
    first = RunFolder.create(tmp_path, "customers", now=now)
    second = RunFolder.create(tmp_path, "customers", now=now)
    second.complete()  # its id is now taken by a finished run
    third = RunFolder.create(tmp_path, "customers", now=now)
    assert [r.run_id[-6:] for r in (first, second, third)] == ["aaaaaa", "bbbbbb", "cccccc"]


def test_many_runs_at_once(tmp_path):
    runs = []

    def work():
        with RunFolder.create(tmp_path, "customers") as run:
            run.write_table("t", pa.table({"a": [1]}))
            runs.append(run.complete())

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runs) == sorted((tmp_path / "customers").iterdir())
    assert len(set(runs)) == 12


CHILD = """
import sys, time, pyarrow as pa
from pathlib import Path
from gpuseg.outputs.run_folder import RunFolder
run = RunFolder.create(Path(sys.argv[1]), "customers")
run.write_table("t", pa.table({"a": [1]}))
print(run.partial, flush=True)
time.sleep(60)
"""


def test_a_killed_run_leaves_nothing_that_looks_like_a_run(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        partial = tmp_path / "customers" / child.stdout.readline().strip().rsplit("/", 1)[-1]
        assert (partial / "tables" / "t.parquet").exists()

        living = RunFolder.create(tmp_path, "customers")
        assert partial.exists(), "the folder of a living run was cleared away"

        child.send_signal(signal.SIGKILL)
    assert partial.name.startswith(".")

    living.complete()
    RunFolder.create(tmp_path, "customers").complete()
    assert not partial.exists()
    assert all(not p.name.startswith(".") for p in (tmp_path / "customers").iterdir())


COMPLETE = """
import os, signal, sys
from pathlib import Path
from gpuseg.outputs.run_folder import RunFolder
run = RunFolder.create(Path(sys.argv[1]), "customers")
Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
run.complete()
"""


def test_a_run_killed_while_it_completes_is_cleared_by_the_next_one(tmp_path):
    killed = subprocess.run([sys.executable, "-c", COMPLETE, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (partial,) = (tmp_path / "customers").iterdir()
    assert partial.name.endswith(".partial")
    RunFolder.create(tmp_path, "customers").discard()
    assert list((tmp_path / "customers").iterdir()) == []


@pytest.mark.parametrize("owner", ['{"host": "elsewhere", "pid": 1}', "{", "[]", None])
def test_remains_of_unknown_owners_are_kept_for_a_day(tmp_path, owner):
    partial = tmp_path / "customers" / ".20260101T000000Z-aaaaaa.partial"
    partial.mkdir(parents=True)
    if owner:
        (partial / ".owner.json").write_text(owner)
    RunFolder.create(tmp_path, "customers").discard()
    assert partial.exists()
    long_ago = time.time() - 25 * 3600
    os.utime(partial, (long_ago, long_ago))
    RunFolder.create(tmp_path, "customers").discard()
    assert not partial.exists()


def test_a_link_that_looks_like_remains_is_left_alone(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (tmp_path / "customers").mkdir()
    (tmp_path / "customers" / ".x.partial").symlink_to(precious)
    long_ago = time.time() - 25 * 3600
    os.utime(precious, (long_ago, long_ago))
    RunFolder.create(tmp_path, "customers").discard()
    assert (precious / "file").exists()


def test_a_linked_model_folder_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "customers").symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match="symbolic link"):
        RunFolder.create(tmp_path, "customers")
    with pytest.raises(SettingsError):
        RunFolder.create(tmp_path, "../customers")


def test_a_disk_that_refuses_is_a_sink_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be written"):
        RunFolder.create(tmp_path / "file", "customers")


def test_the_manifest_says_what_the_run_was(tmp_path):
    run = RunFolder.create(tmp_path, "customers")
    manifest = json.loads(
        run.write_manifest(make_manifest(run, silhouette=float("nan"))).read_text("utf-8")
    )
    assert manifest["input"]["columns"] == [
        {"name": "age", "type": "int64"},
        {"name": "api_key", "type": "string"},
    ]
    assert manifest["settings"] == {"random_state": 0, "foreign_key": "id"}
    assert manifest["stages"] == {"read": {"seconds": 0.1, "peak_bytes": 1000}}
    assert manifest["outputs"] == [{"kind": "rows", "target": "shop.segments", "n_rows": 200}]
    assert manifest["silhouette"] is None
    assert {"python", "gpuseg", "numpy"} <= manifest["versions"].keys()
    assert manifest["backend_reason"] == "no GPU was found"


def test_no_byte_of_the_folder_holds_a_secret(tmp_path):
    url = f"postgresql://ann:{SECRET}@host/db"
    run = RunFolder.create(tmp_path, "customers")
    run.write_manifest(
        make_manifest(
            run,
            input=Fingerprint(url, 1, {}, ""),
            settings={"warehouse": url, "td_api_key": SECRET, "more": {"password": SECRET}},
            backend_reason=f"from {url}",
            outputs=(Output("rows", url, 1),),
            warnings=(f"retried {url}",),
            extras={"url": url},
        )
    )
    for path in run.complete().rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
