"""The text of nearest.cu and project.cu, run on the host: sizes, schedules, planted faults."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracles
import pytest
from kernels.cuda_on_host import (
    SANITIZE,
    SMALL_LIMITS,
    HostDevice,
    KernelFailedError,
    build,
)

from gpuseg.backends.gpu import nearest
from gpuseg.backends.gpu.nearest import assign
from gpuseg.backends.gpu.projection import project
from gpuseg.backends.kernel_loader import kernel_text

TEXT = kernel_text("nearest")
PROJECT = kernel_text("project")
SCHEDULES = ("forward", "reverse", "random")
PLAIN = ("-O0",)

#: Little shared memory, so that 17 features already take several chunks.
TIGHT = SMALL_LIMITS._replace(shared_bytes_per_block=nearest.shared_bytes(5))

#: Rows around a block of 256, features around a chunk, centroids around eight.
SIZES = [(1, 1, 1), (3, 5, 2), (255, 6, 7), (256, 17, 8), (257, 4, 9), (700, 11, 17), (30, 2, 30)]

BARRIERS = list(re.finditer(r"__syncthreads\(", TEXT))

#: What holds an index inside an array, and the same without it.
BOUNDS = [
    ("row < n_rows ? X[", "true ? X["),
    ("c < n_clusters ? centroids[", "true ? centroids["),
    ("if (row >= n_rows) continue;", ""),
    ("min(depth, n_features - feature0)", "depth"),
]
#: What makes a result right though no access is wrong without it.
STEPS = [
    ("if (first + j >= n_clusters) break;", ""),
    ("second_sq = sq, second_label = label;", ""),
    ("new_label == 0 || ", ""),
    ("depth < n_features || first == 0", "first == 0"),
]


def make(n_samples, n_features, n_clusters):
    rng = np.random.default_rng([n_samples, n_features])
    X = rng.normal(3, 2, (n_samples, n_features)).astype(np.float32)
    return X, rng.normal(3, 2, (n_clusters, n_features)).astype(np.float32)


def is_right(found, X, centroids):
    """Compare with the oracle; where distances are as good as equal, either may be named."""
    distances = oracles.sq_distances(X, centroids)
    ordered = np.sort(distances, axis=1)
    second = ordered[:, 1] if len(centroids) > 1 else np.full(len(X), np.inf)
    rows = np.arange(len(X))
    labels_fit = all(
        ((labels >= 0) & (labels < len(centroids))).all()
        and np.allclose(distances[rows, labels], sq, rtol=1e-5)
        for labels, sq in ((found[0], found[1]), (found[2], found[3]))[: len(centroids)]
    )
    return (
        labels_fit
        and np.allclose(found.sq_distances, ordered[:, 0], rtol=1e-5)
        and np.allclose(found.second_sq_distances, second, rtol=1e-5)
    )


@pytest.mark.parametrize("n_threads", [128, 64])
@pytest.mark.parametrize(("n", "d", "k"), SIZES)
def test_every_schedule_and_chunk_gives_the_oracles_result(n, d, k, n_threads, monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK_THREADS", n_threads)
    monkeypatch.setattr(nearest, "BLOCK_ROWS", 2 * n_threads)
    X, centroids = make(n, d, k)
    devices = [HostDevice(schedule=order) for order in SCHEDULES]
    found = [assign(device, X, centroids) for device in (*devices, HostDevice(limits=TIGHT))]
    assert is_right(found[0], X, centroids)
    for other in found[1:]:
        for mine, theirs in zip(other, found[0], strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_a_grid_too_small_for_the_rows_walks_on(monkeypatch):
    monkeypatch.setattr(nearest, "WAVES", 1)
    X, centroids = make(900, 3, 4)
    device = HostDevice(limits=SMALL_LIMITS._replace(n_multiprocessors=1))
    found = assign(device, X, centroids)
    assert device.shapes[0].grid[0] < 900 / nearest.BLOCK_ROWS
    assert is_right(found, X, centroids)


def test_huge_distances_overflow_to_infinity_and_keep_the_first_label():
    X = np.full((3, 2), 1e30, np.float32)
    found = assign(HostDevice(), X, np.array([[0, 0], [1, 1]], np.float32))
    assert found.labels.tolist() == [0] * 3
    assert np.isinf(found.sq_distances).all()
    assert found.second_labels.tolist() == [-1] * 3


def test_launcher_and_kernel_agree_on_the_layout():
    facts = {
        "BLOCK_THREADS": nearest.BLOCK_THREADS,
        "kRows": nearest.BLOCK_ROWS,
        "kWidth": nearest.WIDTH,
        "4 * 3 * (kWidth + kStride)": nearest.shared_bytes(3),
    }
    checks = [f'static_assert({name} == {value}, "{name}");' for name, value in facts.items()]
    text = TEXT + "\n".join(checks)
    build(text, "nearest", n_threads=nearest.BLOCK_THREADS, options=("-O0",))


def test_the_plan_fits_three_blocks_and_any_width():
    for d in (1, 50, 10_000):
        shape, depth = nearest.plan_launch(10**9, d, SMALL_LIMITS)
        assert 1 <= depth <= d
        assert shape.shared_bytes == nearest.shared_bytes(depth)
        assert 3 * (shape.shared_bytes + 1024) <= SMALL_LIMITS.shared_bytes_per_multiprocessor


# -- sanitizer and planted faults ---------------------------------------------------------


def is_noticed(text, schedule, options, size=(300, 17, 19)):
    X, centroids = make(*size)
    X[::3] = centroids[np.arange(len(X[::3])) % len(centroids)]  # these lie on a centroid
    X[1::3] = 0  # and these where one that is not there would be
    device = HostDevice(text, schedule=schedule, options=options, limits=TIGHT)
    try:
        found = assign(device, X, centroids)
    except KernelFailedError:
        return True
    return not is_right(found, X, centroids)


def replaced(old, new):
    assert TEXT.count(old) == 1, old
    return TEXT.replace(old, new)


def without_barrier(match):
    return TEXT[: match.start()] + "void(" + TEXT[match.end() :]


@pytest.fixture(scope="module", autouse=True)
def _compile_two_at_a_time():
    """Most of the time here goes into the compiler."""
    work = [(TEXT, PLAIN), (TEXT, SANITIZE)]
    work += [(without_barrier(barrier), PLAIN) for barrier in BARRIERS]
    work += [(replaced(*bound), SANITIZE) for bound in BOUNDS]
    work += [(replaced(*step), PLAIN) for step in STEPS]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda w: build(w[0], "nearest", n_threads=128, options=w[1]), work))


@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (257, 17, 9), (300, 17, 19)])
def test_the_sound_kernel_touches_nothing_outside(n, d, k):
    assert not is_noticed(TEXT, "forward", SANITIZE, (n, d, k))
    assert not is_noticed(TEXT, "random", PLAIN, (n, d, k))


def test_there_are_two_barriers():
    assert len(BARRIERS) == 2


@pytest.mark.parametrize("number", range(2))
def test_a_missing_barrier_is_noticed(number):
    broken = without_barrier(BARRIERS[number])
    assert any(is_noticed(broken, schedule, PLAIN) for schedule in SCHEDULES)


@pytest.mark.parametrize(("bound", "unbound"), BOUNDS)
def test_a_missing_bound_is_noticed(bound, unbound):
    assert is_noticed(replaced(bound, unbound), "forward", SANITIZE)


@pytest.mark.parametrize(("step", "without"), STEPS)
def test_a_missing_step_is_noticed(step, without):
    broken = replaced(step, without)
    if step.startswith("new_label"):  # only an overflowing distance needs it
        X = np.full((3, 2), 1e30, np.float32)
        centroids = np.zeros((2, 2), np.float32)
        labels = assign(HostDevice(broken, options=PLAIN), X, centroids).labels
        assert labels.tolist() != [0] * 3
        return
    assert is_noticed(broken, "forward", PLAIN)


# -- project ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "p"), [(1, 1, 1), (257, 1, 3), (40, 33, 13), (3, 200, 50)])
@pytest.mark.parametrize("options", [(), SANITIZE])
def test_project_is_the_oracles(n, d, p, options):
    rng = np.random.default_rng(d)
    X, mean = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=d)
    components = rng.normal(size=(p, d))
    found = project(HostDevice(options=options), X, mean, components)
    expected = ((X.astype(np.float64) - mean) @ components.T).astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_wide_projection_walks_on():
    limits = SMALL_LIMITS._replace(n_multiprocessors=1)
    X = np.arange(40_000, dtype=np.float32).reshape(-1, 2)
    device = HostDevice(limits=limits)
    found = project(device, X, np.zeros(2), np.array([[1.0, 0], [0, 1]]))
    assert device.shapes[0].grid[0] * 256 < found.size
    np.testing.assert_array_equal(found, X)


@pytest.mark.parametrize(
    ("old", "new"),
    [("i < n_scores", "i <= n_scores"), ("row * n_features", "row * (n_features + 1)")],
)
def test_a_wrong_index_is_noticed(old, new):
    assert old in PROJECT
    device = HostDevice(PROJECT.replace(old, new), options=SANITIZE)
    with pytest.raises(KernelFailedError, match="heap-buffer-overflow"):
        project(device, np.ones((30, 4), np.float32), np.zeros(4), np.ones((3, 4)))


def test_no_components_and_no_rows():
    none = project(HostDevice(), np.zeros((0, 3), np.float32), np.zeros(3), np.ones((2, 3)))
    assert none.shape == (0, 2)
