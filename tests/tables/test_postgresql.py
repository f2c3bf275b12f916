"""PostgreSQL, against a real server: every type comes back, and a failure changes nothing."""

from __future__ import annotations

import datetime as dt
import math
import re
import threading
import time
from decimal import Decimal
from urllib.parse import quote

import pyarrow as pa
import pytest
from postgres_server import PASSWORD, QUOTED_PASSWORD

from gpuseg.errors import (
    DataError,
    SettingsError,
    SinkError,
    SourceError,
    TableNotFoundError,
)
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

TYPES = [
    ("boolean", "true"), ("smallint", "-3"), ("integer", "7"), ("bigint", "9223372036854775807"),
    ("real", "0.1"), ("double precision", "0.1"), ("double precision", "'NaN'"),
    ("double precision", "'-Infinity'"), ("numeric", "1.25"), ("numeric(10,2)", "1.5"),
    ("numeric(38,10)", "1234567890123456789012345678.0123456789"), ("numeric(3,-2)", "12300"),
    ("text", "'a''b'"), ("text", "''"), ("character varying(5)", "'ab'"), ("character(4)", "'ab'"),
    ("bytea", "'\\x00ff'"), ("date", "'2024-02-29'"), ("date", "'infinity'"),
    ("date", "'0044-03-15 BC'"), ("timestamp without time zone", "'2024-01-01 10:00:00.123456'"),
    ("timestamp(3) without time zone", "'2024-01-01 10:00:00.123'"),
    ("timestamp without time zone", "'infinity'"),
    ("timestamp with time zone", "'2024-01-01 10:00:00+02'"),
    ("timestamp with time zone", "'-infinity'"), ("time without time zone", "'23:59:59.999999'"),
    ("time with time zone", "'10:00:00+02'"), ("interval", "'14 months 3 days 0.000001 seconds'"),
    ("json", "'{\"a\":  [1, null]}'"), ("jsonb", "'{\"a\": 1}'"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"), ("text[]", "ARRAY['a,b', '', NULL, '\"']"),
    ("text[]", "'{}'"), ("integer[]", "ARRAY[1, NULL]"), ("integer[]", "ARRAY[[1,2],[3,4]]"),
    ("integer[]", "'[0:1]={7,8}'"), ("double precision[]", "ARRAY[1.5, 'NaN']"),
    ("numeric(5,2)[]", "ARRAY[1.5, NULL]"), ("jsonb[]", "ARRAY['{\"a\": 1}'::jsonb]"),
    ("uuid[]", "ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid]"),
    ("character varying(3)[]", "ARRAY['abc']"), ("date[]", "ARRAY['2024-01-01'::date]"),
    ("timestamp without time zone[]", "ARRAY['2024-01-01'::timestamp, 'infinity'::timestamp]"),
    ("inet", "'10.0.0.1/8'"), ("money", "'12.50'"), ("oid", "4294967295"), ("bit(3)", "'101'"),
    ("point", "'(1,2)'"), ("int4range", "'[1,3)'"), ("tsvector", "'a b'"), ("xml", "'<a/>'"),
    ("\"My s\".\"mood's; x\"", "'so; so'"), ("\"My s\".pair", "ROW(1, 'a\"b,')"),
    ("\"My s\".\"mood's; x\"[]", "ARRAY['so; so']::\"My s\".\"mood's; x\"[]"),
]  # fmt: skip


@pytest.fixture
def server(postgres_server, monkeypatch, tmp_path):
    """Return the server with two empty schemas, in an empty folder, quick to give up."""
    for role in ("ann", "bob"):
        if postgres_server.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'") == []:
            postgres_server.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
    postgres_server.sql(
        "DROP OWNED BY ann CASCADE; DROP SCHEMA IF EXISTS s CASCADE; CREATE SCHEMA s;"
        'DROP SCHEMA IF EXISTS "My s" CASCADE; CREATE SCHEMA "My s"'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adbc_connection, "RETRY_SECONDS", (0.05, 0.1))
    return postgres_server


@pytest.fixture
def at(server):
    """Return a function that locates a table in the server."""
    return lambda name, options="", **login: locate(name, warehouse=server.url(options, **login))


def leftovers(server) -> list[tuple]:
    return server.sql("SELECT relname FROM pg_class WHERE relname LIKE 'gpuseg%'")


def numbers(*values: int) -> pa.Table:
    return pa.table({"a": pa.array(values, pa.int64())})


# -- what comes back ---------------------------------------------------------------------


def test_every_type_comes_back(server, at):
    server.sql('CREATE TYPE "My s".pair AS (a integer, b text)')
    # the statements are split at semicolons
    publish_enum(server)
    columns = ", ".join(f"x{i} {kind}" for i, (kind, _value) in enumerate(TYPES))
    values = ", ".join(value for _kind, value in TYPES)
    nulls = ", ".join(["NULL"] * len(TYPES))
    one(server, f"CREATE TABLE s.t ({columns})")
    one(server, f"INSERT INTO s.t VALUES ({values}), ({nulls}), ({values})")
    table = read_table(at("s.t")).arrow
    table = table.append_column("cluster_id", pa.array([0, 1, 0], pa.int32()))
    publish([Output(at("s.out"), table)])
    assert changed(server) == []
    # through files that keep Arrow's metadata, too
    for name in ("t.parquet", "t.arrow"):
        publish([Output(locate(name), table)])
        publish([Output(at("s.out"), read_table(locate(name)).arrow)])
        assert changed(server) == []
    publish([Output(at("s.out"), table, append=True)])
    assert server.sql("SELECT count(*), sum(cluster_id) FROM s.out") == [(6, 2)]


def one(server, statement: str) -> None:
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement).close()


