from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from gpuseg.errors import SettingsError
from gpuseg.features import FeatureSettings, decide
from gpuseg.features.names import names_a_key
from gpuseg.records import Table

N = 1000
RNG = np.random.default_rng(0)
MEASURED = RNG.integers(0, 40, N)
WORDS = RNG.choice(["red", "green", "blue"], N)

COLUMNS = {
    "whole numbers": (MEASURED, "numeric", "kept"),
    "fractions": (RNG.normal(size=N), "numeric", "kept"),
    "zero and one": (np.arange(N) % 2, "boolean", "kept"),
    "true and false": ([i % 3 == 0 for i in range(N)], "boolean", "kept"),
    "colours": (WORDS, "categorical", "kept"),
    "dictionary": (pa.array(WORDS).dictionary_encode(), "categorical", "kept"),
    "dates": ([dt.date(2024, 1, 1 + i % 28) for i in range(N)], "datetime", "kept"),
    "written dates": ([f"{1 + i % 28}.1.2024" for i in range(N)], "datetime", "kept"),
    "written numbers": ([f"{v},5" for v in MEASURED], "numeric", "kept"),
    "postal": ([f"{v:05d}" for v in MEASURED % 7], "categorical", "kept"),
    "one text or none": ([None, "yes"] * (N // 2), "categorical", "kept"),
    "one number or none": ([None, 7] * (N // 2), "categorical", "kept"),
    "store_id": (np.arange(N) % 7, "categorical", "kept"),
    "constant": ([7] * N, "constant", "dropped"),
    "constant text": (["x ", " x"] * (N // 2), "constant", "dropped"),
    "nearly constant": ([7] * (N - 1) + [None], "constant", "dropped"),
    "nulls": (pa.nulls(N), "empty", "dropped"),
    "blank": (["", " ", "?", "NULL"] * (N // 4), "empty", "dropped"),
    "not a number": ([float("nan")] * N, "empty", "dropped"),
    "endless": ([float("inf"), float("-inf")] * (N // 2), "empty", "dropped"),
    "order number": (RNG.permutation(10**6)[:N], "id", "dropped"),
    "customer_id": (np.arange(N) % 90 * 1001, "id", "dropped"),
    "counting": (RNG.permutation(N) + 5000, "id", "dropped"),
    "codes": ([f"K-{i}" for i in range(N)], "id", "dropped"),
    "prose": ([f"{i} bought " + "many things, " * 9 for i in range(N)], "text", "dropped"),
    "cities": ([f"c{i % 150}" for i in range(N)], "text", "dropped"),
    "list": ([[1, 2]] * N, "nested", "dropped"),
    "struct": ([{"a": 1}] * N, "nested", "dropped"),
    "bytes": ([b"x"] * N, "nested", "dropped"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_role(name):
    values, role, decision = COLUMNS[name]
    plan = decide(Table("t", pa.table({name: values})), FeatureSettings())
    found = plan.columns[0].decision
    assert (found.column, found.role, found.decision) == (name, role, decision)
    assert found.reason


def test_each_column_gets_one_decision_in_the_order_of_the_table():
    table = pa.table({name: values for name, (values, _, _) in COLUMNS.items()})
    plan = decide(Table("t", table), FeatureSettings())
    assert [column.column for column in plan.columns] == list(COLUMNS)


def decisions(columns, only=None, **settings):
    plan = decide(Table("orders", pa.table(columns)), FeatureSettings(columns=only, **settings))
    return {c.column: c.decision for c in plan.columns}, plan.warnings


def test_reasons_carry_numbers():
    found, _ = decisions({"CUST_ID": [f"C{i}" for i in range(N)]})
    assert found["CUST_ID"].reason == "1,000 different texts in 1,000 rows: looks like an id"


def test_repetitions_are_dropped():
    found, _ = decisions(
        {
            "level": np.array(["low", "mid", "high"])[MEASURED % 3],
            "level number": MEASURED % 3 * 10,
            "same": MEASURED % 3 * 10.0,
            "niveau": np.array(["bas", "mi", "haut"])[MEASURED % 3],
            "opposite": 2 - MEASURED % 3,
            "on": MEASURED % 2,
            "off": 1 - MEASURED % 2,
            "amount": MEASURED,
            "square": MEASURED**2,
        }
    )
    dropped = {n: d.reason for n, d in found.items() if d.decision == "dropped"}
    assert dropped == {
        "level": "one-to-one with 'level number'",
        "same": "the same values as 'level number'",
        "niveau": "one-to-one with 'level number'",
        "off": "one-to-one with 'on'",
    }


def test_columns_with_few_repetitions_are_not_called_one_to_one():
    found, _ = decisions({"a": ["x", "y", "z", "x"], "b": ["1a", "2a", "3a", "1a"]})
    assert {d.decision for d in found.values()} == {"kept"}


def test_overrides_win():
    columns = {"counting": np.arange(N), "again": np.arange(N), "digit": MEASURED % 5}
    found, warnings = decisions(
        columns, numeric_columns=("counting", "again"), categorical_columns=("digit",)
    )
    assert [d.decision for d in found.values()] == ["kept"] * 3
    assert found["digit"].role == "categorical"
    assert warnings == ()


def test_columns_that_are_asked_for_are_not_called_ids():
    found, warnings = decisions({"counting": np.arange(N), "b": [1] * N}, only=("counting", "b"))
    assert found["counting"].decision == "kept"
    assert found["b"].decision == "dropped"
    assert warnings == (
        f"column 'b' was asked for but is not used: the same value in all {N:,} rows",
    )


def test_only_asked_columns_are_used():
    found, _ = decisions({"a": MEASURED, "b": WORDS, "k": WORDS}, only=("a",), rowid_column="k")
    assert [(d.role, d.decision) for d in found.values()] == [
        ("numeric", "kept"),
        ("ignored", "dropped"),
        ("id", "dropped"),
    ]


def test_ignored_columns():
    found, warnings = decisions({"time": MEASURED, "age": MEASURED + 0.5})
    assert found["time"].role == "ignored"
    assert warnings == ()
    found, warnings = decisions({"age": MEASURED, "b": WORDS}, ignore_columns=("agee", "b"))
    assert found["b"].role == "ignored"
    assert warnings == (
        "ignore_columns names 'agee', which is not a column of orders (did you mean 'age'?)",
    )
    found, _ = decisions({"time": MEASURED}, numeric_columns=("time",))
    assert found["time"].decision == "kept"


@pytest.mark.parametrize(
    "settings",
    [
        {"only": ("ag",)},
        {"categorical_columns": ("ag",)},
        {"numeric_columns": ("ag",)},
        {"rowid_column": "ag"},
    ],
)
def test_unknown_columns_are_refused(settings):
    with pytest.raises(
        SettingsError, match=r"'ag', which is not .*did you mean 'age'.*it has: age"
    ):
        decisions({"age": MEASURED}, **settings)


def test_contradictions_are_refused():
    with pytest.raises(SettingsError, match="ignore_columns"):
        decisions({"age": MEASURED}, numeric_columns=("age",), ignore_columns=("age",))


def test_texts_that_are_no_numbers_cannot_be_forced():
    with pytest.raises(SettingsError, match="only 0% of its texts"):
        decisions({"colour": WORDS}, numeric_columns=("colour",))


def test_mostly_readable_texts_can_be_forced():
    found, _ = decisions({"a": ["1", "2", "x", "4"] * 50}, numeric_columns=("a",))
    assert found["a"].role == "numeric"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id", True),
        ("CustomerID", True),
        ("CUST_ID", True),
        ("Customer Id", True),
        ("customerid", True),
        ("id_kunde", True),
        ("zip-code key", True),
        ("paid", False),
        ("humidity", False),
        ("number of kids", False),
        ("", False),
        ("顧客", False),
    ],
)
def test_names_of_keys(name, expected):
    assert names_a_key(name) is expected
