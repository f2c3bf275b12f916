"""All outputs appear or none; a crash at any moment leaves the previous tables whole."""

import multiprocessing
import os
import random
import signal
import textwrap
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuseg.errors import DataError, GpusegError, SettingsError, SinkError, TableNotFoundError
from gpuseg.tables import (
    Output,
    check_output,
    files,
    locate,
    publish,
    publishing,
    read_table,
    staging,
)

OLD = pa.table({"a": [1, 2], "b": ["x", "y"]})
NEW = pa.table({"a": [3, 4, 5], "b": ["p", "q", "r"]})
FILES = ["t.parquet", "t.csv", "t.csv.gz", "t.tsv", "t.jsonl", "t.jsonl.gz", "t.arrow", "parts/"]
PLACES = [*FILES, "s.t"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(place, table, append=False):
    publish([Output(locate(place), table, append)])


def get(place):
    return read_table(locate(place)).arrow.to_pydict()


def hidden():
    return sorted(str(path) for path in Path().rglob(f"{staging.PREFIX}*"))


@pytest.mark.parametrize("place", PLACES)
def test_overwrite_and_append(place):
    put(place, OLD)
    assert get(place) == OLD.to_pydict()
    put(place, NEW.select(["b", "a"]), append=True)
    assert get(place) == pa.concat_tables([OLD, NEW]).to_pydict()
    put(place, NEW)
    assert get(place) == NEW.to_pydict()
    assert hidden() == []


@pytest.mark.parametrize("place", PLACES)
def test_append_makes_a_missing_table(place):
    put(place, OLD, append=True)
    assert get(place) == OLD.to_pydict()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "other", [{"a": [1]}, {"a": [1], "b": ["x"], "c": [1]}, {"a": ["one"], "b": ["x"]}]
)
def test_append_of_other_columns_is_refused(place, other):
    put(place, OLD)
    with pytest.raises(DataError, match="cannot append"):
        put(place, pa.table(other), append=True)
    # the kind of a column of text shows in its rows, which the early check has not got
    if "one" not in other["a"] or locate(place).format not in publishing.TEXT_FORMATS:
        with pytest.raises(DataError, match="cannot append"):
            check_output(locate(place), pa.table(other).schema, append=True)
    assert get(place) == OLD.to_pydict()


def test_text_is_appended_by_kind_of_value():
    put("t.csv", pa.table({"i": pa.array([1], pa.int64()), "n": [None], "t": ["x"]}))
    more = pa.table(
        {"i": pa.array([2], pa.int32()), "n": [0.5], "t": pa.array(["y"]).dictionary_encode()}
    )
    put("t.csv", more, append=True)
    assert get("t.csv") == {"i": [1, 2], "n": [None, 0.5], "t": ["x", "y"]}


@pytest.mark.parametrize("place", PLACES)
def test_the_input_may_be_the_output(place):
    put(place, OLD)
    rows = read_table(locate(place)).arrow
    put(place, rows.append_column("cluster_id", pa.array([0, 1], pa.int32())))
    assert get(place) == OLD.to_pydict() | {"cluster_id": [0, 1]}


# -- all or none -------------------------------------------------------------------------

TOGETHER = ["s.t", "t.parquet", "t.csv", "parts/", "s.u"]


def put_together(table):
    publish([Output(locate(place), table) for place in TOGETHER])


@pytest.mark.parametrize("moment", ["stage 3", "swap 0", "swap 1", "swap 2", "commit"])
@pytest.mark.parametrize("there_before", [True, False])
def test_an_error_takes_everything_back(monkeypatch, moment, there_before):
    if there_before:
        put_together(OLD)

    def fail(now):
        if now == moment:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "reached", fail)
        with pytest.raises(KeyboardInterrupt):
            put_together(NEW)
    for place in TOGETHER:
        if there_before:
            assert get(place) == OLD.to_pydict()
        else:
            with pytest.raises(TableNotFoundError):
                get(place)
    assert hidden() == []
    if not there_before:
        assert list(Path().iterdir()) == []