def publish_enum(server) -> None:
    one(server, "CREATE TYPE \"My s\".\"mood's; x\" AS ENUM ('so; so', 'ü')")


def changed(server) -> list:
    """Return the columns of s.out whose type or values are not those of s.t."""
    types = [
        dict(server.sql(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            f"WHERE attrelid = 's.{name}'::regclass AND attnum > 0 ORDER BY attnum"
        ))
        for name in ("t", "out")
    ]  # fmt: skip
    found = [(name, kind, types[1][name]) for name, kind in types[0].items()
             if types[1][name] != kind]  # fmt: skip
    for name in types[0]:
        old, new = (
            server.sql(f"SELECT {name}::text FROM s.{table} ORDER BY 1") for table in ("t", "out")
        )
        if old != new:
            found.append((name, types[0][name], old, new))
    return found


def test_types_arrive_as_what_they_are(server, at):
    server.sql(
        "CREATE TABLE s.t AS SELECT 1.5::numeric(6,2) AS price, 2.25::numeric AS free, "
        "'NaN'::numeric AS odd, now() AS moment, current_date AS day, ARRAY['x'] AS tags, "
        "'{}'::jsonb AS doc, true AS flag, 1e400::numeric AS huge LIMIT 1;"
        "ALTER TABLE s.t DROP huge"
    )
    schema = read_table(at("s.t")).arrow.schema
    assert {field.name: field.type for field in schema} == {
        "price": pa.decimal128(6, 2),
        "free": pa.decimal128(38, 2),
        "odd": pa.float64(),
        "moment": pa.timestamp("us", "UTC"),
        "day": pa.date32(),
        "tags": pa.list_(pa.field("item", pa.string())),
        "doc": pa.string(),
        "flag": pa.bool_(),
    }


