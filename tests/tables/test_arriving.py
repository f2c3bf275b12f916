"""Rows that are not there yet: every system gives the answer of a plain loop over rows."""

from __future__ import annotations

import datetime as dt
import random
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gpuseg.errors import DataError, SettingsError
from gpuseg.tables import Newness, Output, locate, publish, read_newcomers, read_table, stamp
from gpuseg.tables.duckdb_file import _kept, keep_warm

DAY = dt.datetime(2026, 3, 1)
BY_ID, BY_MARK, BY_BOTH = Newness("Id"), Newness(None, "seen at"), Newness("Id", "seen at")
SCHEMA = pa.schema([("Id", pa.string()), ("seen at", pa.timestamp("us")), ("n", pa.int64())])
KINDS = ("file", "folder", "csv", "duckdb", "postgresql")


@pytest.fixture
def place(tmp_path, request):
    """Return a function: kind and name -> location."""

    def make(kind: str, name: str):
        if kind in ("duckdb", "postgresql"):
            warehouse = f"duckdb:{tmp_path / 'w.duckdb'}"
            if kind == "postgresql":
                server = request.getfixturevalue("postgres_server")
                warehouse = server.url()
            return locate(f'arriving."{name}"', warehouse=warehouse)
        suffix = {"file": ".parquet", "folder": "/", "csv": ".csv"}[kind]
        return locate(f"{tmp_path / name}{suffix}")

    yield make
    if "postgres_server" in request.fixturenames or "postgresql" in request.node.name:
        request.getfixturevalue("postgres_server").sql("DROP SCHEMA IF EXISTS arriving CASCADE")


def rows(ids, marks, first: int = 0) -> pa.Table:
    marks = [None if mark is None else DAY + dt.timedelta(hours=mark) for mark in marks]
    numbers = list(range(first, first + len(ids)))
    return pa.table([ids, marks, numbers], schema=SCHEMA)


def plain(table: pa.Table) -> list[tuple]:
    """Return rows as tuples of Python values, whatever types a place made of them."""
    marks = [None if m is None else m.replace(tzinfo=None) for m in table["seen at"].to_pylist()]
    ids, numbers = map(str, table["Id"].to_pylist()), table["n"].to_pylist()
    return sorted(zip(ids, map(str, marks), numbers, strict=True))


def expected(source: pa.Table, there: pa.Table | None, new: Newness) -> pa.Table:
    """Return the new rows, by a loop that knows no table system."""
    known = there.to_pylist() if there is not None else []
    marks = [row["seen at"] for row in known if row["seen at"] is not None]
    top, ids = max(marks, default=None), {row["Id"] for row in known}
    chosen: dict = {}
    for row in source.to_pylist():
        key, mark = row["Id"], row["seen at"]
        if new.rowid is None:
            if mark is not None and (top is None or mark > top):
                chosen[row["n"]] = row
            continue
        too_low = new.watermark and top is not None and mark is not None and mark < top
        if key is None or key in ids or too_low:
            continue
        best = chosen.get(key)
        newer = best is not None and new.watermark is not None and mark is not None and (
            best["seen at"] is None or mark > best["seen at"]
        )  # fmt: skip
        if best is None or newer:
            chosen[key] = row
    return pa.Table.from_pylist(list(chosen.values()), schema=SCHEMA)


def n_untold(source: pa.Table, there: pa.Table, new: Newness) -> int:
    """Count the rows from the watermark on that lack what they would be known by."""
    if new.rowid is None:
        return source["seen at"].null_count
    top = max(mark for mark in there["seen at"].to_pylist() if mark is not None)
    marks = [row["seen at"] for row in source.to_pylist() if row["Id"] is None]
    return sum(1 for mark in marks if new.watermark is None or mark is None or mark >= top)


def some(seed: int) -> tuple[pa.Table, pa.Table]:
    """Return a source with missing and repeated values, and the output of an earlier time."""
    draw = random.Random(seed)
    ids = [f"é'{i}\"" for i in range(40)] + [None, None, "é'3\"", "é'39\""]
    marks = [*range(40), 3, 50, 41, 44]
    for i in draw.sample(range(40), 4):
        marks[i] = None
    source = rows(ids, marks)
    return source, source.take(sorted(draw.sample(range(25), 15)))


