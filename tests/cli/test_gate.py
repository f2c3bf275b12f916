"""Nights as a user has them: refused, promoted, rolled back, looked at, done again."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from gpuseg_process import gpuseg
from typer.testing import CliRunner

from gpuseg.cli import app
from gpuseg.outputs import comparison

RUN = (
    "run", "--input-table", "customers.parquet", "--output-table", "out.segments",
    "--export-feature-importance", "importance.parquet", "--model-name", "m",
    "--rowid-column", "id", "--max-clusters", "4", "--n-init", "2",
)  # fmt: skip


def look(folder: Path, *arguments: str):
    """Run a quick command in this process."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, arguments)


def customers(n: int, seed: int) -> pl.DataFrame:
    """Three kinds of customers."""
    rng = np.random.default_rng(seed)
    group = np.random.default_rng(9).integers(0, 3, 1000)[:n]  # everybody stays what they are
    return pl.DataFrame(
        {
            "id": [f"C{i:05}" for i in range(n)],
            "spend": np.round(rng.normal(np.array([10, 50, 90])[group], 3), 2),
            "since": np.datetime64("2026-01-01") - rng.integers(0, 900, n).astype("m8[D]"),
            "visits": rng.poisson(np.array([2, 20, 8])[group]),
            "city": np.array(["Rome", "Oslo", "Lima"])[group],
        }
    )


def table(folder: Path, name: str = "out.segments") -> pl.DataFrame:
    with duckdb.connect(str(folder / "gpuseg.duckdb"), read_only=True) as connection:
        return pl.from_arrow(connection.sql(f"FROM {name}").to_arrow_table())


def published(folder: Path) -> tuple[pl.DataFrame, bytes, bytes]:
    return (
        table(folder),
        (folder / "importance.parquet").read_bytes(),
        (folder / "gpuseg_runs/m/champion.json").read_bytes(),
    )


def history(folder: Path) -> list[dict]:
    return json.loads(look(folder, "models", "history", "m", "--json").stdout)


@pytest.fixture(scope="module")
def three_nights(tmp_path_factory):
    """Two nights that are published, and one that the gate refuses."""
    folder = tmp_path_factory.mktemp("nights")
    kept = []
    for night, limit in enumerate((("--json",), ("--json",), ("--min-silhouette", "0.99"))):
        customers(200 + 20 * night, night).write_parquet(folder / "customers.parquet")
        if night == 2:
            limit = (*limit, "--max-psi", "5", "--publish", "if-better", "--json", "--quiet")
        process = gpuseg(folder, *RUN, *limit)
        assert process.returncode == (3 if night == 2 else 0), process.stderr
        kept.append((process, published(folder)))
    return folder, kept


@pytest.fixture
def nights(three_nights, tmp_path):
    """A copy to work on."""
    original, kept = three_nights
    folder = tmp_path / "nights"
    shutil.copytree(original, folder)
    for path in folder.glob("gpuseg_runs/m/*/manifest.json"):
        facts = json.loads(path.read_text())
        assert facts["working_folder"] == str(original)
        path.write_text(json.dumps(facts | {"working_folder": str(folder)}))
    return folder, kept


def test_a_refusal_changes_nothing_and_says_why_and_what_to_do(three_nights):
    folder, kept = three_nights
    (_, _), (_, before), (refused, after) = kept
    assert after[0].equals(before[0])
    assert after[1:] == before[1:]

    found = json.loads(refused.stdout)
    run_id = found["run_id"]
    assert found["published"] is False
    assert found["gate"]["passed"] is False
    checks = {check["check"]: check for check in found["gate"]["checks"]}
    assert checks["min_silhouette"] == {
        "check": "min_silhouette", "limit": 0.99, "found": found["silhouette"], "passed": False,
    }  # fmt: skip
    assert "below min_silhouette 0.99" in found["gate"]["reasons"][0]
    (said,) = [line for line in refused.stderr.splitlines() if line.startswith("gpuseg: ")]
    assert f"gpuseg models promote m {run_id}" in said
    assert "below min_silhouette 0.99" in said
    assert found["report"] in said
    warned = [f"warning: {warning}" for warning in found["warnings"]]
    assert warned
    assert refused.stderr.splitlines()[-len(warned) - 1 :] == [*warned, said]

    run_dir = folder / found["run_dir"]
    assert found["output_table"] == f"{found['run_dir']}/tables/rows.parquet"
    assert pq.read_metadata(run_dir / "tables/rows.parquet").num_rows == 240
    assert (run_dir / "report.html").is_file()
    assert (run_dir / "model/model.json").is_file()
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["status"] == "refused"
    assert manifest["gate"] == found["gate"]
    assert manifest["earlier_run_id"] == json.loads(kept[1][0].stdout)["run_id"]
    assert manifest["stages"]["publish"]["seconds"] >= 0
    assert "not published" in (run_dir / "report.html").read_text()


