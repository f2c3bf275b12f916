"""Rules: as good as an exhaustive search, in words that people use."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from explain.by_hand import (
    assert_sql_counts_agree,
    categorical,
    datetimes,
    f1_of,
    labelled,
    numeric,
    rules_of,
    shuffled,
    some_table,
)

from gpuseg.errors import ShapeError
from gpuseg.explain.rules import find_rules
from gpuseg.explain.sampling import sample_rows

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


def test_an_interval_includes_its_bounds():
    age = np.arange(400) % 60
    labels = labelled((age >= 20) & (age <= 35))
    columns = [numeric("age", age)]
    (rule,) = rules_of(columns, labels)[1]
    assert rule["rule"] == "age from 20 to 35"
    assert rule["precision"] == rule["coverage"] == 1.0
    assert_sql_counts_agree(pa.table({"age": age}), labels, find_rules(columns, labels, 2))


def test_is_not_misled_by_the_best_single_condition():
    rng = np.random.default_rng(2)
    a, b, c = (rng.random(4000) for _ in range(3))
    members = (a > 0.5) & (b > 0.5) & (c > 0.5)
    decoy = np.where(rng.random(4000) < 0.1, ~members, members).astype(float)
    columns = [numeric(name, v) for name, v in zip("abcd", (a, b, c, decoy), strict=True)]
    (rule,) = rules_of(columns, labelled(members))[1]
    assert rule["rule"] == "a >= 0.5 and b >= 0.5 and c >= 0.5"


def test_names_few_categories():
    city = np.repeat(["Rome", "Oslo", "Bari", "Lund", "Nice"], [800, 100, 100, 1, 1])
    members = ~np.isin(city, ["Oslo", "Bari"])
    rules = rules_of([categorical("city", city)], labelled(members))
    assert rules[0][0]["rule"] == "city is one of Bari, Oslo"
    assert rules[1][0]["rule"] == "city is Rome"  # two rows are not worth a second name
    rules = rules_of([categorical("city", city)], labelled(city != "Oslo"))
    assert rules[1][0]["rule"] == "city is not Oslo"


def test_a_single_value_is_named():
    children = np.arange(300) % 4
    rules = rules_of([numeric("children", children)], labelled(children == 0))
    assert rules[1][0]["rule"] == "children is 0"
    assert rules[1][0]["sql"] == '"children" = 0'


def test_a_second_rule_describes_the_rest():
    n = 1000
    spend = np.arange(n) % 100
    city = np.where(np.arange(n) % 7 == 0, "Rome", "Oslo")
    members = (spend >= 60) | (city == "Rome")
    first, second = rules_of(
        [numeric("spend", spend), categorical("city", city)], labelled(members)
    )[1]
    assert (first["rule"], second["rule"]) == ("spend >= 60", "city is Rome")


def test_a_second_rule_must_be_right_most_of_the_time():
    n = 1500
    spend = np.arange(n) % 100
    city = np.where(np.arange(n) % 3 == 0, "Rome", "Oslo")
    lucky = np.random.default_rng(0).random(n) < 0.4
    members = (spend >= 60) | ((city == "Rome") & lucky)
    columns = [numeric("spend", spend), categorical("city", city)]
    assert [r["rule"] for r in rules_of(columns, labelled(members))[1]] == ["spend >= 60"]


def test_zero_has_no_sign():
    change = np.arange(-300, 300) // 100
    rules = rules_of([numeric("change", change)], labelled(change >= 0))
    assert rules[1][0]["rule"] == "change >= 0"
    assert rules[0][0]["rule"] == "change <= -1"


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


@pytest.mark.parametrize("max_rows", [10_000, 1500])
def test_does_not_depend_on_the_order_of_the_rows(max_rows):
    columns, labels = some_table(5000)
    moved, moved_labels, _ = shuffled(columns, labels, 9)
    expected = find_rules(columns, labels, 3, max_rows=max_rows)
    assert find_rules(moved, moved_labels, 3, max_rows=max_rows).equals(expected)


def test_a_sample_is_stratified_chosen_by_content_and_seeded():
    columns, labels = some_table(6000)
    rows = sample_rows(columns, labels, 600, random_state=0)
    for seed in range(4):
        sampled = labels[sample_rows(columns, labels, 600, random_state=seed)]
        np.testing.assert_allclose(np.bincount(sampled), np.bincount(labels) / 10, atol=1)
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


def test_neighbouring_floats_are_told_apart():
    low = 0.1 + 0.2
    values = np.where(np.arange(40) % 2 == 0, low, np.nextafter(low, 1))
    table = pa.table({"x": values})
    labels = labelled(values > low)
    rules = find_rules([numeric("x", values)], labels, 2)
    assert_sql_counts_agree(table, labels, rules)
    assert rules.column("precision").to_pylist() == [1.0, 1.0]
