"""The explanation as a user gets it: three tables, notes and warnings."""

from __future__ import annotations

import statistics
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.explain import explain as room
from gpuseg.explain.explain import explain
from gpuseg.explain.profiles import PROFILE_SCHEMA
from gpuseg.features import FeatureSettings, prepare
from gpuseg.records import Choice, KMeansFit, Table

N = 300


def customers(n=N, seed=5):
    """Two kinds of customers; `kind` is the truth and stays out of the table."""
    rng = np.random.default_rng(seed)
    kind = (rng.random(n) < 0.3).astype(np.int32)
    spend = np.where(kind, rng.normal(500, 50, n), rng.normal(100, 30, n)).round(2)
    city = np.where(kind, "Rome", rng.choice(["Oslo", "Paris", "Rome"], n))
    joined = [date(2020, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 900, n)]
    visits = rng.integers(-5, 6, n)
    columns = {
        "city": [None if i % 10 == 0 else str(c) for i, c in enumerate(city)],
        "spend": [None if i % 7 == 0 else float(s) for i, s in enumerate(spend)],
        "balance": visits.tolist(),
        "joined": joined,
    }
    return Table("customers", pa.table(columns)), kind


def explained(table, kind, **options):
    backend = NumPyBackend()
    features = prepare(backend, table, FeatureSettings())
    labels = kind[features.order].astype(np.int32)
    n_clusters = int(labels.max()) + 1
    width = features.X.shape[1]
    fit = KMeansFit(np.zeros((n_clusters, width), np.float32), labels, 0.0, 1)
    return explain(backend, features, table, Choice(n_clusters, fit, ""), **options)


@pytest.fixture(scope="module")
def explanation():
    table, kind = customers()
    return explained(table, kind, n_trees=20)


def profile_of(explanation, cluster, feature):
    rows = explanation.profiles.to_pylist()
    (row,) = [r for r in rows if r["cluster_id"] == cluster and r["feature"] == feature]
    return row


def test_importance_is_per_column_and_ranked(explanation):
    found = explanation.feature_importance
    assert found.column_names == ["feature", "importance", "rank"]
    assert sorted(found["feature"].to_pylist()) == ["balance", "city", "joined", "spend"]
    assert found["feature"][0].as_py() == "spend"
    assert sum(found["importance"].to_pylist()) == pytest.approx(1)
    assert found["importance"].to_pylist() == sorted(found["importance"].to_pylist(), reverse=True)
    assert found["rank"].to_pylist() == [1, 2, 3, 4]


def test_shap_values_are_ranked_within_each_cluster(explanation):
    found = explanation.shap_values
    assert found.column_names == ["cluster_id", "feature", "mean_abs_shap", "mean_shap", "rank"]
    assert found["cluster_id"].to_pylist() == [0] * 4 + [1] * 4
    assert found["rank"].to_pylist() == [1, 2, 3, 4] * 2
    for cluster in (0, 1):
        rows = [r for r in found.to_pylist() if r["cluster_id"] == cluster]
        sizes = [r["mean_abs_shap"] for r in rows]
        assert sizes == sorted(sizes, reverse=True)
        assert rows[0]["feature"] == "spend"
        assert rows[0]["mean_shap"] > 0


def test_equals_rank_in_table_order():
    table, kind = customers()
    kind[:] = 0
    found = explained(table, kind, n_trees=3)
    assert found.feature_importance["feature"].to_pylist() == table.arrow.column_names
    assert found.shap_values["feature"].to_pylist() == table.arrow.column_names
    assert not any(found.shap_values["mean_abs_shap"].to_pylist())


def test_numeric_profile_by_hand(explanation):
    table, kind = customers()
    values = table.arrow["spend"].to_pylist()
    known = [v for v in values if v is not None]
    mine = sorted(v for v, k in zip(values, kind, strict=True) if k == 1 and v is not None)
    row = profile_of(explanation, 1, "spend")
    mean, overall = statistics.fmean(mine), statistics.fmean(known)
    assert row["kind"] == "numeric"
    assert row["share"] == pytest.approx(kind.mean())
    assert row["mean"] == pytest.approx(mean)
    assert row["median"] == pytest.approx(statistics.median(mine))
    deciles = statistics.quantiles(mine, n=10, method="inclusive")
    assert (row["p10"], row["p90"]) == pytest.approx((deciles[0], deciles[-1]))
    assert row["overall_mean"] == pytest.approx(overall)
    assert row["lift"] == pytest.approx(mean / overall)
    assert row["z"] == pytest.approx((mean - overall) / statistics.pstdev(known))
    assert row["top_values"] is None
    missing = [v is None for v, k in zip(values, kind, strict=True) if k == 1]
    assert row["missing_share"] == pytest.approx(statistics.fmean(missing))


