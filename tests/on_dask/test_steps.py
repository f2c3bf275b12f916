"""What workers do with parts, without workers: parts together give what one machine has."""

from __future__ import annotations

import numpy as np
import pytest
from doubles.gpu_on_host import gpu_on_host, streaming_on_host
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseg.backends.content_order import content_order, row_hashes
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.distributed import steps
from gpuseg.distributed.matrix import rows_of


def keys_of(blocks, n_shares):
    hashes = [steps.hashes(block, on="numpy") for block in blocks]
    counted = [steps.counted(of_rows, n_shares=n_shares) for of_rows in hashes]
    before = [steps.earlier([part[share] for part in counted]) for share in range(n_shares)]
    return [
        steps.keys(of_rows, [before[share][number] for share in range(n_shares)])
        for number, of_rows in enumerate(hashes)
    ]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    n_shares=st.integers(1, 4),
)
def test_the_order_of_content_does_not_depend_on_the_parts(values, cuts, n_shares):
    """Also of rows that repeat: the r-th of equal rows is the r-th in the whole table."""
    X = np.array(values, np.float32)[:, None] * np.ones(2, np.float32)
    blocks = [b for b in np.split(X, sorted(min(c, len(X)) for c in cuts)) if len(b)]
    keys = np.concatenate(keys_of(blocks, n_shares))
    expected = content_order([np.ascontiguousarray(X.T)], np)
    assert np.argsort(keys, kind="stable").tolist() == expected.tolist()


def test_the_first_rows_are_those_of_the_whole():
    X = np.random.default_rng(0).integers(0, 9, (500, 3)).astype(np.float32)
    blocks = np.split(X, [20, 300])
    keys = keys_of(blocks, 2)
    found = rows_of([steps.smallest(of_part, below=2**64) for of_part in keys]).first(40)
    firsts = np.array([0, 20, 300])
    expected = content_order([np.ascontiguousarray(X.T)], np)[:40]
    assert (firsts[found.part] + found.place).tolist() == expected.tolist()


@pytest.fixture(params=["numpy", "gpu-on-host", "streaming-on-host"])
def engine(request, monkeypatch):
    """The engines that a worker may have; the GPU's runs on the host here."""
    made = {
        "numpy": NumPyBackend,
        "gpu-on-host": gpu_on_host,
        "streaming-on-host": streaming_on_host,
    }[request.param]()
    monkeypatch.setattr(steps, "backend_of", lambda _asked: made)
    return made


def test_distances_to_parts_add_up(engine):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 4)).astype(np.float32)
    many = [X[:2].copy(), X[5:8].copy()]
    chosen = np.array([3, 77, 250])
    blocks = [engine.from_host(block) for block in np.split(X, [100, 220])]
    parts = [steps.labelled(block, many=many, on="numpy") for block in blocks]
    found = sum(
        steps.sums_to_part(block, part, rows=X[chosen], on="numpy")
        for block, part in zip(blocks, parts, strict=True)
    )
    labels = np.concatenate([part.labels for part in parts], axis=1)
    distances = np.linalg.norm(X[chosen][:, None].astype(np.float64) - X[None], axis=2)
    expected = np.hstack([distances @ np.eye(len(c))[labels[i]] for i, c in enumerate(many)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    within = steps.sums_within(blocks, parts, 1, on="")
    distances = np.linalg.norm(X[100:220, None].astype(np.float64) - X[None], axis=2)
    expected = np.hstack([distances @ np.eye(len(c))[labels[i]] for i, c in enumerate(many)])
    np.testing.assert_allclose(within, expected, rtol=1e-5, atol=1e-5)


def test_workers_with_a_gpu_give_host_values(engine):
    X = np.random.default_rng(5).integers(0, 4, (90, 2)).astype(np.float32)
    block = engine.from_host(X)
    assert steps.hashes(block, on="").tolist() == hashes_of(X)
    assert steps.extremes(block) == (0.0, 3.0)
    assert steps.take(block, np.array([3, 0]), on="").tolist() == X[[3, 0]].tolist()
    assert len(steps.few_distinct(block, at_most=5, on="")) == 5
    n_rows, mean, _covariance = steps.covariance(block, on="")
    assert n_rows == 90
    np.testing.assert_allclose(mean, X.mean(axis=0), rtol=1e-6)
    (seen,) = steps.lloyd_sums(block, many=[X[:2].copy()], on="")
    assert isinstance(seen.sums, np.ndarray)
    assert seen.counts.sum() == 90
    farthest = steps.farthest(block, centroids=X[:2].copy(), on="")
    assert isinstance(farthest.row, np.ndarray)


def hashes_of(X):
    return row_hashes([np.ascontiguousarray(X.T)], np).tolist()


@pytest.mark.parametrize("n_rows", [1, 5, 1000])
def test_the_first_rows_of_clusters(n_rows):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(200, 2)).astype(np.float32)
    (keys,) = keys_of([X], 1)
    part = steps.labelled(X, many=[X[:3].copy()], on="numpy")
    (clusters,) = steps.first_of_each(part, keys, n_rows=n_rows)
    for cluster, found in enumerate(clusters):
        members = np.flatnonzero(part.labels[0] == cluster)
        expected = members[np.argsort(keys[members])][:n_rows]
        assert found.places.tolist() == expected.tolist()
        assert found.keys.tolist() == keys[expected].tolist()
