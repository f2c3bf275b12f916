"""What the report keeps of the rows: counted right, and nothing kept that must not be."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.features import FeatureSettings, prepare
from gpuseg.outputs import sketch as sketches
from gpuseg.outputs.histograms import CATEGORIES, bin_counts, bin_edges, category_counts
from gpuseg.outputs.sketch import sketch, without_contents
from gpuseg.records import KMeansFit, SweepResult, Table
from gpuseg.settings import Settings

N = 60


def make_table():
    rng = np.random.default_rng(0)
    spend = rng.normal(100, 20, N).round(3)
    return Table(
        "t",
        pa.table(
            {
                "key": [f"K{i:04}" for i in range(N)],
                "spend": pa.array([None if i % 10 == 0 else float(v) for i, v in enumerate(spend)]),
                "city": ["Rome", "Oslo", "Lima"] * (N // 3),
                "joined": [dt.date(2020, 1, 1 + i % 28) for i in range(N)],
                "same": [1] * N,
                "member": [i % 2 == 0 for i in range(N)],
            }
        ),
    )


def make_sketch(table=None, **settings):
    """Sketch a table whose clusters are its rows' parity, in the order of the table."""
    table = table or make_table()
    backend = NumPyBackend()
    features = prepare(backend, table, FeatureSettings.of(Settings(input_table="t", **settings)))
    parity = (np.asarray(features.order) % 2).astype(np.int32)
    fit = KMeansFit(np.zeros((2, features.X.shape[1]), np.float32), parity, 1.0, 1)
    silhouettes = np.linspace(-1, 1, N).astype(np.float32)
    swept = SweepResult({2: fit}, {}, {2: silhouettes}, np.arange(N))
    return sketch(backend, table, features, fit, swept), parity, silhouettes


def column(found, name):
    return next(each for each in found["columns"] if each["name"] == name)


def test_every_column_is_described_in_plain_words():
    found, _, _ = make_sketch()
    assert [(c["name"], c["type"]) for c in found["columns"]] == [
        ("key", "text"), ("spend", "number"), ("city", "text"), ("joined", "date"),
        ("same", "whole number"), ("member", "true or false"),
    ]  # fmt: skip
    assert found["n_rows_seen"] == N


def test_numbers_are_summarised_as_numpy_does():
    found, _, _ = make_sketch()
    spend = column(found, "spend")
    values = np.array([v for v in make_table().arrow["spend"].to_pylist() if v is not None])
    assert spend["missing_share"] == pytest.approx(0.1)
    assert spend["n_distinct"] == len(set(values.tolist()))
    assert spend["median"] == pytest.approx(np.median(values))
    assert spend["mean"] == pytest.approx(values.mean())
    assert np.sum(spend["counts"]) == len(values)


def test_counts_belong_to_the_right_cluster():
    found, _, _ = make_sketch()
    city = column(found, "city")
    rows = list(enumerate(make_table().arrow["city"].to_pylist()))
    for cluster in (0, 1):
        by_hand = [sum(i % 2 == cluster and v == name for i, v in rows) for name in city["values"]]
        assert city["counts"][cluster] == by_hand


def test_ids_are_named_but_their_values_are_not_kept():
    found, _, _ = make_sketch()
    key = column(found, "key")
    assert key == {"name": "key", "type": "text", "kind": "categorical", "missing_share": 0.0}
    assert "K00" not in json.dumps(found)


def test_outlines_are_the_quantiles_of_each_cluster():
    found, parity, silhouettes = make_sketch()
    for cluster, own in enumerate(found["silhouettes"]):
        mine = silhouettes[parity == cluster]
        assert own["n_rows"] == len(mine)
        assert own["mean"] == pytest.approx(mine.mean())
        assert own["below_zero"] == pytest.approx((mine < 0).mean())
        assert own["outline"][0] == pytest.approx(mine.max(), abs=1e-4)
        assert own["outline"][-1] == pytest.approx(mine.min(), abs=1e-4)
        assert own["outline"] == sorted(own["outline"], reverse=True)


def test_a_large_table_is_sampled_and_says_so(monkeypatch):
    monkeypatch.setattr(sketches, "SKETCH_ROWS", 25)
    found, _, _ = make_sketch()
    assert found["n_rows_seen"] == 25
    assert np.sum(column(found, "city")["counts"]) == 25


