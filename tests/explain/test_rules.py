"""Rules: as good as an exhaustive search, the same rows in SQL, words that people use."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from sklearn.cluster import KMeans

from gpuseg.backends.select import select_backend
from gpuseg.errors import ShapeError
from gpuseg.explain.conditions import RuleColumn, quote_name, quote_text
from gpuseg.explain.rule_columns import rule_columns
from gpuseg.explain.rules import find_rules, sample_rows
from gpuseg.features import FeatureSettings, prepare
from gpuseg.records import Table

# -- columns, made by hand -----------------------------------------------------


def numeric(name, values):
    return RuleColumn(name, "numeric", np.asarray(values, dtype=np.float64), quote_name(name))


def datetimes(name, values):
    return RuleColumn(name, "datetime", np.asarray(values, "datetime64[us]"), quote_name(name))


def categorical(name, values):
    categories = sorted({value for value in values if value is not None})
    codes = [-1 if value is None else categories.index(value) for value in values]
    return RuleColumn(
        name,
        "categorical",
        np.array(codes, dtype=np.int32),
        quote_name(name),
        tuple(categories),
        tuple((quote_text(category),) for category in categories),
    )


def labelled(members):
    return np.asarray(members).astype(np.int32)


def rules_of(columns, labels, **options):
    rows = find_rules(columns, labels, int(labels.max()) + 1, **options).to_pylist()
    return {c: [r for r in rows if r["cluster_id"] == c] for c in range(int(labels.max()) + 1)}


# -- oracles -------------------------------------------------------------------


def f1(passing, members):
    hits = sum(1 for p, m in zip(passing, members, strict=True) if p and m)
    return 2 * hits / max(sum(passing) + sum(members), 1)


def best_f1_of_two_conditions(columns, members):
    """Try every interval, and every set of categories, on every pair of columns."""
    conditions = []
    for values in columns:
        levels = sorted(set(values))
        if isinstance(values[0], str):
            sets = itertools.chain.from_iterable(
                itertools.combinations(levels, n) for n in range(1, len(levels) + 1)
            )
            conditions.append([[v in chosen for v in values] for chosen in sets])
        else:
            bounds = itertools.combinations_with_replacement(levels, 2)
            conditions.append([[low <= v <= high for v in values] for low, high in bounds])
    best = 0.0
    for first, second in itertools.combinations(conditions, 2):
        for a, b in itertools.product(first, second):
            best = max(best, f1([p and q for p, q in zip(a, b, strict=True)], members))
    return best


def f1_of(rule):
    return 2 * rule["coverage"] * rule["precision"] / (rule["coverage"] + rule["precision"])


def assert_sql_counts_agree(table, labels, rules):
    """DuckDB must count, on the original table, what the rules say."""
    assert rules.num_rows > 0
    with duckdb.connect() as connection:
        connection.register("source", table)
        connection.register("labels", pa.table({"gpuseg label": labels}))
        connection.execute("CREATE TABLE original AS SELECT * FROM source POSITIONAL JOIN labels")
        for rule in rules.to_pylist():
            member = f'"gpuseg label" = {rule["cluster_id"]}'
            filters = (rule["sql"], f"({rule['sql']}) AND {member}", member)
            counts = ", ".join(f"count(*) FILTER (WHERE {f})" for f in filters)
            [(selected, hits, members)] = connection.execute(
                f"SELECT {counts} FROM original"
            ).fetchall()
            assert rule["coverage"] == hits / members, rule
            assert rule["precision"] == hits / selected, rule


# -- the search ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_as_good_as_trying_every_pair_of_conditions(seed):
    rng = np.random.default_rng(seed)
    n = 60
    age, visits = rng.integers(18, 26, n), rng.integers(0, 6, n)
    city = rng.choice(["Bari", "Oslo", "Rome"], n)
    inside = (age >= 21) & (visits <= 3) if seed % 2 else (city == "Oslo") | (city == "Rome")
    members = inside ^ (rng.random(n) < 0.1)
    columns = [numeric("age", age), numeric("visits", visits), categorical("city", city)]
    rule = rules_of(columns, labelled(members))[1][0]
    oracle = best_f1_of_two_conditions([age.tolist(), visits.tolist(), city.tolist()], members)
    # what the rounding and the plain words may cost: two bounds and two conditions
    assert f1_of(rule) >= oracle - 0.03


def test_finds_planted_conditions_in_plain_words():
    rng = np.random.default_rng(1)
    n = 4000
    age = rng.integers(18, 80, n)
    status = rng.choice([" Married", " Single", " Widowed"], n)
    noise = rng.normal(size=n)
    members = (age >= 42) & (status == " Married")
    columns = [
        numeric("age", age),
        categorical("status", np.char.strip(status)),
        numeric("x", noise),
    ]
    (rule,) = rules_of(columns, labelled(members))[1]
    assert rule["rule"] == "age >= 42 and status is Married"
    assert rule["sql"] == '"age" >= 42 AND "status" = \'Married\''
    assert rule["coverage"] == rule["precision"] == 1.0


def test_a_second_rule_describes_the_rest():
    n = 1000
    spend = np.arange(n) % 100
    city = np.where(np.arange(n) % 7 == 0, "Rome", "Oslo")
    members = (spend >= 60) | (city == "Rome")
    first, second = rules_of(
        [numeric("spend", spend), categorical("city", city)], labelled(members)
    )[1]
    assert (first["rule"], second["rule"]) == ("spend >= 60", "city is Rome")


def test_thresholds_are_round_where_no_row_changes_sides():
    income = np.concatenate([np.linspace(1000, 1187.4, 500), np.linspace(1212.9, 2000, 500)])
    rules = rules_of([numeric("income", income)], labelled(income > 1200))
    assert rules[0][0]["rule"] == "income <= 1200"
    assert rules[1][0]["rule"] == "income >= 1200"


def test_dates_are_cut_at_calendar_borders():
    days = np.datetime64("2012-11-20") + np.arange(700).astype("timedelta64[D]")
    column = datetimes("Dt_Customer", days)
    rules = rules_of([column], labelled(days >= np.datetime64("2013-10-01")))
    assert rules[0][0]["rule"] == "Dt_Customer before 2013-10-01"
    assert rules[1][0]["sql"] == "\"Dt_Customer\" >= DATE '2013-10-01'"


def test_says_what_happens_to_missing_values():
    income = np.where(np.arange(300) % 3 == 0, np.nan, np.arange(300))
    plan = [None if i % 4 == 0 else "gold" if i % 4 == 1 else "basic" for i in range(300)]
    missing = np.isnan(income)
    no_plan = np.array([p is None for p in plan])
    columns = [numeric("income", income)]
    assert rules_of(columns, labelled(missing))[1][0]["rule"] == "income is missing"
    assert rules_of(columns, labelled(missing))[0][0]["rule"] == "income is known"
    low = rules_of(columns, labelled(missing | (np.nan_to_num(income) < 100)))[1][0]
    assert low["rule"] == "income <= 100 (or missing)"
    columns = [categorical("plan", plan)]
    assert rules_of(columns, labelled(no_plan))[1][0]["rule"] == "plan is missing"
    gold_or_none = labelled([p != "basic" for p in plan])
    assert rules_of(columns, gold_or_none)[1][0]["rule"] == "plan is not basic"
    assert rules_of(columns, gold_or_none)[0][0]["rule"] == "plan is basic"
    basic_or_none = rules_of(columns, labelled([p != "gold" for p in plan]))[1][0]
    assert basic_or_none["sql"] == '("plan" <> \'gold\' OR "plan" IS NULL)'


def test_indistinguishable_segments_say_so():
    labels = labelled(np.arange(100) % 2)
    rules = rules_of([numeric("x", np.zeros(100))], labels)
    assert rules[1] == [
        {"cluster_id": 1, "rule": "every row", "sql": "TRUE", "coverage": 1.0, "precision": 0.5}
    ]
    assert find_rules([], labels, 3).column("cluster_id").to_pylist() == [0, 1]


def test_refuses_columns_of_another_length():
    with pytest.raises(ShapeError, match=r"column 'age' has 3 values, but there are 2 labels"):
        find_rules([numeric("age", [1, 2, 3])], labelled([0, 1]), 2)


# -- the order of rows, and samples --------------------------------------------


def shuffled(columns, labels, seed):
    order = np.random.default_rng(seed).permutation(len(labels))
    moved = [
        RuleColumn(c.name, c.kind, c.values[order], c.sql, c.categories, c.spellings)
        for c in columns
    ]
    return moved, labels[order], order


def some_table(n, seed=5):
    rng = np.random.default_rng(seed)
    amount = np.round(rng.lognormal(3, 1, n), 2)
    amount[rng.random(n) < 0.05] = np.nan
    city = rng.choice(["Bari", "Oslo", "Rome", None], n).tolist()
    since = np.datetime64("2020-01-01") + rng.integers(0, 900, n).astype("timedelta64[D]")
    columns = [numeric("amount", amount), categorical("city", city), datetimes("since", since)]
    labels = (np.nan_to_num(amount) > 30).astype(np.int32)
    labels[since > np.datetime64("2022-01-01")] = 2
    return columns, labels


@pytest.mark.parametrize("max_rows", [10_000, 1500])
def test_does_not_depend_on_the_order_of_the_rows(max_rows):
    columns, labels = some_table(5000)
    moved, moved_labels, _ = shuffled(columns, labels, 9)
    expected = find_rules(columns, labels, 3, max_rows=max_rows)
    assert find_rules(moved, moved_labels, 3, max_rows=max_rows).equals(expected)


def test_a_sample_is_stratified_chosen_by_content_and_seeded():
    columns, labels = some_table(6000)
    rows = sample_rows(columns, labels, 600, random_state=0)
    shares = np.bincount(labels[rows]) / 600
    np.testing.assert_allclose(shares, np.bincount(labels) / 6000, atol=2 / 600)
    moved, moved_labels, order = shuffled(columns, labels, 3)
    again = order[sample_rows(moved, moved_labels, 600, random_state=0)]

    def content(chosen):
        return sorted(zip(*(c.values[chosen].astype(str) for c in columns), strict=True))

    assert content(again) == content(rows)
    assert content(sample_rows(columns, labels, 600, random_state=1)) != content(rows)


def test_counts_all_rows_when_searching_a_sample():
    columns, _ = some_table(6000)
    amount = columns[0].values
    (rule, *_) = rules_of([columns[0]], labelled(np.nan_to_num(amount) > 30), max_rows=500)[1]
    threshold = float(rule["rule"].removeprefix("amount >= "))
    members = np.nan_to_num(amount) > 30
    assert rule["coverage"] == (amount[members] >= threshold).mean()
    assert 0.95 < rule["coverage"] <= 1.0


# -- SQL -----------------------------------------------------------------------

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


def test_neighbouring_floats_are_told_apart():
    low = 0.1 + 0.2
    values = np.where(np.arange(40) % 2 == 0, low, np.nextafter(low, 1))
    table = pa.table({"x": values})
    labels = labelled(values > low)
    rules = find_rules([numeric("x", values)], labels, 2)
    assert_sql_counts_agree(table, labels, rules)
    assert rules.column("precision").to_pylist() == [1.0, 1.0]


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
