"""Names of segments: short, different, in plain words, and the same for the same data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuseg
from gpuseg.explain.naming import (
    N_TRAITS,
    WEAKEST,
    draft_names,
    is_same_segment,
    numbered,
    strongest,
)
from gpuseg.explained import Trait

MALL = Path(__file__).parents[1] / "data" / "Mall_Customers.csv"


def numeric(feature, z):
    return Trait(feature, "numeric", z, 1.0, 0.0)


def category(feature, value, z=1.0, own=0.9):
    return Trait(feature, "categorical", z, own, 0.2, value)


@pytest.mark.parametrize(
    ("trait", "name"),
    [
        (numeric("spend", 2.0), "High spend"),
        (numeric("spend", -2.0), "Low spend"),
        (Trait("joined", "datetime", 1.0, 16000.0, 15000.0), "Recent joined"),
        (Trait("joined", "datetime", -1.0, 14000.0, 15000.0), "Early joined"),
        (Trait("senior", "boolean", 2.0, 0.9, 0.2), "senior"),
        (Trait("senior", "boolean", -1.0, 0.1, 0.6), "No senior"),
        (Trait("senior", "boolean", 1.0, 0.3, 0.1), "Often senior"),
        (Trait("senior", "boolean", -1.0, 0.6, 0.9), "Seldom senior"),
        (category("status", "Never-married"), "Never-married"),
        (category("class", "<=50K"), "class <=50K"),
        (category("Partner", "Yes"), "Partner"),
        (category("Partner", "No"), "No Partner"),
        (category("plan", "other"), "plan other"),
        (category("city", "Rome", own=0.3), "Often Rome"),
        (category("city", ""), "city blank"),
        (category("city", "a\nb\u202e" + "x" * 60), "a b " + "x" * 35 + "…"),
    ],
)
def test_one_trait_in_words(trait, name):
    assert draft_names([[trait]]) == [name]


def test_segments_are_told_apart_by_further_traits():
    common = [category("sex", "Female"), numeric("age", 1.0)]
    names = draft_names([[*common, numeric("spend", 1.0)], [*common, numeric("spend", -1.0)]])
    assert names == ["Female, high age, high spend", "Female, high age, low spend"]
    assert draft_names([common, common, []]) == [
        "Female, high age",
        "Female, high age 2",
        "Average",
    ]


def test_the_same_thing_is_said_once():
    traits = [
        category("PhoneService", "No"),
        category("Lines", "No phone service"),
        numeric("x", 1),
    ]
    assert draft_names([traits]) == ["No PhoneService, high x"]


def test_weak_traits_and_those_of_a_minority_do_not_name_a_segment():
    traits = [numeric("weak", WEAKEST * 0.9), category("city", "Rome", z=3.0, own=0.3)]
    traits += [numeric("spend", 1.0)]
    assert draft_names([strongest(traits)]) == ["High spend"]
    assert [trait.feature for trait in strongest(traits)] == ["spend", "city"]
    assert len(strongest([numeric(f"x{i}", 1.0) for i in range(20)])) == N_TRAITS


def test_almost_equal_traits_stand_in_table_order():
    for first, second in ((1.0, 1.1), (1.1, 1.0)):
        order = strongest([numeric("a", first), numeric("b", second)])
        assert [trait.feature for trait in order] == ["a", "b"]
    order = strongest([numeric("a", 1.0), numeric("b", 2.0)])
    assert [trait.feature for trait in order] == ["b", "a"]


TRAITS = st.lists(
    st.one_of(
        st.builds(numeric, st.sampled_from("abc"), st.floats(-3, 3)),
        st.builds(
            category,
            st.sampled_from(["d", "e"]),
            st.sampled_from(["Secret Rome", "yes", "no", "Secret Oslo"]),
            own=st.floats(0, 1),
        ),
    ),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(TRAITS, min_size=1, max_size=8))
def test_laws(segments):
    segments = [strongest(traits) for traits in segments]
    names = draft_names(segments)
    assert len({name.casefold() for name in names}) == len(segments)
    assert all(name and name.isprintable() for name in names)
    assert draft_names(segments) == names
    hidden = draft_names(segments, hide_values=True)
    assert len({name.casefold() for name in hidden}) == len(segments)
    assert not any("ecret" in name or "yes" in name for name in hidden)


def test_numbers_go_around_names_that_are_taken():
    assert numbered(["A", "a 2", "A"], taken=["a"]) == ["A 2", "a 2 2", "A 3"]


def test_a_segment_is_the_same_while_most_of_what_sets_it_apart_is():
    a, b, c, d = (numeric(name, 1.0) for name in "abcd")
    assert is_same_segment([a, b, c], [c, a, d])
    assert is_same_segment([a, b, c, d], [a, b, c])
    assert not is_same_segment([a, b, c], [a, d, numeric("e", 1.0)])
    assert not is_same_segment([a], [a._replace(z=-1.0)])
    assert not is_same_segment([a], [])
    assert is_same_segment([], [])


def names_of(frame):
    found = gpuseg.segment(frame, num_clusters=4, n_init=4, ignore_columns="CustomerID")
    return {segment.name for segment in found.segments}


def test_a_few_rows_less_do_not_rename_anybody():
    mall = pl.read_csv(MALL)
    names = names_of(mall)
    assert len(names) == 4
    rng = np.random.default_rng(0)
    for _ in range(4):
        kept = np.sort(rng.choice(len(mall), len(mall) - 4, replace=False))
        assert names_of(mall[kept]) == names
    assert names_of(mall.sample(fraction=1.0, shuffle=True, seed=1)) == names
