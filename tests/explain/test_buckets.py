"""Buckets: round where that costs nothing, counted alike by DuckDB, beside fixed ones."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from explain.by_hand import numeric
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.errors import DataError, SettingsError
from gpuseg.explain.bucket_axes import DateAxis, NumberAxis
from gpuseg.explain.bucket_columns import suggest_buckets
from gpuseg.explain.buckets import METHODS, ROUNDING_COST, suggest
from gpuseg.features.settings import FeatureSettings
from gpuseg.records import Table

K_VALUES = range(2, 10)


def of(found, method):
    return next(b for b in found.bucketings if b.method == method)


def assert_duckdb_agrees(found, column):
    """The CASE expression and each condition count the rows that the buckets say."""
    name = column.column_names[0]
    assert name == found.column
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.register("original", column)
        for bucketing in found.bucketings:
            counted = dict(
                connection.execute(
                    f"SELECT {bucketing.sql} AS bucket, count(*) FROM original GROUP BY 1"
                ).fetchall()
            )
            expected = dict(zip(bucketing.labels, bucketing.n_rows, strict=True))
            assert len(expected) == len(bucketing.labels)  # no two buckets of one name
            expected = {label: n for label, n in expected.items() if n}
            if found.n_missing:
                expected[None] = found.n_missing
            assert counted == expected, bucketing
            for condition, n_rows in zip(bucketing.conditions, bucketing.n_rows, strict=True):
                query = f"SELECT count(*) FROM original WHERE {condition}"
                assert connection.execute(query).fetchall() == [(n_rows,)]


def suggested(column, **options):
    """Suggest buckets for an Arrow column, as the command does, and let DuckDB judge."""
    table = pa.table({"a 'b\" c": column})
    settings = FeatureSettings(columns=("a 'b\" c",), **options)
    (found,) = suggest_buckets(Table("t", table), settings, K_VALUES).columns
    assert_duckdb_agrees(found, table)
    assert [b.method for b in found.bucketings] == [m for m in METHODS if m != "segments"]
    return found


# -- numbers -----------------------------------------------------------------------------


def test_three_groups_come_back_with_round_cuts():
    rng = np.random.default_rng(0)
    age = np.concatenate([rng.normal(m, 2, 500) for m in (22, 41, 67)]).round().astype(int)
    found = suggested(pa.array(age))
    best = of(found, "k_means")
    assert best.cuts == (30.0, 50.0)
    assert best.labels == ("under 30", "30 to 49", "50 or more")
    assert best.silhouette == max(score.silhouette for score in found.k_scores)
    assert best.explained > of(found, "quantiles").explained - 1e-9
    assert best.sql.splitlines()[2].endswith("THEN '30 to 49'")


def test_rounding_costs_next_to_nothing():
    rng = np.random.default_rng(1)
    spend = rng.gamma(2, 100, 20_000)
    for n_buckets in (2, 4, 7):
        found = suggest(numeric("spend", spend), [n_buckets])
        best = of(found, "k_means")
        assert best.explained >= found.k_scores[0].explained - ROUNDING_COST * n_buckets
        assert all(len(f"{cut:g}".strip("0.")) <= 2 for cut in best.cuts)


def test_a_heavy_tail_is_cut_on_a_logarithmic_scale_unless_told_otherwise():
    rng = np.random.default_rng(2)
    spend = pa.array(rng.lognormal(6, 1.5, 3000))
    found = suggested(spend)
    assert found.axis.log_unit == pytest.approx(np.exp(6), rel=0.1)
    assert min(of(found, "k_means").n_rows) > 500
    assert of(found, "round").cuts == (10.0, 100.0, 1000.0, 10000.0)
    plain = suggested(spend, transform="none")
    assert plain.axis.log_unit is None
    assert min(of(plain, "k_means").n_rows) < 100


def test_empty_fixed_buckets_are_shown_and_cost_nothing():
    values = pa.array([0.0] * 50 + [1.0] * 50 + [1000.0])
    found = suggested(values, transform="none")
    assert suggest(numeric("x", values), [6]).k_scores[0].n_buckets == 3  # as many as values
    assert [score.n_buckets for score in found.k_scores] == [2]  # three would group nothing
    column = numeric("x", np.r_[np.zeros(50), np.ones(50), 10, 11, 12, 1000])
    even = of(suggest(column, [4]), "equal_width")
    assert even.n_rows == (103, 0, 0, 1)
    assert 0 < even.explained < 1
    assert of(found, "k_means").labels[0] in ("under 1", "under 0.5", "under 1000")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 2] * 20, ("under 2", "2 or more")),
        ([-0.0, 0.0, 0.25, None] * 9, ("under 0.1", "0.1 or more")),
        ([10**15 + 1, 10**15 + 2, None] * 9, None),
        ([-5e-9, 5e-9, 7e-9, 8e-9] * 9, None),
        ([1e-300, 1e300, -1e300] * 9, None),
        ([float("nan"), 1.0, 2.5, float("inf")] * 9, None),
    ],
)
def test_odd_numbers(values, labels):
    found = suggested(pa.array(values))
    if labels:
        assert of(found, "k_means").labels == labels


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(12, 2)])
def test_types_of_numbers(kind):
    values = pa.array([0, 1, 1, 2, 50, 51, 52, 99, 100, None], type=pa.int16()).cast(kind)
    assert of(suggested(values), "k_means").n_rows == (4, 3, 2)


def test_texts_that_hold_numbers():
    found = suggested(pa.array(["1,5", "2,5", "?", "80,25", "81", " 82,75"] * 5))
    assert of(found, "k_means").n_rows == (10, 15)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(-9, 9), st.floats(-1e6, 1e6), st.none()), min_size=3, max_size=40
    )
)
def test_any_numbers_are_counted_alike(values):
    known = {float(v) for v in values if v is not None}
    if len(known) < 2:
        return
    array = pa.array(values, type=pa.float64())
    found = suggest(numeric("x", np.array(array.to_pandas())), K_VALUES)
    assert_duckdb_agrees(found, pa.table({"x": array}))
    for bucketing in found.bucketings:
        assert list(bucketing.cuts) == sorted(set(bucketing.cuts))
        assert sum(bucketing.n_rows) == sum(v is not None for v in values)


def test_does_not_depend_on_the_order_of_the_rows():
    values = np.random.default_rng(4).lognormal(3, 1, 3000)
    labels = (values > 30).astype(np.int32)
    order = np.random.default_rng(5).permutation(3000)
    found = suggest(numeric("x", values), K_VALUES, labels=labels)
    moved = suggest(numeric("x", values[order]), K_VALUES, labels=labels[order])
    assert moved.bucketings == found.bucketings
    assert moved.k_scores == found.k_scores


# -- dates -------------------------------------------------------------------------------


def test_dates_are_cut_at_months_before_the_latest_day():
    latest = date(2014, 3, 31)
    ago = [*range(40), *range(330, 420), *range(900, 960)]
    found = suggested(pa.array([latest - timedelta(days=d) for d in ago] * 3))
    best = of(found, "k_means")
    assert best.labels == (
        "under 6 months ago",
        "6 to under 24 months ago",
        "24 months or more ago",
    )
    assert "DATE '2014-03-31' - INTERVAL 6 MONTH" in best.sql
    assert best.n_rows == (120, 270, 180)


def test_near_dates_are_cut_at_days():
    days = [date(2024, 2, 28) - timedelta(days=d) for d in [*range(9), *range(30, 41)]]
    found = suggested(pa.array(days))
    assert of(found, "k_means").labels == ("under 20 days ago", "20 days or more ago")


def test_moments_count_by_their_day():
    rng = np.random.default_rng(3)
    moments = [
        datetime(2020, 5, 31, 23, 59) - timedelta(days=int(d), hours=int(h))
        for d, h in zip(rng.integers(0, 900, 400), rng.integers(0, 24, 400), strict=True)
    ]
    for kind in (pa.timestamp("us"), pa.timestamp("ns", tz="Asia/Tokyo")):
        found = suggested(pa.array([*moments, None], type=kind))
        assert found.n_missing == 1
        assert len(of(found, "round").cuts) == 9


@given(st.dates(date(1900, 1, 1), date(2100, 12, 31)), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_months_ago_are_those_of_duckdb(reference, months):
    axis = DateAxis("day", reference)
    with duckdb.connect() as connection:
        [(then,)] = connection.execute(
            f"SELECT CAST(DATE '{reference}' - INTERVAL {months} MONTH AS DATE)"
        ).fetchall()
    days = float((reference - then).days)
    assert axis.text(days).endswith(("month", "months"))
    assert axis.from_sql(days).endswith("MONTH")
    assert axis.cut_between(days - 1, days) == days


# -- segments ----------------------------------------------------------------------------


def test_cuts_for_the_segments_are_others_than_those_of_the_column():
    rng = np.random.default_rng(6)
    age = np.concatenate([rng.normal(25, 3, 3000), rng.normal(60, 3, 3000)]).round()
    labels = np.select([age < 22, age < 60], [0, 1], 2).astype(np.int32)
    found = suggest(numeric("age", age), K_VALUES, labels=labels)
    own, for_segments = of(found, "k_means"), of(found, "segments")
    assert own.cuts == (40.0,)
    assert for_segments.cuts == (22.0, 60.0)
    assert for_segments.separation == pytest.approx(1.0)
    assert own.separation < 0.7
    assert own.explained > 0.9
    assert_duckdb_agrees(found, pa.table({"age": age}))


def test_a_column_that_says_nothing_gets_few_buckets():
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, 5000).astype(np.int32)
    found = suggest(numeric("noise", rng.random(5000)), K_VALUES, labels=labels)
    assert len(of(found, "segments").labels) == 2
    assert of(found, "segments").separation < 0.01


# -- the table ---------------------------------------------------------------------------


def some_table():
    rng = np.random.default_rng(8)
    return Table(
        "shop",
        pa.table(
            {
                "customer_id": [f"C{i}" for i in range(200)],
                "age": rng.integers(18, 80, 200),
                "city": rng.choice(["Rome", "Oslo"], 200),
                "is_member": rng.integers(0, 2, 200),
                "same": [1] * 200,
                "AGE2": rng.random(200),
                "age2": rng.random(200),
            }
        ),
    )


def test_all_columns_of_numbers_are_cut_by_default():
    found = suggest_buckets(some_table(), FeatureSettings(), K_VALUES)
    assert [c.column for c in found.columns] == ["age", "AGE2", "age2"]
    # SQL cannot tell the two apart, so there is none
    assert [c.bucketings[0].sql is None for c in found.columns] == [False, True, True]


def test_named_columns_are_cut_and_what_cannot_be_is_said():
    wishes = FeatureSettings(columns=("is_member", "city", "same"))
    found = suggest_buckets(some_table(), wishes, K_VALUES)
    assert [c.column for c in found.columns] == ["is_member"]
    assert found.columns[0].bucketings[0].labels == ("under 1", "1 or more")
    assert len(found.warnings) == 2
    assert "'same' was asked for but is not used" in found.warnings[0]
    assert "'city' was asked for but holds categories" in found.warnings[1]
    with pytest.raises(DataError, match="no column of shop can be cut"):
        suggest_buckets(some_table(), FeatureSettings(columns=("city",)), K_VALUES)
    with pytest.raises(SettingsError, match="did you mean 'age'"):
        suggest_buckets(some_table(), FeatureSettings(columns=("agee",)), K_VALUES)


def test_labels_of_whole_and_other_numbers():
    assert NumberAxis("x", True).label(30.0, 45.0) == "30 to 44"
    assert NumberAxis("x", True).label(30.0, 31.0) == "30"
    assert NumberAxis("x", False).label(30.0, 45.0) == "30 to under 45"
    assert NumberAxis("x", True).label(None, None) == "any"
