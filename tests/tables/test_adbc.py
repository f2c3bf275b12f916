"""Any database through ADBC: SQLite in full, another one by the standard's catalogue."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from gpuseg.errors import DataError, SettingsError, SinkError, SourceError, TableNotFoundError
from gpuseg.tables import (
    Output,
    adbc_connection,
    check_output,
    locate,
    locate_warehouse,
    peek,
    publish,
    publishing,
    read_table,
)

SQLITE = "adbc:adbc_driver_sqlite?uri=w.sqlite"


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Stand in an empty folder; return a function that runs SQL in its SQLite database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adbc_connection, "RETRY_SECONDS", (0.01, 0.01))

    def run(sql):
        with closing(sqlite3.connect("w.sqlite")) as connection:
            rows = [connection.execute(part).fetchall() for part in sql.split(";")][-1]
            connection.commit()
            return rows

    run("SELECT 1")
    return run


def at(name):
    return locate(name, warehouse=SQLITE)


def numbers(*values):
    return pa.table({"a": pa.array(values, pa.int64())})


def tables(database):
    return database("SELECT name FROM sqlite_master WHERE type = 'table'")


def test_rows_travel_both_ways(database):
    rows = pa.table(
        {
            "a b": pa.array([1, None, 2**62]),
            'q"t': pa.array(["x", "", None]),
            "x": pa.array([0.1, None, -1e300]),
            "raw": pa.array([b"\0\xff", b"", None]),
        }
    )
    publish([Output(at("main.t"), rows)])
    found = read_table(at("main.T"))
    assert found.arrow.to_pylist() == rows.to_pylist()
    assert found.arrow.schema.types == rows.schema.types
    publish([Output(at("main.t"), found.arrow, append=True)])
    seen = peek(at("main.t"))
    assert (seen.n_rows, [name for name, _kind in seen.columns]) == (6, rows.column_names)
    assert tables(database) == [("t",)]
    some = read_table(at("main.t"), columns=["x", "a b"]).arrow
    assert some.column_names == ["x", "a b"]


def test_the_type_of_a_column_is_that_of_all_its_values(database):
    database(
        "CREATE TABLE t AS WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r "
        "WHERE i < 3000) SELECT CASE WHEN i = 2900 THEN 1.5 ELSE i END AS x FROM r"
    )
    found = read_table(at("main.t")).arrow["x"]
    assert found.type == pa.float64()
    assert found[2899].as_py() == 1.5


def test_a_query_reads_and_nothing_else(database):
    database("CREATE TABLE t AS SELECT 1 AS a")
    place = locate_warehouse(SQLITE)
    assert read_table(place, query="SELECT a + 1 AS b FROM t; -- x").arrow.to_pylist() == [{"b": 2}]
    for query in ("DELETE FROM t", "SELECT nope FROM t", "SELECT 1; DELETE FROM t"):
        with pytest.raises(SettingsError, match=r"the query does not run|only execute one"):
            read_table(place, query=query)
    assert database("SELECT a FROM t") == [(1,)]


def test_a_failure_leaves_the_old_tables(database, monkeypatch):
    publish([Output(at("main.t"), numbers(1))])
    with pytest.raises(DataError, match=r"column 'd' has the Arrow type decimal.* SQLite cannot"):
        publish([Output(at("main.t"), pa.table({"d": pa.array([1], pa.decimal128(9, 2))}))])
    with pytest.raises(DataError, match="differ in case only"):
        publish([Output(at("main.t"), pa.table({"a": [1], "A": [1]}))])
    with pytest.raises(DataError, match="columns differ"):
        publish([Output(at("main.t"), pa.table({"b": [1]}), append=True)])

    def stop(moment):
        if moment == "commit":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "reached", stop)
        with pytest.raises(KeyboardInterrupt):
            publish([Output(at("main.t"), numbers(9)), Output(at("main.new"), numbers(9))])
    check_output(at("main.other"), numbers().schema)
    assert tables(database) == [("t",)]
    assert database("SELECT a FROM t") == [(1,)]


def test_a_view_is_refused_and_a_foreign_key_too(database):
    database(
        "CREATE TABLE t (a INTEGER PRIMARY KEY); CREATE VIEW v AS SELECT a FROM t; "
        "CREATE TABLE child (a INTEGER REFERENCES t (a))"
    )
    with pytest.raises(SettingsError, match="is a view"):
        publish([Output(at("main.v"), numbers(1))])
    with pytest.raises(SettingsError, match="there is table child"):
        publish([Output(at("main.t"), numbers(1))])


def test_a_locked_database_is_left_alone(database):
    publish([Output(at("main.t"), numbers(1))])
    # another process, because within one the locks of two SQLite libraries do not meet
    hold = (
        "import sqlite3; other = sqlite3.connect('w.sqlite'); other.execute('BEGIN EXCLUSIVE'); "
        "print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SinkError, match="locked by another process") as raised:
            publish([Output(at("main.t"), numbers(2))])
        with pytest.raises(SourceError, match="locked by another process"):
            read_table(at("main.t"))
        holder.communicate(b"\n")
    assert raised.value.exit_code == 4
    assert database("SELECT a FROM t") == [(1,)]


def test_what_is_not_there_is_said(database):
    with pytest.raises(TableNotFoundError, match=r"holds no table; gpuseg load FILE main\.t"):
        read_table(at("main.t"))
    nowhere = locate("main.t", warehouse="adbc:adbc_driver_sqlite?uri=nowhere/x.sqlite")
    with pytest.raises(TableNotFoundError, match="cannot be opened"):
        read_table(nowhere)
    Path("w.sqlite").write_text("no database at all, but long enough to be looked at" * 99)
    with pytest.raises(DataError, match="no SQLite database"):
        read_table(at("main.t"))


@pytest.mark.parametrize(
    ("warehouse", "message"),
    [
        ("adbc:", "is incomplete"),
        ("adbc:?uri=pass", "is incomplete"),
        ("postgresql:localhost", "is incomplete"),
        ("adbc:adbc_driver_sqlite?pass", "not OPTION=VALUE pairs"),
        ("adbc:adbc_driver_sqlite?uri=pass&uri=b", "comes twice"),
        ("adbc:adbc_driver_nothing?password=pass", "adbc-driver-nothing"),
        ("adbc:json?password=pass", "'json' is no ADBC driver"),
        ("adbc:nowhere_to_be_found?password=pass", "nowhere_to_be_found"),
    ],
)
def test_a_wrong_address_is_refused_without_its_options(warehouse, message):
    with pytest.raises((SettingsError, SourceError), match=message) as raised:
        read_table(locate("a.b", warehouse=warehouse))
    assert "pass" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ann:p%40s%2Fw:rd@host:1/db?sslmode=require", "postgresql://ann@host:1/db"),
        ("postgres://ann:a%20b@host/db", "postgres://ann@host/db"),
        ("postgresql://:pw@host", "postgresql://@host"),
        ("postgresql://host/db?user=ann%40x&password=pw%40y", "postgresql://host/db"),
        ("adbc:driver?uri=snowflake://u:pw@h&token=t", "adbc:driver"),
    ],
)
def test_an_address_is_shown_without_secrets(address, shown):
    place = locate_warehouse(address)
    assert place.display == f"query in {shown}"
    assert "pw" not in repr(place)
    assert "address" not in repr(locate("a.b", warehouse=address))


def test_a_database_of_another_kind_is_read_and_not_written(database):
    pytest.importorskip("adbc_driver_duckdb")
    with duckdb.connect("other.duckdb") as connection:
        connection.execute("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS a, 'x' AS b")
    warehouse = "adbc:adbc_driver_duckdb?entrypoint=duckdb_adbc_init&path=other.duckdb"
    assert read_table(locate("s.t", warehouse=warehouse)).arrow.to_pylist() == [{"a": 1, "b": "x"}]
    found = read_table(locate_warehouse(warehouse), query="SELECT b FROM s.t;")
    assert found.arrow.to_pylist() == [{"b": "x"}]
    assert peek(locate("s.t", warehouse=warehouse)).n_rows == 1
    with pytest.raises(SettingsError, match="gpuseg reads only"):
        publish([Output(locate("s.t", warehouse=warehouse), numbers(1))])


def test_without_the_driver_manager_the_extra_is_named(database, monkeypatch):
    monkeypatch.setitem(sys.modules, "adbc_driver_manager.dbapi", None)
    with pytest.raises(SettingsError, match=r"pip install 'gpuseg\[postgres\]'"):
        read_table(at("main.t"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("adbc:nodriver?uri=x", "name an installed ADBC driver"),
        ("adbc:adbc_driver_sqlite?uri=x.sqlite&password=secret", "leave that option out"),
    ],
)
def test_an_address_that_can_never_work_is_not_worth_another_try(
    tmp_path, monkeypatch, address, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=message) as failure:
        read_table(locate("main.t", warehouse=address))
    assert "secret" not in str(failure.value)