def test_history_says_what_became_of_each_run(three_nights):
    folder, kept = three_nights
    ids = [json.loads(process.stdout)["run_id"] for process, _ in kept]
    runs = history(folder)
    assert [run["run_id"] for run in runs] == ids
    assert [run["status"] for run in runs] == ["published", "published", "refused"]
    assert [run["is_current"] for run in runs] == [False, True, False]
    assert [run["n_rows"] for run in runs] == [200, 220, 240]
    assert "min_silhouette" in runs[2]["reasons"][0]
    shown = look(folder, "models", "history", "m").stdout
    assert f"{ids[1]} *" in shown
    assert "below min_silhouette 0.99" in shown
    listed = json.loads(look(folder, "models", "list", "--json").stdout)
    assert [entry["status"] for entry in listed] == ["published", "published", "refused"]
    assert "refused" in look(folder, "models", "list").stdout
    missing = look(folder, "models", "history", "mm")
    assert missing.exit_code == 2
    assert "did you mean 'm'" in missing.stderr


def test_rollback_brings_tables_and_model_back(nights):
    folder, kept = nights
    first, second = (json.loads(process.stdout)["run_id"] for process, _ in kept[:2])
    (_, before), (_, after) = kept[:2]
    assert not table(folder).equals(before[0])
    done = gpuseg(folder, "models", "rollback", "m", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "model_name": "m", "run_id": first, "previous_run_id": second,
        "outputs": ["importance.parquet", "out.segments"], "notes": [],
    }  # fmt: skip
    assert table(folder).equals(before[0])
    assert table(folder).schema == before[0].schema
    assert pl.read_parquet(folder / "importance.parquet").equals(pl.read_parquet(before[1]))
    assert [run["status"] for run in history(folder)] == ["published", "rolled back", "refused"]

    again = gpuseg(folder, "models", "rollback", "m")
    assert again.returncode == 2
    assert "nothing to go back to" in again.stderr
    forward = gpuseg(folder, "models", "promote", "m", second)
    assert forward.returncode == 0, forward.stderr
    assert table(folder).equals(after[0])
    assert history(folder)[1]["is_current"]


def test_going_back_says_when_rows_were_added_meanwhile(nights):
    folder, kept = nights
    second = json.loads(kept[1][0].stdout)["run_id"]
    with duckdb.connect(folder / "gpuseg.duckdb") as database:
        database.execute("INSERT INTO out.segments FROM out.segments LIMIT 3")
    done = gpuseg(folder, "models", "rollback", "m", "--json")
    (note,) = json.loads(done.stdout)["notes"]
    assert f"'out.segments' had changed since run {second} published it" in note
    # nothing was added since, and going forth and back is no change either
    for command in (("promote", "m", second), ("rollback", "m")):
        again = gpuseg(folder, "models", *command, "--json")
        assert json.loads(again.stdout)["notes"] == []