@pytest.mark.parametrize(
    ("values", "kind", "arrow_type", "expected"),
    [
        (["1.5", "-0.001"], "numeric", (38, 3), [Decimal("1.500"), Decimal("-0.001")]),
        (["NaN", "1.5", "1e-20"], "numeric", None, [math.nan, 1.5, 1e-20]),
        (["Infinity", "-Infinity", "1e14"], "numeric", None, [math.inf, -math.inf, 1e14]),
        ([f"0.{'0' * 37}1", "0"], "numeric", (38, 38), [Decimal("1e-38"), Decimal(0)]),
        ([f"-{'9' * 38}"], "numeric", (38, 0), [Decimal("-" + "9" * 38)]),
        ([], "numeric(9,3)", (9, 3), []),
        (["12300"], "numeric(3,-2)", (38, 0), [Decimal(12300)]),
    ],
)  # fmt: skip
def test_numeric_keeps_every_digit(server, at, values, kind, arrow_type, expected):
    one(server, f"CREATE TABLE s.t (x {kind})")
    for value in values:
        one(server, f"INSERT INTO s.t VALUES ('{value}')")
    found = read_table(at("s.t")).arrow["x"]
    assert found.type == (pa.decimal128(*arrow_type) if arrow_type else pa.float64())
    for value, wanted in zip(found.to_pylist(), expected, strict=True):
        assert value == wanted or (math.isnan(value) and math.isnan(wanted))
    publish([Output(at("s.out"), read_table(at("s.t")).arrow)])
    assert server.sql("SELECT count(*) FROM (TABLE s.t EXCEPT ALL TABLE s.out) d") == [(0,)]


@pytest.mark.parametrize("value", ["123456789012345678901234567890123456789", "NaN"])
def test_numeric_that_nothing_holds_is_refused(server, at, value):
    one(
        server,
        f"CREATE TABLE s.t AS SELECT unnest(ARRAY['{value}', '0.1234567890123456'])::numeric AS x",
    )
    with pytest.raises(DataError, match=r"column 'x' is numeric with .* --input-query that casts"):
        read_table(at("s.t"))


def test_names_keep_case_quotes_and_signs(server, at):
    table = pa.table({'Ünï "q"': [1], 'ünï "Q"': [2], "select": [3], "a.b": [4], "%s {}": [5]})
    publish([Output(at('"My s"."T.x ""y"" {0}"'), table)])
    assert read_table(at('"my S"."t.X ""y"" {0}"')).arrow.to_pylist() == table.to_pylist()
    chosen = read_table(at('"My s"."T.x ""y"" {0}"'), columns=["a.b", 'Ünï "q"']).arrow
    assert chosen.to_pylist() == [{"a.b": 4, 'Ünï "q"': 1}]
    with pytest.raises(DataError, match="column 'nope' is not in"):
        read_table(at('"My s"."T.x ""y"" {0}"'), columns=["nope"])


def test_a_name_means_what_is_spelt_so_before_what_differs_in_case(server, at):
    server.sql('CREATE TABLE s.t AS SELECT 1 AS a; CREATE TABLE s."T" AS SELECT 2 AS a')
    assert read_table(at("s.t")).arrow.to_pylist() == [{"a": 1}]
    assert read_table(at("s.T")).arrow.to_pylist() == [{"a": 2}]
    server.sql('ALTER TABLE s.t RENAME TO tT; ALTER TABLE s."T" RENAME TO "TT"')
    with pytest.raises(SettingsError, match=r"may be each of s\.TT, s\.tt"):
        read_table(at("s.Tt"))


