"""A publication that is cut off at any moment is finished by whoever comes next, once."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import textwrap
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from postgres_server import PASSWORD, QUOTED_PASSWORD

from gpuseg.errors import ModelError, SinkError, UnsureError
from gpuseg.outputs.models import StoredModel, champion, promote, save_model
from gpuseg.outputs.publication import JOURNAL, finish_publication, heal, publish_run, unfinished
from gpuseg.outputs.run_folder import ROWS, read_kept_table
from gpuseg.tables import Output, locate, publish, read_table, staging
from gpuseg.tables import duckdb_file as duckdb_system

RUNS = Path("runs")
FIRST, SECOND = "20261123T223000Z-4f2a9c", "20261124T223000Z-4f2a9c"
OLD = pa.table({"a": [1, 2], "cluster_id": pa.array([0, 1], pa.int32())})
NEW = pa.table({"a": [3, 4, 5], "cluster_id": pa.array([0, 1, 1], pa.int32())})
BOTH = pa.concat_tables([OLD, NEW])
PLACES = ["t.parquet", "t.csv", "parts/", "s.t"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_run(run_id, rows):
    """Make the folder of a run, as `keep_run` leaves it before it is published."""
    folder = RUNS / "m" / run_id
    (folder / "tables").mkdir(parents=True)
    pq.write_table(rows, folder / "tables" / "rows.parquet")
    pq.write_table(rows.slice(0, 1), folder / "tables" / "rules.parquet")
    (folder / "manifest.json").write_text("{}")
    centroids = np.zeros((2, 1), np.float32)
    model = StoredModel(
        "m", run_id, "2026-11-23T22:30:00Z", "t", 2, 2, 0.5, ("a",), (), {}, {}, "numpy", {}, {},
        centroids,
    )  # fmt: skip
    save_model(folder, model)


@pytest.fixture
def earlier():
    """A run that was published; another one whose folder is complete."""
    make_run(FIRST, OLD)
    promote(RUNS, "m", FIRST)
    make_run(SECOND, NEW)


def put(place, table, **options):
    publish([Output(locate(place, **options), table)])


def get(place, **options):
    return read_table(locate(place, **options)).arrow.sort_by("a").to_pydict()


#: Children are forked from a process that has imported everything but used nothing.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["pyarrow.json", "gpuseg.tables.duckdb", "gpuseg.outputs.keeping"])

PUBLISH = """
import os, signal
from pathlib import Path
from gpuseg.outputs import publication
from gpuseg.outputs.run_folder import ROWS, read_kept_table
from gpuseg.tables import Output, locate, publishing

work, moment, append, warehouse, *places = arguments

def die(now):
    if now == moment:
        os.kill(os.getpid(), signal.SIGKILL)

publishing.reached = die
if work == "publish":
    rows = read_kept_table(Path("runs/m/20261124T223000Z-4f2a9c"), ROWS)
    outputs = {
        kind: Output(locate(place, warehouse=warehouse), rows if kind == "rows" else rows[:1],
                     append and kind == "rows")
        for kind, place in zip(["rows", "rules"], places)
    }
    publication.publish_run(Path("runs"), "m", "20261124T223000Z-4f2a9c", outputs)
else:
    publication.finish_publication(Path("runs"), "m", warehouse=warehouse)
