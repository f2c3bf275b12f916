"""Tables of Treasure Data through the real pytd: what comes out, what goes in, what is refused."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import logging
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from treasure_data.loopback import MASTER_KEY, WRITE_ONLY_KEY, Fault

from gpuseg.errors import (
    DataError,
    SettingsError,
    SinkError,
    SourceError,
    TableNotFoundError,
)
from gpuseg.settings import Settings
from gpuseg.tables import (
    Output,
    check_output,
    load,
    locate,
    locate_warehouse,
    mark,
    publish,
    read_table,
)
from gpuseg.tables import treasure_data_import as bulk
from gpuseg.tables import treasure_data_types as types
from gpuseg.tables.input import peek_input, read_input

pytestmark = pytest.mark.usefixtures("quick")


def td(name: str):
    return locate(name, warehouse="td")


def put(name: str, table: pa.Table, append: bool = False) -> None:
    publish([Output(td(name), table, append)])


def people(n: int = 3) -> pa.Table:
    return pa.table(
        {
            "customer": [f"c{i}" for i in range(n)],
            "spend": [float(i) for i in range(n)],
            "visits": pa.array([*range(1, n), None][:n], pa.int64()),
        }
    )


@pytest.fixture
def db(server):
    server.store.put("shop", "people", people())
    return server


def statements(server) -> list[str]:
    return [request.body.decode() for name, request in server.log if name == "POST /v1/statement"]


# -- reading -----------------------------------------------------------------------------


def test_columns_are_named_and_ignored_ones_stay_where_they_are(db):
    settings = Settings(input_table="shop.people", warehouse="td", ignore_columns=("time", "spend"))
    found = read_input(settings)
    assert found.arrow.to_pydict() == people().drop_columns("spend").to_pydict()
    assert found.left_out == ("spend", "time")
    assert "ignored columns were not fetched: spend, time" in found.notes
    assert statements(db) == ['SELECT "customer", "visits" FROM "shop"."people"']
    assert peek_input(settings).n_rows == 3
    assert not [sql for sql in statements(db) if "*" in sql or "spend" in sql or '"time"' in sql]


def test_a_table_that_is_replaced_by_its_own_rows_is_fetched_whole(db):
    found = read_input(
        Settings(input_table="shop.people", output_table="SHOP.people", warehouse="td")
    )
    assert found.arrow.column_names == ["customer", "spend", "visits", "time"]
    assert found.left_out == ()


def test_a_column_that_is_wanted_is_fetched_although_it_is_ignored(db):
    wishes = Settings(
        input_table="shop.people", warehouse="td", rowid_column="customer",
        ignore_columns=("time", "customer"), numeric_columns=("time",),
    )  # fmt: skip
    assert read_input(wishes).arrow.column_names == ["customer", "spend", "visits", "time"]


def test_types_come_from_the_schema_not_from_the_values(db):
    query = """SELECT CAST(NULL AS BIGINT) AS nothing, 1.50::DECIMAL(10, 2) AS price,
        DATE '2024-02-29' AS day, TIMESTAMP '2024-02-29 12:00:00.25' AS at,
        TIMESTAMPTZ '2024-02-29 12:00:00+02' AS zoned, true AS yes, 9007199254740993 AS big,
        'NaN'::DOUBLE AS nan, 'inf'::DOUBLE AS inf, [1, NULL]::BIGINT[] AS many, 'é' AS text,
        1::INTEGER AS small, TIME '01:02:03' AS clock -- the end"""
    found = read_table(locate_warehouse("td"), query=query + "\n;").arrow
    assert {name: str(found.schema.field(name).type) for name in found.column_names} == {
        "nothing": "int64", "price": "decimal128(10, 2)", "day": "date32[day]",
        "at": "timestamp[us]", "zoned": "timestamp[us, tz=UTC]", "yes": "bool", "big": "int64",
        "nan": "double", "inf": "double", "many": "list<item: int64>", "text": "string",
        "small": "int32", "clock": "time64[us]",
    }  # fmt: skip
    row = found.to_pylist()[0]
    assert row.pop("nan") != row.get("nan")
    assert row == {
        "nothing": None, "price": decimal.Decimal("1.50"), "day": dt.date(2024, 2, 29),
        "at": dt.datetime(2024, 2, 29, 12, 0, 0, 250_000),
        "zoned": dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC), "yes": True,
        "big": 9007199254740993, "inf": float("inf"), "many": [1, None], "text": "é",
        "small": 1, "clock": dt.time(1, 2, 3),
    }  # fmt: skip


def test_an_empty_table_keeps_its_types(db):
    found = read_table(locate_warehouse("td"), query="SELECT 1::BIGINT AS a, 'x' AS b WHERE false")
    assert found.arrow.schema == pa.schema([("a", pa.int64()), ("b", pa.string())])
    assert found.n_rows == 0


def test_rows_come_block_by_block_with_progress(db, monkeypatch):
    from gpuseg.tables import treasure_data

    db.store.put("shop", "many", pa.table({"n": pa.array(range(10_000), pa.int64())}))
    db.page_rows = 900
    monkeypatch.setattr(treasure_data, "BLOCK_ROWS", 2_500)
    seen: list[float] = []
    found = read_table(td("shop.many"), columns=["n"], progress=seen.append)
    assert found.arrow["n"].to_pylist() == list(range(10_000))
    assert found.arrow["n"].num_chunks == 4
    assert seen == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_page_that_gets_lost_is_asked_for_again(db):
    db.page_rows = 1
    db.faults = [Fault("GET /v1/next/*/*", "lose", times=1, skip=1)]
    assert read_table(td("shop.people"), columns=["customer"]).n_rows == 3


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("DROP TABLE shop.people", "no SELECT"),
        ("", "no SELECT"),
        ("/* SELECT */ DELETE FROM shop.people", "no SELECT"),
        ("SELECT nonsense( FROM x", "does not run in Treasure Data .SYNTAX_ERROR."),
        ("SELECT * FROM shop.persons", "TABLE_NOT_FOUND"),
    ],
)
def test_queries_that_cannot_be(db, query, words):
    with pytest.raises(SettingsError, match=words):
        read_table(locate_warehouse("td"), query=query)
    assert db.store.rows("shop", "people").num_rows == 3


def test_a_type_that_gpuseg_does_not_read_is_named(db):
    with pytest.raises(DataError, match=r"column 'm' has the Trino type map\(.*casts it"):
        read_table(locate_warehouse("td"), query="SELECT MAP {'a': 1} AS m")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shop.peopel", r"not in Treasure Data; database 'shop' has people .did you mean 'people'"),
        ("shoop.people", r"no database 'shoop' at 127.*has shop .did you mean 'shop'.*region"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(db, name, words):
    with pytest.raises(TableNotFoundError, match=words):
        read_table(td(name))


def test_an_unknown_column_is_named(db):
    with pytest.raises(DataError, match=r"column 'spent' is not in 'shop.people'.*'spend'"):
        read_table(td("shop.people"), columns=["spent"])


# -- the key and the place ---------------------------------------------------------------


def test_each_wrong_key_has_its_own_message_and_none_is_repeated(db, monkeypatch):
    for key, words in (
        ("1/not-a-key-of-this-region", r"127\.0\.0\.1:\d+ does not accept.*401.*region"),
        (WRITE_ONLY_KEY, "403.*write-only key can neither query"),
    ):
        monkeypatch.setenv("TD_API_KEY", key)
        with pytest.raises(SettingsError, match=words) as caught:
            read_table(td("shop.people"))
        assert key not in str(caught.value)


def test_a_server_without_the_api_is_taken_for_a_wrong_region(db):
    db.faults = [Fault("GET /v3/table/list/*", 404), Fault("GET /v3/database/list", 404)]
    with pytest.raises(TableNotFoundError, match=r"404.*TD_API_SERVER must name"):
        read_table(td("shop.people"))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TD_API_KEY": ""}, "TD_API_KEY is not set"),
        ({"TD_API_KEY": "1/a\nb"}, "signs that no API key has"),
        ({"TD_API_SERVER": "http://api.treasuredata.com"}, "would travel in clear"),
        ({"TD_API_SERVER": "https://me:secret@api.treasuredata.com"}, "is no address"),
        ({"TD_API_SERVER": "https://td.example.com", "TD_PRESTO_API": None}, "set TD_PRESTO_API"),
        ({"TD_PRESTO_API": "https://x.example.com/"}, "without a / at its end"),
        ({"TD_PRESTO_API": "localhost:80"}, "must be a host's name"),
    ],
)
def test_variables_that_cannot_work_are_refused(db, monkeypatch, variables, words):
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=words) as caught:
        read_table(td("shop.people"))
    assert "secret" not in str(caught.value)


def test_the_warehouse_takes_nothing_after_its_name():
    with pytest.raises(SettingsError, match="TD_API_KEY and TD_API_SERVER") as caught:
        locate("a.b", warehouse="td:1/my-key")
    assert "my-key" not in str(caught.value)


def test_without_the_extra_it_is_said_what_to_install():
    code = (
        "import sys; sys.modules['pytd'] = None\n"
        "from gpuseg.tables import locate, read_table\n"
        "read_table(locate('a.b', warehouse='td'))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "SettingsError" in ran.stderr
    assert "pip install 'gpuseg[td]'" in ran.stderr


def test_the_key_is_in_no_log_and_no_error(db, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    server_says = {"error": f"no such key {MASTER_KEY}"}
    db.faults = [Fault("POST /v3/table/swap/*/*/*", 422, body=server_says)]
    with pytest.raises(SinkError) as caught:
        put("shop.people", people(5))
    assert MASTER_KEY not in str(caught.value) + caplog.text
    assert MASTER_KEY.partition("/")[2] not in str(caught.value) + caplog.text


# -- writing -----------------------------------------------------------------------------


def test_write_replace_and_append(db):
    put("shop.out", people())
    assert db.store.rows("shop", "out").drop_columns("time").to_pydict() == people().to_pydict()
    put("shop.out", people(5))
    assert db.store.count("shop", "out") == 5
    put("shop.out", people(2), append=True)
    assert db.store.count("shop", "out") == 7
    assert db.store.names("shop") == ["out", "people"]
    assert db.store.sessions == {}
    # declared, not guessed; and never the client's delete-then-import
    assert dict(db.store.tables["shop", "out"].schema) == {
        "customer": "string", "spend": "double", "visits": "long",
    }  # fmt: skip
    assert "POST /v3/table/delete/*/*" in db.calls()


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("is_there", [False, True])
def test_one_can_tell_later_whether_a_table_has_appeared(db, append, is_there):
    if is_there:
        put("shop.out", people(4))
    before, seen = mark(td("shop.out"), append=append), []
    publish([Output(td("shop.out"), people(2), append)], first=seen.extend)
    assert seen[0].before == before != seen[0].after
    now = mark(td("shop.out"), append=append)
    assert now == seen[0].after
    put("shop.out", people(1), append=append)
    assert mark(td("shop.out"), append=append) != now


def test_an_empty_result_is_an_empty_table_with_its_columns(db):
    put("shop.people", people(0))
    assert db.store.count("shop", "people") == 0
    assert [name for name, _kind in db.store.tables["shop", "people"].schema] == [
        "customer", "spend", "visits",
    ]  # fmt: skip
    put("shop.people", people(0), append=True)
    assert not db.calls("bulk_import")


def test_values_arrive_as_they_are(db):
    at = dt.datetime(2024, 2, 29, 12, 0, 0, 250_000)
    table = pa.table(
        {
            "digits": ["00012", "nan", None],
            "flag": [True, None, False],
            "big": pa.array([2**63 - 1, None, 0], pa.uint64()),
            "x": pa.array([1.5, float("nan"), float("inf")], pa.float32()),
            "price": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-0.05")]),
            "whole": pa.array([decimal.Decimal(7), None, None], pa.decimal128(18, 0)),
            "day": pa.array([dt.date(2024, 2, 29), None, None]),
            "at": pa.array([at, None, None], pa.timestamp("us")),
            "zoned": pa.array([at, None, None], pa.timestamp("ms", "Europe/Rome")),
            "kind": pa.array(["a", "b", None]).dictionary_encode(),
            "many": pa.array([[1, None], [], None], pa.list_(pa.int32())),
            "nothing": pa.nulls(3),
        }
    )
    put("shop.out", table)
    rows = db.store.connection.sql('FROM "shop"."out"').to_arrow_table()
    assert rows.drop_columns("time").to_pydict() == {
        "digits": ["00012", "nan", None],
        "flag": ["true", None, "false"],
        "big": [2**63 - 1, None, 0],
        "x": [1.5, None, float("inf")],
        "price": ["1.10", None, "-0.05"],
        "whole": [7, None, None],
        "day": ["2024-02-29", None, None],
        "at": ["2024-02-29 12:00:00.250000", None, None],
        "zoned": ["2024-02-29 12:00:00.250 UTC", None, None],
        "kind": ["a", "b", None],
        "many": [[1, None], [], None],
        "nothing": [None, None, None],
    }


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1_700_000_000, 5], pa.int32()), [1_700_000_000, 5]),
        (pa.array([dt.datetime(2024, 1, 1)] * 2, pa.timestamp("ns")), [1_704_067_200] * 2),
        (pa.array([dt.date(2024, 1, 1)] * 2), [1_704_067_200] * 2),
    ],
)
def test_time_is_kept_as_unix_seconds(db, column, expected):
    put("shop.out", pa.table({"a": [1, 2], "time": column}))
    assert db.store.rows("shop", "out", "a")["time"].to_pylist() == expected


MANY = decimal.Decimal(10) ** 18


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"big": pa.array([2**63], pa.uint64())}, f"'big' has values above {2**63 - 1}"),
        ({"m": pa.array([{"a": 1}])}, "'m' has the Arrow type struct"),
        ({"b": pa.array([b"x"])}, "'b' has the Arrow type binary"),
        ({"l": pa.array([[True]])}, "'l' has the Arrow type list<item: bool>"),
        ({"time": pa.array([None], pa.int64())}, "'time' is missing in 1 rows"),
        ({"time": pa.array(["x"])}, "'time' has the Arrow type string; .*unix seconds"),
        ({"time": pa.array([dt.datetime(2024, 1, 1, 0, 0, 0, 5)])}, "parts of seconds"),
        ({"marital-status": pa.array([1])}, "call it 'marital_status'"),
        ({"Age": pa.array([1])}, "call it 'age'"),
        ({"1st": pa.array([1])}, "call it '_1st'"),
        ({"a b": pa.array([1]), "a_b": pa.array([1])}, "'a b' and 'a_b' would both be 'a_b'"),
    ],
)
def test_what_has_no_place_is_refused_before_anything_is_written(db, columns, words):
    with pytest.raises(DataError, match=words):
        put("shop.people", pa.table(columns))
    assert db.calls("POST|PUT") == []
    assert db.store.count("shop", "people") == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [("Shop.a", "'a' cannot be the name of a table"), ("sh-p.abc", "name of a database")],
)
def test_names_of_tables_are_checked(db, name, words):
    with pytest.raises(DataError, match=words):
        check_output(td(name), people().schema)


def test_a_missing_database_is_found_before_any_work(db):
    with pytest.raises(TableNotFoundError, match=r"no database 'ml_test'.*create it"):
        check_output(td("ml_test.out"), people().schema)
    assert db.calls("POST") == []


def test_append_of_other_columns_is_refused(db):
    other = pa.table({"customer": [1], "spend": [1.0], "more": ["x"]})
    with pytest.raises(DataError, match=r"'more' is not.*'visits' is missing.*string there, long"):
        check_output(td("shop.people"), other.schema, append=True)
    with pytest.raises(DataError, match="cannot append"):
        put("shop.people", other, append=True)
    assert db.calls("POST|PUT") == []


def test_parts_are_bounded_and_all_arrive(db, monkeypatch):
    monkeypatch.setattr(bulk, "PART_ROWS", 1_000)
    put("shop.out", people(4_500))
    assert len(db.calls("upload_part")) == 5
    assert db.store.count("shop", "out") == 4_500
    sizes = [len(r.body) for name, r in db.log if "upload_part" in name]
    assert max(sizes) < 30_000


@pytest.mark.parametrize(("age_seconds", "kept"), [(3 * 86_400, False), (3_600, True)])
def test_what_dead_processes_left_behind_is_removed_after_two_days(db, age_seconds, kept):
    name = f"gpuseg_side_{int(time.time()) - age_seconds}_0a1b2c3d"
    db.store.create_table("shop", name)
    put("shop.out", people())
    assert (name in db.store.names("shop")) is kept


def test_load_gives_columns_legal_names_and_says_so(db, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("Marital-Status,age\nmarried,3\n")
    loaded = load(locate(str(file)), td("shop.loaded"))
    assert "column 'Marital-Status' is called 'marital_status' in Treasure Data" in loaded.notes
    rows = db.store.rows("shop", "loaded").drop_columns("time").to_pylist()
    assert rows == [{"marital_status": "married", "age": 3}]


def test_a_message_pack_holds_one_map_for_each_row():
    import gzip

    import msgpack

    rows, _schema = types.prepared(people(2))
    raw = gzip.decompress(bulk.packed(rows))
    found = list(msgpack.Unpacker(io.BytesIO(raw)))
    now = found[0].pop("time")
    assert abs(now - dt.datetime.now(dt.UTC).timestamp()) < 60
    assert found[0] == {"customer": "c0", "spend": 0.0, "visits": 1}
    assert found[1] == {"customer": "c1", "spend": 1.0, "visits": None, "time": now}


# -- pytd's own ways work here too, so that the server is no mirror of our client --------


@pytest.mark.slow
def test_the_loopback_answers_pytd_itself(db):
    import pandas as pd
    import pytd

    client = pytd.Client(max_cumul_retry_delay=-1)
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    client.load_table_from_dataframe(frame, "shop.framed", if_exists="overwrite", fmt="msgpack")
    found = client.query("SELECT a, b FROM shop.framed ORDER BY a")
    assert found == {"data": [[1, "x"], [2, None]], "columns": ["a", "b"]}
    jobs = client.query("SELECT a FROM shop.framed ORDER BY a", wait_interval=0.01)
    assert jobs["data"] == [[1], [2]]
    client.close()


def test_an_unreachable_service_is_a_source_error(db, monkeypatch):
    db.faults = [Fault("GET /v3/table/list/*", "drop")]
    with pytest.raises(SourceError, match="running again is safe"):
        read_table(td("shop.people"))