@pytest.mark.parametrize("name", ["x" * 64, "ü" * 32])
def test_a_name_that_would_be_cut_off_is_refused(at, name):
    with pytest.raises(DataError, match="longer than the 63 bytes"):
        publish([Output(at("s.out"), pa.table({name: [1]}))])
    with pytest.raises(DataError, match="longer than the 63 bytes"):
        publish([Output(at(f"s.{name}"), numbers(1))])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([2**64 - 1], pa.uint64()), Decimal(2**64 - 1)),
        (pa.array([2**32 - 1], pa.uint32()), 2**32 - 1),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([1_000], pa.timestamp("ns")), dt.datetime(1970, 1, 1, 0, 0, 0, 1)),
        (pa.array([1], pa.date32()), dt.date(1970, 1, 2)),
        (pa.array([86_400_000], pa.date64()), dt.date(1970, 1, 2)),
        (pa.array(["ü"], pa.string_view()), "ü"),
        (pa.nulls(1), None),
        (pa.array([["a", None]], pa.large_list(pa.string())), ["a", None]),
    ],
)
def test_arrow_types_are_written_without_loss(at, values, expected):
    publish([Output(at("s.out"), pa.table({"x": values}))])
    assert read_table(at("s.out")).arrow["x"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([1], pa.timestamp("ns")), "finer than"),
        (pa.array([1], pa.time64("ns")), "finer than"),
        (pa.array([{"a": 1}]), "column 'x' has the Arrow type struct<a: int64>, which PostgreSQL"),
        (pa.array([[[1]]]), "column 'x' has the Arrow type list<.*>, which PostgreSQL cannot"),
        (pa.array(["a\0b"]), "null character"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_table_stands(server, at, values, message):
    publish([Output(at("s.out"), numbers(1, 2))])
    with pytest.raises(DataError, match=message):
        publish([Output(at("s.out"), pa.table({"ok": [1], "x": values}))])
    assert server.sql("SELECT * FROM s.out") == [(1,), (2,)]
    assert leftovers(server) == []


def test_a_type_from_somebody_elses_file_is_no_sql(server, at):
    field = pa.field("a", pa.string(), metadata={b"postgresql.type": b"text); DROP SCHEMA s; --"})
    publish([Output(at("s.out"), pa.table({"a": ["x"]}, schema=pa.schema([field])))])
    assert server.sql("SELECT pg_typeof(a)::text, a FROM s.out") == [("text", "x")]


def test_empty_tables_travel_both_ways(at):
    publish([Output(at("s.out"), numbers().append_column("t", pa.array([], pa.string())))])
    found = read_table(at("s.out")).arrow
    assert (found.num_rows, found.column_names) == (0, ["a", "t"])
    assert peek(at("s.out"), query=None).n_rows == 0


def test_a_look_reads_the_first_rows_and_counts_all(server, at):
    server.sql("CREATE TABLE s.t AS SELECT i AS a FROM generate_series(1, 25000) i")
    seen = peek(at("s.t"))
    assert (seen.n_rows, seen.rows_exact, seen.sample.num_rows) == (25_000, True, 10_000)
    assert seen.columns == (("a", "integer"),)


def test_progress_advances_while_rows_come(server, at):
    server.sql(
        "CREATE TABLE s.t AS SELECT i, repeat('x', 200) AS t FROM generate_series(1, 300000) i"
    )
    server.sql("ANALYZE s.t")
    seen: list[float] = []
    read_table(at("s.t"), progress=seen.append)
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[0] < 0.6
    assert seen[-1] == 1.0


# -- queries -----------------------------------------------------------------------------


def test_a_query_may_end_in_a_semicolon_and_a_comment(server):
    place = locate_warehouse(server.url())
    found = read_table(place, query="SELECT 1 AS a, 'x' AS b, 2.50::numeric(5,2) AS c ; -- done")
    assert found.arrow.to_pylist() == [{"a": 1, "b": "x", "c": Decimal("2.50")}]
    assert PASSWORD not in found.name
    assert QUOTED_PASSWORD not in found.name


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1; SELECT 2", "multiple commands"),
        ("DELETE FROM s.t", "one SELECT was expected"),
        ("WITH d AS (DELETE FROM s.t RETURNING *) SELECT * FROM d", "one SELECT was expected"),
        ("SELECT * FROM s.nope", 'relation "s.nope" does not exist'),
        ("SELECT 1 AS a, 2 AS a", 'column "a" specified more than once'),
        ("SELECT setval('s.q', 7)", "read-only"),
        ("SELECT nope FROM s.t", 'column "nope" does not exist'),
    ],
)
def test_a_query_that_is_not_one_select_is_refused(server, query, message):
    server.sql("CREATE TABLE s.t AS SELECT 1 AS a; CREATE SEQUENCE s.q")
    with pytest.raises((SettingsError, DataError), match=message):
        read_table(locate_warehouse(server.url()), query=query)
    assert server.sql("SELECT count(*) FROM s.t") == [(1,)]


