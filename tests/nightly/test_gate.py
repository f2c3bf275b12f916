"""The gate: what is refused, why, and that nothing unknown slips through."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuseg.errors import SettingsError
from gpuseg.nightly.gate import Evidence, decide
from gpuseg.settings import Settings, resolve

GOOD = Evidence(
    silhouette=0.5,
    n_clusters=3,
    min_cluster_share=0.2,
    churn=0.1,
    max_psi=0.05,
    max_psi_column="spend",
    earlier_silhouette=0.45,
    measured="on today's rows",
    is_first=False,
)


def verdict(evidence=GOOD, **settings):
    return decide(Settings(**settings), evidence)


def checks(found):
    return {check.check: check.passed for check in found.checks}


def test_without_limits_everything_is_published():
    assert verdict() == verdict(GOOD._replace(silhouette=0.5))
    assert verdict().passed
    assert verdict().checks == ()


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("min_silhouette", 0.6, "the mean silhouette is 0.5, below min_silhouette 0.6"),
        ("max_churn", 0.05, "0.1 of the known rows changed their segment, more than max_churn"),
        ("max_psi", 0.01, "column 'spend' moved by a population stability index of 0.05"),
    ],
)
def test_a_broken_limit_refuses_and_says_what_was_found(limit, value, words):
    found = verdict(**{limit: value})
    assert not found.passed
    assert checks(found) == {limit: False}
    assert len(found.reasons) == 1
    assert words in found.reasons[0]
    assert found.checks[0].limit == value


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("gone", "numeric", "column 'spend' is no longer in the table"),
        ("retyped", "numeric", "column 'spend' can no longer be read as numbers"),
        ("retyped", "datetime", "column 'spend' can no longer be read as dates"),
    ],
)
def test_a_column_that_is_lost_is_refused_as_what_it_is(status, kind, words):
    lost = GOOD._replace(max_psi=16.0, max_psi_status=status, max_psi_kind=kind)
    found = verdict(lost, max_psi=0.25)
    assert not found.passed
    assert words in found.reasons[0]
    assert "moved" not in found.reasons[0]


@pytest.mark.parametrize(
    ("limit", "value"), [("min_silhouette", 0.5), ("max_churn", 0.1), ("max_psi", 0.05)]
)
def test_what_just_meets_a_limit_passes(limit, value):
    assert verdict(**{limit: value}).passed


def test_every_broken_limit_is_named():
    found = verdict(min_silhouette=0.9, max_churn=0.0, max_psi=0.0)
    assert len(found.reasons) == 3


def test_if_better_compares_with_the_published_segments_and_says_on_which_rows():
    assert verdict(publish="if-better").passed
    worse = verdict(GOOD._replace(silhouette=0.44), publish="if-better")
    assert not worse.passed
    assert "0.44, lower than the 0.45" in worse.reasons[0]
    assert "on today's rows" in worse.reasons[0]
    stored = GOOD._replace(silhouette=0.44, measured="on its own rows")
    assert "on its own rows" in verdict(stored, publish="if-better").reasons[0]
    assert verdict(GOOD._replace(silhouette=0.45), publish="if-better").passed
    # the same segments, summed in another order
    assert verdict(GOOD._replace(silhouette=0.45 - 1e-9), publish="if-better").passed


def test_if_better_also_holds_the_limits():
    assert not verdict(publish="if-better", max_churn=0.01).passed


def test_always_publishes_and_still_says_what_is_broken():
    found = verdict(publish="always", max_churn=0.01)
    assert found.passed
    assert checks(found) == {"max_churn": False}
    assert "max_churn" in found.reasons[0]


def test_a_first_run_has_no_churn_but_a_silhouette():
    first = Evidence(silhouette=0.1, n_clusters=2, min_cluster_share=0.4)
    found = verdict(first, max_churn=0.1, max_psi=0.1, publish="if-better")
    assert found.passed
    assert checks(found) == {"max_churn": None, "max_psi": None, "if-better": None}
    assert not verdict(first, min_silhouette=0.2).passed


def test_rows_that_were_only_placed_are_held_to_what_is_known_of_them():
    placed = GOOD._replace(is_fitted=False, churn=None, max_psi=0.9)
    found = verdict(placed, max_churn=0.1, max_psi=0.25, publish="if-better")
    assert checks(found) == {"max_churn": None, "max_psi": False, "if-better": None}
    assert "only placed" in found.notes[0]
    assert not found.passed


UNKNOWN = st.sampled_from([None, math.nan, math.inf, -math.inf])


@given(unknown=UNKNOWN, limit=st.floats(0, 1))
def test_what_is_not_known_never_passes_a_limit(unknown, limit):
    for name, evidence in (
        ("max_churn", GOOD._replace(churn=unknown)),
        ("max_psi", GOOD._replace(max_psi=unknown)),
        ("min_silhouette", GOOD._replace(silhouette=math.nan if unknown is None else unknown)),
    ):
        found = verdict(evidence, **{name: limit})
        assert not found.passed
        assert "is not known" in found.reasons[0]
        assert found.checks[0].found is None  # JSON has no NaN
    unknown_before = GOOD._replace(earlier_silhouette=unknown)
    assert not verdict(unknown_before, publish="if-better").passed


@given(
    st.floats(-1, 1), st.floats(0, 1), st.floats(0, 5), st.floats(-1, 1), st.floats(0, 1),
    st.floats(0, 5), st.sampled_from(["always", "if-better", "if-ok"]), st.floats(-1, 1),
)  # fmt: skip
def test_the_verdict_is_what_the_limits_say(s, churn, psi, low, most, far, publish, before):
    evidence = GOOD._replace(silhouette=s, churn=churn, max_psi=psi, earlier_silhouette=before)
    found = verdict(evidence, min_silhouette=low, max_churn=most, max_psi=far, publish=publish)
    fine = s >= low and churn <= most and psi <= far
    if publish == "if-better":
        fine = fine and s > before - 1e-6
    assert found.passed == (fine or publish == "always")
    assert bool(found.reasons) == (not fine)
    assert sum(check.passed is False for check in found.checks) == len(found.reasons)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_churn": "1.1"}, {"max_churn": "-0.1"}, {"max_churn": "nan"}, {"max_churn": "5 %"},
        {"min_silhouette": "1.5"}, {"min_silhouette": "-2"}, {"min_silhouette": "nan"},
        {"max_psi": "-1"}, {"max_psi": "inf"}, {"max_psi": "nan"}, {"publish": "maybe"},
    ],
)  # fmt: skip
def test_limits_that_cannot_be_meant_are_refused(bad):
    with pytest.raises(SettingsError, match=next(iter(bad))):
        resolve(bad)
