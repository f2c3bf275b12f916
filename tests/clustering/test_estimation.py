"""Means estimated from some rows: unbiased, with an error that holds, together with others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.clustering.estimation import Sample, estimate
from gpuseg.errors import DataError


def sample_of(values, clusters, rows, screen=None, counted=None):
    """Return what is known when these rows of a whole table were scored."""
    screen = np.zeros(len(values)) if screen is None else screen
    rows = np.asarray(rows)
    return Sample(
        values=values[rows],
        clusters=clusters[rows],
        counted=np.ones(len(rows), bool) if counted is None else counted,
        sizes=np.bincount(clusters),
        screen=screen[rows],
        screen_mean=float(screen.mean()),
    )


def all_samples(clusters, n_of_each):
    """Yield every choice of so many rows of each cluster."""
    members = [np.flatnonzero(clusters == c) for c in range(len(n_of_each))]
    choices = [
        list(itertools.combinations(own, n)) for own, n in zip(members, n_of_each, strict=True)
    ]
    for chosen in itertools.product(*choices):
        yield np.sort(np.concatenate([np.array(part, dtype=int) for part in chosen]))


@pytest.mark.parametrize("n_of_each", [(1, 1), (2, 3), (4, 2), (3, 5)])
@pytest.mark.parametrize("with_screen", [False, True])
def test_the_mean_over_every_possible_sample_is_the_truth(n_of_each, with_screen):
    rng = np.random.default_rng(3)
    clusters = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    values = rng.normal(size=9)
    screen = values + rng.normal(size=9) if with_screen else None
    found = [
        estimate([sample_of(values, clusters, rows, screen)]).means[0]
        for rows in all_samples(clusters, n_of_each)
    ]
    assert np.mean(found) == pytest.approx(values.mean(), abs=1e-12)


def test_the_stated_variance_is_the_true_one_on_average_and_a_little_more():
    rng = np.random.default_rng(4)
    clusters = np.array([0] * 5 + [1] * 6)
    values, screen = rng.normal(size=11), rng.normal(size=11)
    both = [
        estimate([sample_of(values, clusters, rows, screen)])
        for rows in all_samples(clusters, (3, 4))
    ]
    true = np.var([found.means[0] for found in both])
    plain = np.mean([(found.pulls**2).sum() for found in both])
    assert plain == pytest.approx(true, rel=1e-9)  # Cochran, theorem 5.3
    assert np.mean([found.stderr[0] ** 2 for found in both]) > true


tables = st.integers(0, 2**31).map(np.random.default_rng)


@settings(max_examples=50, deadline=None)
@given(rng=tables, n=st.integers(4, 60), k=st.integers(1, 4))
def test_all_rows_scored_leave_no_error_whatever_the_screen(rng, n, k):
    clusters = np.sort(np.arange(n) % k)
    values, screen = rng.normal(size=n), 100 * rng.normal(size=n)
    found = estimate([sample_of(values, clusters, np.arange(n), screen)])
    assert found.means[0] == pytest.approx(values.mean(), abs=1e-9)
    assert found.stderr[0] == 0.0
    assert found.intervals[0] == pytest.approx([found.means[0]] * 2)


@settings(max_examples=50, deadline=None)
@given(rng=tables, n=st.integers(20, 80), shift=st.floats(-5, 5))
def test_a_screen_that_is_off_by_a_constant_leaves_no_error(rng, n, shift):
    clusters = np.arange(n) % 3
    values = rng.normal(size=n)
    rows = np.arange(n // 2)
    found = estimate([sample_of(values, clusters, rows, values + shift)])
    assert found.means[0] == pytest.approx(values.mean(), abs=1e-9)
    assert found.stderr[0] == pytest.approx(0.0, abs=1e-9)


def test_a_difference_is_known_better_than_both_means():
    rng = np.random.default_rng(5)
    common, clusters = rng.normal(size=4_000), np.arange(4_000) % 2
    one, other = common, common + 0.01 * rng.normal(size=4_000)
    rows = np.arange(400)
    found = estimate([sample_of(one, clusters, rows), sample_of(other, clusters, rows)])
    assert found.difference_stderr(0, 1) < found.stderr.min() / 50
    truth = one.mean() - other.mean()
    assert abs(found.means[0] - found.means[1] - truth) < 4 * found.difference_stderr(0, 1)
    assert found.difference_stderr(0, 0) == 0.0


def test_rivals_are_those_within_reach_and_the_reach_grows_with_looks():
    rng = np.random.default_rng(6)
    clusters, noise = np.zeros(10_000, int), rng.normal(size=(3, 10_000))
    values = noise + np.array([[0.30], [0.22], [-2.0]])
    found = estimate([sample_of(of, clusters, np.arange(1_000)) for of in values])
    apart = (found.means[0] - found.means[1]) / found.difference_stderr(0, 1)
    assert 1.7 < apart < 2.8  # so that the number of looks decides
    assert found.rivals(0, [1, 2], looks=100) == [1]
    assert found.rivals(0, [1]) == []
    assert found.rivals(1, [0, 2]) == [0]


def test_rows_that_do_not_count_change_nothing():
    rng = np.random.default_rng(7)
    clusters, values = np.arange(100) % 2, rng.normal(size=100)
    rows, counted = np.arange(60), np.arange(60) < 40
    found = estimate([sample_of(values, clusters, rows, counted=counted)])
    plain = estimate([sample_of(values, clusters, rows[:40])])
    assert found.means == pytest.approx(plain.means)
    assert found.stderr == pytest.approx(plain.stderr)


def test_a_cluster_without_counted_rows_is_an_error():
    clusters, values = np.array([0, 0, 1, 1]), np.zeros(4)
    with pytest.raises(DataError, match="no row of cluster 1"):
        estimate([sample_of(values, clusters, [0, 1])])
