"""Where results go: nothing that is read is ever overwritten by something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuseg.errors import SettingsError
from gpuseg.outputs.destinations import EXPORTS, Destinations
from gpuseg.settings import resolve


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    Path("in.csv").write_text("a\n1\n")


@pytest.mark.parametrize("export", EXPORTS.values())
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("in.csv", "in.csv"),
        ("in.csv", "./in.csv"),
        ("in.csv", "link.csv"),
        ("parts", "parts/a.parquet"),
        ("parts/a.parquet", "parts/"),
        ("d.t", "d.t"),
        ("d.t", "D.T"),
        ("d.t", "t"),  # a bare name is a table of the output's schema
    ],
)
def test_no_export_overwrites_the_input(export, source, target):
    named = {"input_table": source, "output_table": "d.rows", "rowid_column": "id"}
    settings = resolve(named | {export: target})
    with pytest.raises(SettingsError, match=f"{export} '.*' would overwrite the input"):
        Destinations.of(settings)


@pytest.mark.parametrize(
    ("source", "rows"), [("parts", "parts/a.parquet"), ("parts/a.parquet", "parts/")]
)
def test_rows_go_neither_into_nor_around_what_is_read(source, rows):
    with pytest.raises(SettingsError, match=r"output_table '.*' would overwrite the input"):
        Destinations.of(resolve({"input_table": source, "output_table": rows}))


@pytest.mark.parametrize("place", ["in.csv", "parts", "d.t"])
def test_rows_may_replace_the_table_they_were_read_from(place):
    found = Destinations.of(resolve({"input_table": place, "output_table": place}))
    assert found.rows == found.source


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ("SELECT a FROM d.t", "d.t"),
        ('SELECT a FROM "D"."T"', "d.t"),
        ("FROM t", "main.t"),
        ("FROM 'in.csv'", "in.csv"),
    ],
)
def test_nothing_overwrites_what_the_query_reads(query, target):
    for parameter in ("output_table", "export_rules"):
        with pytest.raises(SettingsError, match=f"{parameter} '.*' would overwrite"):
            Destinations.of(resolve({"input_query": query, parameter: target}))
    append = {"input_query": query, "output_table": target, "output_mode": "append"}
    assert Destinations.of(resolve(append)).rows is not None


def test_a_query_leaves_other_tables_free():
    settings = {"input_query": "SELECT t.a FROM d.t", "output_table": "d.tt", "export_rules": "o.t"}
    assert set(Destinations.of(resolve(settings)).exports) == {"rules"}
