"""What the cluster of a run hands to its tasks, and what is left of it when the run is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpuseg.distributed import cluster as clusters
from gpuseg.distributed.cluster import cluster_of
from gpuseg.settings import resolve

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(resolve({"dask": "local:2", "backend": "numpy"})) as there:
        yield there


def _product(part, on, factors):
    return on, float(part * factors.sum())


def test_large_values_that_tasks_share_are_those_of_their_batch(cluster):
    """Both batches are under way at once; Dask alone would take the values of the first."""
    assert clusters.SHARED_BYTES < 8 * 50_000
    batches = [
        cluster.each("sample", _product, [1, 2, 3], on="a", factors=np.full(50_000, float(value)))
        for value in (1, 5)
    ]
    assert cluster.results(batches[0]) == [("a", part * 50_000.0) for part in (1, 2, 3)]
    assert cluster.results(batches[1]) == [("a", part * 250_000.0) for part in (1, 2, 3)]


KILLED = """
import os, signal, sys
from pathlib import Path
from gpuseg.distributed.cluster import cluster_of
from gpuseg.settings import resolve

if __name__ == "__main__":
    with cluster_of(resolve({"dask": "local:1", "backend": "numpy"})) as there:
        Path(there.scratch, "rows.npy").write_bytes(b"somebody")
        others = [p for p in there.scratch.parent.glob("*/rows.npy") if p.parent != there.scratch]
        print(len(others), there.scratch.stat().st_mode & 0o077, flush=True)
        if sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_the_next_one_removes(tmp_path):
    script, folder = tmp_path / "run.py", tmp_path / "tmp"
    script.write_text(KILLED)
    folder.mkdir()

    def run(end):
        ran = subprocess.run(
            [sys.executable, str(script), end], capture_output=True, text=True, cwd=ROOT,
            env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return ran.returncode, ran.stdout

    assert run("killed") == (-signal.SIGKILL, "0 0\n")
    assert len(list(folder.glob(".gpuseg-*/rows.npy"))) == 1
    assert run("ended") == (0, "0 0\n")
    assert list(folder.glob(".gpuseg-*")) == []