def test_a_refused_run_is_promoted_by_hand_and_taken_back(nights):
    folder, kept = nights
    refused, current = (json.loads(kept[i][0].stdout)["run_id"] for i in (2, 1))
    done = gpuseg(folder, "models", "promote", "m", refused)
    assert done.returncode == 0, done.stderr
    assert "out.segments" in done.stdout
    rows = pl.read_parquet(folder / f"gpuseg_runs/m/{refused}/tables/rows.parquet")
    assert table(folder).equals(rows)
    (by_hand,) = history(folder)[2]["promoted"]
    assert by_hand["how"] == "promote"
    back = gpuseg(folder, "models", "rollback", "m", "--json")
    assert json.loads(back.stdout)["run_id"] == current
    assert table(folder).equals(kept[1][1][0])


def test_a_damaged_champion_file_is_said_and_repaired(nights):
    folder, kept = nights
    path = folder / "gpuseg_runs/m/champion.json"
    path.write_bytes(path.read_bytes()[:20])
    refused = gpuseg(folder, *RUN, "--max-churn", "0.1", "--json")
    assert refused.returncode == 3, refused.stderr
    found = json.loads(refused.stdout)
    (reason,) = found["gate"]["reasons"]
    assert "champion.json' is damaged" in reason
    assert reason in refused.stderr
    assert all((folder / run).is_dir() for run in map(run_dir_of, kept))
    done = gpuseg(folder, "models", "promote", "m", found["run_id"], "--json")
    assert done.returncode == 0, done.stderr
    assert "published before is lost" in json.loads(done.stdout)["notes"][0]
    assert table(folder).height == 240
    assert history(folder)[-1]["is_current"]


def run_dir_of(night) -> str:
    return json.loads(night[0].stdout)["run_dir"]


def test_the_model_alone_can_be_changed(nights):
    folder, kept = nights
    done = gpuseg(folder, "models", "rollback", "m", "--model-only", "--json")
    assert json.loads(done.stdout)["outputs"] == []
    assert "left as they are" in json.loads(done.stdout)["notes"][0]
    assert table(folder).equals(kept[1][1][0])
    assert history(folder)[0]["is_current"]


def test_from_another_folder_relative_names_are_refused(three_nights, tmp_path):
    folder, kept = three_nights
    before = published(folder)
    run_id = json.loads(kept[2][0].stdout)["run_id"]
    runs_dir = str(folder / "gpuseg_runs")
    refused = gpuseg(tmp_path, "models", "promote", "m", run_id, "--runs-dir", runs_dir)
    assert refused.returncode == 2
    assert str(folder) in refused.stderr
    assert "--model-only" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    assert published(folder)[1:] == before[1:]


def test_two_runs_are_compared(three_nights):
    folder, kept = three_nights
    ids = [json.loads(process.stdout)["run_id"] for process, _ in kept]
    compared = look(folder, "models", "diff", "m", ids[1], ids[2], "--json")
    assert compared.exit_code == 0, compared.stderr
    found = json.loads(compared.stdout)
    assert found["facts"]["n_rows"] == [220, 240]
    assert found["settings"]["min_silhouette"] == [None, 0.99]
    assert "output_table" not in found["settings"]
    assert found["silhouettes"].keys() == {"2", "3", "4"}
    assert sum(size for size, _ in found["sizes"].values() if size) == 220
    agreement = found["agreement"]
    assert (agreement["matched_by"], agreement["n_shared"]) == ("id", 220)
    assert sum(cell["n_rows"] for cell in agreement["overlap"]) == 220
    assert -1 <= agreement["adjusted_rand"] <= 1
    assert {move["cluster_id"] for move in found["moves"]} <= {0, 1, 2, 3}
    shown = look(folder, "models", "diff", "m", ids[1], ids[2])
    assert "adjusted Rand index" in shown.stdout
    same = json.loads(look(folder, "models", "diff", "m", ids[1], ids[1], "--json").stdout)
    assert same["agreement"]["adjusted_rand"] == 1
    assert same["agreement"]["same_id"] == 1
    assert {move["distance"] for move in same["moves"]} == {0.0}
    assert same["settings"] == {}