def test_a_commit_that_fails_takes_the_files_back(monkeypatch):
    put_together(OLD)

    class Broken:
        def __init__(self, inner):
            self.stage, self.close = inner.stage, inner.close

        def commit(self):
            raise SinkError("no")

    from gpuseg.tables import duckdb as system

    begin = system.begin
    with monkeypatch.context() as patch:
        patch.setattr(system, "begin", lambda path: Broken(begin(path)))
        with pytest.raises(SinkError):
            put_together(NEW)
    assert all(get(place) == OLD.to_pydict() for place in TOGETHER)


#: Children are forked from a process that has imported everything but used nothing.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["pyarrow.json", "gpuseg.tables.duckdb", "gpuseg.tables"])


def start(script, *arguments):
    """Run a script in a process that stands in this folder."""
    script = f"import os; os.chdir({str(Path.cwd())!r})\n{textwrap.dedent(script)}"
    child = CHILDREN.Process(target=exec, args=(script, {"arguments": arguments}))
    child.start()
    return child


def run(script, *arguments):
    """Run a script to its end and return its exit code."""
    child = start(script, *arguments)
    child.join()
    return child.exitcode


DIE = """
import os, signal
import pyarrow as pa
from gpuseg.tables import Output, locate, publish, publishing

def die(now):
    if now == arguments[0]:
        os.kill(os.getpid(), signal.SIGKILL)

publishing.reached = die
table = pa.table({"a": [3, 4, 5], "b": ["p", "q", "r"]})
publish([Output(locate(place), table) for place in arguments[1:]])
"""
MOMENTS = ["stage 0", "stage 2", "stage 4", "swap 0", "swap 1", "swap 2", "commit", "swapped"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_leaves_whole_tables(moment):
    put_together(OLD)
    assert run(DIE, moment, *TOGETHER) == -signal.SIGKILL
    old, new = OLD.to_pydict(), NEW.to_pydict()
    found = [get(place) for place in TOGETHER]
    assert all(table in (old, new) for table in found)
    if not moment.startswith(("swap", "commit")):
        assert all(table == old for table in found)
    if moment == "swapped":
        assert all(table == new for table in found)
    assert (hidden() == []) == (moment == "stage 0")
    with duckdb.connect("gpuseg.duckdb") as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
    assert tables == [("t",), ("u",)]
    # and the next one cleans up
    put("t.csv", OLD)
    assert hidden() == []


BUSY = """
import itertools
import pyarrow as pa
from gpuseg.tables import Output, locate, publish
for i in itertools.count():
    table = pa.table({"i": pa.array([i] * 200_000)})
    publish([Output(locate("s.t"), table), Output(locate("t.parquet"), table)])
    open("done", "w").close()
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_process_killed_at_any_time_leaves_whole_tables(seed):
    child = start(BUSY)
    while not Path("done").exists():
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 0.3))
    child.kill()
    child.join()
    for place in ("s.t", "t.parquet"):
        column = read_table(locate(place)).arrow["i"].to_numpy()
        assert len(column) == 200_000
        assert (column == column[0]).all()
    put("t.parquet", OLD)
    assert hidden() == []


def test_two_processes_do_not_disturb_each_other(monkeypatch):
    """While one is staging its tables, another publishes in the same folder."""
    inner = []

    def publish_meanwhile(now):
        if now == "stage 1" and not inner:  # from the end of staging on it would wait
            inner.append(run(DIE, "never", "u.csv"))

    monkeypatch.setattr(publishing, "reached", publish_meanwhile)
    publish([Output(locate("t.csv"), OLD), Output(locate("v.csv"), OLD)])
    assert inner == [0]
    assert get("t.csv") == OLD.to_pydict()
    assert get("u.csv") == NEW.to_pydict()
    assert hidden() == []


# -- places that cannot be written -------------------------------------------------------


def test_places_are_checked_before_anything_is_written():
    put("t.csv", OLD)
    missing = Output(locate("none/t.csv"), NEW)
    for outputs in (
        [Output(locate("t.csv"), NEW), missing],
        [Output(locate("t.csv"), NEW), Output(locate("./t.csv"), NEW)],
        [Output(locate("s.t"), NEW), Output(locate("S.T"), NEW)],
    ):
        with pytest.raises(SettingsError):
            publish(outputs)
    assert get("t.csv") == OLD.to_pydict()
    assert sorted(path.name for path in Path().iterdir()) == ["t.csv"]


@pytest.fixture
def as_nobody(tmp_path):
    """Act without root's rights; the folder stays root's."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith(str(Path(os.environ.get("TMPDIR", "/tmp")))) and folder != Path(
            "/tmp"
        ):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("place", ["t.csv", "t.parquet", "parts/", "s.t"])
