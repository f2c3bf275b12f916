"""Ids that are not positions, 2, 5 and 9, in everything that people or scripts see."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import gpuseg
from gpuseg.activation.audience import wishes_of_result
from gpuseg.cli import app
from gpuseg.outputs.conclusion import summary
from gpuseg.outputs.models import (
    champion,
    load_model,
    next_cluster_id,
    promote,
    rename_segment,
    save_model,
)
from gpuseg.outputs.public_ids import public_ids
from gpuseg.outputs.report_charts import charts_of
from gpuseg.outputs.report_files import read_run
from gpuseg.outputs.scoring import model_document, scoring_query
from gpuseg.terminal import print_segmentation

IDS = (2, 5, 9)
LATER = "20260101T000000Z-ffffff"

#: Every place where a number stands for a segment in a text.
NAMED = re.compile(r"\b[Ss]egment(?:-|: ?| )(\d+)|THEN (\d+)|ELSE (\d+)\b|name-(\d+)")


def named_in(text: str) -> set[int]:
    return {int(next(filter(None, found.groups()))) for found in NAMED.finditer(text)}


def customers() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [90, 60, 30])
    return pl.DataFrame(
        {
            "id": [f"c{i}" for i in range(180)],
            "spend": np.round(rng.normal(np.array([10, 50, 90])[group], 3), 2),
            "visits": rng.poisson(np.array([2, 20, 8])[group]),
            "city": np.array(["Rome", "Oslo", "Lima"])[group],
        }
    ).sample(fraction=1, shuffle=True, seed=1)


def renumber(runs_dir: Path, rows: pl.DataFrame) -> None:
    """Give the clusters of model m the ids 2, 5 and 9, as after many nights."""
    model = load_model(runs_dir, "m")
    segments = tuple(s._replace(cluster_id=IDS[s.cluster_id]) for s in model.segments)
    model = replace(model, run_id=LATER, cluster_ids=IDS, segments=segments, next_cluster_id=12)
    (runs_dir / "m" / LATER / "tables").mkdir(parents=True)
    save_model(runs_dir / "m" / LATER, model)
    rows.with_columns(
        pl.Series("cluster_id", public_ids(rows["cluster_id"].to_numpy(), IDS))
    ).write_parquet(runs_dir / "m" / LATER / "tables" / "rows.parquet")
    promote(runs_dir, "m", LATER)
    for manifest in runs_dir.glob("m/*/manifest.json"):  # the trend of past runs names theirs
        manifest.unlink()


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A second night on the same rows: the folder, the first night's rows, the result."""
    folder = tmp_path_factory.mktemp("ids")
    runs_dir = folder / "runs"
    wishes = {"model_name": "m", "runs_dir": str(runs_dir), "rowid_column": "id"}
    first = gpuseg.segment(customers(), **wishes, max_clusters=4)
    assert first.cluster_ids == (0, 1, 2)
    assert summary(first)["lineage"] == []
    assert first.cluster_sizes == [90, 60, 30]
    assert pl.read_parquet(Path(first.run_dir) / "tables" / "lineage.parquet").is_empty()
    renumber(runs_dir, pl.from_arrow(first.table))
    rename_segment(runs_dir, "m", 5, "Our people")
    exports = ("feature_importance", "shap_values", "profiles", "rules", "k_scores")
    result = gpuseg.segment(
        customers(),
        **wishes,
        max_clusters=4,
        row_scores=True,
        output_table=str(folder / "out.parquet"),
        **{f"export_{name}": str(folder / f"{name}.parquet") for name in exports},
    )
    return folder, pl.from_arrow(first.table), result


def tables(night) -> dict[str, pl.DataFrame]:
    folder, _, result = night
    paths = [*folder.glob("*.parquet"), *Path(result.run_dir, "tables").glob("*.parquet")]
    return {f"{path.parent.name}/{path.name}": pl.read_parquet(path) for path in paths}


def test_every_row_has_the_id_of_its_segment(night):
    folder, first, result = night
    assert result.cluster_ids == IDS
    expected = public_ids(first["cluster_id"].to_numpy(), IDS)
    assert result.labels.tolist() == expected.tolist()
    out = pl.read_parquet(folder / "out.parquet")
    assert out["cluster_id"].to_list() == expected.tolist()
    assert set(out["second_cluster_id"]) <= set(IDS)
    assert (out["second_cluster_id"] != out["cluster_id"]).all()
    assert result.cluster_sizes == [90, 60, 30]