def test_a_comparison_hides_what_a_run_hides(nights, monkeypatch):
    folder, kept = nights
    first, second = (json.loads(process.stdout)["run_id"] for process, _ in kept[:2])
    monkeypatch.setattr(comparison, "_MOST_FEATURES", 99)
    assert "city = " in look(folder, "models", "diff", "m", first, second).stdout
    path = folder / f"gpuseg_runs/m/{second}/manifest.json"
    facts = json.loads(path.read_text())
    facts["settings"]["hide_table_contents"] = True
    path.write_text(json.dumps(facts))
    for extra in ((), ("--json",)):
        shown = look(folder, "models", "diff", "m", first, second, *extra).stdout
        assert "city" in shown
        assert not any(city in shown for city in ("Rome", "Oslo", "Lima"))


def test_a_past_run_is_done_again_with_the_same_result(nights):
    folder, kept = nights
    second = json.loads(kept[1][0].stdout)
    customers(220, 1).sample(fraction=1, shuffle=True, seed=5).write_parquet(
        folder / "customers.parquet"
    )
    again = gpuseg(
        folder, "run", "--from-manifest", second["run_dir"], "--output-table", "again.parquet",
        "--publish", "always", "--json", "--quiet",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["silhouette"] == second["silhouette"]
    assert found["model_name"] == "m"
    rows = pl.read_parquet(folder / "again.parquet").sort("id")
    assert rows.equals(kept[1][1][0].sort("id"))
    assert "run 2" not in again.stderr  # nothing differs, so nothing is said of that run


def test_a_first_run_with_limits_is_done_again_as_a_first_run(tmp_path):
    """It continued none then and continues none now; that another is current changes nothing."""
    customers(200, 1).write_parquet(tmp_path / "customers.parquet")
    limits = ("--max-churn", "0.2", "--max-psi", "0.5", "--model-name", "m", "--json", "--quiet")
    table = ("--input-table", "customers.parquet", "--rowid-column", "id")
    first, second = (gpuseg(tmp_path, "run", *table, *limits) for _night in range(2))
    assert second.returncode == 0, second.stderr
    folder = json.loads(first.stdout)["run_dir"]
    again = gpuseg(tmp_path, "run", "--from-manifest", folder, "--json", "--quiet")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["silhouette"] == json.loads(first.stdout)["silhouette"]
    customers(200, 2).write_parquet(tmp_path / "customers.parquet")  # nobody knows what they bring
    refused = gpuseg(tmp_path, "run", "--from-manifest", folder, "--quiet")
    assert refused.returncode == 3
    assert "continued no run, and its input has changed since" in refused.stderr


def test_a_manifest_alone_says_what_differs(nights, tmp_path):
    folder, kept = nights
    second = json.loads(kept[1][0].stdout)
    copy = tmp_path / "copy.json"
    facts = json.loads((folder / second["run_dir"] / "manifest.json").read_text())
    facts["versions"]["numpy"] = "1.0.0"
    copy.write_text(json.dumps(facts))
    again = gpuseg(
        folder, "run", "--from-manifest", str(copy), "--runs-dir", "elsewhere",
        "--output-table", "again.parquet", "--model-name", "copy", "--json", "--quiet",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    warnings = " ".join(json.loads(again.stdout)["warnings"])
    assert "220 rows then, 240 now" in warnings
    assert "numpy 1.0.0 →" in warnings
    assert f"continued run {json.loads(kept[0][0].stdout)['run_id']}" in warnings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--from-manifest", "nowhere"), "no manifest"),
        (("run", "--from-manifest", "c.json"), "damaged"),
        (("run", "--max-churn", "2"), "at most 1"),
        (("run", "--max-psi", "nan"), "a number was expected"),
        (("run", "--max-psi", "inf"), "finite"),
        (("models", "promote", "m", "x"), "not a run id"),
        (("models", "promote", "m", "20260101T000000Z-aaaaaa"), "no run 20260101T000000Z"),
        (("models", "rollback", "m"), "no model 'm'"),
        (("models", "history", "../m"), "model name"),
        (("models", "diff", "m", "x", "y"), "not a run id"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, monkeypatch, arguments, words):
    (tmp_path / "c.json").write_text('{"settings": 3}')
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 2, ran.stderr
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