def test_an_error_repeats_no_value_of_a_customer(server):
    server.sql("CREATE TABLE s.t AS SELECT 'Alice Miller' AS name")
    with pytest.raises(DataError, match="a value does not fit") as raised:
        read_table(locate_warehouse(server.url()), query="SELECT name::int AS a FROM s.t")
    assert "Alice" not in str(raised.value)


# -- what is not there, not allowed, or gone ---------------------------------------------


@pytest.mark.parametrize(
    ("login", "error", "message"),
    [
        ({"password": "wr0ng"}, SettingsError, "password authentication failed.*PGPASSWORD"),
        ({"password": None}, SettingsError, "no password supplied.*PGPASSWORD"),
        ({"user": "nobody_here"}, SettingsError, "correct the user in the address"),
        ({"database": "nodb"}, TableNotFoundError, 'database "nodb" does not exist'),
        ({"options": "?nonsense=1"}, SettingsError, "the address is malformed"),
    ],
)
def test_what_the_address_gets_wrong_is_said_and_ends_with_2(
    server, at, monkeypatch, login, error, message
):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    for attempt in (read_table, peek, lambda place: publish([Output(place, numbers(1))])):
        with pytest.raises(error, match=message) as raised:
            attempt(at("s.t", **login))
        assert raised.value.exit_code == 2
        said = str(raised.value)
        assert not any(word in said for word in ("wr0ng", PASSWORD, QUOTED_PASSWORD, "Traceback"))