def test_a_read_only_folder_is_refused(place, tmp_path, request):
    put(place, OLD)
    for path in (*tmp_path.rglob("*"), tmp_path):
        path.chmod(0o555)
    request.getfixturevalue("as_nobody")
    for attempt in (lambda: put(place, NEW), lambda: check_output(locate(place), NEW.schema)):
        with pytest.raises(SinkError, match=r"ermission"):
            attempt()
    assert get(place) == OLD.to_pydict()


FILL = """
import random, resource, sys
import pyarrow as pa
from gpuseg.errors import SinkError
from gpuseg.tables import Output, locate, publish
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
table = pa.table({"a": [random.random() for _ in range(50_000)], "b": ["x"] * 50_000})
try:
    publish([Output(locate(arguments[0]), table)])
except SinkError as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("place", ["t.csv", "t.csv.gz", "t.parquet", "t.arrow", "t.jsonl", "s.t"])
def test_a_full_disk_leaves_the_previous_file(place):
    put(place, OLD)
    assert run(FILL, place) == SinkError.exit_code
    assert get(place) == OLD.to_pydict()
    assert hidden() == []


def test_rows_that_do_not_arrive_are_noticed(monkeypatch):
    put("t.parquet", OLD)
    whole = files.write_parquet
    monkeypatch.setattr(files, "write_parquet", lambda path, table, **_: whole(path, table[:1]))
    with pytest.raises(SinkError, match="1 of 3 rows"):
        put("t.parquet", NEW)
    monkeypatch.undo()


def test_a_link_stays_a_link_and_rights_stay(tmp_path):
    Path("real").mkdir()
    put("real/t.csv", OLD)
    Path("real/t.csv").chmod(0o640)
    Path("t.csv").symlink_to("real/t.csv")
    put("t.csv", NEW)
    assert Path("t.csv").is_symlink()
    assert get("real/t.csv") == NEW.to_pydict()
    assert Path("real/t.csv").stat().st_mode & 0o777 == 0o640


# -- folders of parts --------------------------------------------------------------------


def test_a_folder_with_other_things_is_not_replaced():
    put("parts/", OLD)
    Path("parts/thesis.txt").write_text("years of work")
    for attempt in (lambda: put("parts/", NEW), lambda: check_output(locate("parts/"), NEW.schema)):
        with pytest.raises(SettingsError, match=r"thesis\.txt"):
            attempt()
    put("parts/", NEW, append=True)
    assert get("parts/")["a"] == [1, 2, 3, 4, 5]


def test_a_folder_of_folders_is_neither_read_nor_replaced():
    Path("home/sub").mkdir(parents=True)
    pq.write_table(OLD, "home/part.parquet")
    with pytest.raises(SettingsError, match="sub"):
        put("home", NEW)
    with pytest.raises(DataError, match="sub"):
        get("home")


def test_parts_are_read_by_name_without_hidden_ones():
    Path("parts").mkdir()
    pq.write_table(NEW, "parts/b.parquet")
    pq.write_table(OLD, "parts/a.parquet")
    for name in ("_SUCCESS", ".a.parquet.crc", "_metadata.parquet", ".hidden.parquet"):
        Path("parts", name).write_bytes(b"no Parquet")
    assert get("parts") == pa.concat_tables([OLD, NEW]).to_pydict()


@pytest.mark.parametrize(
    "other", [pa.table({"a": [1]}), pa.table({"a": [0.5], "b": ["x"]}), OLD.select(["b", "a"])]
)
def test_a_part_with_other_columns_is_named(other):
    Path("parts").mkdir()
    pq.write_table(OLD, "parts/a.parquet")
    pq.write_table(other, "parts/b.parquet")
    with pytest.raises(DataError, match=r"part 'b\.parquet'"):
        get("parts")


def test_every_error_has_an_exit_code():
    with pytest.raises(GpusegError) as caught:
        put("none/t.csv", OLD)
    assert caught.value.exit_code == 2
