"""K-means on a line is exact, and so is its silhouette, whatever the numbers look like."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import oracles
import pytest
from explain import line_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from gpuseg.explain.line import Line


def line(values):
    return Line.of(*np.unique(np.asarray(values, dtype=np.float64), return_counts=True))


def assert_least(values, max_clusters=5):
    """Every partition must have the least inertia that exact arithmetic finds."""
    found = line(values)
    ordered, counts = sorted(values), np.cumsum([0, *found.counts])
    partitions = found.partitions(max_clusters)
    assert [len(p) - 1 for p in partitions] == list(
        range(1, min(max_clusters, len(found.values)) + 1)
    )
    for k, bounds in enumerate(partitions, start=1):
        assert bounds[0] == 0
        assert bounds[-1] == len(found.values)
        assert (np.diff(bounds) > 0).all()
        least = line_oracle.least_inertia(ordered, k)
        exact = line_oracle.inertia(ordered, counts[bounds].tolist())
        # twice 53 bits: what is 1e15 times smaller than the range is still told apart
        lost = len(values) * 1e-31 * float(Fraction(ordered[-1]) - Fraction(ordered[0])) ** 2
        assert exact - least <= Fraction(1, 10**12) * least + Fraction(lost)
        assert found.inertia(bounds) == pytest.approx(float(exact), rel=1e-10, abs=lost)


SIZES = st.sampled_from([1.0, 1e-9, 1e9])
NUMBERS = st.lists(
    st.one_of(
        st.integers(-20, 20).map(float),
        st.floats(-100, 100, allow_subnormal=False),
        st.sampled_from([-1e12, 999_999_999.0, 1e15]),
    ),
    min_size=1,
    max_size=18,
)


@settings(max_examples=150, deadline=None)
@given(NUMBERS, SIZES)
def test_no_partition_is_better(values, size):
    assert_least([value * size for value in values])


@pytest.mark.parametrize(
    "values",
    [
        [3.0],
        [1.0, 2.0],
        [5.0] * 7,
        [0.0, 0.0, 1.0, 1.0, 1.0],
        [1e15 + i for i in (0, 1, 2, 10, 11, 12, 40)],
        [-999_999_999.0, *np.linspace(0, 1, 12).tolist(), 1.7, 1.71],
        [-1e13, 0.1, 0.2, 0.3, 0.9, 1.0, 1.1],
        [1e-160, 2e-160, 9e-160],
        [-1e150, 0.0, 1.0, 1e150],
    ],
    ids=["one", "two", "equal", "ties", "offset", "sentinel", "far", "tiny", "huge"],
)
def test_edge_cases(values):
    assert_least(values)


def test_digits_survive_beside_a_far_value():
    near = np.random.default_rng(0).normal(0, 1, 3000)
    alone = line(near).partitions(3)[2]
    beside = line([-1e14, *near]).partitions(4)[3]
    np.testing.assert_array_equal(beside[1:], alone + 1)
    assert line([-1e14, *near]).inertia(beside) == pytest.approx(line(near).inertia(alone))


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_laws(values):
    found = line(values)
    partitions = found.partitions(6)
    inertias = [found.inertia(bounds) for bounds in partitions]
    assert all(b <= a for a, b in pairwise(inertias))
    shares = [found.explained(bounds) for bounds in partitions]
    assert all(0 <= share <= 1 for share in shares)
    # exact laws on whole numbers: moved, mirrored, repeated rows
    whole = [float(round(value)) for value in values if abs(value) < 1e6]
    if not whole:
        return
    for changed in ([v + 2**30 for v in whole], [v * 4 for v in whole], whole * 3):
        for a, b in zip(line(whole).partitions(6), line(changed).partitions(6), strict=True):
            np.testing.assert_array_equal(a, b)
    mirrored = [-v for v in whole]
    for a, b in zip(line(whole).partitions(6), line(mirrored).partitions(6), strict=True):
        assert line(whole).inertia(a) == pytest.approx(line(mirrored).inertia(b), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_k_means_is_never_better(seed):
    rng = np.random.default_rng(seed)
    values = np.round(rng.lognormal(2, 1, 4000), 2)
    found = line(values)
    for k in (2, 3, 5, 9):
        fitted = KMeans(k, n_init=3, random_state=seed).fit(values[:, None])
        bounds = found.partitions(9)[k - 1]
        assert found.inertia(bounds) <= fitted.inertia_ * (1 + 1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_many_values_as_the_quadratic_search(offset):
    """A thousand values: starts beyond one block of candidates, and every layer."""
    values = np.sort(np.random.default_rng(3).lognormal(0, 2, 1000)) + offset
    cost = _all_costs(values)
    best = np.concatenate([[np.inf], cost[0, 1:]])
    for k in range(2, 7):
        best = np.min(best[:, None] + cost, axis=0)
        bounds = line(values).partitions(6)[k - 1]
        assert line(values).inertia(bounds) == pytest.approx(best[-1], rel=1e-7)


def _all_costs(values):
    n = len(values)
    cost = np.full((n + 1, n + 1), np.inf)
    for i in range(n):
        part = values[i:] - values[i]
        size = np.arange(1, n - i + 1)
        cost[i, i + 1 :] = np.cumsum(part**2) - np.cumsum(part) ** 2 / size
    return cost


@settings(max_examples=100, deadline=None)
@given(NUMBERS, st.randoms(use_true_random=False))
def test_silhouette_by_definition(values, random):
    found = line(values)
    n = len(found.values)
    k = min(n, random.randint(2, 5))
    if k < 2:
        assert found.silhouette(np.array([0, n])) is None
        return
    inner = sorted(random.sample(range(1, n), k - 1))
    bounds = np.array([0, *inner, n])
    labels = np.repeat(np.repeat(np.arange(k), np.diff(bounds)), found.counts)
    rows = np.repeat(found.values, found.counts)[:, None]
    expected = oracles.silhouette_samples(rows, labels).mean()
    assert found.silhouette(bounds) == pytest.approx(expected, abs=1e-9)


def test_silhouette_is_the_same_far_from_zero():
    values = np.random.default_rng(1).integers(0, 1000, 5000).astype(float)
    bounds = line(values).partitions(4)[3]
    assert line(values + 1e12).silhouette(bounds) == pytest.approx(
        line(values).silhouette(bounds), rel=1e-12
    )
