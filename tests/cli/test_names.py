"""Names and the tree as a user meets them: printed, kept, changed, carried on, hidden."""

from __future__ import annotations

import json
import shutil

import duckdb
import numpy as np
import polars as pl
import pytest
from cli.test_commands import gpuseg


def customers(n: int = 300, seed: int = 0, group=None) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    group = rng.choice(3, n, p=[0.5, 0.3, 0.2]) if group is None else group
    return pl.DataFrame(
        {
            "spend": np.round(rng.normal(np.array([10, 50, 90])[group], 3), 2),
            "visits": rng.poisson(np.array([2, 20, 8])[group]),
            "city": np.array(["Rome", "Oslo", "Secretville"])[group],
        }
    )


RUN = ("run", "--input-table", "c.parquet", "--output-table", "s.parquet", "--model-name", "m",
       "--num-clusters", "3")  # fmt: skip


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    customers().write_parquet(folder / "c.parquet")
    process = gpuseg(folder, *RUN, "--json")
    assert process.returncode == 0, process.stderr
    return folder, json.loads(process.stdout)


@pytest.fixture
def shop(first_run, tmp_path):
    """A copy of the folder of the first run, to be changed, and what that run printed."""
    shutil.copytree(first_run[0], tmp_path, dirs_exist_ok=True)
    return tmp_path, first_run[1]


def test_names_and_tree_are_in_the_json_and_in_the_run_folder(shop):
    folder, found = shop
    tables = folder / found["run_dir"] / "tables"
    segments = pl.read_parquet(tables / "segments.parquet").to_dicts()
    assert segments == found["segments"]
    assert [segment["size"] for segment in segments] == found["cluster_sizes"]
    assert segments[0]["name"] == "Low spend, low visits"
    assert "city is Secretville for 100 %" in segments[2]["description"]
    sql = (folder / found["run_dir"] / "tree.sql").read_text(encoding="utf-8")
    rows = duckdb.sql(f"SELECT {sql} AS found, cluster_id FROM '{folder}/s.parquet'").pl()
    assert (rows["found"] == rows["cluster_id"]).mean() == found["tree"]["fidelity"] > 0.95
    leaves = pl.read_parquet(tables / "tree.parquet")
    text = (folder / found["run_dir"] / "tree.txt").read_text(encoding="utf-8")
    assert text.count("segment ") == len(leaves)
    right = (leaves["n_rows"] * leaves["precision"]).sum() / leaves["n_rows"].sum()
    assert right == pytest.approx(found["tree"]["fidelity"])


def test_a_new_name_is_shown_carried_to_other_tables_and_kept_by_a_refit(shop):
    folder, found = shop
    process = gpuseg(folder, "models", "rename", "m", "2", "VIPs [bold]")
    assert process.returncode == 0, process.stderr
    assert process.stdout == "segment 2 of model 'm' is 'VIPs [bold]'\n"
    assert "VIPs [bold]" in gpuseg(folder, "models", "show", "m").stdout
    shown = json.loads(gpuseg(folder, "models", "show", "m", "--json").stdout)
    assert shown["segments"][2]["draft"] == found["segments"][2]["name"]
    placed = gpuseg(folder, "assign", "--model-name", "m", "--input-table", "c.parquet",
                    "--output-table", "placed.parquet")  # fmt: skip
    assert "VIPs [bold]" in placed.stdout
    again = gpuseg(folder, *RUN, "--no-force-refit", "--json")
    assert json.loads(again.stdout)["segments"][2]["name"] == "VIPs [bold]"
    # other customers, but the same kinds of them
    customers(280, seed=1).write_parquet(folder / "c.parquet")
    refit = gpuseg(folder, *RUN)
    assert refit.returncode == 0, refit.stderr
    assert "VIPs [bold]" in refit.stdout
    assert "no longer" not in refit.stderr


def test_a_name_goes_with_its_segment_however_large_that_is_now(shop):
    folder, found = shop
    assert gpuseg(folder, "models", "rename", "m", "0", "The many").returncode == 0
    # now most customers are those who spend most
    group = np.repeat([2, 1, 0], [200, 80, 20])
    customers(300, group=group).write_parquet(folder / "c.parquet")
    refit = gpuseg(folder, *RUN, "--json")
    assert refit.returncode == 0, refit.stderr
    result = json.loads(refit.stdout)
    assert result["cluster_ids"] == [0, 1, 2]
    assert result["cluster_sizes"] == [20, 80, 200]
    assert [segment["name"] for segment in result["segments"]] == [
        "The many",
        *(segment["name"] for segment in found["segments"][1:]),
    ]


def test_a_refit_that_finds_other_segments_says_whose_name_is_lost(shop):
    folder, _ = shop
    assert gpuseg(folder, "models", "rename", "m", "0", "The many").returncode == 0
    rows = pl.read_parquet(folder / "c.parquet")
    rows.select(pl.col("visits").alias("age"), "spend").write_parquet(folder / "c.parquet")
    refit = gpuseg(folder, *RUN)
    assert refit.returncode == 0, refit.stderr
    assert "column 'visits'" in refit.stderr.replace("\n", " ")
    assert "segment 0, which was called 'The many', does not go on" in refit.stderr
    assert "The many" not in refit.stdout


def test_hidden_contents_are_in_no_name(shop):
    folder, _ = shop
    assert gpuseg(folder, "models", "rename", "m", "1", "My people").returncode == 0
    for extra in ((), ("--json",)):
        process = gpuseg(folder, *RUN, "--hide-table-contents", *extra)
        assert process.returncode == 0, process.stderr
        for secret in ("Rome", "Oslo", "Secretville"):
            assert secret not in process.stdout
        assert "My people" in process.stdout
        assert "spend" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("m", "3", "x"), "no segment 3"),
        (("m", "0", " "), "cannot be the name"),
        (("m", "0", "x" * 100), "cannot be the name"),
        (("mm", "0", "x"), "did you mean 'm'"),
        (("m", "zero", "x"), "cluster_id"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_written(shop, arguments, words):
    folder, found = shop
    process = gpuseg(folder, "models", "rename", *arguments)
    assert process.returncode == 2
    assert words in process.stderr
    assert "Traceback" not in process.stderr
    assert not (folder / found["run_dir"] / "model" / "names.json").exists()
    twin = gpuseg(folder, "models", "rename", "m", "0", found["segments"][1]["name"].upper())
    assert twin.returncode == 2
    assert "already" in twin.stderr
