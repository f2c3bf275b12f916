"""Arrays and tables in memory while there is place, then in files that leave nothing behind."""

from __future__ import annotations

import contextvars
import gc
import signal
import subprocess
import sys
import threading
from collections import namedtuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.errors import SettingsError, SinkError
from gpuseg.memory import Room, room, working_within
from gpuseg.memory import scratch as scratch_files
from gpuseg.tables.spool import collected, kept

BUDGET = 4_000_000  # a quarter, for arrays, is a million bytes


@pytest.fixture
def small(monkeypatch):
    """Rooms that are smaller than what a run needs in any case."""
    # `gpuseg.memory.room` is the function by that name
    monkeypatch.setattr(sys.modules["gpuseg.memory.room"], "NEEDED_BYTES", 0)


def is_mapped(array: np.ndarray) -> bool:
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base is not None


@pytest.mark.usefixtures("small")
def test_arrays_stay_in_memory_until_a_quarter_of_the_budget_is_used(tmp_path):
    here = Room(BUDGET, tmp_path)
    first, second = here.empty((1000, 100), np.float32), here.empty(100_000, np.int64)
    assert not is_mapped(first)
    assert is_mapped(second)
    assert (second.shape, second.dtype, second.flags.c_contiguous) == ((100_000,), np.int64, True)
    del first
    gc.collect()
    assert not is_mapped(here.empty(100_000, np.int64))


@pytest.mark.usefixtures("small")
def test_a_view_keeps_its_place_taken(tmp_path):
    here = Room(BUDGET, tmp_path)
    view = here.empty(100_000, np.int64)[5:]
    gc.collect()
    assert is_mapped(here.empty(100_000, np.int64))
    view[:] = 1


@pytest.mark.parametrize(("gibibytes", "mebibytes"), [(1, 62), (1.5, 318), (2, 512), (8, 2048)])
def test_of_a_small_budget_less_is_for_holding_things(tmp_path, gibibytes, mebibytes):
    here = Room(int(gibibytes * 2**30), tmp_path)
    assert here.holds_table(mebibytes * 2**20)
    assert not here.holds_table((mebibytes + 1) * 2**20)
    kept = here.empty(mebibytes * 2**20, np.uint8)
    assert not is_mapped(kept)
    assert is_mapped(here.empty(2**20, np.uint8))


def test_without_a_limit_nothing_goes_to_files():
    assert not is_mapped(room().empty(10**7, np.uint8))
    assert room().column_rows() is None


def test_the_room_around_holds_for_work_inside():
    with working_within("2GiB") as outer, working_within("4GiB") as inner:
        assert outer is inner is room()
        assert room().budget_bytes == 2**31
    assert room().budget_bytes is None


def test_a_size_that_is_none_is_refused_before_any_work():
    with pytest.raises(SettingsError, match="8GiB"), working_within("lots"):
        pytest.fail("the work began")


def test_threads_of_other_runs_have_rooms_of_their_own():
    seen = []
    with working_within("2GiB"):
        thread = threading.Thread(
            target=contextvars.Context().run, args=(lambda: seen.append(room().budget_bytes),)
        )
        thread.start()
        thread.join()
    assert seen == [None]


def test_files_have_no_name_from_the_first_moment(tmp_path):
    array = Room(1000, tmp_path).empty(10**6, np.uint8)
    array[:] = 7
    assert list(tmp_path.iterdir()) == []
    assert int(array.sum()) == 7 * 10**6


def test_a_killed_process_leaves_nothing(tmp_path):
    code = (
        "import sys, time, numpy as np; from pathlib import Path; from gpuseg.memory import Room\n"
        f"array = Room(1000, Path({str(tmp_path)!r})).empty(50_000_000, np.uint8); array[:] = 1\n"
        "print('there', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_said_with_numbers(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(2**40, 2**40 - 2**29, 2**29)
    monkeypatch.setattr(scratch_files.shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(SinkError, match=r"256 MiB free for scratch files, 381 MiB.*GPUSEG_SCRATCH"):
        Room(1000, tmp_path).empty(400_000_000, np.uint8)


def test_a_scratch_folder_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUSEG_SCRATCH", str(tmp_path / "nowhere"))
    with pytest.raises(SinkError, match="no folder"):
        Room(1000).empty(10**6, np.uint8)


def test_the_folder_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUSEG_SCRATCH", str(tmp_path))
    assert Room(1000).folder == tmp_path


GROWING = """
import re, sys, time
from pathlib import Path
import numpy as np
from gpuseg.memory import Room
def now(name):
    facts = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+)", facts)[1]) / 1024
base = now("VmRSS")
room = Room(int((base + 150) / 0.75 * 2**20), Path(sys.argv[1]))
with room.pager.at_work():
    room._in_memory = 2**60  # all goes to files
    blocks = []
    for number in range(40):
        block = room.empty(20 * 2**20, np.uint8)
        block[:] = number
        blocks.append(block)
        time.sleep(0.06)
    most = now("VmHWM")
    intact = all((block == number).all() for number, block in enumerate(blocks))
print(base, most, intact)
"""


def test_resident_memory_stays_within_the_budget_and_data_intact(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", GROWING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    base, most, intact = ran.stdout.split()
    assert intact == "True"
    assert float(most) < float(base) + 400  # of 800 MiB that were written


# -- tables ---------------------------------------------------------------------------------


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.text(max_size=5),
            st.none() | st.floats(),
        ),
        min_size=1,
        max_size=60,
    ),
    batch_rows=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None)
def test_a_table_in_a_file_is_the_table(tmp_path_factory, rows, batch_rows):
    types = [pa.int64(), pa.string(), pa.float64()]
    columns = [
        pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), types, strict=True)
    ]
    columns.append(columns[1].dictionary_encode())
    table = pa.table(columns, names=list("abcd"))
    folder = tmp_path_factory.mktemp("scratch")
    with working_within(None, of=Room(1, folder)) as here:
        found = collected(table.to_batches(batch_rows), table.schema)
    assert here.in_files_bytes > 0
    assert found.schema.equals(table.schema, check_metadata=True)
    assert str(found.to_pylist()) == str(table.to_pylist())


def test_batches_may_bring_dictionaries_of_their_own(tmp_path):
    batches = [
        pa.record_batch([pa.array(values).dictionary_encode()], names=["a"])
        for values in (["x", "y"], ["z", "x"])
    ]
    with working_within(None, of=Room(1, tmp_path)):
        found = collected(batches, batches[0].schema)
    assert found["a"].to_pylist() == ["x", "y", "z", "x"]


@pytest.mark.usefixtures("small")
def test_a_small_table_stays_in_memory(tmp_path):
    batch = pa.record_batch([pa.array([1, 2])], names=["a"])
    with working_within(None, of=Room(10**6, tmp_path)) as here:
        assert collected([batch], batch.schema)["a"].to_pylist() == [1, 2]
        assert here.in_files_bytes == 0


def test_a_column_that_was_made_anew_may_go_to_a_file_too(tmp_path):
    column = pa.chunked_array([pa.array(range(1000)), pa.array([None, 5])])
    with working_within(None, of=Room(1000, tmp_path)) as here:
        assert kept(column, of=3).equals(column)
        assert here.in_files_bytes > 8000