def test_categorical_profile_by_hand(explanation):
    table, kind = customers()
    values = table.arrow["city"].to_pylist()
    known = [v for v in values if v is not None]
    overall = known.count("Rome") / len(known)
    row = profile_of(explanation, 1, "city")
    assert row["kind"] == "categorical"
    assert row["top_values"] == "Rome 100 %"
    assert row["lift"] == pytest.approx(1 / overall)
    assert row["z"] == pytest.approx((1 - overall) / (overall * (1 - overall)) ** 0.5)
    assert row["mean"] is row["median"] is row["p10"] is row["p90"] is row["overall_mean"] is None
    mine = [v for v, k in zip(values, kind, strict=True) if k == 0 and v is not None]
    other = profile_of(explanation, 0, "city")["top_values"].split(", ")
    assert len(other) == 3
    # the first is the one that tells them apart, not the most common one
    telling = max(("Oslo", "Paris"), key=lambda c: mine.count(c))
    assert other[0] == f"{telling} {mine.count(telling) / len(mine):.0%}".replace("%", " %")


def test_dates_are_days_since_1970(explanation):
    table, kind = customers()
    days = [(d - date(1970, 1, 1)).days for d in table.arrow["joined"].to_pylist()]
    row = profile_of(explanation, 0, "joined")
    assert row["kind"] == "datetime"
    mine = [d for d, k in zip(days, kind, strict=True) if k == 0]
    assert row["mean"] == pytest.approx(statistics.fmean(mine))
    assert row["lift"] is None
    assert row["z"] is not None


def test_lift_is_silent_where_signs_differ(explanation):
    rows = [profile_of(explanation, cluster, "balance") for cluster in (0, 1)]
    for row in rows:
        same_sign = row["mean"] * row["overall_mean"] > 0
        assert (row["lift"] is not None) == same_sign
    assert explanation.profiles.schema == PROFILE_SCHEMA


def test_notes_say_how_well_the_forest_knows(explanation):
    accuracy, rows = explanation.notes
    assert f"{explanation.oob_accuracy:.1%}" in accuracy
    assert "all rows" in accuracy
    assert f"all {N} rows" in rows
    assert explanation.warnings == ()


def test_a_sample_is_labelled_with_its_standard_error(monkeypatch):
    monkeypatch.setattr(room, "EXACT_BUDGET", 1.0)
    monkeypatch.setattr(room, "SAMPLED_BUDGET", 1.0)
    table, kind = customers(3000)
    found = explained(table, kind, n_trees=10, max_forest_rows=700)
    accuracy, rows = found.notes
    assert found.shap.n_explained_rows < 1100
    assert f"sample of {found.shap.n_explained_rows:,} of 3,000 rows" in rows
    assert f"{found.shap.mean_abs_stderr.max():.2g}" in rows
    assert "of 3,000 rows, stratified by cluster" in accuracy


def test_a_forest_that_knows_little_is_a_warning():
    table, _ = customers()
    noise = np.random.default_rng(0).integers(0, 4, N).astype(np.int32)
    found = explained(table, noise, n_trees=20)
    assert found.oob_accuracy < 0.5
    assert len(found.warnings) == 1
    assert f"{found.oob_accuracy:.0%}" in found.warnings[0]


def test_the_order_of_the_source_does_not_matter():
    table, kind = customers()
    shuffle = np.random.default_rng(1).permutation(N)
    mixed = Table("customers", table.arrow.take(pa.array(shuffle)))
    mine = explained(table, kind, n_trees=8)
    theirs = explained(mixed, kind[shuffle], n_trees=8)
    assert mine.feature_importance.equals(theirs.feature_importance)
    assert mine.shap_values.equals(theirs.shap_values)
    assert mine.profiles.equals(theirs.profiles)


def test_progress_runs_from_stage_to_stage():
    table, kind = customers()
    calls = []
    explained(table, kind, n_trees=5, progress=calls.append)
    assert calls == sorted(calls)
    assert calls[-1] == pytest.approx(1.0)
