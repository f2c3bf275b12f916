"""Ordering, assembling, covariance and projection, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from contracts.compare import assert_close, assert_on_backend

from gpuseg.backends.numpy import BLOCK_ROWS

SIZES = [1, 2, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS + 5]


def features(n_samples, widths=(1, 3, 1), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(3, 10, (width, n_samples)).astype(np.float32) for width in widths]


def there(backend, arrays):
    return [backend.from_host(np.ascontiguousarray(array)) for array in arrays]


@pytest.mark.parametrize("n_samples", [0, *SIZES])
def test_matrix(backend, n_samples):
    blocks = features(n_samples)
    X = backend.matrix(there(backend, blocks))
    assert_on_backend(backend, X, np.float32)
    np.testing.assert_array_equal(backend.to_host(X), np.concatenate(blocks).T)


def test_arrays_come_back_as_they_were(backend):
    values = features(7)[1]
    assert backend.to_host(backend.from_host(values)).tobytes() == values.tobytes()
    assert backend.to_host(values).tobytes() == values.tobytes()  # also what never left


@pytest.mark.parametrize("n_samples", [0, *SIZES])
def test_row_order_is_a_permutation_that_follows_the_rows(backend, n_samples):
    blocks = [np.round(block / 10) for block in features(n_samples)]  # many equal rows
    order = backend.row_order(there(backend, blocks))
    assert isinstance(order, np.ndarray)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n_samples))
    shuffle = np.random.default_rng(2).permutation(n_samples)
    again = backend.row_order(there(backend, [block[:, shuffle] for block in blocks]))
    X = np.concatenate(blocks).T
    np.testing.assert_array_equal(X[order], X[shuffle][again])


def test_row_order_spreads_equal_rows(backend):
    value = np.repeat(np.arange(8, dtype=np.float32), 500)[None, :]
    first = value[0, backend.row_order(there(backend, [value]))[:800]]
    counts = np.bincount(first.astype(int), minlength=8)
    # 100 of each expected; 60 would be more than four deviations away
    assert counts.min() > 60
    assert counts.max() < 140


def test_row_order_tells_close_rows_apart(backend):
    grid = np.arange(100_000, dtype=np.float32)[None, :]
    order = backend.row_order(there(backend, [grid, grid / 7]))
    # neighbours in value are not neighbours in order
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.02


@pytest.mark.parametrize("n_samples", SIZES)
def test_covariance(backend, n_samples):
    X = np.concatenate(features(n_samples)).T + np.float32(1000)
    X = np.ascontiguousarray(X)
    mean, covariance = backend.covariance(backend.from_host(X))
    exact = X.astype(np.float64)
    centred = exact - exact.mean(axis=0)
    assert isinstance(covariance, np.ndarray)
    assert covariance.dtype == mean.dtype == np.float64
    assert_close(backend, mean, exact.mean(axis=0), "mean")
    assert_close(backend, covariance, centred.T @ centred / n_samples, "covariance")


@pytest.mark.parametrize("n_samples", SIZES[:-1])
@pytest.mark.parametrize(("n_features", "n_components"), [(1, 1), (7, 3), (70, 50)])
def test_project(backend, n_samples, n_features, n_components):
    if n_samples > 2:
        n_samples = n_samples // (n_features * n_components) + 300
    rng = np.random.default_rng(n_features)
    X = rng.normal(5, 2, (n_samples, n_features)).astype(np.float32)
    mean, components = rng.normal(size=n_features), rng.normal(size=(n_components, n_features))
    scores = backend.project(backend.from_host(X), mean, components)
    assert_on_backend(backend, scores, np.float32)
    expected = (X.astype(np.float64) - mean) @ components.T
    assert_close(backend, scores, expected, "project")
    rows = rng.integers(0, n_samples, 9)
    alone = backend.project(backend.from_host(X[rows]), mean, components)
    assert backend.to_host(alone).tobytes() == backend.to_host(scores)[rows].tobytes()