def test_no_table_knows_another_id(night):
    found = tables(night)
    with_ids = {name for name, table in found.items() if "cluster_id" in table.columns}
    names = {name.split("/")[1] for name in with_ids}
    assert names >= {
        "out.parquet", "shap_values.parquet", "profiles.parquet", "rules.parquet",
        "segments.parquet", "tree.parquet", "lineage.parquet",
    }  # fmt: skip
    for name in with_ids:
        assert set(found[name]["cluster_id"]) == set(IDS), name


def test_tables_say_of_an_id_what_its_rows_are(night):
    folder, *_ = night
    out = pl.read_parquet(folder / "out.parquet")
    profiles = pl.read_parquet(folder / "profiles.parquet").filter(pl.col("feature") == "spend")
    means = out.group_by("cluster_id").agg(pl.col("spend").mean().alias("own"))
    both = profiles.join(means, on="cluster_id")
    assert len(both) == 3
    assert both["mean"].to_list() == pytest.approx(both["own"].to_list())
    for rule in pl.read_parquet(folder / "rules.parquet").to_dicts():
        met = duckdb.sql(f"SELECT cluster_id FROM out WHERE {rule['sql']}").pl()
        assert (met["cluster_id"] == rule["cluster_id"]).mean() == rule["precision"]
    segments = tables(night)["tables/segments.parquet"]
    assert dict(segments.select("cluster_id", "size").iter_rows()) == {2: 90, 5: 60, 9: 30}


def test_the_tree_ends_in_ids(night):
    folder, _, result = night
    out = pl.read_parquet(folder / "out.parquet")
    sql = (Path(result.run_dir) / "tree.sql").read_text(encoding="utf-8")
    found = duckdb.sql(f"SELECT {sql} AS found FROM out").pl()["found"]
    assert (found == out["cluster_id"]).mean() == result.tree.fidelity > 0.9
    assert named_in((Path(result.run_dir) / "tree.txt").read_text(encoding="utf-8")) == set(IDS)


def test_lineage_is_kept_and_printed_as_json(night):
    _, _, result = night
    said = summary(result)
    assert said["cluster_ids"] == [2, 5, 9]
    assert [segment["cluster_id"] for segment in said["segments"]] == [2, 5, 9]
    stored = pq.read_table(Path(result.run_dir) / "tables" / "lineage.parquet").to_pylist()
    assert stored == said["lineage"]
    assert [(e["event"], e["cluster_id"], e["previous_cluster_id"]) for e in stored] == [
        ("kept", 2, 2), ("kept", 5, 5), ("kept", 9, 9),
    ]  # fmt: skip
    assert result.lineage.matched_by == "rowid"
    assert result.lineage.earlier_run_id == LATER
    json.dumps(said)