def test_odd_columns_are_described_too():
    table = make_table()
    odd = {
        "nested": pa.array([[1, 2]] * N),
        "nothing": pa.nulls(N),
        "coded": pa.array(["a", "b"] * (N // 2)).dictionary_encode(),
        "when": pa.array([dt.datetime(2020, 1, 1, i % 24, tzinfo=dt.UTC)
                          for i in range(N)]),
        "huge": pa.array([1e308, -1e308] * (N // 2)),
    }  # fmt: skip
    arrow = table.arrow
    for name, values in odd.items():
        arrow = arrow.append_column(name, values)
    found, _, _ = make_sketch(Table("t", arrow))
    json.dumps(found, allow_nan=False)
    assert column(found, "nothing")["missing_share"] == 1.0
    assert column(found, "when")["type"] == "date and time"


def test_without_contents_nothing_of_a_row_is_left():
    found, _, _ = make_sketch()
    hidden = without_contents(found)
    text = json.dumps(hidden)
    assert hidden["map"] is None
    for word in ("Rome", "Oslo", "Lima", "true", "false"):
        assert word not in text.replace('"hidden": true', "").replace("true or false", "")
    assert column(hidden, "city")["counts"] == column(found, "city")["counts"]
    spend = column(hidden, "spend")
    assert not {"mean", "std", "low", "median", "high"} & set(spend)
    assert max(map(abs, spend["edges"])) < 5  # standard deviations
    assert all(len(own["outline"]) <= 11 for own in hidden["silhouettes"])
    assert without_contents(hidden) == hidden


# -- histograms ----------------------------------------------------------------------

FINITE = st.floats(-1e9, 1e9, allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=1, max_size=80))
def test_every_value_is_in_one_bin(values):
    array = np.array(values)
    edges = bin_edges(array)
    assert (np.diff(edges) > 0).all()
    labels = (np.arange(len(array)) % 3).astype(np.int32)
    counts = np.array(bin_counts(array, labels, edges, 3))
    assert counts.shape == (3, len(edges) - 1)
    assert counts.sum(axis=1).tolist() == np.bincount(labels, minlength=3).tolist()


@given(
    st.lists(
        st.floats(-1e300, 1e300) | st.integers(-(2**63), 2**64 - 1),
        min_size=1,
        max_size=30,
    )
)
def test_numbers_of_any_size_have_bins_and_each_is_counted_once(values):
    array = np.array(values, dtype=np.float64)
    edges = bin_edges(array)
    assert len(edges) >= 2
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    labels = np.zeros(len(array), np.int32)
    assert sum(bin_counts(array, labels, edges, 1)[0]) == len(array)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([10**18] * N),
        pa.array([10**17 + i % 9 for i in range(N)]),
        pa.array([2**64 - 1 - i % 3 for i in range(N)], pa.uint64()),
        pa.array([1e150, -1e150] * (N // 2)),
        pa.array([dt.datetime(9999, 12, 31)] * N, pa.timestamp("us")),
        pa.array([dt.datetime(1600, 1, 1)] * N, pa.timestamp("us")),
        pa.array([-(2**63) + 1] * N, pa.timestamp("ns")),
        pa.array([dt.date(9999, 12, 31)] * N),
    ],
)
def test_a_column_that_is_left_out_may_hold_anything(values):
    table = Table("t", make_table().arrow.append_column("odd", values))
    found, _, _ = make_sketch(table, ignore_columns=("odd",))
    odd = column(found, "odd")
    json.dumps(odd, allow_nan=False)
    assert sum(map(sum, odd["counts"])) == N


def test_few_whole_numbers_have_a_bin_each():
    assert bin_edges(np.array([0.0, 1.0, 4.0])).tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]


def test_bins_of_a_heavy_tail_grow_outwards():
    values = np.concatenate([np.linspace(0, 10, 500), np.geomspace(10, 1e5, 60)])
    widths = np.diff(bin_edges(values))
    assert widths[-1] > 50 * widths.min()


def test_bins_count_as_numpy_counts():
    values = np.random.default_rng(1).normal(size=1000)
    edges = bin_edges(values)
    inner = bin_counts(values, np.zeros(1000, np.int32), edges, 1)[0][1:-1]
    assert inner == np.histogram(values, edges)[0][1:-1].tolist()


def test_rare_categories_share_the_last_bin():
    names = [f"v{i:02}" for i in range(CATEGORIES + 5)]
    values = pa.array([name for i, name in enumerate(names) for _ in range(50 - i)] + [None])
    labels = np.zeros(len(values), np.int32)
    found = category_counts(values, labels, 2)
    assert found["values"] == names[:CATEGORIES]
    assert found["others"] == 5
    assert found["n_distinct"] == CATEGORIES + 5
    assert sum(found["counts"][0]) == len(values) - 1
    assert found["counts"][1] == [0] * (CATEGORIES + 1)
