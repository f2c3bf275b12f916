"""The commands as a user types them: exit codes, streams, JSON, tables, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

COMMAND = [sys.executable, "-m", "gpuseg"]


def gpuseg(folder: Path, *arguments: str, env: dict[str, str] | None = None):
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (env or {}),
    )


def customers(n: int = 300, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    return pl.DataFrame(
        {
            "id": [f"C{i:05}" for i in range(n)],
            "spend": np.round(rng.normal(np.array([10, 50, 90])[group], 3), 2),
            "visits": rng.poisson(np.array([2, 20, 8])[group]),
            "city": np.array(["Rome", "Oslo", "Lima"])[group],
            "country": ["X"] * n,
            "time": rng.integers(1_700_000_000, 1_800_000_000, n),
        }
    )


def test_a_guessed_encoding_is_said_to_the_user_and_in_the_report(tmp_path):
    table = customers().with_columns(city=pl.col("city").replace("Oslo", "Århus"))
    (tmp_path / "c.csv").write_bytes(table.write_csv().encode("cp1252"))
    arguments = ("run", "--input-table", "c.csv", "--model-name", "m", "--json")
    guessed = gpuseg(tmp_path, *arguments)
    assert guessed.returncode == 0, guessed.stderr
    [said] = [line for line in guessed.stderr.splitlines() if "was guessed as cp1252" in line]
    assert said.startswith("warning: ")
    assert "--csv-encoding" in said
    [report] = tmp_path.rglob("report.html")
    assert "was guessed as cp1252" in report.read_text()
    again = gpuseg(tmp_path, *arguments)  # nothing is left to do, and it is still a guess
    assert "was guessed as cp1252" in again.stderr
    given = gpuseg(tmp_path, *arguments, "--csv-encoding", "cp1252")
    assert given.returncode == 0, given.stderr
    assert "guessed" not in given.stderr


def test_a_file_in_two_encodings_is_refused_in_one_line(tmp_path):
    rows = "city,a\n" + "Malmö,1\n" * 290
    (tmp_path / "c.csv").write_bytes(rows.encode() + "Århus,2\n".encode("latin-1") * 10)
    refused = gpuseg(tmp_path, "run", "--input-table", "c.csv")
    assert refused.returncode == 2
    [said] = [line for line in refused.stderr.splitlines() if line.startswith("gpuseg: ")]
    assert "line 292 is not UTF-8" in said
    assert "--csv-encoding" in said


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One run with everything asked for, on a DuckDB table."""
    folder = tmp_path_factory.mktemp("run")
    customers().write_csv(folder / "customers.csv")
    assert gpuseg(folder, "load", "customers.csv", "shop.customers").returncode == 0
    process = gpuseg(
        folder, "run", "--input-table", "shop.customers", "--output-table", "out.segments",
        "--model-name", "m", "--export-feature-importance", "importance",
        "--export-shap-values", "out.shap", "--export-profiles", "profiles.csv",
        "--export-k-scores", "out.k", "--export-rules", "out.rules", "--row-scores", "--json",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return folder, process


def table(folder: Path, name: str) -> pl.DataFrame:
    with duckdb.connect(str(folder / "gpuseg.duckdb"), read_only=True) as connection:
        return pl.from_arrow(connection.sql(f"FROM {name}").to_arrow_table())


def test_stdout_is_one_json_object_with_the_contracts_keys(ran):
    folder, process = ran
    found = json.loads(process.stdout)
    assert found["model_name"] == "m"
    assert found["backend"] == "numpy"
    assert found["backend_reason"].startswith("auto: ")
    assert (found["n_rows"], found["n_clusters"]) == (300, 3)
    assert sum(found["cluster_sizes"]) == 300
    assert found["output_table"] == "out.segments"
    assert [row["n_clusters"] for row in found["k_scores"]] == list(range(2, 10))
    assert {"silhouette", "inertia", "min_cluster_share"} <= found["k_scores"][0].keys()
    assert {"n_features", "run_id", "warnings", "silhouette"} <= found.keys()
    stages = ["read", "prepare", "sweep", "explain", "drift", "publish"]
    assert list(found["seconds"]) == stages
    assert (folder / found["report"]).is_file()
    manifest = json.loads((folder / found["run_dir"] / "manifest.json").read_text())
    assert list(manifest["stages"]) == list(found["seconds"])
    assert all(cost["peak_bytes"] > 0 for cost in manifest["stages"].values())
    assert "sweep" in process.stderr


def test_the_output_has_every_input_column_unchanged_and_the_segment(ran):
    folder, process = ran
    before, after = table(folder, "shop.customers"), table(folder, "out.segments")
    assert after.columns[: len(before.columns)] == before.columns
    assert after.columns[len(before.columns) :] == [
        "cluster_id", "cluster_distance", "second_cluster_id", "cluster_margin", "silhouette",
    ]  # fmt: skip
    assert after.select(before.columns).sort("id").equals(before.sort("id"))
    sizes = after["cluster_id"].value_counts(sort=True)["count"].to_list()
    assert sizes == json.loads(process.stdout)["cluster_sizes"]
    assert after["silhouette"].mean() == pytest.approx(json.loads(process.stdout)["silhouette"])
    assert (after["cluster_id"] != after["second_cluster_id"]).all()
    assert after["cluster_margin"].is_between(0, 1).all()


def test_the_explaining_tables_have_the_contracts_columns(ran):
    folder, _ = ran
    importance = table(folder, "out.importance")  # the database is that of the output table
    assert importance.columns == ["feature", "importance", "rank"]
    assert importance["importance"].sum() == pytest.approx(1)
    assert set(importance["feature"]) == {"spend", "visits", "city"}
    assert table(folder, "out.shap").columns == [
        "cluster_id", "feature", "mean_abs_shap", "mean_shap", "rank",
    ]  # fmt: skip
    assert pl.read_csv(folder / "profiles.csv").columns == [
        "cluster_id", "feature", "kind", "share", "mean", "median", "p10", "p90",
        "overall_mean", "lift", "z", "top_values", "missing_share",
    ]  # fmt: skip
    assert table(folder, "out.k").columns == [
        "n_clusters", "silhouette", "silhouette_stderr", "method", "inertia",
        "calinski_harabasz", "davies_bouldin", "min_cluster_share", "stability", "chosen",
        "silhouette_low", "silhouette_high",
    ]  # fmt: skip
    assert table(folder, "out.rules").columns == [
        "cluster_id", "rule", "sql", "coverage", "precision",
    ]  # fmt: skip


def test_k_scores_beside_the_silhouette_agree_with_scikit_learn(ran):
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score
    from sklearn.preprocessing import StandardScaler

    folder, _ = ran
    gpuseg(
        folder, "run", "--input-table", "shop.customers", "--output-table", "plain.parquet",
        "--columns", "spend,visits", "--transform", "none", "--export-k-scores", "plain_k.parquet",
        "--num-clusters", "3",
    )  # fmt: skip
    rows = pl.read_parquet(folder / "plain.parquet")
    scores = pl.read_parquet(folder / "plain_k.parquet").row(0, named=True)
    X = StandardScaler().fit_transform(rows.select("spend", "visits").to_numpy())
    labels = rows["cluster_id"].to_numpy()
    assert scores["calinski_harabasz"] == pytest.approx(
        calinski_harabasz_score(X, labels), rel=1e-4
    )
    assert scores["davies_bouldin"] == pytest.approx(davies_bouldin_score(X, labels), rel=1e-4)


def test_rules_select_what_they_say(ran):
    folder, _ = ran
    for rule in table(folder, "out.rules").iter_rows(named=True):
        met = table(folder, f"(FROM out.segments WHERE {rule['sql']})")
        hits = (met["cluster_id"] == rule["cluster_id"]).sum()
        size = (table(folder, "out.segments")["cluster_id"] == rule["cluster_id"]).sum()
        assert hits / size == pytest.approx(rule["coverage"])
        assert hits / len(met) == pytest.approx(rule["precision"])


def test_assign_and_no_force_refit_give_the_training_rows_their_ids(ran):
    folder, _ = ran
    expected = dict(table(folder, "out.segments").select("id", "cluster_id").iter_rows())
    assigned = gpuseg(
        folder, "assign", "--model-name", "m", "--input-table", "shop.customers",
        "--output-table", "out.assigned", "--json",
    )  # fmt: skip
    assert assigned.returncode == 0, assigned.stderr
    assert dict(table(folder, "out.assigned").select("id", "cluster_id").iter_rows()) == expected
    again = gpuseg(
        folder, "run", "--no-force-refit", "--model-name", "m", "--input-table", "shop.customers",
        "--output-table", "out.again", "--json",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert dict(table(folder, "out.again").select("id", "cluster_id").iter_rows()) == expected
    assert "nothing was fitted" in json.loads(again.stdout)["reason"]


def test_neither_the_order_of_the_rows_nor_the_threads_change_the_result(ran):
    folder, _ = ran
    expected = dict(table(folder, "out.segments").select("id", "cluster_id").iter_rows())
    customers().sample(fraction=1, shuffle=True, seed=3).write_parquet(folder / "shuffled.parquet")
    for threads in ("1", "3"):
        process = gpuseg(
            folder, "run", "--input-table", "shuffled.parquet", "--output-table", "found.parquet",
            env={"GPUSEG_THREADS": threads},
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        found = pl.read_parquet(folder / "found.parquet")
        assert dict(found.select("id", "cluster_id").iter_rows()) == expected


def test_models_list_and_show(ran):
    folder, _ = ran
    listed = json.loads(gpuseg(folder, "models", "list", "--json").stdout)
    assert {model["name"] for model in listed} >= {"m"}
    shown = gpuseg(folder, "models", "show", "m", "--json")
    assert json.loads(shown.stdout)["n_clusters"] == 3
    assert gpuseg(folder, "models", "show", "m").returncode == 0
    missing = gpuseg(folder, "models", "show", "mm")
    assert missing.returncode == 2
    assert "did you mean 'm'" in missing.stderr


def test_plan_writes_nothing(ran):
    folder, _ = ran
    before = sorted(folder.rglob("*"))
    planned = gpuseg(folder, "plan", "--input-table", "shop.customers", "--json")
    assert planned.returncode == 0, planned.stderr
    found = json.loads(planned.stdout)
    assert found["n_rows"] == 300
    assert {column["column"] for column in found["columns"]} == set(customers().columns)
    assert [stage["name"] for stage in found["stages"]] == [
        "read", "prepare", "sweep", "explain", "publish",
    ]  # fmt: skip
    assert sorted(folder.rglob("*")) == before


def test_doctor_says_what_is_missing():
    ran = subprocess.run([*COMMAND, "doctor", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert found["healthy"]
    assert {check["name"] for check in found["checks"]} >= {"silhouette kernel"}


def test_in_place_twice_replaces_the_segment_column(tmp_path):
    customers().write_parquet(tmp_path / "c.parquet")
    gpuseg(tmp_path, "load", "c.parquet", "shop.c")
    for _ in range(2):
        process = gpuseg(tmp_path, "run", "--input-table", "shop.c", "--output-table", "shop.c")
        assert process.returncode == 0, process.stderr
    assert table(tmp_path, "shop.c").columns == [*customers().columns, "cluster_id"]


def test_append_adds_rows_and_checks_columns_first(tmp_path):
    customers().write_parquet(tmp_path / "c.parquet")
    run = ("run", "--input-table", "c.parquet", "--output-table", "out.s")
    assert gpuseg(tmp_path, *run).returncode == 0
    assert gpuseg(tmp_path, *run, "--output-mode", "append").returncode == 0
    assert len(table(tmp_path, "out.s")) == 600
    customers().drop("visits").write_parquet(tmp_path / "c.parquet")
    refused = gpuseg(tmp_path, *run, "--output-mode", "append")
    assert refused.returncode == 2
    assert "visits" in refused.stderr
    assert len(table(tmp_path, "out.s")) == 600


BAD = [
    (("run",), 2, "no input"),
    (("run", "--input-table", "nowhere.csv"), 2, "nowhere.csv"),
    (("run", "--input-table", "a.b"), 2, "gpuseg.duckdb"),
    (("run", "--input-table", "c.parquet", "--input-query", "SELECT 1"), 2, "give one of them"),
    (("run", "--input-table", "c.parquet", "--columns", "spent"), 2, "did you mean 'spend'"),
    (("run", "--input-table", "c.parquet", "--backend", "gpu"), 2, "--backend auto"),
    (("run", "--input-table", "c.parquet", "--audience-name", "a"), 2, "all three"),
    (("run", "--input-table", "c.parquet", "--model-name", "../x"), 2, "model name"),
    (("run", "--input-table", "c.parquet", "--output-table", "no/where/x.csv"), 2, "no/where"),
    (("run", "--input-table", "seg.parquet"), 2, "already has a column 'Cluster_ID'"),
    (("run", "--input-table", "c.parquet", "--frobnicate"), 2, "frobnicate"),
    (("run", "--input-table", "one.parquet"), 2, "1 row"),
    (("run", "--config", "nothing.yml"), 2, "does not exist"),
    (("assign", "--input-table", "c.parquet", "--output-table", "x.csv"), 2, "--model-name"),
    (("assign", "--input-table", "c.parquet", "--model-name", "m"), 2, "output"),
    (("assign", "--input-table", "c.parquet", "--model-name", "m", "--output-table", "x.csv"), 2,
     "no current model"),
    (("load", "c.parquet", "x.csv"), 2, "db.table"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "words"), BAD)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, arguments, code, words):
    customers(30).write_parquet(tmp_path / "c.parquet")
    customers(1).write_parquet(tmp_path / "one.parquet")
    customers(30).with_columns(Cluster_ID=1).write_parquet(tmp_path / "seg.parquet")
    before = sorted(tmp_path.rglob("*"))
    process = gpuseg(tmp_path, *arguments)
    assert process.returncode == code, process.stderr
    assert words in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stdout == ""
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == [path for path in before if path.is_file()]


def test_a_locked_database_is_exit_code_4(tmp_path):
    customers(30).write_parquet(tmp_path / "c.parquet")
    path = str(tmp_path / "gpuseg.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
        process = gpuseg(tmp_path, "run", "--input-table", "c.parquet", "--output-table", "o.s")
    assert process.returncode == 4, process.stderr
    assert "gpuseg.duckdb" in process.stderr
    assert not list(tmp_path.glob("gpuseg_runs/*/*"))


def test_ctrl_c_leaves_nothing_half_written(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(60_000, 40)), schema=[f"x{i}" for i in range(40)])
    frame.write_parquet(tmp_path / "big.parquet")
    process = subprocess.Popen(
        [*COMMAND, "run", "--input-table", "big.parquet", "--output-table", "out.parquet"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("prepare"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert [path.name for path in tmp_path.iterdir()] == ["big.parquet"]


def test_text_from_the_table_does_not_break_the_terminal_table(tmp_path):
    names = {"spend": "[bold]spend[/bold]", "visits": "[/nonsense]", "city": "ci\tty"}
    customers(60).rename(names).write_parquet(tmp_path / "c.parquet")
    process = gpuseg(tmp_path, "run", "--input-table", "c.parquet")
    assert process.returncode == 0, process.stderr
    assert "[bold]spend[/bold]" in process.stdout


def test_report_is_rebuilt_for_a_folder_and_for_a_model(ran):
    folder, process = ran
    page = folder / json.loads(process.stdout)["report"]
    before = page.read_bytes()
    page.unlink()
    rebuilt = gpuseg(folder, "report", str(page.parent), "--json")
    assert (rebuilt.returncode, rebuilt.stderr) == (0, "")
    assert json.loads(rebuilt.stdout) == {"run_dir": str(page.parent), "report": str(page)}
    assert page.read_bytes() == before
    newest = max(path.name for path in (folder / "gpuseg_runs" / "m").glob("2*"))
    said = gpuseg(folder, "report", "m").stdout
    assert said == f"gpuseg_runs/m/{newest}/report.html\n"


def test_report_opens_a_browser_or_says_that_there_is_none(ran, tmp_path):
    folder, _ = ran
    opener = tmp_path / "opener"
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path / "opened"}\n')
    opener.chmod(0o755)
    page = gpuseg(folder, "report", "m", "--open", env={"BROWSER": f"{opener} %s"}).stdout.strip()
    assert (tmp_path / "opened").read_text() == (folder / page).resolve().as_uri()
    nowhere = {
        "BROWSER": "/bin/false",
        "PATH": "/nonexistent",
        "DISPLAY": "",
        "WAYLAND_DISPLAY": "",
    }
    without = gpuseg(folder, "report", "m", "--open", env=nowhere)
    assert (without.returncode, without.stdout.strip()) == (0, page)
    assert without.stderr == f"no browser could be started here; open {page} yourself\n"


def test_a_report_of_no_run_is_an_error_of_the_user(ran):
    folder, _ = ran
    wrong = gpuseg(folder, "report", "n")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "there is no run 'n'" in wrong.stderr
    assert re.search(r"models there: .*\bm\b", wrong.stderr)


def test_a_single_restart_has_no_stability(tmp_path):
    customers().write_csv(tmp_path / "customers.csv")
    run = ("run", "--input-table", "customers.csv", "--output-table", "o.csv", "--n-init", "1")
    done = gpuseg(tmp_path, *run, "--json")
    assert done.returncode == 0, done.stderr
    assert {score["stability"] for score in json.loads(done.stdout)["k_scores"]} == {None}
    for_people = gpuseg(tmp_path, *run)
    assert for_people.returncode == 0, for_people.stderr
    assert "nan" not in for_people.stdout
