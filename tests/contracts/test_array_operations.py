"""Ordering, assembling, covariance and projection, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from gpuseg.backends.numpy import BLOCK_ROWS, NumPyBackend

BACKEND = NumPyBackend()
SIZES = [1, 2, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS + 5]


def features(n_samples, widths=(1, 3, 1), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(3, 10, (width, n_samples)).astype(np.float32) for width in widths]


@pytest.mark.parametrize("n_samples", [0, *SIZES])
def test_matrix(n_samples):
    blocks = features(n_samples)
    expected = np.concatenate(blocks).T
    X = BACKEND.matrix(blocks)
    assert (X.dtype, X.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(X, expected)


@pytest.mark.parametrize("n_samples", [0, *SIZES])
def test_row_order_is_a_permutation_that_follows_the_rows(n_samples):
    blocks = [np.round(block / 10) for block in features(n_samples)]  # many equal rows
    order = BACKEND.row_order(blocks)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n_samples))
    shuffle = np.random.default_rng(2).permutation(n_samples)
    again = BACKEND.row_order([np.ascontiguousarray(block[:, shuffle]) for block in blocks])
    X = np.concatenate(blocks).T
    np.testing.assert_array_equal(X[order], X[shuffle][again])


def test_row_order_spreads_equal_rows():
    value = np.repeat(np.arange(8, dtype=np.float32), 500)[None, :]
    first = value[0, BACKEND.row_order([value])[:800]]
    counts = np.bincount(first.astype(int), minlength=8)
    # 100 of each expected; 60 would be more than four deviations away
    assert counts.min() > 60
    assert counts.max() < 140


def test_row_order_tells_close_rows_apart():
    grid = np.arange(100_000, dtype=np.float32)[None, :]
    order = BACKEND.row_order([grid, grid / 7])
    # neighbours in value are not neighbours in order
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.02


@pytest.mark.parametrize("n_samples", SIZES)
def test_covariance(n_samples):
    X = BACKEND.matrix(features(n_samples)) + np.float32(1000)
    mean, covariance = BACKEND.covariance(X)
    exact = X.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-12)
    centred = exact - exact.mean(axis=0)
    np.testing.assert_allclose(covariance, centred.T @ centred / n_samples, rtol=1e-9, atol=1e-9)
    assert covariance.dtype == np.float64


@pytest.mark.parametrize("n_samples", SIZES)
@pytest.mark.parametrize(("n_features", "n_components"), [(1, 1), (7, 3), (70, 50)])
def test_project(n_samples, n_features, n_components):
    rng = np.random.default_rng(n_features)
    X = rng.normal(5, 2, (n_samples, n_features)).astype(np.float32)
    mean, components = rng.normal(size=n_features), rng.normal(size=(n_components, n_features))
    scores = BACKEND.project(X, mean, components)
    expected = (X.astype(np.float64) - mean) @ components.T
    assert (scores.dtype, scores.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-5)
    rows = rng.integers(0, n_samples, 9)
    alone = BACKEND.project(X[rows], mean, components)
    assert alone.tobytes() == scores[rows].tobytes()