"""


def cut_off(moment, *places, work="publish", append=False, warehouse=None):
    """Publish the second run, or finish that, in a process that is killed at this moment."""

    script = f"import os; os.chdir({str(Path.cwd())!r})\n{textwrap.dedent(PUBLISH)}"
    arguments = (work, moment, append, warehouse, *places)
    child = CHILDREN.Process(target=exec, args=(script, {"arguments": arguments}))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def finish(**options):
    return " ".join(finish_publication(RUNS, "m", **options))


def hidden():
    return sorted(str(path) for path in Path().rglob(".*"))


def moments(place):
    return ["stage 0", "staged", "commit" if place == "s.t" else "swap 0", "swapped", "promoted"]


CUTS = [(place, moment) for place in PLACES for moment in moments(place)]


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize(("place", "moment"), CUTS)
@pytest.mark.usefixtures("earlier")
def test_a_table_appears_once(place, moment, append):
    put(place, OLD)
    cut_off(moment, place, append=append)
    said = finish()
    begun = moment not in ("stage 0", "staged")
    assert ("taken back" in said) == (not begun)
    new = BOTH if append else NEW
    assert get(place) == (new if begun else OLD).to_pydict()
    assert champion(RUNS, "m") == (SECOND if begun else FIRST)
    assert finish() == ""
    put("another.parquet", OLD)  # removes staging folders
    assert hidden() == []


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("moment", ["swap 0", "commit", "swapped"])
@pytest.mark.usefixtures("earlier")
def test_two_tables_of_which_one_had_appeared(moment, append):
    put("s.t", OLD)
    cut_off(moment, "s.t", "t.parquet", append=append)
    finish()
    assert get("s.t") == (BOTH if append else NEW).to_pydict()
    assert get("t.parquet") == NEW.slice(0, 1).to_pydict()
    assert champion(RUNS, "m") == SECOND


@pytest.mark.parametrize(
    ("at", "again"),
    [
        *(("swap 0", moment) for moment in ("stage 0", "staged", "swap 0", "commit", "promoted")),
        *(("commit", moment) for moment in ("stage 0", "staged", "commit", "promoted")),
        ("swapped", "promoted"),
    ],
)
@pytest.mark.usefixtures("earlier")
def test_finishing_may_be_cut_off_as_well(at, again):
    put("s.t", OLD)
    cut_off(at, "s.t", "t.parquet", append=True)
    cut_off(again, work="finish")
    finish()
    assert get("s.t") == BOTH.to_pydict()
    assert get("t.parquet") == NEW.slice(0, 1).to_pydict()
    assert champion(RUNS, "m") == SECOND


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("earlier")
def test_what_somebody_else_has_changed_is_left_alone(place):
    put(place, OLD)
    cut_off("commit" if place == "s.t" else "swap 0", place, "rules.parquet")
    theirs = pa.table({"a": [9], "cluster_id": pa.array([9], pa.int32())})
    put(place, theirs)
    said = finish()
    assert f"'{place}' was changed by somebody else" in said
    assert get(place) == theirs.to_pydict()
    assert get("rules.parquet") == NEW.slice(0, 1).to_pydict()
    assert champion(RUNS, "m") == SECOND


@pytest.mark.usefixtures("earlier")
def test_a_table_that_somebody_else_has_changed_after_it_appeared_too():
    cut_off("swapped", "s.t", append=True)
    theirs = pa.table({"a": [9], "cluster_id": pa.array([9], pa.int32())})
    publish([Output(locate("s.t"), theirs, append=True)])
    assert "changed by somebody else" in finish()
    assert get("s.t")["a"] == [3, 4, 5, 9]


@pytest.mark.usefixtures("earlier")
def test_a_locked_database_lets_it_wait(monkeypatch):
    put("s.t", OLD)
    cut_off("commit", "s.t")
    journal = (RUNS / "m" / JOURNAL).read_bytes()
    monkeypatch.setattr(duckdb_system, "RETRY_SECONDS", (0.01,))
    holder = CHILDREN.Process(target=exec, args=(HOLD, {"folder": str(Path.cwd())}))
    holder.start()
    while not Path("held").exists():
        assert holder.is_alive()
    with pytest.raises(
        SinkError, match=r"cannot be finished now: .* is locked by process"
    ) as error:
        finish()
    assert error.value.exit_code == 4
    assert JOURNAL in str(error.value)
    assert (RUNS / "m" / JOURNAL).read_bytes() == journal
    holder.kill()
    holder.join()
    finish()
    assert get("s.t") == NEW.to_pydict()


HOLD = """
import os, time, duckdb
os.chdir(folder)
connection = duckdb.connect("gpuseg.duckdb")
open("held", "w").close()
time.sleep(60)
"""


@pytest.mark.usefixtures("earlier")
def test_it_is_found_from_any_folder(tmp_path, monkeypatch):
    put("s.t", OLD)
    cut_off("commit", "s.t", "parts/")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    finish_publication(tmp_path / "runs", "m")
    assert list(Path().iterdir()) == []
    monkeypatch.chdir(tmp_path)
    assert get("s.t") == NEW.to_pydict()
    assert get("parts/") == NEW.slice(0, 1).to_pydict()


@pytest.mark.usefixtures("earlier")
def test_one_who_only_reads_finishes_it_too():
    put("t.parquet", OLD)
    assert heal(RUNS, "m") == ()
    assert unfinished(RUNS) == ()
    cut_off("swapped", "t.parquet")
    assert ["'m' was cut off" in said for said in unfinished(RUNS)] == [True]
    [said] = heal(RUNS, "m")
    assert re.match(rf"run {SECOND} was cut off .* finished now; t.parquet had appeared", said)
    assert champion(RUNS, "m") == SECOND


@pytest.mark.usefixtures("earlier")
def test_a_run_folder_that_is_gone_is_said():
    cut_off("swapped", "t.parquet")
    (RUNS / "m" / SECOND / "manifest.json").unlink()
    assert "its folder is gone" in finish()
    assert champion(RUNS, "m") == FIRST
    assert not (RUNS / "m" / JOURNAL).exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format_version": 99}', "\0"])
@pytest.mark.usefixtures("earlier")
def test_a_damaged_journal_is_said(text):
    (RUNS / "m" / JOURNAL).write_text(text)
    with pytest.raises(ModelError, match="is damaged"):
        finish()
    assert (RUNS / "m" / JOURNAL).read_text() == text


@pytest.mark.usefixtures("earlier")
def test_a_journal_leads_to_no_other_folder():
    """Somebody who can write there must not make us remove what is elsewhere."""
    Path("precious").mkdir()
    facts = {"format_version": 1, "run_id": "../../precious", "is_new": True, "items": []}
    (RUNS / "m" / JOURNAL).write_text(json.dumps(facts))
    with pytest.raises(ModelError):
        finish()
    assert Path("precious").is_dir()


@pytest.mark.usefixtures("earlier")
def test_a_run_without_tables_is_not_taken_back_once_it_is_current():
    cut_off("promoted")
    assert "when it was complete" in finish()
    assert champion(RUNS, "m") == SECOND
    assert (RUNS / "m" / SECOND).is_dir()


@pytest.mark.usefixtures("earlier")
def test_an_error_takes_everything_back():
    put("t.parquet", OLD)
    outputs = {"rows": Output(locate("t.parquet"), NEW), "rules": Output(locate("no/t.csv"), NEW)}
    with pytest.raises(Exception, match="no folder"):
        publish_run(RUNS, "m", SECOND, outputs)
    assert get("t.parquet") == OLD.to_pydict()
    assert (champion(RUNS, "m"), hidden()) == (FIRST, [])
    assert (RUNS / "m" / SECOND).is_dir()  # it was there before
    with pytest.raises(Exception, match="no folder"):
        publish_run(RUNS, "m", SECOND, outputs, complete=lambda: None)
    assert not (RUNS / "m" / SECOND).exists()


@pytest.mark.usefixtures("earlier")
def test_files_that_cannot_be_put_back_are_finished_later(monkeypatch):
    put("t.parquet", OLD)
    swap = staging.Swap.swap

    def swap_some(this):
        if this.target.name == "rules.parquet":
            raise OSError(28, "No space left on device")
        swap(this)

    def undo(_this):
        raise OSError(30, "Read-only file system")

    outputs = {
        "rows": Output(locate("t.parquet"), NEW),
        "rules": Output(locate("rules.parquet"), NEW.slice(0, 1)),
    }
    with monkeypatch.context() as patch:
        patch.setattr(staging.Swap, "swap", swap_some)
        patch.setattr(staging.Swap, "undo", undo)
        with pytest.raises(UnsureError, match="the next run of the model 'm' puts it right"):
            publish_run(RUNS, "m", SECOND, outputs)
    assert get("t.parquet") == NEW.to_pydict()
    finish()
    assert get("rules.parquet") == NEW.slice(0, 1).to_pydict()
    assert champion(RUNS, "m") == SECOND


# -- PostgreSQL --------------------------------------------------------------------------


@pytest.fixture
def warehouse(postgres_server):
    postgres_server.sql("DROP SCHEMA IF EXISTS s CASCADE")
    return postgres_server.url()


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("moment", ["staged", "commit", "swapped", "promoted"])
@pytest.mark.usefixtures("earlier")
def test_a_table_of_a_server_appears_once(warehouse, moment, append):
    put("s.t", OLD, warehouse=warehouse)
    cut_off(moment, "s.t", append=append, warehouse=warehouse)
    journal = (RUNS / "m" / JOURNAL).read_text()
    assert PASSWORD not in journal
    assert QUOTED_PASSWORD not in journal
    finish(warehouse=warehouse)
    begun = moment != "staged"
    expected = (BOTH if append else NEW) if begun else OLD
    assert get("s.t", warehouse=warehouse) == expected.to_pydict()
    assert champion(RUNS, "m") == (SECOND if begun else FIRST)


@pytest.mark.usefixtures("earlier")
def test_a_server_that_does_not_let_us_in_lets_it_wait(warehouse, monkeypatch):
    put("s.t", OLD, warehouse=warehouse)
    cut_off("commit", "s.t", warehouse=warehouse)
    with pytest.raises(Exception, match="cannot be finished now"):
        finish()  # the journal has no password
    assert (RUNS / "m" / JOURNAL).exists()
    assert get("s.t", warehouse=warehouse) == OLD.to_pydict()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    finish()
    assert get("s.t", warehouse=warehouse) == NEW.to_pydict()


@pytest.mark.usefixtures("earlier")
def test_a_server_table_that_somebody_else_has_changed_is_left_alone(warehouse, postgres_server):
    put("s.t", OLD, warehouse=warehouse)
    cut_off("commit", "s.t", warehouse=warehouse)
    postgres_server.sql("UPDATE s.t SET cluster_id = 7 WHERE a = 1")
    assert "changed by somebody else" in finish(warehouse=warehouse)
    assert get("s.t", warehouse=warehouse)["cluster_id"] == [7, 1]


@pytest.mark.usefixtures("earlier")
def test_who_may_only_add_rows_adds_them_once(warehouse, postgres_server):
    put("s.t", OLD, warehouse=warehouse)
    postgres_server.sql(
        "DROP ROLE IF EXISTS writer; CREATE ROLE writer LOGIN PASSWORD 'w'; "
        "GRANT USAGE, CREATE ON SCHEMA s TO writer; GRANT INSERT ON s.t TO writer"
    )
    theirs = postgres_server.url(user="writer", password="w")
    cut_off("swapped", "s.t", append=True, warehouse=theirs)
    assert "may have its new rows or not" in finish(warehouse=theirs)
    assert get("s.t", warehouse=warehouse) == BOTH.to_pydict()


@pytest.mark.usefixtures("earlier")
def test_a_server_that_is_lost_at_the_commit_is_asked_later(warehouse, monkeypatch):
    from gpuseg.tables import adbc_connection

    put("s.t", OLD, warehouse=warehouse)
    commit, calls = adbc_connection.Connection.commit, []

    def commit_and_lose(this):
        commit(this)
        calls.append(this)
        if len(calls) == 2:  # the first one is that of opening the connection
            raise adbc_connection.LostError("the server was lost")

    with monkeypatch.context() as patch:
        patch.setattr(adbc_connection.Connection, "commit", commit_and_lose)
        with pytest.raises(UnsureError, match="puts it right"):
            publish_run(
                RUNS, "m", SECOND,
                {"rows": Output(locate("s.t", warehouse=warehouse), NEW, append=True)},
                complete=lambda: None,
            )  # fmt: skip
    assert champion(RUNS, "m") == FIRST
    assert read_kept_table(RUNS / "m" / SECOND, ROWS).equals(NEW)
    finish(warehouse=warehouse)
    assert get("s.t", warehouse=warehouse) == BOTH.to_pydict()
    assert champion(RUNS, "m") == SECOND


def test_a_system_that_can_tell_nothing_appends_no_rows_twice(earlier, tmp_path):
    warehouse = f"adbc:adbc_driver_sqlite?uri={tmp_path / 'd.sqlite'}"
    put("main.t", OLD, warehouse=warehouse)
    cut_off("swapped", "main.t", append=True, warehouse=warehouse)
    assert "may have its new rows or not" in finish(warehouse=warehouse)
    assert get("main.t", warehouse=warehouse)["a"] == [1, 2, 3, 4, 5]


def test_duckdb_marks_see_values_types_and_names():
    from gpuseg.tables import mark

    seen = set()
    for sql in (
        "SELECT 1 a, 'x' b", "SELECT 2 a, 'x' b", "SELECT 1::BIGINT a, 'x' b", "SELECT 1 c, 'x' b",
        "SELECT NULL::INT a, 'x' b", "SELECT 1 a, 'x' b UNION ALL SELECT 1, 'x'",
    ):  # fmt: skip
        with duckdb.connect("gpuseg.duckdb") as connection:
            connection.execute(
                f"CREATE SCHEMA IF NOT EXISTS s; CREATE OR REPLACE TABLE s.t AS {sql}"
            )
        seen.add(mark(locate("s.t")))
    assert len(seen) == 6
    assert mark(locate("s.none")) == "nothing"


@pytest.mark.usefixtures("earlier")
def test_a_folder_that_never_got_its_name_goes_with_the_journal():
    partial = RUNS / "m" / f".{SECOND}.partial"
    (RUNS / "m" / SECOND).rename(partial)
    journal = {"format_version": 1, "run_id": SECOND, "is_new": True, "how": "run", "items": []}
    (RUNS / "m" / JOURNAL).write_text(json.dumps(journal))
    assert "taken back" in finish()
    assert hidden() == []
    assert champion(RUNS, "m") == FIRST
