"""Who went where, against counting with plain loops."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.change import EarlierPlaces
from gpuseg.nightly.migration import (
    churn,
    migration_table,
    movements_table,
)
from gpuseg.outputs.change_facts import MIGRATION_SCHEMA

NIGHT = datetime(2026, 11, 27, 3, 0, 7, 250_000, tzinfo=UTC)
BEFORE = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)

PAIRS = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 5)), min_size=1, max_size=60)
GONE = st.dictionaries(st.integers(0, 4), st.integers(0, 9), max_size=3)


def places(ids, gone=None, since=None, matched_by="rowid"):
    return EarlierPlaces("20261126T030000Z-000000", "2026-11-26T03:00:00Z", matched_by,
                         np.array(ids, dtype=np.int32), since, gone or {})  # fmt: skip


@given(PAIRS, GONE)
@settings(deadline=None)  # the first call loads what later ones find loaded
def test_every_row_is_counted_once_and_shares_are_of_their_segments(pairs, gone):
    before, now = zip(*pairs, strict=True)
    found = migration_table(places(before, gone), np.array(now, dtype=np.int32))
    assert found.schema == MIGRATION_SCHEMA
    counted = Counter((None if was < 0 else was, is_now) for was, is_now in pairs)
    counted |= {(was, None): n for was, n in gone.items() if n}
    rows = found.to_pylist()
    assert {(r["previous_cluster_id"], r["cluster_id"]): r["n_rows"] for r in rows} == counted
    known = [r for r in rows if None not in (r["previous_cluster_id"], r["cluster_id"])]
    for segment in {r["previous_cluster_id"] for r in known}:
        own = [r["share_of_previous"] for r in known if r["previous_cluster_id"] == segment]
        assert sum(own) == pytest.approx(1)
    for segment in {r["cluster_id"] for r in known}:
        own = [r["share_of_current"] for r in known if r["cluster_id"] == segment]
        assert sum(own) == pytest.approx(1)
    for row in rows:  # who came or went is in no share
        shares = {row["share_of_previous"], row["share_of_current"]}
        assert (shares == {None}) == (row not in known)


@given(PAIRS)
def test_churn_is_the_share_of_known_rows_that_moved(pairs):
    before, now = zip(*pairs, strict=True)
    known = [(was, is_now) for was, is_now in pairs if was >= 0]
    moved = sum(1 for was, is_now in known if was != is_now)
    expected = moved / len(known) if known else math.nan
    found = churn(places(before), np.array(now, dtype=np.int32))
    assert found == pytest.approx(expected, nan_ok=True)


def rows_of(n):
    return pa.table({"id": [f"u{i}" for i in range(n)], "x": list(range(n))})


def test_the_first_run_notes_where_everyone_is():
    found = movements_table(rows_of(2), "id", np.array([1, 0], dtype=np.int32), None, NIGHT)
    came = datetime(2026, 11, 27, 3, 0, 7, tzinfo=UTC)
    assert found.to_pylist() == [
        {"id": "u0", "cluster_id": 1, "previous_cluster_id": None, "changed": came},
        {"id": "u1", "cluster_id": 0, "previous_cluster_id": None, "changed": came},
    ]


def test_the_date_goes_on_where_a_row_stayed_and_is_today_where_it_moved_or_came():
    since = np.array([BEFORE.replace(tzinfo=None)] * 3 + ["NaT"], dtype="datetime64[s]")
    found = movements_table(
        rows_of(4), "id", np.array([2, 1, 0, 3], dtype=np.int32),
        places([2, 0, -1, 3], since=since), NIGHT,
    )  # fmt: skip
    tonight = NIGHT.replace(microsecond=0)
    assert found.column("previous_cluster_id").to_pylist() == [2, 0, None, 3]
    assert found.column("changed").to_pylist() == [BEFORE, tonight, tonight, None]


def test_by_model_the_date_of_those_who_stayed_is_not_known():
    ids = np.array([0, 1], dtype=np.int32)
    found = movements_table(rows_of(2), "id", ids, places([0, 0], matched_by="model"), NIGHT)
    assert found.column("changed").to_pylist() == [None, NIGHT.replace(microsecond=0)]


def test_the_row_id_keeps_its_name_and_type():
    table = pa.table({"Customer No": pa.array([7, 8], pa.uint16())})
    found = movements_table(table, "Customer No", np.array([0, 0], np.int32), None, NIGHT)
    assert found.schema.names == ["Customer No", "cluster_id", "previous_cluster_id", "changed"]
    assert found.schema.field("Customer No").type == pa.uint16()
    assert str(found.schema.field("changed").type) == "timestamp[s, tz=UTC]"
