"""Drift of columns, against definitions written out and SciPy on all of the data."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.features import FeatureSettings, prepare
from gpuseg.features.encoder import ColumnValues
from gpuseg.nightly import drift as drifting
from gpuseg.nightly.distribution import (
    BINS,
    CATEGORIES,
    SLICES,
    Distribution,
    bin_cuts,
    distribution,
    distribution_as,
    slice_means,
)
from gpuseg.nightly.drift import (
    FLOOR,
    baseline,
    baseline_text,
    drift,
    largest,
    population_stability_index,
    read_baseline,
    wasserstein,
)
from gpuseg.outputs.change_facts import DRIFT_SCHEMA
from gpuseg.records import Table


def column(seed: int, n: int, digits: int, spread: float) -> np.ndarray:
    """Return numbers with more ties the fewer digits they have, and a far tail."""
    rng = np.random.default_rng(seed)
    return np.round(spread * rng.standard_t(2, n), digits)


#: Made from a few drawn numbers, because drawing each value is slow on a busy machine.
COLUMNS = st.builds(
    column, st.integers(0, 999), st.integers(1, 120), st.integers(-1, 3), st.sampled_from([1, 1e5])
)
SHORT = st.builds(column, st.integers(0, 999), st.integers(1, 40), st.integers(0, 3), st.just(9))


def numbers(values):
    return ColumnValues("numeric", np.asarray(values, dtype=np.float64))


def prepared(rows):
    table = Table("t", pa.table(rows))
    return table, prepare(NumPyBackend(), table, FeatureSettings())


def compared(before, now):
    then_table, then = prepared(before)
    today, features = prepared(now)
    seen = baseline(then_table, then)
    found = drift(seen, then.encoder, today, features)
    assert found.schema == DRIFT_SCHEMA
    return {row["column"]: row for row in found.to_pylist()}, found


# -- bins ----------------------------------------------------------------------------


def bins_by_counting(values, cuts):
    """Shares of the bins between cuts, the last of missing values, with plain loops."""
    edges = [-math.inf, *cuts, math.inf]
    shares = []
    for low, high in pairwise(edges):
        shares.append(sum(1 for v in values if low <= v < high) / len(values))
    return [*shares, sum(1 for v in values if math.isnan(v)) / len(values)]


@given(COLUMNS)
@settings(max_examples=40)
def test_no_bin_is_empty_and_shares_are_those_of_counting(values):
    found = distribution(numbers(values))
    assert min(found.shares[:-1]) > 0
    assert list(found.cuts) == sorted(set(found.cuts))
    assert found.shares == pytest.approx(bins_by_counting(values, found.cuts))


@given(COLUMNS, COLUMNS)
@settings(max_examples=40)
def test_another_night_is_measured_in_the_same_bins(before, now):
    now = np.append(now, [np.nan] * (len(now) % 3))
    then = distribution(numbers(before))
    today = distribution_as(then, numbers(now))
    assert today.cuts == then.cuts
    assert today.shares == pytest.approx(bins_by_counting(now, then.cuts))


def test_bins_of_different_values_are_deciles():
    values = np.random.default_rng(0).permutation(np.arange(1000.0))
    found = distribution(numbers(values))
    assert found.shares[:-1] == pytest.approx([0.1] * BINS)
    assert found.cuts == tuple(np.arange(100.0, 1000.0, 100.0))


def test_a_common_value_has_a_bin_of_its_own_and_the_tail_is_cut_too():
    values = np.sort(np.concatenate([np.zeros(900), np.arange(1.0, 101.0)]))
    cuts = bin_cuts(values)
    assert len(cuts) == 4
    assert cuts[0] == np.nextafter(0, 1)
    assert cuts[1:] == (26.0, 51.0, 76.0)
    # what comes to lie just beside the common value is not that value
    then = distribution(numbers(values))
    moved = distribution_as(then, numbers(np.where(values == 0, 1e-9, values)))
    assert moved.shares[0] == 0.0


def test_a_tail_that_grows_is_seen_although_every_decile_is_zero():
    rng = np.random.default_rng(0)
    before = np.where(rng.random(5000) < 0.92, 0.0, rng.exponential(100, 5000))
    now = np.where(before > 0, before * 10, 0.0)
    then = distribution(numbers(before))
    today = distribution_as(then, numbers(now))
    assert population_stability_index(then.shares, today.shares) > 0.1


def test_categories_are_the_most_common_and_all_others_share_a_bin():
    texts = [f"c{i:02}" for i in range(CATEGORIES + 5) for _ in range(30 - i)] + [None] * 10
    then = distribution(ColumnValues("categorical", pa.array(texts)))
    assert then.categories == tuple(f"c{i:02}" for i in range(CATEGORIES))
    n_others = sum(30 - i for i in range(CATEGORIES, CATEGORIES + 5))
    assert then.shares[-2:] == pytest.approx((n_others / len(texts), 10 / len(texts)))
    today = distribution_as(then, ColumnValues("categorical", pa.array(["c03", "unheard", None])))
    assert today.shares[3] == today.shares[-2] == today.shares[-1] == pytest.approx(1 / 3)


# -- the index -----------------------------------------------------------------------


def psi_by_hand(before, now):
    total = 0.0
    for a, b in zip(before, now, strict=True):
        a, b = max(a, 1e-4), max(b, 1e-4)
        total += (b - a) * math.log(b / a)
    return total


def test_the_index_is_that_of_the_definition():
    assert FLOOR == 1e-4
    before, now = [0.1, 0.2, 0.7, 0.0], [0.3, 0.3, 0.4, 0.0]
    assert population_stability_index(before, now) == pytest.approx(psi_by_hand(before, now))
    assert population_stability_index(before, now) == pytest.approx(
        0.2 * math.log(3) + 0.1 * math.log(1.5) - 0.3 * math.log(4 / 7)
    )
    emptied = population_stability_index([0.5, 0.5], [1.0, 0.0])
    assert emptied == pytest.approx(psi_by_hand([0.5, 0.5], [1.0, 0.0]))
    assert math.isfinite(emptied)


@given(COLUMNS, COLUMNS)
@settings(max_examples=40)
def test_the_index_is_symmetric_never_negative_and_zero_for_the_same(before, now):
    then = distribution(numbers(before))
    today = distribution_as(then, numbers(now))
    there = population_stability_index(then.shares, today.shares)
    assert there >= 0
    assert there == pytest.approx(population_stability_index(today.shares, then.shares))
    assert population_stability_index(then.shares, then.shares) == 0


# -- the distance --------------------------------------------------------------------


def slices_by_hand(values, n_slices):
    """Means of equal slices, each value cut into as many equal pieces as there are slices."""
    pieces = [v for v in sorted(values) for _ in range(n_slices)]
    size = len(values)
    return [sum(pieces[i * size : (i + 1) * size]) / size for i in range(n_slices)]


@given(SHORT, st.integers(1, 7))
@settings(max_examples=50)
def test_slice_means_are_those_of_values_cut_into_pieces(values, n_slices):
    found = slice_means(np.sort(values), n_slices)
    assert found.tolist() == pytest.approx(slices_by_hand(values, n_slices), abs=1e-4)


@given(COLUMNS, COLUMNS)
@settings(max_examples=40)
def test_the_distance_lies_between_its_bounds(before, now):
    """It loses at most the two ranges over the number of slices, see `wasserstein`."""
    exact = wasserstein_distance(before, now)
    found = wasserstein(slice_means(np.sort(before)), slice_means(np.sort(now)))
    rounding = 1e-9 * max(1.0, np.abs(before).max(), np.abs(now).max())
    assert found <= exact + rounding
    assert found >= abs(before.mean() - now.mean()) - rounding
    assert exact - found <= (np.ptp(before) + np.ptp(now)) / SLICES + rounding


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        (lambda rng: rng.normal(0, 1, 5000), lambda rng: rng.normal(0.3, 1, 4000), 0.01),
        (lambda rng: rng.normal(0, 1, 5000), lambda rng: rng.normal(0, 2, 4000), 0.01),
        (lambda rng: rng.integers(0, 2, 5000), lambda rng: rng.integers(0, 3, 5000), 0.01),
        # the outermost hundredth of the rows holds a third of such a sum, and crosses by chance
        (lambda rng: rng.lognormal(3, 2, 5000), lambda rng: rng.lognormal(3.5, 2, 6000), 0.1),
    ],
)
def test_the_distance_is_near_that_of_scipy_on_all_of_the_data(before, now, lost):
    """A shift is exact; where quantiles cross, less than one slice of a hundred is lost."""
    rng = np.random.default_rng(1)
    then, today = before(rng).astype(float), now(rng).astype(float)
    exact = wasserstein_distance(then, today)
    found = wasserstein(slice_means(np.sort(then)), slice_means(np.sort(today)))
    assert found == pytest.approx(exact, rel=lost)


# -- tables --------------------------------------------------------------------------


def customers(n=600, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "age": rng.integers(18, 90, n).astype(float),
        "spend": rng.lognormal(3, 1, n),
        "city": rng.choice(["Rome", "Oslo", "Lima"], n),
        "member": rng.random(n) < 0.5,
    }


def test_nothing_moves_between_equal_tables():
    rows = customers()
    found, table = compared(rows, {name: values[::-1] for name, values in rows.items()})
    assert set(found) == set(rows)
    for row in found.values():
        assert row["status"] == "compared"
        assert row["psi"] == 0
        assert row["wasserstein"] in (None, pytest.approx(0, abs=1e-9))
        assert row["previous_n_rows"] == row["n_rows"] == 600
    assert largest(table)[0] == 0


def test_what_moved_comes_first_with_its_means():
    rows = customers()
    moved = rows | {"age": rows["age"] + 10}
    found, table = compared(rows, moved)
    assert table.column("column")[0].as_py() == "age"
    assert largest(table) == (found["age"]["psi"], "age")
    age = found["age"]
    assert age["wasserstein"] == pytest.approx(10)
    assert age["wasserstein_scaled"] == pytest.approx(10 / rows["age"].std())
    assert age["mean"] - age["previous_mean"] == pytest.approx(10)
    assert age["median"] == np.median(rows["age"]) + 10
    assert found["spend"]["psi"] == 0


def test_a_feed_of_zeros_is_measured_although_the_column_is_dropped_today():
    rows = customers()
    found, _ = compared(rows, rows | {"spend": np.zeros(600)})
    assert found["spend"]["status"] == "compared"
    assert found["spend"]["psi"] > 1
    assert found["spend"]["mean"] == 0


def test_missing_values_are_a_bin():
    rows = customers()
    gaps = np.where(np.arange(600) % 2 == 0, np.nan, rows["age"])
    found, _ = compared(rows, rows | {"age": gaps})
    age = found["age"]
    assert (age["previous_missing_share"], age["missing_share"]) == (0.0, 0.5)
    assert age["psi"] > 0.5 * math.log(0.5 / 1e-4)


def test_columns_that_came_went_or_changed_their_type_are_listed():
    rows = customers()
    today = {name: values for name, values in rows.items() if name != "spend"}
    today |= {"visits": rows["age"] % 7, "age": np.array(["n/k", "unknown", "tba"] * 200)}
    found, _ = compared(rows, today)
    statuses = {name: row["status"] for name, row in found.items()}
    assert statuses == {"age": "retyped", "spend": "gone", "visits": "new", "city": "compared",
                        "member": "compared"}  # fmt: skip
    assert found["visits"]["psi"] is None
    assert found["visits"]["mean"] == pytest.approx((rows["age"] % 7).mean())
    assert found["visits"]["previous_mean"] is None
    for name in ("age", "spend"):
        assert found[name]["psi"] > 1
        assert found[name]["missing_share"] == 1
        assert found[name]["wasserstein"] is None


def test_dates_count_in_days():
    days = np.datetime64("2026-01-01") + (np.arange(500) * 7919 % 400).astype("m8[D]")
    rows = {"joined": days.astype("datetime64[us]"), "age": customers(500)["age"]}
    later = rows | {"joined": rows["joined"] + np.timedelta64(30, "D")}
    found, _ = compared(rows, later)
    assert found["joined"]["kind"] == "datetime"
    assert found["joined"]["wasserstein"] == pytest.approx(30)


def test_a_large_table_is_looked_at_by_a_fair_sample(monkeypatch):
    rows = customers(4000)
    moved = rows | {"spend": rows["spend"] * 3}
    exact, _ = compared(rows, moved)
    monkeypatch.setattr(drifting, "MOST_ROWS", 1000)
    found, _ = compared(rows, moved)
    assert found["spend"]["psi"] == pytest.approx(exact["spend"]["psi"], rel=0.25)
    assert found["spend"]["psi"] != exact["spend"]["psi"]
    assert found["spend"]["n_rows"] == 4000


# -- the file ------------------------------------------------------------------------


def test_what_was_seen_comes_back_from_its_file(tmp_path):
    rows = customers() | {"city": np.array(["Rome\n", "\u202eOslo", "ქართული"] * 200)}
    seen = baseline(*prepared(rows))
    (tmp_path / drifting.BASELINE).write_text(baseline_text(seen), encoding="utf-8")
    assert read_baseline(tmp_path) == seen
    assert len(baseline_text(seen)) < 4000 * len(rows)


def edited(change):
    facts = json.loads(baseline_text(baseline(*prepared(customers()))))
    change(facts)
    return json.dumps(facts)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{",
        '{"format": "gpuseg-drift-baseline"}',
        edited(lambda f: f.update(format_version=99)),
        edited(lambda f: f.update(columns=7)),
        edited(lambda f: f["columns"][0].pop("shares")),
        edited(lambda f: f["columns"][0].update(shares=[1.0])),
        edited(lambda f: f["columns"][0].update(cuts=["x"])),
    ],
)
def test_a_file_that_is_lost_or_damaged_is_said_and_stops_nothing(tmp_path, caplog, text):
    if text is not None:
        (tmp_path / drifting.BASELINE).write_text(text)
    assert read_baseline(tmp_path) is None
    assert "drift is not measured" in caplog.text


def test_a_distribution_knows_its_missing_share():
    found = Distribution("numeric", (1.0,), (), (0.25, 0.5, 0.25), ())
    assert found.missing_share == 0.25
    assert Distribution.from_dict(json.loads(json.dumps(found.to_dict()))) == found
