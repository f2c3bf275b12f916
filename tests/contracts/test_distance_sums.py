"""The sums behind the silhouette, against loops in float64."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from contracts.compare import assert_close, assert_on_backend

from gpuseg.records import no_progress


def make(n_samples, n_features, n_clusters):
    rng = np.random.default_rng(n_samples)
    X = rng.normal(2, 1, (n_samples, n_features)).astype(np.float32)
    labels = [np.arange(n_samples) % k for k in n_clusters]
    return X, np.array(labels, dtype=np.int32)


@pytest.mark.parametrize(("n_samples", "n_features"), [(2, 1), (130, 3), (260, 60)])
def test_all_rows(backend, n_samples, n_features):
    X, labels = make(n_samples, n_features, (2, 5))
    sums = backend.distance_sums(
        backend.from_host(X), backend.from_host(labels), (2, 5), rows=None, progress=no_progress
    )
    assert_on_backend(backend, sums, np.float64)
    assert_close(backend, sums, oracles.distance_sums(X, labels, (2, 5)), "distance_sums")


def test_some_rows(backend):
    X, labels = make(150, 4, (3,))
    rows, calls = np.array([149, 0, 0, 77]), []
    sums = backend.distance_sums(
        backend.from_host(X),
        backend.from_host(labels),
        (3,),
        rows=backend.from_host(rows),
        progress=calls.append,
    )
    assert_close(backend, sums, oracles.distance_sums(X, labels, (3,))[rows], "distance_sums")
    assert calls[-1] == 1.0
