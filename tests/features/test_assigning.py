"""Tables that differ from the one that was fitted, and models that were damaged."""

from __future__ import annotations

import copy
import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest

from gpuseg.errors import ModelError
from gpuseg.features import Encoder, FeatureSettings, encode_features, prepare
from gpuseg.features.encoder import no_warning

N = 200


@pytest.fixture
def fitted(backend, make):
    return prepare(
        backend,
        make(
            age=[20 + i % 50 for i in range(N)],
            city=["Rome", "Oslo", "Bonn", "Kyiv"] * (N // 4),
            big=["x"] * 100 + ["y"] * 98 + ["z", "w"],
            member=[True, False] * (N // 2),
            since=[dt.date(2024, 1, 1 + i % 28) for i in range(N)],
            plan=[i % 3 for i in range(N)],
        ),
        FeatureSettings(categorical_columns=("plan",)),
    )


@pytest.fixture
def encode(backend, fitted, make):
    """Encode one row that differs from a usual one in some columns; None removes a column."""
    usual = {
        "age": [30],
        "city": ["Rome"],
        "big": ["x"],
        "member": [True],
        "since": [dt.date(2024, 1, 5)],
        "plan": [1],
    }

    def run(warn=no_warning, **changes):
        columns = {**usual, **changes}
        table = make({name: values for name, values in columns.items() if values is not None})
        X, _ = encode_features(backend, fitted.encoder, table, warn=warn)
        return dict(zip(fitted.encoded_names, X[0].tolist(), strict=True))

    return run


@pytest.mark.parametrize(
    "changes",
    [
        {"age": ["30"]},
        {"age": [" 30.0 "]},
        {"age": [30.0]},
        {"age": pa.array([30], pa.decimal128(5, 1))},
        {"city": [" Rome "]},
        {"city": pa.array(["Rome"]).dictionary_encode()},
        {"city": pa.array(["Rome"], pa.string_view())},
        {"member": ["TRUE"]},
        {"member": [1]},
        {"since": ["2024-01-05"]},
        {"since": [dt.datetime(2024, 1, 5)]},
        {"plan": ["1"]},
        {"plan": [1.0]},
        {"extra": ["ignored"]},
    ],
)
def test_the_same_values_in_another_type(encode, changes):
    assert encode(**changes) == encode()


def test_unseen_categories(encode):
    seen = encode(city=["Paris"], big=["v"])
    assert {seen[f"city = {city}"] for city in ("Rome", "Oslo", "Bonn", "Kyiv")} == {0.0}
    assert seen["big = (other)"] > 0 > seen["big = x"]
    assert seen == encode(city=[None], big=["w"])


def test_new_nulls_take_the_median(encode):
    assert encode(age=[None]) == encode(age=[44.5])
    assert encode(age=pa.nulls(1)) == encode(age=["?"]) == encode(age=[44.5])


def test_infinities_are_missing_and_said_so(encode):
    said = []
    assert encode(age=[float("inf")], warn=said.append) == encode(age=[None])
    assert said == ["column 'age': 1 value infinite, treated as missing"]


def test_huge_values_stay_finite(encode):
    assert encode(age=[1e300])["age"] == encode(age=[1e10])["age"] == 5.0


def test_a_missing_column_is_named(encode):
    with pytest.raises(ModelError, match="needs column 'age', which the table lacks"):
        encode(age=None)
    with pytest.raises(ModelError, match="did you mean 'ages'"):
        encode(age=None, ages=[3])


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"age": ["young"]}, "numbers"),
        ({"age": [dt.date(2024, 1, 1)]}, "numbers"),
        ({"age": [[1]]}, "numbers"),
        ({"since": [5]}, "dates"),
        ({"since": ["soon"]}, "dates"),
        ({"city": [{"a": 1}]}, "categories"),
    ],
)
def test_a_retyped_column_is_refused(encode, changes, wanted):
    (name,) = changes
    with pytest.raises(ModelError, match=f"'{name}' has type .* as {wanted}; the model was fitted"):
        encode(**changes)


def test_a_few_unreadable_texts_are_missing_and_said_so(backend, fitted, make):
    table = make(
        age=["30", "31", "old"],
        city=["Rome"] * 3,
        big=["x"] * 3,
        member=[True] * 3,
        since=["2024-01-05"] * 3,
        plan=[1] * 3,
    )
    said = []
    encode_features(backend, fitted.encoder, table, warn=said.append)
    assert said == ["column 'age': 1 value not readable as numbers, treated as missing"]


def test_no_rows_are_no_problem(backend, fitted, make):
    empty = {"age": [], "city": [], "big": [], "member": [], "since": [], "plan": []}
    X, _ = encode_features(backend, fitted.encoder, make(empty))
    assert X.shape == (0, len(fitted.encoded_names))


# -- stored encoders ---------------------------------------------------------------


def places(data, path=()):
    """Every place in a JSON document."""
    yield path
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from places(value, (*path, key))


def replaced(data, path, value):
    data = copy.deepcopy(data)
    if not path:
        return value
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return data


def test_damage_is_noticed_or_harmless(fitted):
    """Whatever stands at whatever place: a ModelError, or an encoder that can be stored."""
    good = fitted.encoder.to_dict()
    refused = 0
    for path in list(places(good)):
        for value in (None, "x", -1, 0, 1e400, float("nan"), [], {}, True, 10**400):
            try:
                encoder = Encoder.from_dict(replaced(good, path, value), {})
            except ModelError:
                refused += 1
            else:
                json.dumps(encoder.to_dict(), allow_nan=False)
    assert refused > 500


@pytest.mark.parametrize("key", ["columns", "projected"])
def test_missing_parts_are_noticed(fitted, key):
    stored = fitted.encoder.to_dict()
    del stored[key]
    with pytest.raises(ModelError, match=f"lacks '{key}'"):
        Encoder.from_dict(stored, {})


def test_damaged_projections_are_noticed(backend, make):
    rng = np.random.default_rng(0)
    columns = {f"c{i}": rng.normal(size=50) for i in range(5)}
    encoder = prepare(
        backend, make(columns), FeatureSettings(dimension_reduction_threshold=3)
    ).encoder
    stored, arrays = encoder.to_dict(), encoder.arrays()
    assert Encoder.from_dict(stored, arrays).projection is not None
    spoiled = arrays["mean"].copy()
    spoiled[0] = np.nan
    for bad in (
        {},
        {"mean": arrays["mean"]},
        {**arrays, "mean": arrays["mean"][1:]},
        {**arrays, "mean": spoiled},
        {**arrays, "components": arrays["components"][:, 1:]},
        {**arrays, "components": arrays["components"].astype(np.float32)},
        {**arrays, "components": arrays["components"][:0]},
    ):
        with pytest.raises(ModelError, match="damaged"):
            Encoder.from_dict(stored, bad)
