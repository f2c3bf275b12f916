"""Somebody else is at it: another run of the model, or a process that holds the database."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from crash.conftest import run_arguments

LOCK = """
import sys, time
from pathlib import Path
from gpuseg.outputs.locking import model_lock
with model_lock(Path("gpuseg_runs"), "m"):
    print("held", flush=True)
    time.sleep(60)
"""

DATABASE = """
import time, duckdb
connection = duckdb.connect("gpuseg.duckdb")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(folder):
    """Return a function that starts a process, which holds something till the end of the test."""
    started = []

    def hold(script: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process.pid

    yield hold
    for process in started:
        with process:
            process.kill()


def contents(folder: Path) -> dict[str, str]:
    """Return every file and folder, hidden ones too, with a digest of the bytes."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = {str(path): hashlib.sha256(data).hexdigest() for path, data in files.items()}
    return found | {str(path): "folder" for path in folder.rglob("*") if path.is_dir()}


def test_a_second_run_of_a_model_ends_at_once(gpuseg, folder, held):
    pid = held(LOCK)
    before = contents(folder)
    assert gpuseg(folder, run_arguments(3)) == 4
    said = (folder / "log.txt").read_text()
    assert f"another run of the model 'm' is at work: process {pid} has been at it since" in said
    assert "read" not in said  # no hour was lost
    (folder / "log.txt").unlink()
    assert contents(folder) == before
    another = [argument if argument != "m" else "another" for argument in run_arguments(3)]
    assert gpuseg(folder, another) == 0


def test_a_locked_database_changes_nothing(gpuseg, folder, held):
    pid = held(DATABASE)
    before = contents(folder)
    assert gpuseg(folder, run_arguments(3)) == 4
    said = (folder / "log.txt").read_text()
    assert f"is locked by process {pid}; close it there and run again" in said
    (folder / "log.txt").unlink()
    assert contents(folder) == before


def test_a_name_is_not_given_while_a_run_is_at_work(gpuseg, folder, held):
    pid = held(LOCK)
    before = contents(folder)
    assert gpuseg(folder, ["models", "rename", "m", "0", "Ours"]) == 4
    said = (folder / "log.txt").read_text()
    assert f"another run of the model 'm' is at work: process {pid}" in said
    (folder / "log.txt").unlink()
    assert contents(folder) == before
    assert gpuseg(folder, ["models", "rename", "nobody", "0", "Ours"]) == 2
    assert not (folder / "gpuseg_runs" / "nobody").exists()
