"""Where rows were before: by row ids of any kind, by the earlier model, or not to be told."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpuseg
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.nightly.earlier import earlier_places
from gpuseg.records import Table
from gpuseg.settings import resolve

RUN = "20261123T223000Z-4f2a9c"


@pytest.fixture(scope="module")
def segmented():
    """Three clear groups of 20, 10 and 5 rows, and the model that found them."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [20, 10, 5])
    X = rng.normal(np.array([[0, 0], [20, 0], [0, 20]])[group], 1.0)
    result = gpuseg.segment(pa.table({"a": X[:, 0], "b": X[:, 1]}), num_clusters=3)
    return result, replace(
        result.model, name="m", run_id=RUN, cluster_ids=(2, 5, 9), next_cluster_id=12
    )


@pytest.fixture
def kept(tmp_path):
    """Return what writes a table into the folder of the earlier run."""

    def write(name, table):
        folder = tmp_path / "m" / RUN / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"{name}.parquet")
        return folder / f"{name}.parquet"

    return write


def look(tmp_path, model, table, rowid_column="id"):
    settings = resolve({"runs_dir": str(tmp_path), "rowid_column": rowid_column})
    return earlier_places(settings, NumPyBackend(), Table("t", table), model)


def test_rows_are_found_by_their_ids_wherever_they_stand(tmp_path, segmented, kept):
    kept("rows", pa.table({"id": [1, 2, 3, 4, 5], "cluster_id": [2, 5, 9, 2, 9]}))
    today = pa.table({"id": pa.array([7, 3, 1, 4], pa.int16())})
    places, _, warnings = look(tmp_path, segmented[1], today)
    assert warnings == ()
    assert places.matched_by == "rowid"
    assert (places.run_id, places.created) == (RUN, segmented[1].created)
    assert places.cluster_ids.tolist() == [-1, 9, 2, 2]
    assert places.cluster_ids.dtype == np.int32
    assert places.since is None
    assert places.gone == {5: 1, 9: 1}


def test_movements_say_since_when(tmp_path, segmented, kept):
    kept("rows", pa.table({"id": ["x"], "cluster_id": [2]}))
    changed = pa.array([datetime(2026, 11, 3, 1), None], pa.timestamp("us", "UTC"))
    kept("movements", pa.table({
        "id": ["x", "y"], "cluster_id": [9, 5], "previous_cluster_id": [2, None],
        "changed": changed,
    }))  # fmt: skip
    places, *_ = look(tmp_path, segmented[1], pa.table({"id": ["y", "x", "z"]}))
    assert places.cluster_ids.tolist() == [5, 9, -1]
    assert np.isnat(places.since).tolist() == [True, False, True]
    assert places.since[1] == np.datetime64("2026-11-03T01:00:00", "s")


@pytest.mark.parametrize(
    ("before", "today"),
    [
        (["a", "b", "c"], ["c", "a", "b"]),
        ([1, 2, 3], ["3", "1", "2"]),
        (["1", "2", "3"], [3, 1, 2]),
        (pa.array([1, 2, 3], pa.uint64()), pa.array([3, 1, 2], pa.int8())),
        (pa.array([2**64 - 1, 2, 3], pa.uint64()), pa.array([3, 2**64 - 1, 2], pa.uint64())),
        ([1.5, 2.5, 3.5], [3.5, 1.5, 2.5]),
        ([1, 2, 3], [3.0, 1.0, 2.0]),
        ([1.0, 2.0, 3.0], ["3", "1", "2"]),
        ([-1.0, 0.0, 2.5], ["2.5", "-1", "0"]),
        (pa.array([1, 2, 3], pa.float32()), [3.0, 1.0, 2.0]),
        (pa.array([0.1, 2, 2**24 - 1], pa.float32()), ["16777215", "0.1", "2"]),
        (pa.array(np.array([1, 2, 3], np.float16)), pa.array([3, 1, 2], pa.int8())),
        ([2**53 - 1, 1e300, 3.0], [3.0, 2.0**53 - 1, 1e300]),
        ([b"\xff", b"b", b"c"], [b"c", b"\xff", b"b"]),
        ([date(2026, 1, n) for n in (1, 2, 3)], [date(2026, 1, n) for n in (3, 1, 2)]),
        ([Decimal("1.10"), Decimal("2.20"), Decimal("3.30")],
         [Decimal("3.30"), Decimal("1.10"), Decimal("2.20")]),
        (pa.array(["a", "b", "c"]).dictionary_encode(), ["c", "a", "b"]),
        (["a", "b", "c"], pa.array(["c", "a", "b"]).dictionary_encode()),
        ([[1], [2, 3], [4]], [[4], [1], [2, 3]]),
    ],
)  # fmt: skip
def test_ids_may_be_of_any_type(tmp_path, segmented, kept, before, today):
    kept("rows", pa.table({"id": before, "cluster_id": [2, 5, 9]}))
    places, _, warnings = look(tmp_path, segmented[1], pa.table({"id": today}))
    assert warnings == ()
    assert places.cluster_ids.tolist() == [9, 2, 5]
    assert places.gone == {}


def test_an_id_that_is_missing_makes_floats_of_the_others_and_recognises_nobody(
    tmp_path, segmented, kept
):
    kept("rows", pa.table({"id": [1000, 1001, 1002], "cluster_id": [2, 5, 9]}))
    today = pa.table({"id": pa.array([1002.0, np.nan, 1000.0, None])})
    places, _, (warning,) = look(tmp_path, segmented[1], today)
    assert places.matched_by == "rowid"
    assert places.cluster_ids.tolist() == [9, -1, 2, -1]
    assert "of today's rows 2, of the earlier ones 0" in warning


