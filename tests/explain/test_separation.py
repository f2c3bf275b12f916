"""Cuts that tell segments apart: as good as trying all of them, and measured by definition."""

from __future__ import annotations

from collections import Counter
from math import log

import numpy as np
import pytest
from explain import line_oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.explain.separation import SegmentCounts


def uncertainty_coefficient(buckets, segments):
    """I(bucket; segment) / H(segment), from counted pairs."""
    n = len(segments)
    pairs, b, s = Counter(zip(buckets, segments, strict=True)), Counter(buckets), Counter(segments)
    mutual = sum(m / n * log(m * n / (b[x] * s[y])) for (x, y), m in pairs.items())
    entropy = -sum(m / n * log(m / n) for m in s.values())
    return mutual / entropy if entropy else 0.0


ROWS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), min_size=2, max_size=30)


def counted(rows):
    values, places = np.unique([value for value, _ in rows], return_inverse=True)
    labels = np.array([label for _, label in rows], dtype=np.int32)
    return SegmentCounts.of(places, labels), values, places, labels


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_no_other_cuts_separate_better(rows):
    counts, values, places, labels = counted(rows)
    for k, bounds in enumerate(counts.best_bounds(4), start=1):
        assert len(bounds) == k + 1
        found = counts.separation(bounds)
        buckets = np.searchsorted(bounds, places, side="right")
        expected = uncertainty_coefficient(buckets.tolist(), labels.tolist())
        assert found == pytest.approx(expected, abs=1e-12)
        others = line_oracle.partitions(len(values), k)
        best = max(counts.separation(np.array(other)) for other in others)
        assert found == pytest.approx(best, abs=1e-12)


def test_perfect_and_useless_cuts():
    ages = np.repeat(np.arange(10), 5)
    counts = SegmentCounts.of(ages, (ages >= 4).astype(np.int32))
    assert counts.best_bounds(2)[1].tolist() == [0, 4, 10]
    assert counts.separation(np.array([0, 4, 10])) == 1.0
    assert counts.separation(np.array([0, 10])) == 0.0
    one = SegmentCounts.of(ages, np.zeros(50, np.int32))
    assert one.separation(np.array([0, 4, 10])) == 0.0


def test_many_values_with_a_heavy_one_are_cut_on_both_of_its_sides():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.random(30_000), np.full(60_000, 0.5), rng.random(30_000) + 2])
    distinct, places = np.unique(values, return_inverse=True)
    labels = np.select([values < 0.5, values == 0.5, values < 2], [0, 1, 0], 2).astype(np.int32)
    counts = SegmentCounts.of(places, labels)
    bounds = counts.best_bounds(4)[3]
    assert counts.separation(bounds) == pytest.approx(1.0, abs=2e-3)
    assert distinct[bounds[1]] == 0.5
    assert bounds[2] == bounds[1] + 1
