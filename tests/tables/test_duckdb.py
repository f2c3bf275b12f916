"""DuckDB: every type comes back as it was, and what is wrong is said in the house's words."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.errors import (
    DataError,
    SettingsError,
    SinkError,
    SourceError,
    TableNotFoundError,
)
from gpuseg.tables import Output, check_output, locate, locate_warehouse, peek, publish, read_table
from gpuseg.tables import duckdb_file as duckdb_module


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Stand in an empty folder; return a function that runs SQL in its warehouse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(duckdb_module, "RETRY_SECONDS", (0.05, 0.05))

    def run(sql):
        with duckdb.connect("gpuseg.duckdb") as connection:
            return connection.execute(sql).fetchall()

    return run


TYPES = [
    ("BOOLEAN", "true"), ("TINYINT", "-128"), ("SMALLINT", "-3"), ("INTEGER", "7"),
    ("BIGINT", "9223372036854775807"), ("UTINYINT", "255"), ("USMALLINT", "65535"),
    ("UINTEGER", "4294967295"), ("UBIGINT", "18446744073709551615"),
    ("HUGEINT", "99999999999999999999999999999999999999"),
    ("HUGEINT", "-170141183460469231731687303715884105728"),
    ("UHUGEINT", "340282366920938463463374607431768211455"),
    ("FLOAT", "0.1"), ("DOUBLE", "0.1"), ("DOUBLE", "'nan'"), ("DOUBLE", "'-inf'"),
    ("DECIMAL(4,1)", "1.5"), ("DECIMAL(18,3)", "1.500"), ("DECIMAL(38,10)", "1.0000000001"),
    ("VARCHAR", "'a''b'"), ("VARCHAR", "''"), ("BLOB", "'\\x00\\xFF'::BLOB"), ("BIT", "'0101'"),
    ("DATE", "'0044-03-15 (BC)'"), ("DATE", "'2024-02-29'"), ("TIME", "'23:59:59.999999'"),
    ("TIMETZ", "'10:00:00+02:00'"), ("TIMESTAMP", "'2024-01-01 10:00:00.123456'"),
    ("TIMESTAMP_S", "'2024-01-01 10:00:00'"), ("TIMESTAMP_MS", "'2024-01-01 10:00:00.123'"),
    ("TIMESTAMP_NS", "'2024-01-01 10:00:00.123456789'"),
    ("TIMESTAMPTZ", "'2024-01-01 10:00:00+02'"), ("TIMESTAMP", "'infinity'"),
    ("INTERVAL", "INTERVAL '14 months 3 days 0.000001 seconds'"),
    ("UUID", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
    ("ENUM('a', 'b''; x', 'ü')", "'b''; x'"), ("JSON", "'{\"a\":  [1, null]}'"),
    ("BIGNUM", "'123456789012345678901234567890123456789012345'"),
    ("INTEGER[]", "[1, NULL]"), ("VARCHAR[]", "['a,b', '', NULL, '\"']"), ("INTEGER[2]", "[1, 2]"),
    ("UUID[]", "['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']"), ("HUGEINT[]", "[1, NULL]"),
    ("INTERVAL[]", "[INTERVAL '1 month', NULL]"), ("DECIMAL(10,2)[][]", "[[1.25], []]"),
    ("STRUCT(a INTEGER, \"b c\" VARCHAR)", "{'a': 1, 'b c': 'x'}"),
    ("STRUCT(a UUID, t TIMETZ)", "{'a': 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 't': NULL}"),
    ("STRUCT(e ENUM('p', 'q'))", "{'e': 'q'}"),
    ("MAP(VARCHAR, INTEGER)", "MAP {'a': 1, 'b': NULL}"),
]  # fmt: skip


def test_every_type_comes_back(database):
    columns = ", ".join(f"x{i} {kind}" for i, (kind, _value) in enumerate(TYPES))
    values = ", ".join(value for _kind, value in TYPES)
    nulls = ", ".join(["NULL"] * len(TYPES))
    database(f"CREATE TABLE t ({columns}); INSERT INTO t VALUES ({values}), ({nulls}), ({values})")
    table = read_table(locate("main.t")).arrow
    table = table.append_column("cluster_id", pa.array([0, 1, 0], pa.int32()))
    publish([Output(locate("s.out"), table)])
    assert changed(database, "s.out") == []
    # through files that keep Arrow's metadata, too
    for name in ("t.parquet", "t.arrow"):
        publish([Output(locate(name), table)])
        publish([Output(locate("s.back"), read_table(locate(name)).arrow)])
        assert changed(database, "s.back") == []
    assert database("SELECT list(cluster_id) FROM s.out") == [([0, 1, 0],)]


def changed(database, other):
    """Return the types whose values, or whose type, are not those of table t."""
    same = ", ".join(
        f"bool_and(a.x{i} IS NOT DISTINCT FROM b.x{i} AND typeof(a.x{i}) = typeof(b.x{i}))"
        for i in range(len(TYPES))
    )
    [found] = database(f"SELECT {same} FROM t a POSITIONAL JOIN {other} b")
    return [pair for pair, is_same in zip(TYPES, found, strict=True) if not is_same]


@pytest.mark.parametrize(("kind", "value"), [("UNION(k INTEGER, s VARCHAR)", "1")])
def test_a_type_that_cannot_travel_is_refused(database, kind, value):
    database(f"CREATE TABLE t (x {kind}); INSERT INTO t VALUES ({value})")
    with pytest.raises(DataError, match=r"column 'x' has type UNION.*--input-query"):
        read_table(locate("main.t"))


def test_wide_integers_stay_numbers(database):
    database("CREATE TABLE t AS SELECT sum(i) AS x FROM range(10) r(i)")
    assert read_table(locate("main.t")).arrow.schema.field("x").type == pa.decimal128(38, 0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.text(st.characters(exclude_categories=["Cs"])),
            st.none() | st.floats(),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.binary(max_size=4),
        ),
        max_size=5,
    )
)
def test_any_values_come_back(tmp_path_factory, rows):
    place = f"duckdb:{tmp_path_factory.getbasetemp()}/any.duckdb"
    names, kinds = ["s", "d", "i", "b"], [pa.string(), pa.float64(), pa.int64(), pa.binary()]
    columns = zip(*rows, strict=True) if rows else [[]] * 4
    table = pa.table(
        [pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True)], names=names
    )
    publish([Output(locate("s.t", warehouse=place), table)])
    back = read_table(locate("s.t", warehouse=place)).arrow
    assert back.schema == table.schema
    assert repr(back.to_pylist()) == repr(table.to_pylist())


NAMES = ['"; DROP TABLE x; --', "a b", "ünïcode 表", "x" * 200, "select", "'", "%s {0}", "\\", "\n"]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_work(database, name):
    quoted = '"' + name.replace('"', '""') + '"'
    place = locate(f"{quoted}.{quoted}")
    table = pa.table({name: [1], "other": ["x"]})
    publish([Output(place, table)])
    publish([Output(place, table, append=True)])
    assert read_table(place).arrow.to_pydict() == {name: [1, 1], "other": ["x", "x"]}
    assert read_table(place, columns=[name]).arrow.column_names == [name]
    assert peek(place).n_rows == 2


def test_metadata_of_others_is_not_run_as_sql(database):
    database("CREATE TABLE victim (i INTEGER)")
    field = pa.field("x", pa.int64(), metadata={"duckdb.type": "INTEGER); DROP TABLE victim; --"})
    publish([Output(locate("main.t"), pa.table([pa.array([1])], schema=pa.schema([field])))])
    assert database("SELECT x FROM t") == [(1,)]
    assert database("SELECT count(*) FROM victim") == [(0,)]


# -- queries -----------------------------------------------------------------------------


def test_a_query_reads(database):
    database("CREATE TABLE t AS SELECT 1 AS a, 'x' AS b")
    query = "WITH q AS (SELECT * FROM t) SELECT a + 1 AS c, b FROM q; -- done"
    assert read_table(locate_warehouse(), query=query).arrow.to_pydict() == {"c": [2], "b": ["x"]}
    assert peek(locate_warehouse(), query=query).columns == (("c", "INTEGER"), ("b", "VARCHAR"))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT 1 AS a; DROP TABLE t", "2 statements"),
        ("", "0 statements"),
        ("DELETE FROM t", "no SELECT"),
        ("CREATE TABLE u AS SELECT 1", "no SELECT"),
        ("COPY t TO 'stolen.csv'", "no SELECT"),
        ("ATTACH 'other.duckdb'", "no SELECT"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELEC 1", "no SQL"),
        ("SELECT 1 AS a, 2 AS A", "two columns"),
    ],
)
def test_other_queries_are_refused(database, query, message):
    database("CREATE TABLE t AS SELECT 1 AS a")
    with pytest.raises((SettingsError, DataError), match=message):
        read_table(locate_warehouse(), query=query)
    assert database("SELECT count(*) FROM t") == [(1,)]
    assert listdir() == ["gpuseg.duckdb"]


def test_a_failing_query_does_not_show_a_customer(database):
    database("CREATE TABLE t AS SELECT 'Mrs Secret' AS name")
    with pytest.raises(DataError) as caught:
        read_table(locate_warehouse(), query="SELECT name::INTEGER AS n FROM t")
    assert "Secret" not in str(caught.value)


# -- what is not there, damaged, or locked -----------------------------------------------


def test_reading_makes_no_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for look in (read_table, peek):
        with pytest.raises(TableNotFoundError, match="no database"):
            look(locate("a.b"))
    assert listdir() == []


def test_a_missing_table_gets_a_hint(database):
    database("CREATE SCHEMA shop; CREATE TABLE shop.customers (i INTEGER)")
    with pytest.raises(TableNotFoundError, match=r"did you mean 'shop\.customers'"):
        read_table(locate("shop.customer"))
    database(";".join(f"CREATE TABLE shop.t{i} (i INTEGER)" for i in range(20)))
    with pytest.raises(TableNotFoundError, match="and 11 more"):
        read_table(locate("x.y"))
    with pytest.raises(DataError, match="did you mean 'i'"):
        read_table(locate("shop.t1"), columns=["ii"])


def test_names_match_whatever_their_case(database):
    database('CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."Tab" AS SELECT 1 AS i')
    publish([Output(locate("shop.tab"), pa.table({"i": [2]}))])
    assert database('SELECT i FROM "Shop"."Tab"') == [(2,)]


@pytest.mark.parametrize("content", [b"hello" * 2000, b""])
def test_a_file_that_is_no_database_is_said(tmp_path, content):
    path = tmp_path / "x.duckdb"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no DuckDB database"):
        read_table(locate("a.b", warehouse=f"duckdb:{path}"))
    assert path.read_bytes() == content


def test_a_damaged_database_is_said(database):
    database("CREATE TABLE t AS SELECT i FROM range(100000) r(i)")
    content = bytearray(Path("gpuseg.duckdb").read_bytes())
    content[5000:9000] = b"x" * 4000
    Path("gpuseg.duckdb").write_bytes(content)
    with pytest.raises((DataError, SourceError), match=r"gpuseg\.duckdb"):
        read_table(locate("main.t"))


def test_a_view_can_be_read_but_not_replaced(database):
    database("CREATE TABLE t AS SELECT 1 AS i; CREATE VIEW v AS SELECT * FROM t")
    assert read_table(locate("main.v")).n_rows == 1
    with pytest.raises(SettingsError, match="is a view"):
        publish([Output(locate("main.v"), pa.table({"i": [2]}))])


def test_no_folder_no_database(tmp_path):
    place = locate("a.b", warehouse=f"duckdb:{tmp_path}/none/x.duckdb")
    with pytest.raises(SettingsError, match="no folder"):
        publish([Output(place, pa.table({"i": [2]}))])


def listdir():
    return sorted(path.name for path in Path.cwd().iterdir())


HOLD = """
import duckdb, sys, time
connection = duckdb.connect("gpuseg.duckdb")
print("held", flush=True)
time.sleep(float(sys.argv[1]))
"""


def hold(seconds):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    return child


def test_a_locked_file_names_its_holder(database):
    database("CREATE TABLE t AS SELECT 1 AS i")
    with hold(60) as child:
        try:
            with pytest.raises(SourceError, match=f"locked by process {child.pid}"):
                read_table(locate("main.t"))
            with pytest.raises(SinkError, match=f"locked by process {child.pid}"):
                publish([Output(locate("main.t"), pa.table({"i": [2]}))])
        finally:
            child.kill()
    assert database("FROM t") == [(1,)]


def test_a_lock_that_is_let_go_is_waited_for(database, monkeypatch):
    monkeypatch.setattr(duckdb_module, "RETRY_SECONDS", (0.1,) * 50)
    database("CREATE TABLE t AS SELECT 1 AS i")
    with hold(0.5) as child:
        publish([Output(locate("main.t"), pa.table({"i": [2]}))])
        child.wait()
    assert database("FROM t") == [(2,)]


def test_many_may_read_at_once(database):
    database("CREATE TABLE t AS SELECT 1 AS i")
    with duckdb.connect("gpuseg.duckdb", read_only=True):
        assert read_table(locate("main.t")).n_rows == 1
        with pytest.raises(SinkError, match="open for reading in this process"):
            publish([Output(locate("main.t"), pa.table({"i": [2]}))])


def test_a_notebook_may_hold_its_own_database_open(database):
    with duckdb.connect("gpuseg.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS i")
        assert read_table(locate("main.t")).n_rows == 1
        publish([Output(locate("main.t"), pa.table({"i": [2]}))])
        assert connection.execute("FROM t").fetchall() == [(2,)]


# -- writing -----------------------------------------------------------------------------


def test_append_goes_by_name(database):
    first = pa.table({"a": [1], "b": ["x"]})
    publish([Output(locate("s.t"), first, append=True)])
    publish([Output(locate("s.t"), pa.table({"b": ["y"], "a": [2]}), append=True)])
    assert database("FROM s.t") == [(1, "x"), (2, "y")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": [1]}, "'b' is missing"),
        ({"a": [1], "b": ["x"], "c": [1]}, "'c' is not in the table"),
        ({"a": ["1"], "b": ["x"]}, "'a' is BIGINT there, VARCHAR now"),
    ],
)
def test_append_of_other_columns_is_refused(database, table, message):
    publish([Output(locate("s.t"), pa.table({"a": [1], "b": ["x"]}))])
    with pytest.raises(DataError, match=message):
        publish([Output(locate("s.t"), pa.table(table), append=True)])
    with pytest.raises(DataError, match=message):
        check_output(locate("s.t"), pa.table(table).schema, append=True)
    assert database("FROM s.t") == [(1, "x")]


def test_what_duckdb_cannot_hold_is_refused_and_leaves_nothing(database):
    for table, message in (
        (
            pa.table({"ok": [1], "x": pa.array([1.0], pa.float16())}),
            "'x' has the Arrow type halffloat",
        ),
        (pa.table({"ID": [1], "id": [2]}), "differ in case only"),
    ):
        with pytest.raises(DataError, match=message):
            publish([Output(locate("s.t"), table)])
    assert listdir() == []


def test_checking_an_output_leaves_no_trace(database):
    check_output(locate("s.t"), pa.schema([("a", pa.int64())]))
    assert listdir() == []
    database("CREATE TABLE t AS SELECT 1 AS i")
    check_output(locate("main.t"), pa.schema([("a", pa.int64())]))
    check_output(locate("new.t"), pa.schema([("a", pa.int64())]))
    assert database("FROM t") == [(1,)]
    assert database("SELECT count(*) FROM duckdb_schemas() WHERE schema_name = 'new'") == [(0,)]


def test_a_column_without_type_becomes_text(database):
    publish([Output(locate("s.t"), pa.table({"a": pa.nulls(2)}))])
    assert database("SELECT typeof(a) FROM s.t") == [("VARCHAR",)] * 2


def test_a_schema_may_be_called_like_its_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = locate("shop.orders", warehouse="duckdb:shop.duckdb")
    rows = pa.table({"a": [1, 2]})
    publish([Output(place, rows)])
    publish([Output(place, rows, append=True)])
    assert read_table(place).arrow.num_rows == 4
