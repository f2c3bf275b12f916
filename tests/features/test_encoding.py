"""Small tables whose encoding can be computed by hand."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from sklearn.preprocessing import StandardScaler

from gpuseg.features import FeatureSettings, prepare

PLAIN = {"transform": "none", "scaling": "standard"}


def in_table_order(matrix):
    rows = np.empty_like(matrix.encoded)
    rows[matrix.order] = matrix.encoded
    return rows


def test_plain_preparation_is_the_textbook_one(backend, mall):
    columns = ("Annual Income (k$)", "Spending Score (1-100)")
    matrix = prepare(backend, mall, FeatureSettings(columns=columns, **PLAIN))
    raw = np.column_stack([mall.arrow.column(name).to_numpy() for name in columns])
    expected = StandardScaler().fit_transform(raw.astype(np.float64)).astype(np.float32)
    assert matrix.columns == columns
    np.testing.assert_array_equal(in_table_order(matrix), expected)


def test_gaps_take_the_median(prepared):
    matrix = prepared({"a": [1.0, 2.0, None, 9.0, float("nan")], "b": [5, 6, 7, 8, 8]}, **PLAIN)
    filled = np.array([1.0, 2.0, 2.0, 9.0, 2.0])
    np.testing.assert_allclose(
        in_table_order(matrix)[:, 0], (filled - filled.mean()) / filled.std(), rtol=1e-6
    )


def test_robust_scaling(prepared):
    values = np.array([0.0, 1.0, 2.0, 3.0, 1000.0])
    matrix = prepared({"a": values}, transform="none", scaling="robust")
    np.testing.assert_allclose(in_table_order(matrix)[:, 0], (values - 2) / (2 / 1.349), rtol=1e-6)
    # no distance between the quartiles: as if standard
    mostly = np.array([0.0] * 9 + [10.0])
    matrix = prepared({"a": mostly}, transform="none", scaling="robust")
    np.testing.assert_allclose(in_table_order(matrix)[:, 0], (mostly - 1) / 3, rtol=1e-6)


def test_no_scaling(prepared):
    matrix = prepared({"a": [1, 2, 30], "b": ["x", "x", "y"]}, scaling="none", transform="none")
    assert matrix.encoded_names == ("a", "b = x")
    np.testing.assert_array_equal(in_table_order(matrix), [[1, 1], [2, 1], [30, 0]])


def test_heavy_tails_go_on_a_logarithmic_scale(prepared):
    values = np.r_[np.zeros(40), np.exp(np.arange(60) / 6)]
    matrix = prepared({"a": values})
    unit = np.median(values[values > 0])
    tamed = np.log1p(values / unit)
    expected = (tamed - tamed.mean()) / tamed.std()
    np.testing.assert_allclose(
        in_table_order(matrix)[:, 0], np.clip(expected, -5, 5), rtol=1e-5, atol=1e-6
    )
    before, after = scipy.stats.skew(values), scipy.stats.skew(tamed)
    assert f"(skewness {before:.1f}), so on a logarithmic scale ({after:.1f})" in (
        matrix.decisions[0].reason
    )
    negative = prepared({"a": -values})
    np.testing.assert_array_equal(in_table_order(negative), -in_table_order(matrix))


def test_far_values_are_pulled_in(prepared):
    values = np.r_[np.tile([-1.0, 1.0], 500), 12.0]
    auto, none = prepared({"a": values}), prepared({"a": values}, transform="none")
    assert in_table_order(auto)[-1, 0] == 5.0
    assert in_table_order(none)[-1, 0] > 10.0


def test_categories_weigh_as_much_as_one_number(prepared):
    matrix = prepared({"c": ["a"] * 5 + ["b"] * 3 + ["c"] * 2})
    shares = np.array([0.5, 0.3, 0.2])
    weight = 1 / math.sqrt((shares * (1 - shares)).sum())
    expected = weight * (np.eye(3)[[0] * 5 + [1] * 3 + [2] * 2] - shares)
    assert matrix.encoded_names == ("c = a", "c = b", "c = c")
    np.testing.assert_allclose(in_table_order(matrix), expected, rtol=1e-6)
    assert in_table_order(matrix).var(axis=0).sum() == pytest.approx(1)


def test_two_categories_need_one_indicator(prepared):
    matrix = prepared({"c": ["yes"] * 6 + ["no"] * 2})
    assert matrix.encoded_names == ("c = yes",)
    expected = [0.25 / math.sqrt(0.1875)] * 6 + [-0.75 / math.sqrt(0.1875)] * 2
    np.testing.assert_allclose(in_table_order(matrix)[:, 0], expected, rtol=1e-6)


def test_nearly_constant_categories_are_not_blown_up(prepared):
    matrix = prepared({"c": ["a"] * 990 + ["b"] * 10})
    assert in_table_order(matrix).var() == pytest.approx(0.0099 / 0.05)


def test_levels_of_categories(prepared):
    texts = [f"c{i:02d}" for i in range(25) for _ in range(30)] + ["rare"] * 2 + [" ?"] * 20
    matrix = prepared({"c": texts})
    # 20 of the 25 equally frequent ones, in the order of their texts
    assert matrix.encoded_names == (
        *(f"c = c{i:02d}" for i in range(20)),
        "c = (other)",
        "c = (missing)",
    )
    assert in_table_order(matrix).var(axis=0).sum() == pytest.approx(1, rel=1e-5)


def test_a_few_missing_categories_stand_in_the_middle(prepared):
    matrix = prepared({"c": ["a"] * 500 + ["b"] * 300 + ["c"] * 200 + [None]})
    assert matrix.encoded_names == ("c = a", "c = b", "c = c")
    np.testing.assert_array_equal(in_table_order(matrix)[-1], 0)
    np.testing.assert_allclose(in_table_order(matrix).mean(axis=0), 0, atol=1e-5)


def test_dates_are_days_before_the_latest(prepared):
    dates = [dt.date(2024, 1, day) for day in (1, 2, 10, 31)]
    matrix = prepared({"d": dates})
    ages = np.array([30.0, 29.0, 21.0, 0.0])
    np.testing.assert_allclose(
        in_table_order(matrix)[:, 0], (ages - ages.mean()) / ages.std(), rtol=1e-6
    )
    assert matrix.encoder.columns[0].reference == 19753


def test_written_dates_and_dates_are_encoded_alike(prepared):
    dates = [dt.date(2020, 1, 1) + dt.timedelta(days=37 * i) for i in range(60)]
    typed = prepared({"d": dates})
    for form in ("%Y-%m-%d", "%d.%m.%Y"):
        written = prepared({"d": [date.strftime(form) for date in dates]})
        np.testing.assert_array_equal(written.encoded, typed.encoded)


def test_long_spans_have_a_season_and_times_an_hour(prepared):
    rng = np.random.default_rng(1)
    start = dt.datetime(2018, 1, 1)
    times = [start + dt.timedelta(hours=int(h)) for h in rng.integers(0, 24 * 365 * 5, 3000)]
    matrix = prepared({"t": times})
    assert matrix.encoded_names == (
        "t",
        "t season sine",
        "t season cosine",
        "t hour sine",
        "t hour cosine",
    )
    hour = np.array([time.hour for time in times])
    rows = in_table_order(matrix).astype(np.float64)
    assert np.corrcoef(rows[:, 3], np.sin(2 * np.pi * hour / 24))[0, 1] > 0.9999
    assert rows.var(axis=0).sum() == pytest.approx(1, rel=1e-3)
    # a whole year apart, the season is the same
    season = {time.timetuple().tm_yday: row for time, row in zip(times, rows[:, 1:3], strict=True)}
    assert np.linalg.norm(season[2] - season[364]) < 0.1 < np.linalg.norm(season[2] - season[180])


def test_impossible_dates_are_missing(prepared):
    matrix = prepared({"d": ["2024-01-01", "2024-01-03", "2024-01-05", "9999-12-31"]})
    assert matrix.encoder.columns[0].reference == 19727
    assert matrix.warnings == ("column 'd': 1 value outside 1800 to 2199, treated as missing",)


def test_telling_gaps_become_a_feature(prepared):
    rng = np.random.default_rng(2)
    income = rng.normal(size=1000)
    missing = income > 1
    spend = np.where(missing, np.nan, rng.normal(size=1000))
    matrix = prepared({"income": income, "spend": spend})
    assert matrix.encoded_names == ("income", "spend", "spend is missing")
    assert "'is missing' is a feature too" in matrix.decisions[1].reason
    assert matrix.column_of.tolist() == [0, 1, 1]
    rows = in_table_order(matrix).astype(np.float64)
    assert rows[:, 1:].var(axis=0).sum() == pytest.approx(1, rel=1e-3)
    share = missing.mean()
    assert rows[missing, 2] - rows[~missing, 2].mean() == pytest.approx(
        1 / math.sqrt(1 + share * (1 - share)), rel=1e-5
    )


@pytest.mark.parametrize(
    "settings", [{"transform": "none"}, {"scaling": "none"}], ids=["transform none", "scaling none"]
)
def test_gaps_are_no_feature_without_transform(prepared, settings):
    income = np.arange(1000) * 1.5
    spend = np.where(income > 1200, np.nan, np.arange(1000) % 7)
    matrix = prepared({"income": income, "spend": spend}, **settings)
    assert matrix.encoded_names == ("income", "spend")


def test_gaps_by_chance_are_no_feature(prepared):
    rng = np.random.default_rng(3)
    columns = {f"c{i}": rng.normal(size=400) for i in range(30)}
    columns["gappy"] = np.where(rng.random(400) < 0.04, np.nan, rng.normal(size=400))
    assert "gappy is missing" not in prepared(columns).encoded_names


def test_gaps_in_the_same_rows_are_one_feature(prepared):
    income = np.random.default_rng(4).normal(size=1000)
    a = np.where(income > 1, np.nan, np.arange(1000) % 7)
    b = np.where(income > 1, np.nan, np.arange(1000) % 11)
    matrix = prepared({"income": income, "a": a, "b": b})
    assert matrix.encoded_names == ("income", "a", "a is missing", "b")


def test_more_features_than_the_threshold_are_projected(prepared):
    rng = np.random.default_rng(5)
    hidden = rng.normal(size=(500, 3))
    seen = hidden @ rng.normal(size=(3, 12)) + 0.01 * rng.normal(size=(500, 12))
    matrix = prepared({f"c{i}": seen[:, i] for i in range(12)}, dimension_reduction_threshold=10)
    assert matrix.X.shape[1] == 3
    assert matrix.encoded.shape == (500, 12)
    assert matrix.X.dtype == np.float32
    assert matrix.X.flags.c_contiguous
    # oracle: singular values of the centred features
    centred = matrix.encoded.astype(np.float64) - matrix.encoded.mean(axis=0, dtype=np.float64)
    singular = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(
        np.sqrt((matrix.X.astype(np.float64) ** 2).sum(axis=0)), singular[:3], rtol=1e-5
    )
    components = matrix.encoder.projection.components
    np.testing.assert_allclose(components @ components.T, np.eye(3), atol=1e-10)
    assert (components[np.arange(3), np.abs(components).argmax(axis=1)] > 0).all()
    few = prepared({f"c{i}": seen[:, i] for i in range(12)}, dimension_reduction_threshold=2)
    assert few.X.shape[1] == 2


def test_matrix_is_one_array_when_nothing_is_projected(prepared):
    matrix = prepared({"a": [1.0, 2.5, 3.0]})
    assert matrix.X is matrix.encoded


def test_values_can_be_looked_up_as_they_were_read(backend, make):
    table = make(
        n=["1", " ?", "3", "4"] * 50,
        c=[" a", "a ", None, "b"] * 50,
        d=[dt.date(1970, 1, 2)] * 100 + [None, dt.date(1970, 1, 4)] * 50,
    )
    encoder = prepare(backend, table, FeatureSettings()).encoder
    kind, values = encoder.clean(table, "n")
    assert kind == "numeric"
    np.testing.assert_array_equal(values[:4], [1, np.nan, 3, 4])
    kind, values = encoder.clean(table, "c")
    assert kind == "categorical"
    assert values[:4].to_pylist() == ["a", "a", None, "b"]
    kind, values = encoder.clean(table, "d")
    assert kind == "datetime"
    np.testing.assert_array_equal(values[[0, 100, 101]], [1, np.nan, 3])


def test_rows_look_shuffled_also_when_they_repeat(prepared):
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 1000)
    matrix = prepared({"a": values, "b": pa.array(values * 2 % 3)})
    start = matrix.X[:400, 0]
    counts = [int((start == value).sum()) for value in np.unique(matrix.X[:, 0])]
    assert len(counts) == 4
    assert min(counts) > 60