@pytest.mark.parametrize(("kind", "number"), [(pa.float64(), 2**53), (pa.float32(), 2**24)])
def test_a_float_that_may_be_another_whole_number_is_equal_to_none(
    tmp_path, segmented, kept, kind, number
):
    kept("rows", pa.table({"id": [number, number - 1], "cluster_id": [2, 5]}))
    rounded = pa.array(np.array([number + 1, number - 1]).astype(kind.to_pandas_dtype()))
    places, *_ = look(tmp_path, segmented[1], pa.table({"id": rounded}))
    assert places.cluster_ids.tolist() == [-1, 5]


def test_ids_that_are_not_one_rows_own_recognise_nobody(tmp_path, segmented, kept):
    kept("rows", pa.table({"id": ["a", "b", "b", None, "d"], "cluster_id": [2, 5, 9, 5, 9]}))
    today = pa.table({"id": ["a", "a", "b", "d", None, "e"]})
    places, _, (warning,) = look(tmp_path, segmented[1], today)
    assert places.cluster_ids.tolist() == [-1, -1, -1, 9, -1, -1]
    assert "of today's rows 3, of the earlier ones 3" in warning
    assert "'id'" in warning
    assert places.gone == {2: 1}  # no row of today is surely a


def test_too_few_known_rows_are_placed_by_the_model(tmp_path, segmented, kept):
    result, model = segmented
    kept("rows", pa.table({"id": [1, 2], "cluster_id": [2, 5]}))
    rows = result.table.select(["a", "b"]).append_column("id", pa.array(range(2, 37)))
    places, _, (warning,) = look(tmp_path, model, rows)
    assert "only 1 of 35 values of 'id' are known" in warning
    assert places.matched_by == "model"
    assert places.cluster_ids.tolist() == [[2, 5, 9][c] for c in result.labels]
    assert places.gone == {}
    assert places.since is None


@pytest.mark.parametrize("damage", ["missing", "other columns", "cut off", "no numbers"])
def test_a_run_that_kept_no_ids_leaves_it_to_its_model(tmp_path, segmented, kept, damage):
    result, model = segmented
    if damage == "other columns":
        kept("rows", pa.table({"name": [1], "cluster_id": [2]}))
    if damage == "cut off":
        path = kept("movements", pa.table({"id": [1], "cluster_id": [2]}))
        path.write_bytes(path.read_bytes()[:-9])
    if damage == "no numbers":
        kept("rows", pa.table({"id": [1], "cluster_id": ["two"]}))
    rows = result.table.select(["a", "b"]).append_column("id", pa.array(range(35)))
    places, _, warnings = look(tmp_path, model, rows)
    assert places.matched_by == "model"
    assert "its run kept no row ids" in warnings[-1]
    assert len(warnings) == 1 + (damage in ("cut off", "no numbers"))


def test_a_damaged_table_does_not_hide_a_sound_one(tmp_path, segmented, kept):
    kept("movements", pa.table({"id": [1], "cluster_id": [2]})).write_bytes(b"PAR1")
    kept("rows", pa.table({"id": [1], "cluster_id": [5]}))
    places, _, (warning,) = look(tmp_path, segmented[1], pa.table({"id": [1]}))
    assert places.cluster_ids.tolist() == [5]
    assert "'movements.parquet' of the earlier run cannot be read" in warning


def test_ids_that_the_model_never_gave_are_unknown(tmp_path, segmented, kept):
    kept("rows", pa.table({"id": [1, 2, 3], "cluster_id": [2, 4, None]}))
    places, *_ = look(tmp_path, segmented[1], pa.table({"id": [1, 2, 3]}))
    assert places.cluster_ids.tolist() == [2, -1, -1]


def test_without_a_row_id_the_model_places_all_rows(tmp_path, segmented):
    result, model = segmented
    order = np.random.default_rng(1).permutation(35)
    places, _, warnings = look(tmp_path, model, result.table.select(["b", "a"]).take(order), None)
    assert warnings == ()
    assert places.cluster_ids.tolist() == [[2, 5, 9][c] for c in result.labels[order]]


def test_rows_that_are_far_from_every_segment_are_not_typical(tmp_path, segmented):
    result, model = segmented
    far = pa.table({"a": [90.0, 0.0], "b": [90.0, 0.0]})
    rows = pa.concat_tables([result.table.select(["a", "b"]), far])
    places, typical, _ = look(tmp_path, model, rows, None)
    assert places.cluster_ids[-2] in (5, 9)
    assert typical.cluster_ids[-2:].tolist() == [-1, 2]
    # of each segment the farthest row is beyond what 99 % reach, and not counted either
    assert (typical.cluster_ids[:-2] == -1).sum() == 3
    differ = typical.cluster_ids != places.cluster_ids
    assert (typical.cluster_ids[differ] == -1).all()
    old = replace(model, reach=())
    assert (look(tmp_path, old, rows, None).typical.cluster_ids == places.cluster_ids).all()


def test_a_table_that_the_model_cannot_place_continues_nothing(tmp_path, segmented):
    places, _, (warning,) = look(tmp_path, segmented[1], pa.table({"a": [1.0, 2.0]}), None)
    assert places is None
    assert "all ids are new" in warning
    assert "'b'" in warning