@pytest.mark.parametrize("new", [BY_ID, BY_MARK, BY_BOTH], ids=["id", "mark", "both"])
@pytest.mark.parametrize("output", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_new_rows_are_those_of_a_plain_loop(place, source, output, new):
    given, there = some(seed=KINDS.index(source) * 5 + KINDS.index(output))
    origin, target = place(source, "in"), place(output, "out")
    publish([Output(origin, given)])
    found = read_newcomers(origin, target, new)
    assert plain(found.rows) == plain(expected(given, None, new)), "no output yet"
    publish([Output(target, there)])
    found = read_newcomers(origin, target, new)
    want = expected(given, there, new)
    assert plain(found.rows) == plain(want)
    assert found.n_untold == n_untold(given, there, new)
    # the second question, asked in the step that adds them, has the same answer
    fitting = found.rows.select(SCHEMA.names)
    assert publish([Output(target, fitting, True, new)]) == (want.num_rows,)
    assert publish([Output(target, fitting, True, new)]) == (0,)
    assert plain(read_table(target).arrow) == sorted(plain(there) + plain(want))
    assert read_newcomers(origin, target, new).rows.num_rows == 0


@pytest.mark.parametrize("kind", ["file", "folder", "duckdb", "postgresql"])
def test_of_many_writers_at_once_each_row_comes_once(place, kind):
    target = place(kind, "out")
    errors, written = [], []

    def write(worker: int) -> None:
        for first in range(0, 40, 8):
            ids = [str(i) for i in range(first, first + 8)]
            table = rows(ids, range(8), worker * 1000)
            try:
                written.extend(publish([Output(target, table, True, BY_ID)]))
            except Exception as error:  # noqa: BLE001 - of a thread
                errors.append(error)

    workers = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert sum(written) == 40
    ids = read_table(target).arrow["Id"].to_pylist()
    assert sorted(map(int, ids)) == list(range(40))


def test_sqlite_answers_too(tmp_path):
    warehouse = f"adbc:adbc_driver_sqlite?uri={tmp_path / 's.sqlite'}"
    source, target = (locate(f"main.{name}", warehouse=warehouse) for name in ("a", "b"))
    given = pa.table({"Id": ["1", "2", "3", None], "seen at": [5, 6, 7, 8]})
    publish([Output(source, given)])
    for new in (BY_ID, BY_MARK, BY_BOTH):
        publish([Output(target, given.slice(0, 2))])
        found = read_newcomers(source, target, new)
        fitting = found.rows.filter(pc.is_valid(found.rows["Id"]))
        assert fitting["Id"].to_pylist() == ["3"]
        assert publish([Output(target, fitting, True, new)]) == (1,)
        assert publish([Output(target, fitting, True, new)]) == (0,)


def test_a_new_part_brings_its_rows_and_no_other_part_is_changed(place, tmp_path):
    source, target = place("folder", "in"), place("folder", "out")
    publish([Output(source, rows(["a", "b"], [1, 2]))])
    publish([Output(target, rows(["a", "b"], [1, 2]), True, BY_ID)])
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    publish([Output(source, rows(["c"], [3]), append=True)])
    found = read_newcomers(source, target, BY_ID)
    assert found.rows["Id"].to_pylist() == ["c"]
    publish([Output(target, found.rows, True, BY_ID)])
    after = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert len(after) == 2
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("kind", ["file", "folder", "csv", "duckdb"])
def test_a_stamp_changes_with_the_table_and_not_without(place, kind):
    here = place(kind, "t")
    seen = [stamp(here)]
    publish([Output(here, rows(["a"], [1]))])
    seen.append(stamp(here))
    read_table(here)
    assert stamp(here) == seen[-1]
    publish([Output(here, rows(["b"], [1], 1), append=True)])
    seen.append(stamp(here))
    assert len(set(seen)) == 3


def test_only_a_server_knows_of_its_tables(place, postgres_server):
    assert stamp(place("postgresql", "t")) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_there_is_named(place, kind):
    here = place(kind, "in")
    publish([Output(here, rows(["a"], [1]))])
    for new in (Newness("idd"), Newness(None, "seen")):
        with pytest.raises((SettingsError, DataError), match=r"idd|seen"):
            read_newcomers(here, place(kind, "out"), new)


def test_watermarks_of_two_kinds_are_refused(place):
    source, target = place("file", "in"), place("file", "out")
    publish([Output(source, rows(["a"], [1]))])
    publish([Output(target, pa.table({"Id": ["b"], "seen at": ["last week"], "n": [1]}))])
    with pytest.raises(DataError, match="watermark_column 'seen at'"):
        read_newcomers(source, target, BY_BOTH)


def test_ids_of_another_type_are_compared_by_their_text(place):
    source, target = place("file", "in"), place("csv", "out")
    publish([Output(source, pa.table({"Id": ["1", "2", "x"]}))])
    publish([Output(target, pa.table({"Id": [1, 2]}))])
    assert read_newcomers(source, target, BY_ID).rows["Id"].to_pylist() == ["x"]


def test_treasure_data_is_refused_with_what_to_do_instead(monkeypatch, place):
    monkeypatch.setenv("TD_API_KEY", "1/x")
    with pytest.raises(SettingsError, match="schedule gpuseg assign"):
        read_newcomers(locate("db.t", warehouse="td"), place("file", "out"), BY_ID)


def test_a_database_that_is_kept_warm_gives_its_file_free(place, tmp_path):
    _kept.clear()
    keep_warm()
    try:
        here = place("duckdb", "t")
        publish([Output(here, rows(["a"], [1]))])
        assert publish([Output(here, rows(["a", "b"], [1, 2]), True, BY_ID)]) == (1,)
        code = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('CREATE TABLE mine(a INT)')"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "w.duckdb")], check=True)
        assert read_table(here).arrow.num_rows == 2
        assert not list(tmp_path.glob("*.wal"))
        assert len(_kept) == 1
    finally:
        _kept.pop().close()