def test_the_password_may_come_from_the_environment(server, at, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    publish([Output(at("s.out", password=None), numbers(1))])
    assert read_table(at("s.out", password=None)).n_rows == 1


def test_the_driver_may_be_named_with_its_options(server):
    place = locate(
        "s.out", warehouse=f"adbc:adbc_driver_postgresql?uri={quote(server.url(), safe='')}"
    )
    publish([Output(place, numbers(1))])
    assert read_table(place).arrow.to_pylist() == [{"a": 1}]
    assert server.sql("SELECT pg_typeof(a)::text FROM s.out") == [("bigint",)]


def test_a_table_that_is_not_there_names_those_that_are(server, at):
    server.sql("CREATE TABLE s.orders (a integer)")
    with pytest.raises(
        TableNotFoundError, match=r"'s.order' is not .*, which has .*did you mean 's.orders'\?"
    ):
        read_table(at("s.order"))


def test_permissions_are_asked_for_before_any_work(server, at):
    server.sql("CREATE TABLE s.mine AS SELECT 1 AS a; GRANT USAGE ON SCHEMA s TO ann")
    ann = {"user": "ann", "password": "ann"}
    with pytest.raises(SettingsError, match="permission denied for table mine"):
        read_table(at("s.mine", **ann))
    with pytest.raises(SettingsError, match="may not replace it, because it belongs to gpuseg"):
        check_output(at("s.mine", **ann), numbers().schema)
    with pytest.raises(SettingsError, match="may not insert into it"):
        check_output(at("s.mine", **ann), numbers().schema, append=True)
    with pytest.raises(SettingsError, match="permission denied for schema s"):
        check_output(at("s.new", **ann), numbers().schema)
    with pytest.raises(SettingsError, match="permission denied for database"):
        check_output(at("other.new", **ann), numbers().schema)
    server.sql("GRANT CREATE ON SCHEMA s TO ann; GRANT INSERT, SELECT ON s.mine TO ann")
    publish([Output(at("s.new", **ann), numbers(1))])
    server.sql("ALTER TABLE s.mine ALTER a TYPE bigint")
    publish([Output(at("s.mine", **ann), numbers(2), append=True)])
    assert server.sql("SELECT sum(a)::int FROM s.mine") == [(3,)]


def test_a_server_that_is_down_is_tried_again_and_ends_with_4(server, at, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(adbc_connection.time, "sleep", waits.append)
    down = locate("s.t", warehouse="postgresql://gpuseg:pw@127.0.0.1:1/postgres")
    with pytest.raises(SourceError, match=r"connection was lost \(.*refused.*run again") as raised:
        read_table(down)
    assert raised.value.exit_code == 4
    with pytest.raises(SinkError, match="the previous table stands"):
        publish([Output(down, numbers(1))])
    assert waits == [0.05, 0.1] * 2


@pytest.mark.slow
def test_a_server_killed_while_reading_ends_with_4_or_is_read_again(server, at):
    server.sql(
        "CREATE TABLE s.t AS SELECT i, repeat('x', 300) AS t FROM generate_series(1, 300000) i"
    )
    killed: list[float] = []

    def kill_once(fraction: float) -> None:
        if not killed:
            killed.append(fraction)
            server.kill()

    try:
        with pytest.raises(SourceError, match="connection was lost") as raised:
            read_table(at("s.t"), progress=kill_once)
        assert raised.value.exit_code == 4
    finally:
        server.start()
    killed.clear()

    def kill_and_start(fraction: float) -> None:
        if not killed:
            kill_once(fraction)
            server.start()

    assert read_table(at("s.t"), progress=kill_and_start).n_rows == 300_000


@pytest.mark.slow
def test_a_connection_cut_while_rows_are_copied_changes_nothing(server, at):
    publish([Output(at("s.out"), numbers(1, 2))])
    cut: list[int] = []

    def cut_the_copy() -> None:
        for _try in range(20_000):
            found = server.sql(
                "SELECT pg_terminate_backend(pid)::int FROM pg_stat_progress_copy "
                "WHERE command = 'COPY FROM'"
            )
            if found:
                cut.append(1)
                return
            time.sleep(0.001)

    watcher = threading.Thread(target=cut_the_copy)
    watcher.start()
    try:
        rows = pa.table({f"c{i}": pa.array(range(1_000_000), pa.int64()) for i in range(4)})
        with pytest.raises(SinkError, match="the previous table stands") as raised:
            publish([Output(at("s.out"), rows)])
    finally:
        watcher.join()
    assert cut
    assert raised.value.exit_code == 4
    assert server.sql("SELECT * FROM s.out") == [(1,), (2,)]
    assert leftovers(server) == []


@pytest.mark.parametrize("moment", ["stage 1", "commit"])
def test_a_server_killed_before_the_exchange_leaves_the_old_tables(server, at, monkeypatch, moment):
    publish([Output(at("s.out"), numbers(1, 2)), Output(at("s.k"), numbers(3))])

    def kill_at(reached: str) -> None:
        if reached == moment:
            server.kill()

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "reached", kill_at)
        try:
            with pytest.raises(SinkError, match="the previous table stands"):
                publish([Output(at("s.out"), numbers(9)), Output(at("s.k"), numbers(9)),
                         Output(locate("k.csv"), numbers(9))])  # fmt: skip
        finally:
            server.start()
    assert server.sql("SELECT * FROM s.out") == [(1,), (2,)]
    assert server.sql("SELECT * FROM s.k") == [(3,)]
    assert leftovers(server) == []
    with pytest.raises(TableNotFoundError):
        read_table(locate("k.csv"))


def test_a_connection_lost_in_the_commit_itself_is_told_apart(server, at):
    one(server, "CREATE FUNCTION s.cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM "
                "pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$")  # fmt: skip
    server.sql(
        "CREATE TABLE s.t (a bigint); CREATE CONSTRAINT TRIGGER c AFTER INSERT ON s.t "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION s.cut()"
    )
    with pytest.raises(SinkError, match="lost while the tables were being exchanged") as raised:
        publish([Output(at("s.t"), numbers(1), append=True), Output(at("s.k"), numbers(2))])
    assert raised.value.exit_code == 4
    assert server.sql("SELECT count(*) FROM s.t") == [(0,)]
    assert leftovers(server) == []


def test_a_full_disk_and_a_broken_constraint_are_said(server, at):
    one(server, "CREATE FUNCTION s.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE "
                "EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$")  # fmt: skip
    server.sql("CREATE TABLE s.t (a bigint CHECK (a < 5)); INSERT INTO s.t VALUES (1)")
    with pytest.raises(DataError, match="breaks a constraint"):
        publish([Output(at("s.t"), numbers(7), append=True)])
    server.sql("CREATE TRIGGER f BEFORE INSERT ON s.t EXECUTE FUNCTION s.full()")
    with pytest.raises(SinkError, match="the server's disk is full"):
        publish([Output(at("s.t"), numbers(2), append=True)])
    assert server.sql("SELECT * FROM s.t") == [(1,)]


def test_a_locked_table_is_waited_for_and_then_said(server, at):
    import adbc_driver_postgresql.dbapi as driver

    publish([Output(at("s.out"), numbers(1))])
    with driver.connect(server.url()) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE s.out IN ACCESS SHARE MODE")
        with pytest.raises(SinkError, match="locked by another session"):
            publish([Output(at("s.out", "?options=-c%20lock_timeout%3D200"), numbers(2))])
    assert server.sql("SELECT * FROM s.out") == [(1,)]
    publish([Output(at("s.out"), numbers(2))])
    assert server.sql("SELECT * FROM s.out") == [(2,)]


def test_two_writers_leave_one_whole_table(server, at):
    publish([Output(at("s.out"), numbers(0))])
    failures: list[Exception] = []

    def write(value: int) -> None:
        try:
            for _time in range(5):
                publish([Output(at("s.out"), numbers(*[value] * 1000))])
        except Exception as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    writers = [threading.Thread(target=write, args=(value,)) for value in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert server.sql("SELECT count(*), min(a) = max(a) FROM s.out") == [(1000, True)]
    assert leftovers(server) == []


# -- what becomes of the old table -------------------------------------------------------


def test_owner_privileges_and_comments_go_to_the_new_table(server, at):
    server.sql(
        "CREATE TABLE s.out (a bigint, b text); GRANT SELECT ON s.out TO bob WITH GRANT OPTION;"
        "GRANT INSERT ON s.out TO PUBLIC; COMMENT ON TABLE s.out IS 'it''s mine';"
        "COMMENT ON COLUMN s.out.a IS 'an a'; COMMENT ON COLUMN s.out.b IS 'a b';"
        "GRANT CREATE ON SCHEMA s TO ann; ALTER TABLE s.out OWNER TO ann"
    )
    before = server.sql("SELECT relacl::text FROM pg_class WHERE oid = 's.out'::regclass")
    publish([Output(at("s.out"), numbers(1))])
    assert server.sql(
        "SELECT obj_description(oid, 'pg_class'), col_description(oid, 1), "
        "pg_get_userbyid(relowner) FROM pg_class WHERE oid = 's.out'::regclass"
    ) == [("it's mine", "an a", "ann")]
    after = server.sql("SELECT relacl::text FROM pg_class WHERE oid = 's.out'::regclass")
    assert [sorted(re.split("[{},]", row[0])) for row in after] == [
        sorted(re.split("[{},]", row[0])) for row in before
    ]


def test_a_table_that_a_view_needs_is_filled_anew_or_refused(server, at):
    publish([Output(at("s.out"), numbers(1, 2))])
    server.sql("CREATE VIEW s.v AS SELECT sum(a)::int AS total FROM s.out")
    publish([Output(at("s.out"), numbers(5))])
    assert server.sql("SELECT total FROM s.v") == [(5,)]
    with pytest.raises(SettingsError, match=r"there is view s.v and the columns change"):
        check_output(at("s.out"), pa.schema([("other", pa.int64())]))
    server.sql("DROP VIEW s.v; ALTER TABLE s.out ADD PRIMARY KEY (a);"
               "CREATE TABLE s.child (a bigint REFERENCES s.out)")  # fmt: skip
    with pytest.raises(SettingsError, match=r"there is foreign key of s.child"):
        publish([Output(at("s.out"), numbers(5))])
    assert server.sql("SELECT a FROM s.out") == [(5,)]
    assert leftovers(server) == []


@pytest.mark.parametrize(
    ("made", "called"),
    [
        ("CREATE INDEX i ON s.out (a)", r"index s\.i"),
        ("ALTER TABLE s.out ADD PRIMARY KEY (a)", r"index s\.out_pkey"),
        ("ALTER TABLE s.out ADD CONSTRAINT c CHECK (a > 0)", "constraint c"),
        ("ALTER TABLE s.out ALTER a SET DEFAULT 7", "default, duty or privilege of column a"),
        ("ALTER TABLE s.out ALTER a SET NOT NULL", "default, duty or privilege of column a"),
        ("GRANT SELECT (a) ON s.out TO ann", "default, duty or privilege of column a"),
        ("ALTER TABLE s.out ENABLE ROW LEVEL SECURITY", "row security"),
        ("CREATE RULE r AS ON DELETE TO s.out DO INSTEAD NOTHING", "rule r"),
    ],
)
def test_nothing_that_hangs_on_a_table_is_lost_without_a_word(server, at, made, called):
    publish([Output(at("s.out"), numbers(1, 2))])
    server.sql(made)
    oid = server.sql("SELECT 's.out'::regclass::oid::int")
    publish([Output(at("s.out"), numbers(3, 4, 5))])
    assert server.sql("SELECT 's.out'::regclass::oid::int") == oid
    assert server.sql("SELECT a FROM s.out ORDER BY a") == [(3,), (4,), (5,)]
    with pytest.raises(SettingsError, match=f"there is {called}.* and the columns change"):
        check_output(at("s.out"), pa.schema([("other", pa.int64())]))
    assert leftovers(server) == []


def test_a_generated_column_is_not_filled(server, at):
    server.sql("CREATE TABLE s.out (a bigint GENERATED ALWAYS AS IDENTITY)")
    with pytest.raises(SettingsError, match="there is generated column a"):
        check_output(at("s.out"), numbers().schema)


def test_a_view_and_a_partitioned_table_are_not_replaced(server, at):
    server.sql(
        "CREATE VIEW s.v AS SELECT 1::bigint AS a;"
        "CREATE TABLE s.p (a bigint) PARTITION BY RANGE (a);"
        "CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES FROM (0) TO (9)"
    )
    assert read_table(at("s.v")).arrow.to_pylist() == [{"a": 1}]
    with pytest.raises(SettingsError, match="is a view"):
        publish([Output(at("s.v"), numbers(1))])
    for name in ("s.p", "s.p1"):
        with pytest.raises(SettingsError, match="may not replace it"):
            publish([Output(at(name), numbers(1))])
    publish([Output(at("s.p"), numbers(1), append=True)])
    assert server.sql("SELECT a FROM s.p1") == [(1,)]


def test_what_is_appended_must_agree(server, at):
    publish([Output(at("s.out"), pa.table({"a": [1], "b": ["x"]}))])
    publish([Output(at("s.out"), pa.table({"b": ["y"], "a": [2]}), append=True)])
    assert server.sql("SELECT * FROM s.out ORDER BY a") == [(1, "x"), (2, "y")]
    with pytest.raises(DataError, match="'c' is not in the table; 'b' is missing; 'a' is bigint"):
        publish([Output(at("s.out"), pa.table({"a": ["1"], "c": [1]}), append=True)])
    assert server.sql("SELECT count(*) FROM s.out") == [(2,)]


def test_a_check_leaves_nothing_behind(server, at):
    check_output(at("new_schema.out"), numbers().schema)
    assert server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'new_schema'") == [(0,)]
    publish([Output(at("new_schema.out"), numbers(1))])
    assert server.sql("SELECT a FROM new_schema.out") == [(1,)]
    server.sql("DROP SCHEMA new_schema CASCADE")