def test_the_report_names_ids_only(night):
    _, _, result = night
    folder = Path(result.run_dir)
    page = (folder / "report.html").read_text(encoding="utf-8")
    body = re.sub(r"<script(?! type=.application/json).*?</script>", "", page, flags=re.DOTALL)
    assert named_in(body) == set(IDS)
    [data] = re.findall(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    facts = json.loads(data)
    assert [segment["id"] for segment in facts["segments"]] == [2, 5, 9]
    assert [segment["color"] for segment in facts["segments"]] == [
        "var(--c2)", "var(--c5)", "var(--c0)",
    ]  # fmt: skip
    for name, chart in facts["charts"].items():
        assert chart["data"].get("ids", [2, 5, 9]) == [2, 5, 9], name
    assert set(facts["charts"]["map"]["data"]["labels"]) == set(IDS)
    plots = list((folder / "plots").glob("*.svg"))
    assert len(plots) > 8
    for plot in plots:
        assert named_in(plot.read_text(encoding="utf-8")) <= set(IDS)


def test_charts_show_each_segment_its_own_numbers(night):
    _, _, result = night
    run = read_run(Path(result.run_dir))
    assert run.cluster_ids == IDS
    charts = {chart.name: chart for chart in charts_of(run)}
    profiles = {
        (row["feature"], row["cluster_id"]): row["z"]
        for row in result.explanation.profiles.to_pylist()
    }
    chart = charts["profile"]
    assert chart.head[-3:] == ("segment 2", "segment 5", "segment 9")
    for feature, cells in zip(chart.data["features"], chart.data["values"], strict=True):
        assert cells == pytest.approx([profiles[feature, c] for c in IDS], rel=1e-4)
    shap = {
        (row["feature"], row["cluster_id"]): row["mean_abs_shap"]
        for row in result.explanation.shap_values.to_pylist()
    }
    for feature, cells in zip(
        *(charts["shap"].data[n] for n in ("features", "values")), strict=True
    ):
        assert cells == pytest.approx([shap[feature, c] for c in IDS], rel=1e-4)
    assert [group["id"] for group in charts["top_features"].data["groups"]] == [2, 5, 9]
    assert [own["id"] for own in charts["knife"].data["segments"]] == [2, 5, 9]


def test_the_terminal_and_the_notebook_show_ids(night):
    _, _, result = night
    stream = io.StringIO()
    print_segmentation(result, stream)
    rows = re.findall(r"^\W*(\d+)\W+(90|60|30) ", stream.getvalue(), re.MULTILINE)
    assert rows == [("2", "90"), ("5", "60"), ("9", "30")]
    html = result._repr_html_()
    cells = re.findall(r"(\d+)</td>\s*<td[^>]*>(90|60|30)</td>", html)
    assert cells == [("2", "90"), ("5", "60"), ("9", "30")]
    assert [wish.cluster_id for wish in wishes_of_result(result)] == [2, 5, 9]


def test_a_name_that_somebody_gave_stays_with_its_segment(night):
    folder, _, result = night
    assert {s.cluster_id: s.name for s in result.segments}[5] == "Our people"
    runner = CliRunner()
    runs = ["--runs-dir", str(folder / "runs")]
    shown = runner.invoke(app, ["models", "show", "m", *runs])
    assert "Our people" in shown.stdout
    assert re.search(r"^\W*5\W+Our people", shown.stdout, re.MULTILINE)
    for wrong in ("0", "1", "12"):
        refused = runner.invoke(app, ["models", "rename", "m", wrong, "x", *runs])
        assert refused.exit_code == 2
    said = runner.invoke(app, ["models", "rename", "m", "9", "The few", *runs])
    assert said.stdout == "segment 9 of model 'm' is 'The few'\n"
    names = json.loads((Path(result.run_dir) / "model" / "names.json").read_text(encoding="utf-8"))
    assert names["9"] == "The few"


def test_the_model_places_rows_under_its_ids_everywhere(night):
    folder, _, result = night
    model = load_model(folder / "runs", "m")
    assert (model.cluster_ids, model.next_cluster_id) == (IDS, 12)
    placed = gpuseg.assign(customers(), "m", runs_dir=str(folder / "runs"), row_scores=True)
    assert placed.labels.tolist() == result.labels.tolist()
    assert placed.cluster_sizes == [90, 60, 30]
    assert set(placed.table["second_cluster_id"].to_pylist()) <= set(IDS)
    assert model_document(model)["cluster_ids"] == list(IDS)
    t = customers()  # found by name
    with duckdb.connect() as connection:
        connection.register("rows", t)
        connection.execute("CREATE TABLE t AS FROM rows")
        query = scoring_query(model, "duckdb", "main.t")
        scored = connection.sql(query).pl().sort("id")
    expected = t.with_columns(pl.Series("cluster_id", result.labels)).sort("id")
    assert scored["cluster_id"].to_list() == expected["cluster_id"].to_list()


def test_without_a_refit_ids_stay_what_they_are(night):
    folder, _, result = night
    again = gpuseg.segment(
        customers(), model_name="m", runs_dir=str(folder / "runs"), force_refit=False,
        rowid_column="id",
    )  # fmt: skip
    assert again.labels.tolist() == result.labels.tolist()
    assert again.cluster_ids == IDS
    assert set(again.rules["cluster_id"].to_pylist()) == set(IDS)
    assert again.lineage is None
    assert load_model(folder / "runs", "m").next_cluster_id == 12


@pytest.mark.parametrize("damage", ["champion.json", "model.json"])
def test_a_damaged_model_costs_the_ids_and_not_the_run(tmp_path, damage):
    wishes = {"model_name": "m", "runs_dir": str(tmp_path), "num_clusters": 3}
    table = customers().drop("id")
    gpuseg.segment(table, **wishes)
    second = gpuseg.segment(table, **wishes)
    path = tmp_path / "m" / "champion.json"
    if damage == "model.json":
        path = tmp_path / "m" / champion(tmp_path, "m") / "model" / "model.json"
    path.write_text("{", encoding="utf-8")
    assert next_cluster_id(tmp_path, "m") == 3  # the first run's model still says so
    result = gpuseg.segment(table, **wishes)
    assert result.cluster_ids == (3, 4, 5)
    assert (result.labels == second.labels + 3).all()
    assert result.lineage is None
    assert any("do not go on" in warning for warning in result.warnings)
    assert load_model(tmp_path, "m").next_cluster_id == 6
