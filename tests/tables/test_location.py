"""What the user writes is made into a place, or refused with both forms named."""

from pathlib import Path

import pytest

from gpuseg.errors import SettingsError
from gpuseg.tables import locate, locate_warehouse


@pytest.mark.parametrize(
    ("argument", "kind", "form"),
    [
        ("a.parquet", "file", "parquet"),
        ("dir with blank/A.CSV", "file", "csv"),
        ("a.csv.gz", "file", "csv"),
        ("a.tsv", "file", "csv"),
        ("a.b.jsonl.gz", "file", "jsonl"),
        ("a.ndjson", "file", "jsonl"),
        ("a.feather", "file", "arrow"),
        ("parts/", "folder", "parquet"),
    ],
)
def test_suffixes_tell_files(argument, kind, form):
    found = locate(argument)
    assert (found.kind, found.format, found.display) == (kind, form, argument)


@pytest.mark.parametrize(
    ("argument", "schema", "table"),
    [
        ("ml_datasets.gluon_train", "ml_datasets", "gluon_train"),
        ('"a.b"."c ""d"', "a.b", 'c "d'),
        ('db."; DROP TABLE x; --"', "db", "; DROP TABLE x; --"),
        ("数据.表", "数据", "表"),
    ],
)
def test_db_table_is_in_the_warehouse(argument, schema, table):
    found = locate(argument, warehouse="duckdb:some/where.duckdb")
    assert (found.kind, found.schema, found.table) == ("duckdb", schema, table)
    assert found.path == Path("some/where.duckdb")
    assert found.in_warehouse


def test_the_default_warehouse_lies_in_the_current_folder():
    assert locate("a.b").path == Path("gpuseg.duckdb")
    assert locate_warehouse().path == Path("gpuseg.duckdb")
    assert locate_warehouse().table == ""


def test_a_bare_name_needs_a_schema():
    assert locate("scores", default_schema="db").schema == "db"
    with pytest.raises(SettingsError, match=r"customers\.csv.*db\.table"):
        locate("scores")


@pytest.mark.parametrize("argument", ["", "  ", "a.b.c", "a.", ".b", '"a.b', "a\0.b", 'a"b.c"d"'])
def test_unreadable_names_are_refused(argument):
    with pytest.raises(SettingsError):
        locate(argument)


def test_an_existing_file_wins_over_a_table_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sales.orders").write_text("a\n1\n")
    with pytest.raises(SettingsError, match="suffixes"):
        locate("sales.orders")
    Path("folder.x").mkdir()
    assert locate("folder.x").kind == "folder"


@pytest.mark.parametrize("warehouse", ["mysql://me:secret@host/db", "duckdb:", "x"])
def test_other_warehouses_are_refused_without_their_password(warehouse):
    with pytest.raises(SettingsError) as caught:
        locate("a.b", warehouse=warehouse)
    assert "secret" not in str(caught.value)
    assert "duckdb:" in str(caught.value)


@pytest.mark.parametrize(
    "argument", ["td://apikey:SECRET123@x", "s3://k:SECRET123@b/x.csv", "https://u:SECRET123@h/a.b"]
)
def test_an_address_is_refused_without_being_repeated(argument):
    with pytest.raises(SettingsError, match="an address") as refused:
        locate(argument)
    assert "SECRET123" not in str(refused.value)


@pytest.mark.parametrize(
    "warehouse",
    [
        "duckdb:md:?motherduck_token=SECRET123",
        "duckdb:md:SECRET123",
        "duckdb:nodir/x.db?password=SECRET123",
        "mysql://u:SECRET123@h/db",
    ],
)
def test_a_warehouse_with_credentials_is_refused_without_repeating_them(warehouse):
    with pytest.raises(SettingsError) as refused:
        locate("a.b", warehouse=warehouse)
    assert "SECRET123" not in str(refused.value)
