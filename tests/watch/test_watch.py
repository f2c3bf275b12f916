"""``gpuseg watch`` as its users run it: real processes, really killed, several at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import gpuseg
from gpuseg.tables import Output, locate, publish, read_table

N_ROWS = 300


def customers(first: int, n_rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(first)
    group = rng.integers(0, 3, n_rows)
    return pl.DataFrame(
        {
            "id": [f"C{i:05}" for i in range(first, first + n_rows)],
            "spend": np.round(rng.normal(np.array([10, 50, 90])[group], 3), 2),
            "visits": rng.poisson(np.array([2, 20, 8])[group]),
            "created": pl.Series(range(first, first + n_rows)) * 1_000_000,
        }
    ).cast({"created": pl.Datetime("us")})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> gpuseg.Segmentation:
    """Fit once; the models lie in a runs folder of their own."""
    runs = tmp_path_factory.mktemp("models") / "runs"
    table = customers(0, N_ROWS)
    return gpuseg.segment(
        table, model_name="m", runs_dir=str(runs), rowid_column="id", max_clusters=4,
        ignore_columns=["created"],
    )  # fmt: skip


@pytest.fixture
def runs(model) -> str:
    return str(Path(model.run_dir).parents[1])


class Shop:
    """Input and output in one place of a kind, and the command that watches them."""

    def __init__(self, kind: str, folder: Path, runs: str, server=None) -> None:
        self.folder, self.kind = folder, kind
        warehouse = server.url() if kind == "postgresql" else f"duckdb:{folder / 'w.duckdb'}"
        names = ("shop.customers", "shop.placed")
        if kind in ("folder", "file"):
            suffix = "/" if kind == "folder" else ".parquet"
            names = (f"{folder / 'in'}/", f"{folder / 'out'}{suffix}")
        self.env = os.environ | {"GPUSEG_WAREHOUSE": warehouse, "GPUSEG_RUNS_DIR": runs}
        self.input, self.output = (locate(name, warehouse=warehouse) for name in names)
        self.names = names

    def add(self, rows: pl.DataFrame) -> None:
        publish([Output(self.input, rows.to_arrow(), append=True)])

    def command(self, *arguments: str) -> list[str]:
        if not {"--rowid-column", "--watermark-column"} & set(arguments):
            arguments = ("--rowid-column", "id", *arguments)
        return [
            *(sys.executable, "-m", "gpuseg", "watch", "--model-name", "m"),
            *("--input-table", self.names[0], "--output-table", self.names[1]),
            *("--backend", "numpy", *arguments),
        ]

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def once(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command("--once", *arguments), cwd=self.folder, env=self.env, text=True,
            capture_output=True, check=False, timeout=120,
        )  # fmt: skip

    def placed(self) -> pa.Table:
        return read_table(self.output).arrow

    def n_placed(self) -> int:
        try:
            return self.placed().num_rows
        except gpuseg.errors.GpusegError:
            return 0


@pytest.fixture
def shop(tmp_path, runs, request):
    """Return a function that makes a shop of a kind."""

    def make(kind: str) -> Shop:
        server = None
        if kind == "postgresql":
            server = request.getfixturevalue("postgres_server")
            server.sql("DROP SCHEMA IF EXISTS shop CASCADE")
        return Shop(kind, tmp_path, runs, server)

    return make


def expected(model: gpuseg.Segmentation, rows: pl.DataFrame) -> dict[str, int]:
    labels = gpuseg.assign(rows, model).table
    return dict(zip(labels["id"].to_pylist(), labels["cluster_id"].to_pylist(), strict=True))


def check(shop: Shop, model: gpuseg.Segmentation, rows: pl.DataFrame) -> None:
    """Every row is there once, in its segment."""
    table = shop.placed()
    ids = table["id"].to_pylist()
    assert sorted(ids) == sorted(rows["id"].to_list())
    assert dict(zip(ids, table["cluster_id"].to_pylist(), strict=True)) == expected(model, rows)


def wait_until(true, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def end(process: subprocess.Popen, number: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    return process.communicate(timeout=60)


@pytest.mark.parametrize("kind", ["duckdb", "file"])
def test_one_round_places_what_is_new_and_the_next_is_quiet(shop, model, kind):
    here = shop(kind)
    here.add(customers(0, 20))
    first = here.once()
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith(f"m: 20 new rows placed in {here.names[1]} (")
    quiet = here.once()
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    told = json.loads(here.once("--json").stdout)
    assert (told["n_rows"], told["unchanged"]) == (0, True)
    here.add(customers(20, 1))
    told = json.loads(here.once("--json").stdout)
    assert (told["n_rows"], told["unchanged"], sum(told["cluster_sizes"].values())) == (1, False, 1)
    check(here, model, pl.concat([customers(0, 20), customers(20, 1)]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["duckdb", "postgresql", "folder"])
def test_killed_at_any_moment_each_row_is_placed_once(shop, model, kind):
    """Kill watchers at random moments until one has nothing left to do."""
    here, moments = shop(kind), random.Random(kind)
    rows = [customers(i * 10, 10) for i in range(12)]
    here.add(rows[0])
    n_kills = n_rounds = 0
    left = rows[1:]
    while here.n_placed() < 120:
        watcher = here.start("--interval", "0.02")
        if left:
            for _ in range(3):
                if left:
                    here.add(left.pop(0))
        # from before the first row is placed to some rounds later
        deadline = time.monotonic() + 20
        target = here.n_placed() + moments.choice([0, 1, 1, 11])
        while here.n_placed() < target and watcher.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.random() * (2.5 if target == 0 else 0.05))
        watcher.kill()
        watcher.communicate()
        n_kills += 1
        n_rounds += 1
        assert n_rounds < 40
        ids = here.placed()["id"].to_pylist() if here.n_placed() else []
        assert len(ids) == len(set(ids))
    assert n_kills > 2
    assert here.once().returncode == 0
    check(here, model, pl.concat(rows))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["duckdb", "postgresql", "folder"])
def test_two_watchers_at_once_place_each_row_once(shop, model, kind):
    here = shop(kind)
    rows = [customers(0, 30)]
    here.add(rows[0])
    watchers = [here.start("--interval", "0.01", "--json") for _ in range(2)]
    try:
        wait_until(lambda: here.n_placed() >= 30)
        for i in range(30, 80, 5):
            rows.append(customers(i, 5))
            here.add(rows[-1])
            wait_until(lambda n=i: here.n_placed() >= n)
        wait_until(lambda: here.n_placed() >= 80)
    finally:
        said = [end(watcher) for watcher in watchers]
    assert [watcher.returncode for watcher in watchers] == [130, 130], said
    told = [json.loads(line) for out, _err in said for line in out.splitlines()]
    assert sum(found["n_rows"] for found in told) == 80
    check(here, model, pl.concat(rows))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_between_rounds(shop, number):
    here = shop("folder")
    here.add(customers(0, 5))
    watcher = here.start("--interval", "30")
    wait_until(lambda: here.n_placed() == 5)
    out, err = end(watcher, number)
    assert watcher.returncode == 130
    assert out.startswith("m: 5 new rows placed")
    assert err.startswith("gpuseg: stopped between two rounds")


def test_a_new_champion_places_from_the_next_round_on(shop, model, runs, tmp_path):
    own_runs = str(tmp_path / "runs")
    table = customers(0, N_ROWS)
    settings = {"runs_dir": own_runs, "model_name": "m", "rowid_column": "id"}
    gpuseg.segment(table, num_clusters=3, ignore_columns=["created"], **settings)
    here = Shop("folder", tmp_path, own_runs)
    here.add(customers(0, 5))
    watcher = here.start("--interval", "0.05", "--json")
    try:
        wait_until(lambda: here.n_placed() == 5)
        second = gpuseg.segment(table, num_clusters=2, ignore_columns=["created"], **settings)
        here.add(customers(5, 5))
        wait_until(lambda: here.n_placed() == 10)
    finally:
        out, _err = end(watcher)
    last = json.loads(out.splitlines()[-1])
    assert last["run_id"] == second.run_id
    new = expected(second, customers(5, 5))
    placed = here.placed().to_pylist()
    assert {row["id"]: row["cluster_id"] for row in placed if row["id"] in new} == new


def test_a_source_that_is_down_is_said_once_and_found_again(shop, tmp_path):
    """A DuckDB file that somebody holds open is down for everybody else."""
    here = shop("duckdb")
    here.add(customers(0, 5))
    holder = (
        "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('held', flush=True); "
        "time.sleep(float(sys.argv[2]))"
    )

    def hold(seconds: float) -> subprocess.Popen:
        held = subprocess.Popen(
            [sys.executable, "-c", holder, str(here.folder / "w.duckdb"), str(seconds)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert held.stdout.readline() == "held\n"
        return held

    held = hold(60)
    once = here.once()
    assert once.returncode == 4
    assert "is locked by process" in once.stderr
    watcher = here.start("--interval", "0.2")
    time.sleep(9)  # three tries and more
    held.kill()
    held.communicate()
    wait_until(lambda: here.n_placed() == 5)
    _out, err = end(watcher)
    lines = err.splitlines()
    assert "is locked by process" in lines[0]
    assert "it is tried again" in lines[0]
    assert lines[1] == "warning: it works again"
    assert len(lines) == 3


def test_rows_that_cannot_be_told_are_left_out_and_said(shop):
    here = shop("file")
    rows = customers(0, 6).with_columns(id=pl.Series(["a", "b", None, "a", "c", "a"]))
    here.add(rows)
    ran = here.once()
    assert ran.returncode == 0
    assert sorted(here.placed()["id"].to_pylist()) == ["a", "b", "c"]
    first, second = ran.stderr.splitlines()
    assert first.startswith("warning: rows without a value of 'id' are not placed")
    assert first.endswith(": 1")
    assert second.startswith("warning: rows whose 'id' another new row has too")
    assert second.endswith("(the one that comes first is): 2")
    latest = here.once("--rowid-column", "id", "--watermark-column", "created")
    assert latest.stdout == ""


def test_a_watermark_alone_goes_on_above_the_highest(shop):
    here = shop("duckdb")
    here.add(customers(0, 10))
    assert here.once("--watermark-column", "created").returncode == 0
    late = customers(3, 1).with_columns(id=pl.lit("late"))
    here.add(pl.concat([late, customers(10, 2)]))
    assert here.once("--watermark-column", "created").returncode == 0
    assert "late" not in here.placed()["id"].to_pylist()
    assert here.placed().num_rows == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --interval SECONDS to go on, or --once"),
        (["--once", "--interval", "3"], "give --interval SECONDS to go on, or --once"),
        (["--interval", "0"], "it must be more than 0 seconds"),
        (["--once", "--rowid-column", "nothing"], "'nothing'"),
        (["--once", "--output-table", "IN"], "lies in the input"),
        (["--once", "--model-name", "other"], "there is no current model 'other'"),
        (["--once", "--input-table", "away.parquet"], "there is no file 'away.parquet'"),
    ],
)
def test_what_cannot_work_ends_with_2(shop, arguments, said):
    here = shop("folder")
    here.add(customers(0, 2))
    arguments = [here.names[0] if argument == "IN" else argument for argument in arguments]
    ran = subprocess.run(
        here.command(*arguments), cwd=here.folder, env=here.env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr
    assert ran.stdout == ""


def test_without_anything_that_tells_new_rows_it_says_so(shop):
    here = shop("folder")
    command = [a for a in here.command("--once") if a not in ("--rowid-column", "id")]
    ran = subprocess.run(
        command, cwd=here.folder, env=here.env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "--rowid-column" in ran.stderr
