"""How a command ends: interrupts, closed pipes, full disks, quiet and discreet runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

COMMAND = [sys.executable, "-m", "gpuseg"]

#: Runs the command line with a real SIGINT to itself at one moment of publishing.
INTERRUPTING = """
import os, signal, sys
from gpuseg.tables import publishing
from gpuseg.outputs import publication
moment = sys.argv.pop(1)
def strike(name):
    if name == moment:
        os.kill(os.getpid(), signal.SIGINT)
if moment == "promote":
    promote = publication.promote
    publication.promote = lambda *a, **k: (strike("promote"), promote(*a, **k))
elif moment == "costs":
    from gpuseg import pipeline
    pipeline.record_costs = lambda result: strike("costs")
else:
    publishing.reached = strike
from gpuseg.cli import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of three colours, and a first run with two clusters."""
    place = tmp_path_factory.mktemp("ends")
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 150)
    pl.DataFrame(
        {
            "amount": np.array([0, 20, 40])[group] + rng.normal(size=150),
            "colour": np.array(["crimson", "teal", "ochre"])[group],
        }
    ).write_csv(place / "in.csv")
    run(place, 2)
    return place


def command(n_clusters: int) -> list[str]:
    return [
        *("run", "--input-table", "in.csv", "--output-table", "out.parquet"),
        *("--model-name", "m", "--num-clusters", str(n_clusters), "--quiet"),
    ]


def run(folder: Path, n_clusters: int, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [*COMMAND, *command(n_clusters), *more]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=True)


def clusters(folder: Path) -> int:
    return pl.read_parquet(folder / "out.parquet")["cluster_id"].n_unique()


def interrupted(folder: Path, moment: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", INTERRUPTING, moment, *command(3)]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("moment", ["stage 0"])
def test_an_interrupt_before_the_swap_publishes_nothing_and_says_so(folder, moment):
    run(folder, 2)
    runs = sorted((folder / "gpuseg_runs" / "m").iterdir())
    ended = interrupted(folder, moment)
    assert ended.returncode == 130, ended.stderr
    assert "nothing was published" in ended.stderr
    assert clusters(folder) == 2
    assert sorted((folder / "gpuseg_runs" / "m").iterdir()) == runs


@pytest.mark.parametrize("moment", ["swap 0", "swapped", "promote", "costs"])
def test_an_interrupt_from_the_swap_on_lets_table_and_model_agree(folder, moment):
    run(folder, 2)
    ended = interrupted(folder, moment)
    assert ended.returncode == 130, ended.stderr
    assert "published already" in ended.stderr
    assert clusters(folder) == 3
    shown = subprocess.run(
        [*COMMAND, "models", "show", "m", "--json"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"n_clusters": 3' in shown.stdout


def test_a_reader_that_leaves_is_no_error(folder):
    with subprocess.Popen(
        [*COMMAND, *command(2)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert b"rror" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_result_that_cannot_be_printed_is_a_failing_sink(folder):
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, *command(2)],
            cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 4
    assert "could not be printed: No space left" in ended.stderr
    assert "bug" not in ended.stderr


def test_quiet_silences_progress_but_no_warning(folder):
    ended = run(folder, 400)
    assert "warning: there are only 150 rows" in ended.stderr
    assert "sweep" not in ended.stderr


def test_hidden_contents_are_not_printed(folder):
    plain, hidden = run(folder, 3), run(folder, 3, "--hide-table-contents")
    assert "crimson" in plain.stdout
    for word in ("crimson", "teal", "ochre", "(", "↑"):
        assert word not in hidden.stdout.split("(direction)")[1].split("\nrows")[0]


def test_placed_rows_are_not_shown_with_the_scores_of_other_rows(folder):
    run(folder, 2)
    ended = subprocess.run(
        [*COMMAND, "assign", "--input-table", "in.csv", "--output-table", "a.csv",
         "--model-name", "m"],
        cwd=folder, capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert "silhouette" not in ended.stdout
    assert "nothing was fitted" in ended.stdout
