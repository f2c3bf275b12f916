"""A server that forks commands which are struck, and a folder in which a run was before."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

SERVER = Path(__file__).with_name("server.py")
N_ROWS = 150


class Commands:
    """Runs ``gpuseg`` in children of a warm process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SERVER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout.readline() == "ready\n"

    def __call__(
        self, folder: Path, arguments: Sequence[str], moment: str = "", fault: str = "none"
    ) -> int:
        """Return the exit code, or minus the number of the signal that ended it."""
        job = {"folder": str(folder), "arguments": list(arguments), "moment": moment}
        self._process.stdin.write(json.dumps(job | {"fault": fault}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="session")
def gpuseg() -> Iterator[Commands]:
    commands = Commands()
    yield commands
    commands.close()


def table() -> pl.DataFrame:
    """Three kinds of customers."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, N_ROWS)
    return pl.DataFrame(
        {
            "id": np.arange(N_ROWS),
            "amount": np.array([0, 20, 40])[kind] + rng.normal(size=N_ROWS),
            "visits": np.array([3, 3, 9])[kind] + rng.normal(size=N_ROWS),
        }
    )


def run_arguments(n_clusters: int, *more: str) -> list[str]:
    """Return a command that writes a file, a folder of parts and tables of a database."""
    return [
        "run", "--input-table", "in.parquet", "--model-name", "m", "--rowid-column", "id",
        "--num-clusters", str(n_clusters), "--output-table", "crm.rows",
        "--export-k-scores", "scores.parquet", "--export-rules", "rules/", *more,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def earlier(gpuseg, tmp_path_factory) -> Path:
    """A folder in which there was a run with two clusters."""
    folder = tmp_path_factory.mktemp("earlier")
    table().write_parquet(folder / "in.parquet")
    assert gpuseg(folder, run_arguments(2)) == 0, (folder / "log.txt").read_text()
    return folder


@pytest.fixture
def folder(earlier, tmp_path) -> Path:
    """The same, for one test."""
    place = tmp_path / "work"
    shutil.copytree(earlier, place)
    (place / "log.txt").unlink()
    return place
