"""Distance sums on the CPU: against the definition, at awkward sizes, on any threads."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import distance_sums as oracle

from gpuseg.backends.cpu.distance_sums import _rounds, distance_sums
from gpuseg.backends.cpu.joint_cells import plan_passes
from gpuseg.errors import DataError, ShapeError

# one line has 16 places, a block at most 32 lines; from 256 lines on there are strips
LINE, BLOCK, STRIPS = 16, 16 * 32, 16 * 256


def segmented(n_samples, n_features, k_values, *, seed=0, like="kmeans"):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, n_features)).astype(np.float32)
    if like == "random":
        return X, np.stack([rng.integers(0, k, n_samples) for k in k_values]).astype(np.int32)
    centres = rng.normal(size=(max(k_values), n_features))
    sq = ((X[:, None, :2] - centres[None, :, :2]) ** 2).sum(axis=2)
    return X, np.stack([sq[:, :k].argmin(axis=1) for k in k_values]).astype(np.int32)


def assert_close(found, expected):
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6 * expected.max())


@pytest.mark.parametrize("like", ["kmeans", "random"])
@pytest.mark.parametrize(
    "n_samples",
    [1, 2, 3, 5, LINE - 1, LINE, LINE + 1, 2 * LINE + 5, BLOCK - 1, BLOCK, BLOCK + 1, 1300],
)
def test_all_pairs_at_awkward_sizes(n_samples, like):
    k_values = (1, 2, 5, 9)
    X, labels = segmented(n_samples, 3, k_values, seed=n_samples, like=like)
    assert_close(distance_sums(X, labels, k_values), oracle(X, labels, k_values))


@pytest.mark.parametrize("n_features", [1, 2, 7, 16, 33, 130, 500])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_width_and_both_types(n_features, dtype):
    X, labels = segmented(201, n_features + 1, (2, 3))
    X = X[:, 1:].astype(dtype)  # not contiguous
    assert_close(distance_sums(X, labels, (2, 3)), oracle(X, labels, (2, 3)))


def test_many_strips_of_unequal_length():
    n_samples, k_values = 2 * STRIPS + 700, (2, 3, 4, 6)
    X, labels = segmented(n_samples, 2, k_values)
    found = distance_sums(X, labels, k_values)
    some = np.arange(0, n_samples, 13)
    distances = np.linalg.norm(X[some, None].astype(np.float64) - X[None], axis=2)
    expected = np.hstack(
        [distances @ np.eye(k)[of] for of, k in zip(labels, k_values, strict=True)]
    )
    assert_close(found[some], expected)


def test_a_pass_for_each_when_labels_have_nothing_in_common():
    k_values = (30, 31, 32)
    X, labels = segmented(600, 20, k_values, like="random")
    assert len(plan_passes(labels, k_values, 20)) > 1
    assert_close(distance_sums(X, labels, k_values), oracle(X, labels, k_values))
    rows = np.array([3, 599, 0])
    found = distance_sums(X, labels, k_values, rows=rows)
    assert_close(found, oracle(X, labels, k_values)[rows])


def test_one_pass_when_segmentations_are_alike():
    _X, labels = segmented(3000, 20, tuple(range(2, 10)))
    assert len(plan_passes(labels, range(2, 10), 20)) == 1


@pytest.mark.parametrize("n_rows", [1, LINE, BLOCK + 3])
def test_chosen_rows_in_any_order(n_rows):
    k_values = (2, 4, 7)
    X, labels = segmented(1500, 6, k_values)
    rows = np.random.default_rng(n_rows).integers(0, 1500, n_rows)  # also twice the same
    everything = distance_sums(X, labels, k_values)
    assert_close(distance_sums(X, labels, k_values, rows=rows), everything[rows])


def test_no_rows_chosen():
    X, labels = segmented(20, 2, (2,))
    assert distance_sums(X, labels, (2,), rows=np.array([], dtype=np.int64)).shape == (0, 2)


@pytest.mark.parametrize("rows", [None, np.arange(5, 2000, 3)])
def test_same_bits_on_any_number_of_threads(monkeypatch, rows):
    k_values = (2, 5, 9)
    X, labels = segmented(STRIPS + 100, 4, k_values)
    found = set()
    for threads in ("1", "2", "3", "16"):
        monkeypatch.setenv("GPUSEG_THREADS", threads)
        found.add(distance_sums(X, labels, k_values, rows=rows).tobytes())
    assert len(found) == 1


def test_equal_rows_have_distance_zero_exactly():
    X = np.repeat(np.random.default_rng(0).normal(5, 100, (2, 9)), 40, axis=0)
    labels = np.repeat([[0, 1]], 40, axis=1).astype(np.int32)
    sums = distance_sums(X, labels, (2,))
    own = np.take_along_axis(sums, labels.T, axis=1)
    assert (own == 0).all()
    assert (sums.sum(axis=1) > 0).all()


@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1e30, 1e200])
def test_units_do_not_matter(factor):
    X, labels = segmented(100, 3, (2, 3))
    X = X.astype(np.float64) * factor
    expected = oracle(X / factor, labels, (2, 3))
    assert_close(distance_sums(X, labels, (2, 3)) / factor, expected)


def test_progress_rises_to_one():
    X, labels = segmented(STRIPS + 1, 2, (2,))
    for rows in (None, np.arange(3000)):
        fractions = []
        distance_sums(X, labels, (2,), rows=rows, progress=fractions.append)
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0


@pytest.mark.parametrize("n_strips", [1, 2, 8, 16])
def test_rounds_meet_every_pair_once_and_no_strip_twice(n_strips):
    rounds = list(_rounds(n_strips))
    pairs = [tuple(pair) for of in rounds for pair in of]
    assert sorted(pairs) == [(i, j) for i in range(n_strips) for j in range(i, n_strips)]
    for of in rounds[1:]:
        assert len(np.unique(of)) == of.size


def test_what_does_not_fit_is_refused():
    X, labels = segmented(10, 2, (2,))
    with pytest.raises(ShapeError, match="labels have shape"):
        distance_sums(X, labels[:, :9], (2,))
    with pytest.raises(ShapeError, match="label is negative"):
        distance_sums(X, labels, (1,))
    with pytest.raises(ShapeError, match="chosen row"):
        distance_sums(X, labels, (2,), rows=np.array([10]))
    with pytest.raises(ShapeError, match="X has shape"):
        distance_sums(X[:, :0], labels, (2,))
    for bad in (np.nan, np.inf, -np.inf):
        X[3, 1] = bad
        with pytest.raises(DataError, match="NaN or infinite"):
            distance_sums(X, labels, (2,))
