"""Three nights of a whole run: what is kept, exported, said and shown of the change."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuseg import pipeline
from gpuseg.errors import GateRefusedError, SettingsError
from gpuseg.nightly.drift import BASELINE, read_baseline
from gpuseg.nightly.trend import TREND_SCHEMA, trend_table
from gpuseg.outputs.change_facts import DRIFT_SCHEMA, LINEAGE_SCHEMA, MIGRATION_SCHEMA
from gpuseg.outputs.conclusion import summary
from gpuseg.outputs.report import rebuild_report
from gpuseg.records import Table
from gpuseg.settings import resolve
from gpuseg.stages import Nobody

CENTRES = np.array([[0, 0], [40, 0], [0, 40]])


def customers(ids, kinds, shift=0.0) -> pa.Table:
    """Rows around three centres: the same customer has the same values every night."""
    X = [
        CENTRES[k] + np.random.default_rng(int(i)).normal(0, 2, 2)
        for i, k in zip(ids, kinds, strict=True)
    ]
    X = np.array(X) + shift
    return pa.table({"who": np.asarray(ids), "x": X[:, 0], "y": X[:, 1]})


class Seen(Nobody):
    """Notes the stages that begin."""

    def __init__(self, stages: list[str]):
        self.stages = stages

    def started(self, stage: str) -> None:
        self.stages.append(stage)


class Nights:
    """Runs of one model in one folder."""

    def __init__(self, folder):
        self.folder, self.results = folder, []

    def run(self, rows: pa.Table, **parameters):
        export = str(self.folder / f"{len(self.results)}-")
        given = {
            "model_name": "m", "runs_dir": str(self.folder / "runs"), "rowid_column": "who",
            "num_clusters": 3, "transform": "none", "n_init": 2,
            "warehouse": f"duckdb:{self.folder / 'w.duckdb'}",
            "export_lineage": f"{export}lineage.parquet",
            "export_migration": f"main.migration_{len(self.results)}",
            "export_movements": f"main.movements_{len(self.results)}",
            "export_drift": f"{export}drift.csv",
        }  # fmt: skip
        self.results.append(pipeline.run(resolve(given | parameters), table=Table("t", rows)))
        return self.results[-1]


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """Return three nights: 5 come, 4 go and 6 move; then a stored model places shifted rows."""
    found = Nights(tmp_path_factory.mktemp("nights"))
    ids, kinds = np.arange(90), np.repeat([0, 1, 2], [40, 30, 20])
    found.run(customers(ids, kinds))
    moved = kinds.copy()
    moved[:6] = 1
    ids, moved = np.append(ids[4:], np.arange(100, 105)), np.append(moved[4:], [2] * 5)
    order = np.random.default_rng(1).permutation(len(ids))
    found.run(customers(ids[order], moved[order]))
    found.run(customers(ids, moved, shift=5.0), force_refit=False)
    return found


def path(result) -> Path:
    return Path(result.run_dir)


def tables_of(result, name):
    return pq.read_table(f"{result.run_dir}/tables/{name}.parquet")


def test_the_first_run_has_no_change_and_leaves_a_footprint(nights):
    first = nights.results[0]
    assert first.change is None
    assert summary(first)["change"] is None
    assert read_baseline(path(first)).n_rows == 90
    movements = tables_of(first, "movements")
    assert movements.column("previous_cluster_id").null_count == 90
    assert movements.column("changed").null_count == 0
    assert not (path(first) / "tables" / "trend.parquet").exists()
    page = (path(first) / "report.html").read_text()
    assert "What changed" not in page
    assert 'id="chart-migration"' not in page


def test_tables_that_were_asked_for_are_empty_in_the_first_run(nights):
    lineage = pq.read_table(nights.folder / "0-lineage.parquet")
    assert (lineage.num_rows, lineage.schema) == (0, LINEAGE_SCHEMA)
    header = (nights.folder / "0-drift.csv").read_text().splitlines()
    assert [line.replace('"', "") for line in header] == [",".join(DRIFT_SCHEMA.names)]
    with duckdb.connect(str(nights.folder / "w.duckdb"), read_only=True) as db:
        found = db.sql("select * from migration_0")
        assert (len(found.fetchall()), found.columns) == (0, MIGRATION_SCHEMA.names)


def test_the_second_night_counts_who_came_went_and_moved(nights):
    change = summary(nights.results[1])["change"]
    known = {n: change[n] for n in ("matched_by", "known", "moved", "entrants", "leavers", "kept")}
    assert known == {"matched_by": "rowid", "known": 86, "moved": 2, "entrants": 5, "leavers": 4,
                     "kept": 3}  # fmt: skip
    assert change["churn"] == pytest.approx(2 / 86)
    assert change["earlier_run_id"] == nights.results[0].run_id
    assert {e["event"] for e in change["lineage"]} == {"kept"}
    assert sum(row["n_rows"] for row in change["migration"]) == 86 + 5 + 4
    told = {(e["previous_cluster_id"], e["cluster_id"]): e for e in change["lineage"]}
    taken = {(r["previous_cluster_id"], r["cluster_id"]): r for r in change["migration"]}
    for pair, e in told.items():  # the same name has the same figure in both tables
        for share in ("share_of_previous", "share_of_current"):
            assert e[share] == pytest.approx(taken[pair][share])
    assert change["max_psi"] == max(row["psi"] for row in change["drift"])
    json.dumps(change)


def test_a_date_of_change_goes_on_until_the_row_moves(nights):
    first, second, third = (
        {row["who"]: row for row in tables_of(result, "movements").to_pylist()}
        for result in nights.results
    )
    for who in (4, 5):
        assert second[who]["cluster_id"] != second[who]["previous_cluster_id"]
        assert second[who]["changed"] >= first[who]["changed"]
    stayed = [who for who in second if who in first and who not in (4, 5)]
    assert all(second[who]["changed"] == first[who]["changed"] for who in stayed)
    assert all(second[who]["previous_cluster_id"] is None for who in range(100, 105))
    # rows that a stored model places are found by their ids too
    assert all(third[who]["changed"] == second[who]["changed"] for who in second)
    assert abs(second[100]["changed"] - datetime.now(UTC)) < timedelta(hours=1)
    with duckdb.connect(str(nights.folder / "w.duckdb"), read_only=True) as db:
        there = dict(db.sql("select who, cluster_id from movements_1").fetchall())
    assert there == {who: row["cluster_id"] for who, row in second.items()}


def test_a_stored_model_has_its_drift_measured_too(nights):
    change = summary(nights.results[2])["change"]
    assert change["churn"] == 0
    assert change["max_psi"] > 0.25
    drift = {row["column"]: row for row in change["drift"]}
    assert set(drift) == {"x", "y"}
    assert drift["x"]["wasserstein"] == pytest.approx(5)
    assert {e["event"] for e in change["lineage"]} == {"kept"}


def test_the_manifest_has_the_figures_and_the_trend_reads_them(nights):
    facts = json.loads((path(nights.results[1]) / "manifest.json").read_bytes())
    assert facts["change"]["churn"] == pytest.approx(2 / 86)
    assert "drift" not in facts["change"]
    sizes = {str(c): n for c, n in zip(nights.results[1].cluster_ids,
                                       nights.results[1].cluster_sizes, strict=True)}  # fmt: skip
    assert facts["cluster_sizes"] == sizes
    trend = trend_table(nights.folder / "runs", "m")
    assert trend.schema == TREND_SCHEMA
    assert sorted(trend.column("run_id").to_pylist()) == sorted(r.run_id for r in nights.results)
    rows = {row["run_id"]: row for row in trend.to_pylist()}
    assert rows[nights.results[0].run_id]["churn"] is None
    assert rows[nights.results[2].run_id]["max_psi"] > 0.25
    assert trend_table(nights.folder / "runs", "m", last=2).num_rows == 2
    assert trend_table(nights.folder / "runs", "unknown").num_rows == 0


def test_a_manifest_that_is_damaged_is_left_out_of_the_trend(tmp_path, caplog):
    sound = {"run_id": "r", "started": "s", "n_clusters": 2, "silhouette": 0.5}
    texts = ("{", '{"run_id": 7}', json.dumps(sound | {"input": {"n_rows": 9}}))
    for night, text in enumerate(texts, start=1):
        run_id = f"2026110{night}T030000Z-00000{night}"
        (tmp_path / "m" / run_id).mkdir(parents=True)
        (tmp_path / "m" / run_id / "manifest.json").write_text(text)
    found = trend_table(tmp_path, "m").to_pylist()
    assert [(row["run_id"], row["status"], row["sizes"]) for row in found] == [
        ("r", "published", [])
    ]
    assert caplog.text.count("is not in the trend") == 2


def test_the_report_says_and_draws_it_and_is_rebuilt_alike(nights):
    second = nights.results[1]
    page = (path(second) / "report.html").read_text()
    assert "2 of the 86 rows that were there before" in page
    for chart in ("migration", "drift", "trend", "trend_sizes"):
        assert f'id="chart-{chart}"' in page
        assert (path(second) / "plots" / f"{chart}.svg").is_file()
    rebuild_report(second.run_dir, nights.folder / "runs")
    assert (path(second) / "report.html").read_text() == page


def test_hidden_contents_are_left_out_of_the_summary(nights):
    change = summary(nights.results[1], hide_table_contents=True)["change"]
    assert {"psi", "wasserstein_scaled", "missing_share"} <= set(change["drift"][0])
    assert not {"mean", "previous_mean", "median", "wasserstein"} & set(change["drift"][0])


def test_a_run_without_its_baseline_still_says_who_went_where(nights, caplog):
    (path(nights.results[2]) / BASELINE).unlink()
    again = nights.run(customers(np.arange(90), np.repeat([0, 1, 2], 30)))
    assert "drift is not measured" in caplog.text
    assert again.change.max_psi is None
    assert again.change.drift.num_rows == 0
    assert again.change.migration.num_rows > 0
    assert "chart-drift" not in (path(again) / "report.html").read_text()


@pytest.mark.parametrize("damage", ["gone", "retyped"])
def test_the_gate_says_which_column_was_lost_and_how(tmp_path, damage):
    rows = customers(np.arange(60), np.repeat([0, 1, 2], 20))
    rows = rows.append_column("z", pa.array(np.arange(60) % 7 / 7))
    given = {"model_name": "m", "runs_dir": str(tmp_path), "rowid_column": "who",
             "num_clusters": 3, "n_init": 2, "max_psi": 0.25}  # fmt: skip
    pipeline.run(resolve(given), table=Table("t", rows))
    lost = rows.drop_columns(["x"])
    if damage == "retyped":
        lost = lost.append_column("x", pa.array(["far", "near"] * 30))
    with pytest.raises(GateRefusedError) as refused:
        pipeline.run(resolve(given), table=Table("t", lost))
    words = {"gone": "is no longer in the table", "retyped": "can no longer be read as numbers"}
    assert f"column 'x' {words[damage]}" in str(refused.value)


@pytest.mark.parametrize("force_refit", [True, False])
def test_a_row_id_that_is_not_there_is_said_before_anything_is_compared(nights, force_refit):
    rows = customers(np.arange(30), np.repeat([0, 1, 2], 10)).drop_columns(["who"])
    stages = []
    given = {"model_name": "m", "runs_dir": str(nights.folder / "runs"), "rowid_column": "who",
             "force_refit": force_refit}  # fmt: skip
    with pytest.raises(SettingsError, match="rowid_column names 'who', which is not a column"):
        pipeline.run(resolve(given), table=Table("t", rows), observer=Seen(stages))
    assert stages == ["read"]


def test_movements_need_a_row_id():
    with pytest.raises(SettingsError, match=r"export_movements .* needs rowid_column"):
        resolve({"input_table": "t.parquet", "export_movements": "moves.parquet"})
