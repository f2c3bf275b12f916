"""What a plan says about memory: laws, and a run that is measured."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuseg.plan_memory import MemoryWork, memory_of_stages, scratch_words

GIB = 2**30


def work(n_rows, *, width=150, n_features=30):
    return MemoryWork(
        n_rows=n_rows,
        table_bytes=n_rows * width,
        n_columns=20,
        n_encoded=n_features,
        n_features=n_features,
        k_values=tuple(range(2, 10)),
        n_scored=2000,
        n_threads=2,
    )


@given(n_rows=st.integers(1000, 60_000_000), gibibytes=st.integers(1, 64))
def test_no_stage_is_said_to_exceed_the_budget(n_rows, gibibytes):
    for name, n_bytes in memory_of_stages(work(n_rows), gibibytes * GIB).items():
        most = gibibytes * GIB if n_rows < gibibytes * GIB / 150 else 1.1 * gibibytes * GIB
        assert 0 < n_bytes < most, name


@given(n_rows=st.integers(1000, 50_000_000), more=st.integers(1, 10_000_000))
def test_more_rows_take_no_less(n_rows, more):
    few, many = (max(memory_of_stages(work(n), 8 * GIB).values()) for n in (n_rows, n_rows + more))
    # from 4 million rows on they are ordered in buckets, which takes less
    if (n_rows < 2**22) == (n_rows + more < 2**22):
        assert many >= 0.9 * few


def test_what_goes_to_files_is_said():
    assert scratch_words(work(100_000), 8 * GIB) == ()
    [words] = scratch_words(work(50_000_000), 8 * GIB)
    assert "scratch files" in words
    assert "GPUSEG_SCRATCH" in words


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 4, 150_000)
    numbers = {f"n{i}": rng.normal(size=4)[groups] * 3 + rng.normal(size=150_000) for i in range(8)}
    numbers["kind"] = np.array(["a", "b", "c", "d"])[groups]
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(pa.table(numbers), path, row_group_size=50_000)
    return path


#: Starts a command and writes its peak to a file. A small process does it, because on Linux a
#: child's ``ru_maxrss`` begins with the peak of who started it, and the tests' own is large.
LAUNCHER = """
import pathlib, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
pathlib.Path(sys.argv[1]).write_text(str(peak))
sys.exit(code)
"""


def gpuseg(folder, *arguments):
    peak = folder.parent / f"{folder.name}.peak"
    command = [sys.executable, "-m", "gpuseg", *arguments, "--backend", "numpy", "--json"]
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(peak), *command]
    ran = subprocess.run(launched, cwd=folder, capture_output=True)
    return ran.stdout, ran.stderr.decode(), ran.returncode, int(peak.read_text())


def test_a_run_takes_what_was_planned(source, tmp_path):
    planned, _errors, code, _peak = gpuseg(tmp_path, "plan", "--input-table", str(source))
    assert code == 0
    predicted = max(stage["memory_bytes"] for stage in json.loads(planned)["stages"])
    _output, errors, code, peak = gpuseg(
        tmp_path,
        "run",
        "--input-table",
        str(source),
        "--max-clusters",
        "4",
        "--sample-size",
        "1000",
    )
    assert code == 0, errors
    assert predicted == pytest.approx(peak, rel=0.25)
    stages = json.loads(next(tmp_path.rglob("manifest.json")).read_text())["stages"]
    assert max(stage["peak_bytes"] for stage in stages.values()) == pytest.approx(peak, rel=0.05)


def test_the_peak_is_of_this_program_not_of_the_one_that_started_it():
    """`bytearray` makes the starting process larger than the started one will ever be."""
    starter = (
        "import subprocess, sys; large = bytearray(600 * 2**20); "
        "subprocess.run([sys.executable, '-c', 'from gpuseg.stages import peak_bytes; "
        "print(peak_bytes())'])"
    )
    ran = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True)
    assert 2**20 < int(ran.stdout) < 300 * 2**20


@pytest.mark.parametrize(
    ("memory", "words"),
    [("plenty", "8GiB, 8GB or 512MB"), ("300MB", "least that works is 1.0 GiB")],
)
def test_a_budget_that_cannot_be_is_bad_input(source, tmp_path, memory, words):
    for command in ("run", "plan"):
        output, errors, code, _peak = gpuseg(
            tmp_path, command, "--input-table", str(source), "--memory", memory
        )
        assert code == 2
        assert words in errors
        assert output == b""
    assert list(tmp_path.iterdir()) == []
