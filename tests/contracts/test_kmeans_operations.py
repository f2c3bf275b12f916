"""Assignment and Lloyd's iterations, against loops in float64."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from contracts.compare import TOLERANCE, assert_close, assert_on_backend

from gpuseg.errors import ShapeError
from gpuseg.records import no_progress

#: rows below, at and above a block of 256; features at and above a chunk; centroids around 8
SHAPES = [(1, 1, 1), (2, 3, 2), (255, 4, 7), (256, 1, 8), (257, 17, 9), (300, 90, 3), (40, 2, 40)]


def blobs(n_samples, n_features, n_clusters, seed=0):
    rng = np.random.default_rng([seed, n_samples, n_features])
    centres = rng.normal(0, 6, (n_clusters, n_features))
    X = centres[np.arange(n_samples) % n_clusters] + rng.normal(size=(n_samples, n_features))
    return X.astype(np.float32)


def run(backend, X, starts, *, max_iter=300, tol=1e-6, progress=no_progress):
    there = backend.from_host(X)
    return backend.lloyd(there, starts, max_iter=max_iter, tol=tol, progress=progress)


@pytest.mark.parametrize(("n_samples", "n_features", "n_clusters"), SHAPES)
def test_assign(backend, n_samples, n_features, n_clusters):
    X = blobs(n_samples, n_features, 3)
    centroids = blobs(n_clusters, n_features, 3, seed=1)
    found = backend.assign(backend.from_host(X), centroids, progress=no_progress)

    for array, dtype in zip(found, ("int32", "float32") * 2, strict=True):
        assert_on_backend(backend, array, dtype)
    distances = oracles.sq_distances(X, centroids)
    nearest, sq, second, second_sq = (backend.to_host(array) for array in found)
    rows, ordered = np.arange(n_samples), np.sort(distances, axis=1)
    # the row's own choice must be as good as the best; a tie may go either way by rounding
    assert_close(backend, sq, ordered[:, 0], "assign")
    assert_close(backend, distances[rows, nearest], ordered[:, 0], "assign")
    if n_clusters == 1:
        assert (second == -1).all()
        assert np.isinf(second_sq).all()
        return
    assert_close(backend, second_sq, ordered[:, 1], "assign")
    assert_close(backend, distances[rows, second], ordered[:, 1], "assign")
    assert (second != nearest).all()


def test_ties_go_to_the_smaller_number(backend):
    X = np.zeros((3, 2), np.float32)
    centroids = np.array([[2, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    found = backend.assign(backend.from_host(X), centroids, progress=no_progress)
    assert backend.to_host(found.labels).tolist() == [1] * 3
    assert backend.to_host(found.second_labels).tolist() == [2] * 3


def test_a_row_is_assigned_for_itself(backend):
    X, centroids = blobs(300, 11, 5), blobs(6, 11, 5, seed=1)
    together = backend.assign(backend.from_host(X), centroids, progress=no_progress)
    rows = np.array([299, 7, 7, 130])
    alone = backend.assign(backend.from_host(X[rows]), centroids, progress=no_progress)
    for one, all_rows in zip(alone, together, strict=True):
        assert backend.to_host(one).tobytes() == backend.to_host(all_rows)[rows].tobytes()


def test_centroids_may_come_from_either_side(backend):
    X, centroids = blobs(50, 3, 2), blobs(4, 3, 2, seed=1)
    there = backend.from_host(X)
    given = backend.assign(there, centroids, progress=no_progress)
    found = backend.assign(there, backend.from_host(centroids), progress=no_progress)
    assert backend.to_host(found.labels).tobytes() == backend.to_host(given.labels).tobytes()


@pytest.mark.parametrize(
    ("X", "centroids"),
    [
        (np.zeros((3, 2), np.float32), np.zeros((1, 3), np.float32)),
        (np.zeros((3, 2), np.float32), np.zeros((0, 2), np.float32)),
        (np.zeros((3, 2)), np.zeros((1, 2), np.float32)),
        (np.zeros((2, 3), np.float32).T, np.zeros((1, 2), np.float32)),
        (np.zeros((0, 2), np.float32), np.zeros((1, 2), np.float32)),
    ],
)
def test_what_kernels_would_misread_is_refused(backend, X, centroids):
    there = backend.from_host(X) if X.flags.c_contiguous else backend.from_host(X.T).T
    with pytest.raises(ShapeError):
        backend.assign(there, centroids, progress=no_progress)
    with pytest.raises(ShapeError):
        backend.lloyd(there, [centroids], max_iter=9, tol=1e-4, progress=no_progress)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_lloyd_ends_where_labels_and_centroids_agree(backend, k):
    X = blobs(240, 4, 5)
    fits = run(backend, X, [X[:k], X[100 : 100 + k]])
    assert len(fits) == 2
    for fit in fits:
        assert_on_backend(backend, fit.labels, np.int32)
        centroids, labels = backend.to_host(fit.centroids), backend.to_host(fit.labels)
        assert centroids.dtype == np.float32
        distances = oracles.sq_distances(X, centroids)
        np.testing.assert_array_equal(labels, distances.argmin(axis=1))
        means = [X[labels == c].astype(np.float64).mean(axis=0) for c in range(k)]
        assert_close(backend, centroids, means, "centroids")
        assert fit.inertia == pytest.approx(
            distances.min(axis=1).sum(), rel=TOLERANCE["inertia"][0]
        )


def test_lloyd_finds_the_oracles_optimum(backend):
    X = blobs(240, 4, 5)
    start = X[:5]
    _centroids, labels, inertias = oracles.lloyd(X, start, max_iter=300)
    (fit,) = run(backend, X, [start])
    np.testing.assert_array_equal(backend.to_host(fit.labels), labels)
    assert fit.inertia == pytest.approx(inertias[-1], rel=TOLERANCE["optimum"][0])


def test_no_iterations_only_assign(backend):
    X, start = blobs(100, 3, 4), blobs(4, 3, 4, seed=2)
    start[:] = X[:4]
    (fit,) = run(backend, X, [start], max_iter=0, tol=0.0)
    assert backend.to_host(fit.centroids).tobytes() == start.tobytes()
    assert fit.n_iter == 0
    distances = oracles.sq_distances(X, start)
    np.testing.assert_array_equal(backend.to_host(fit.labels), distances.argmin(axis=1))


@pytest.mark.parametrize("max_iter", [1, 3])
def test_iterations_are_bounded(backend, max_iter):
    X = blobs(300, 2, 9)
    (fit,) = run(backend, X, [X[:9]], max_iter=max_iter, tol=0.0)
    assert 1 <= fit.n_iter <= max_iter


@pytest.mark.parametrize("max_iter", [0, 50])
def test_empty_clusters_take_the_farthest_rows(backend, max_iter):
    X = blobs(120, 2, 3)
    start = np.full((4, 2), 1e3, np.float32)  # all rows go to the first
    start[0] = X[0]
    (fit,) = run(backend, X, [start], max_iter=max_iter)
    assert np.bincount(backend.to_host(fit.labels), minlength=4).min() >= 1


def test_fewer_distinct_rows_than_clusters(backend):
    X = np.repeat(np.array([[0, 0], [4, 4]], np.float32), 5, axis=0)
    (fit,) = run(backend, X, [np.array([[0, 0], [4, 4], [9, 9]], np.float32)])
    assert fit.inertia == 0.0
    assert backend.to_host(fit.centroids)[2].tolist() == [9, 9]  # nothing to do there
    assert backend.to_host(fit.labels).tolist() == [0] * 5 + [1] * 5


def test_the_unit_of_the_data_does_not_matter(backend):
    X = blobs(200, 3, 4)
    (small,) = run(backend, X, [X[:4]], tol=1e-4)
    (large,) = run(backend, X * np.float32(2**20), [X[:4] * np.float32(2**20)], tol=1e-4)
    assert large.inertia == pytest.approx(small.inertia * 2.0**40, rel=TOLERANCE["optimum"][0])


def test_the_same_run_twice_gives_the_same_bits(backend):
    X = blobs(400, 5, 6)
    once, again = (run(backend, X, [X[:6]], tol=1e-4)[0] for _ in range(2))
    assert backend.to_host(once.centroids).tobytes() == backend.to_host(again.centroids).tobytes()
    assert backend.to_host(once.labels).tobytes() == backend.to_host(again.labels).tobytes()


def test_progress_and_no_runs(backend):
    X, calls = blobs(60, 2, 2), []
    assert run(backend, X, []) == []
    run(backend, X, [X[:2], X[:3]], progress=calls.append)
    assert calls == sorted(calls)
    assert calls[-1] == 1.0


@pytest.mark.parametrize(("n_samples", "n_features", "n_clusters"), SHAPES)
def test_what_a_step_sees(backend, n_samples, n_features, n_clusters):
    X = blobs(n_samples, n_features, 3)
    many = [blobs(n_clusters, n_features, 3, seed=1), blobs(1, n_features, 3, seed=2)]
    found = backend.lloyd_sums(backend.from_host(X), many)
    assert len(found) == 2
    for seen, centroids in zip(found, many, strict=True):
        distances = oracles.sq_distances(X, centroids)
        nearest = backend.to_host(
            backend.assign(backend.from_host(X), centroids, progress=no_progress).labels
        )
        members = np.eye(len(centroids))[nearest]
        assert seen.counts.tolist() == members.sum(axis=0).tolist()
        np.testing.assert_allclose(seen.sums, members.T @ X.astype(np.float64), rtol=1e-9)
        assert seen.inertia == pytest.approx(distances.min(axis=1).sum(), rel=1e-4)


def test_what_parts_of_the_rows_see_adds_up(backend):
    X, many = blobs(300, 4, 5), [blobs(5, 4, 5, seed=1), blobs(3, 4, 5, seed=2)]
    whole = backend.lloyd_sums(backend.from_host(X), many)
    first, second = (backend.lloyd_sums(backend.from_host(x), many) for x in (X[:77], X[77:]))
    for all_rows, one, other in zip(whole, first, second, strict=True):
        both = one.plus(other)
        assert both.counts.tolist() == all_rows.counts.tolist()
        np.testing.assert_allclose(both.sums, all_rows.sums, rtol=1e-9, atol=1e-9)
        assert both.inertia == pytest.approx(all_rows.inertia, rel=1e-6)


def test_a_step_leaves_empty_clusters_empty(backend):
    X, far = blobs(50, 2, 2), np.full((1, 2), 1e6, np.float32)
    (seen,) = backend.lloyd_sums(backend.from_host(X), [np.concatenate([X[:1], far])])
    assert seen.counts.tolist() == [50, 0]
    assert (seen.sums[1] == 0).all()


def test_the_farthest_row(backend):
    X = blobs(300, 4, 5)
    X[200] = X[120] = 50  # of equals, the first
    centroids = blobs(5, 4, 5, seed=1)
    found = backend.farthest(backend.from_host(X), centroids)
    assert isinstance(found.row, np.ndarray)
    assert found.row.tolist() == X[120].tolist()
    expected = oracles.sq_distances(X, centroids).min(axis=1).max()
    assert found.sq_distance == pytest.approx(expected, rel=1e-5)
