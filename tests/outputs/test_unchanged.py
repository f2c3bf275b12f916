"""Nothing is done again where nothing changed, and all of it where anything did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gpuseg import pipeline
from gpuseg.outputs.models import rename_segment
from gpuseg.settings import Settings


def table(n_rows: int = 60, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, n_rows)
    return pl.DataFrame(
        {"id": range(n_rows), "a": rng.normal(group * 9, 1), "b": rng.normal(group)}
    )


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with an input and a run that was published from it."""
    monkeypatch.chdir(tmp_path)
    table().write_parquet("in.parquet")
    settings = Settings(
        input_table="in.parquet", output_table="db.out", model_name="m", rowid_column="id",
        max_clusters=2, n_init=2, export_profiles="profiles.csv", warehouse="duckdb:w.duckdb",
    )  # fmt: skip
    first = pipeline.run(settings)
    assert not first.unchanged
    return replace(settings, force_refit=False), first


def again(settings: Settings):
    return pipeline.run(settings)


def stands(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def test_nothing_is_done_where_nothing_changed(shop, tmp_path):
    settings, first = shop
    before = stands(tmp_path)
    found = again(replace(settings, log_format="json", metrics_file="m.prom"))
    assert found.unchanged
    assert stands(tmp_path) == before
    assert found.run_id == first.run_id
    assert found.cluster_sizes == first.cluster_sizes
    assert found.silhouette == first.silhouette
    assert found.table.schema.names == first.table.schema.names
    assert set(found.stages) == {"read"}
    assert f"run {first.run_id}" in found.reason
    # the order of the rows and the form of the file say nothing
    table().sample(fraction=1.0, shuffle=True, seed=3).write_parquet("in.parquet")
    assert again(settings).unchanged


def more_rows(settings: Settings) -> Settings:
    pl.concat([table(), table(1, 5)]).write_parquet("in.parquet")
    return settings


def another_value(settings: Settings) -> Settings:
    rows = table()
    rows[3, "b"] = 0.123
    rows.write_parquet("in.parquet")
    return settings


def another_type(settings: Settings) -> Settings:
    table().cast({"id": pl.Int32}).write_parquet("in.parquet")
    return settings


def output_gone(settings: Settings) -> Settings:
    import duckdb

    with duckdb.connect("w.duckdb") as connection:
        connection.execute("DROP TABLE db.out")
    return settings


def output_edited(settings: Settings) -> Settings:
    import duckdb

    with duckdb.connect("w.duckdb") as connection:
        connection.execute("UPDATE db.out SET cluster_id = 1 - cluster_id WHERE id = 7")
    return settings


def export_gone(settings: Settings) -> Settings:
    Path("profiles.csv").unlink()
    return settings


def export_edited(settings: Settings) -> Settings:
    with Path("profiles.csv").open("a", encoding="utf-8") as file:
        file.write("\n")
    return settings


def another_output(settings: Settings) -> Settings:
    return replace(settings, output_table="db.other")


def one_more_export(settings: Settings) -> Settings:
    return replace(settings, export_rules="rules.csv")


def row_scores(settings: Settings) -> Settings:
    return replace(settings, row_scores=True)


def renamed(settings: Settings) -> Settings:
    rename_segment(Path(settings.runs_dir), "m", 0, "Regulars")
    return settings


def hidden(settings: Settings) -> Settings:
    return replace(settings, hide_table_contents=True)


def no_report(settings: Settings) -> Settings:
    [report] = Path(settings.runs_dir).glob("m/*/report.html")
    report.unlink()
    return settings


def refused_run(settings: Settings) -> Settings:
    [manifest] = Path(settings.runs_dir).glob("m/*/manifest.json")
    text = manifest.read_text()
    assert '"status": "published"' in text
    manifest.write_text(text.replace('"status": "published"', '"status": "refused"'))
    return settings


def another_version(settings: Settings) -> Settings:
    [manifest] = Path(settings.runs_dir).glob("m/*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"gpuseg": "', '"gpuseg": "0.0'))
    return settings


@pytest.mark.parametrize(
    "change",
    [
        more_rows, another_value, another_type, output_gone, output_edited, export_gone,
        export_edited, another_output, one_more_export, row_scores, renamed, hidden, no_report,
        refused_run, another_version,
    ],
)  # fmt: skip
def test_whatever_changed_is_done_again(shop, change):
    settings, first = shop
    settings = change(settings)
    found = again(settings)
    assert not found.unchanged
    assert found.run_id != first.run_id
    assert again(settings).unchanged, "and then there is nothing left to do"


def test_appending_is_done_every_time(shop):
    settings, _first = shop
    settings = replace(settings, output_table="db.log", output_mode="append")
    assert [again(settings).unchanged for _ in range(2)] == [False, False]


def test_what_shows_the_step_from_the_run_before_is_made_every_time(shop):
    settings, _first = shop
    settings = replace(settings, export_lineage="lineage.csv")
    assert [again(settings).unchanged for _ in range(2)] == [False, False]


def test_a_fit_that_is_forced_is_done(shop):
    settings, _first = shop
    assert not again(replace(settings, force_refit=True)).unchanged
