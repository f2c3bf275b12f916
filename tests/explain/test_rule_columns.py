"""Rules as SQL select the same rows of the original table, however odd its columns are."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from explain.by_hand import assert_sql_counts_agree, f1_of, labelled
from sklearn.cluster import KMeans

from gpuseg.backends.select import select_backend
from gpuseg.explain.rule_columns import rule_columns
from gpuseg.explain.rules import find_rules
from gpuseg.features import FeatureSettings, prepare
from gpuseg.records import Table

BACKEND = select_backend("numpy")[0]


def clustered(table, n_clusters, **settings):
    named = Table("t", table)
    features = prepare(BACKEND, named, FeatureSettings(**settings))
    fitted = KMeans(n_clusters, n_init=1, random_state=0).fit(features.X)
    labels = np.empty(table.num_rows, dtype=np.int32)
    labels[features.order] = fitted.labels_
    return rule_columns(features, named), labels


def hostile_table(n=400):
    rng = np.random.default_rng(8)
    amount = np.round(rng.lognormal(5, 2, n), 2)
    moment = np.datetime64("2021-03-01", "us") + rng.integers(0, 10**13, n).astype(
        "timedelta64[us]"
    )
    day = rng.integers(0, 900, n)
    dates = [dt.date(2020, 1, 1) + dt.timedelta(int(d)) for d in day]
    german = [f"{a:,.2f}".translate(str.maketrans(",.", ".,")) for a in amount]
    floats = amount.copy()
    floats[:9] = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e300, -1e300, 5e-324, 1e150]
    group = np.arange(n) % 4
    return pa.table(
        {
            'a "quoted" name': rng.choice(
                ["O'Brien", 'say "hi"', "back\\slash", "x; DROP TABLE"], n
            ),
            "semi;colon -- no comment": rng.choice([" a", "a ", "a", "B", "?", "", None], n),
            " leading blank": rng.choice(["new\nline", "tab\tbed", "missing", "a, b or c"], n),
            "naïve 🦆": rng.choice(["é", "e\u0301", "日本", "🦆"], n),
            "SELECT": pa.array(rng.choice([1, 2, 3, None], n).tolist(), pa.int8()),
            "german": german,
            "blanks": [" " if i % 9 == 0 else f" {a} " for i, a in enumerate(amount)],
            "signs": [
                "nan" if i % 8 == 0 else "inf" if i % 8 == 1 else str(a)
                for i, a in enumerate(amount)
            ],
            "dollars": [f"${a:,.2f}" for a in amount * 3],
            "endless": floats,
            "nans": np.where(amount < 20, np.nan, amount),
            "float32": pa.array(amount / 3, pa.float32()),
            "decimal": [Decimal(str(a)) for a in amount],
            "huge": pa.array((2**60 + rng.integers(0, 5000, n)).tolist(), pa.int64()),
            "unsigned": pa.array(
                (2**63 + rng.integers(0, 2**62, n).astype(np.uint64)).tolist(), pa.uint64()
            ),
            "flag": pa.array((group % 2 == 0).tolist()),
            "day": pa.array([None if i % 11 == 0 else d for i, d in enumerate(dates)]),
            "never": pa.array(
                [dt.date(9999, 12, 31) if i % 5 == 0 else d for i, d in enumerate(dates[::-1])]
            ),
            "moment": pa.array(moment),
            "zoned": pa.array(moment[::-1], pa.timestamp("us", "Asia/Kolkata")),
            "nanos": pa.array(
                moment.astype("datetime64[ns]") + rng.integers(0, 999, n), pa.timestamp("ns")
            ),
            "written day": [d.strftime("%d.%m.%Y") for d in dates],
            "iso": [d.isoformat() + "T10:00:00" for d in dates[::-1]],
            "dictionary": pa.array(rng.choice(["lo", "hi"], n)).dictionary_encode(),
        }
    )


HOSTILE = hostile_table()


@pytest.fixture(scope="module")
def hostile_columns():
    settings = FeatureSettings(columns=tuple(HOSTILE.column_names), transform="none")
    features = prepare(BACKEND, Table("t", HOSTILE), settings)
    return {column.name: column for column in rule_columns(features, Table("t", HOSTILE))}


@pytest.mark.parametrize("name", HOSTILE.column_names)
def test_sql_selects_the_same_rows(name, hostile_columns):
    """Each column alone must explain labels that were made from it."""
    column = hostile_columns[name]
    for share in (0.3, 0.7):
        if column.kind == "categorical":
            labels = labelled(np.isin(column.values, [0, -1]))
        else:
            known = np.sort(column.values[~column.missing])
            border = known[int(share * len(known))]
            labels = labelled((column.values >= border) | (column.missing & (share > 0.5)))
        rules = find_rules([column], labels, 2)
        assert_sql_counts_agree(HOSTILE, labels, rules)
        assert all(f1_of(rule) > 0.98 for rule in rules.to_pylist()), rules.to_pylist()


def test_sql_on_all_hostile_columns_together(hostile_columns):
    labels = KMeans(4, n_init=1, random_state=0).fit_predict(
        np.column_stack([hostile_columns[n].values for n in ("german", "float32")])
    )
    rules = find_rules(list(hostile_columns.values()), labels.astype(np.int32), 4)
    assert_sql_counts_agree(HOSTILE, labels.astype(np.int32), rules)


def test_whole_numbers_that_floats_cannot_tell_apart():
    """2**60 + 156 is counted as 2**60 + 256, so SQL must round it, too."""
    border = 2**60 + 256
    table = pa.table({"n": pa.array([2**60, border - 100, border] * 20, pa.int64())})
    features = prepare(BACKEND, Table("t", table), FeatureSettings(columns=("n",)))
    (column,) = rule_columns(features, Table("t", table))
    labels = labelled(column.values >= border)
    rules = find_rules([column], labels, 2)
    assert_sql_counts_agree(table, labels, rules)
    assert rules.column("precision").to_pylist() == [1.0, 1.0]


def test_nanoseconds_before_1970():
    ticks = np.repeat(np.array([-1500, -1, 0, 1, 1500]), 20)
    table = pa.table({"t": pa.array(ticks, pa.timestamp("ns"))})
    features = prepare(BACKEND, Table("t", table), FeatureSettings(columns=("t",)))
    (column,) = rule_columns(features, Table("t", table))
    rules = find_rules([column], labelled(ticks >= 0), 2)
    assert_sql_counts_agree(table, labelled(ticks >= 0), rules)
    assert rules.column("precision").to_pylist() == [1.0, 1.0]


def test_dates_are_read_as_they_were_for_clustering():
    """Without a day beyond 12, day and month can be exchanged without anything missing."""
    texts = [f"{month:02}/{day:02}/2020" for month in range(1, 13) for day in range(1, 13)]
    table = pa.table({"signed": texts})
    features = prepare(BACKEND, Table("t", table), FeatureSettings(columns=("signed",)))
    (column,) = rule_columns(features, Table("t", table))
    days = features.encoder.clean(Table("t", table), "signed").values
    np.testing.assert_array_equal(column.values.astype("datetime64[D]").astype(int), days)


def test_names_that_differ_in_case_only_take_no_part():
    rng = np.random.default_rng(0)
    table = pa.table(
        {"Age": rng.normal(size=50), "age": rng.normal(size=50), "x": rng.normal(size=50)}
    )
    columns, _ = clustered(table, 2)
    assert [column.name for column in columns] == ["x"]


# -- real tables ---------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def real_table(path):
    path = ROOT / path
    return (pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)).to_arrow()


@pytest.mark.parametrize(
    ("path", "n_clusters"),
    [("tests/data/Mall_Customers.csv", 5), ("examples/gluon_train.parquet", 4)],
)
def test_real_tables(path, n_clusters):
    table = real_table(path)
    columns, labels = clustered(table, n_clusters)
    rules = find_rules(columns, labels, n_clusters)
    assert_sql_counts_agree(table, labels, rules)
    for rule in rules.to_pylist():
        assert len(rule["rule"].split(" and ")) <= 3
    first = {rule["cluster_id"]: rule for rule in reversed(rules.to_pylist())}
    assert sorted(first) == list(range(n_clusters))
    assert min(f1_of(rule) for rule in first.values()) > 0.7
