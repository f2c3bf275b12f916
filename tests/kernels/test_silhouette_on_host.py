"""The kernel's own text, run on the host, against the oracle."""

import numpy as np
import pytest
from kernels.cuda_on_host import SANITIZE, HostDevice, build

from gpuseg.backends import cuda_pair_plan, cuda_silhouette
from gpuseg.backends.cuda_silhouette import distance_sums
from gpuseg.backends.kernel_loader import kernel_text
from gpuseg.records import no_progress
from kernels import distance_oracle as oracle

SCHEDULES = ("forward", "reverse", "random")
BLOCK_SIZES = (256, 128)

#: n below, at and above tiles and blocks; d below, at and above a chunk; k with cells that
#: end anywhere, one-row clusters and clusters without rows.
SIZES = [
    (1, 1, (1,)),
    (2, 3, (2,)),
    (3, 100, (1, 3)),
    (7, 17, (2, 3, 4)),
    (33, 33, (33,)),
    (127, 64, (2, 9)),
    (128, 3, (5,)),
    (129, 50, (2, 3, 4, 5, 6, 7, 8, 9)),
    (256, 12, (4,)),
    (257, 13, (2, 40)),
    (600, 100, (3, 7)),
    (900, 9, (2, 3)),
    (1500, 17, (2, 3, 4, 5)),
]
SANITIZED = [(3, 100, (1, 3)), (129, 50, (2, 3, 4, 5, 6, 7, 8, 9)), (257, 13, (2, 40))]


def make(n, d, n_clusters, seed=0):
    """One cloud off the origin, with a few twins: close pairs in some tiles, none in most."""
    rng = np.random.default_rng([seed, n, d])
    X = rng.normal(size=(n, d)) + 5
    X[n // 2 : n // 2 + n // 100] = X[: n // 100]
    labels = [rng.permutation(rng.integers(0, max(1, k - 1), n)) for k in n_clusters]
    for of_k, k in zip(labels, n_clusters, strict=True):
        of_k[0] = k - 1  # a cluster of one row; where k > n, others have none
    return X.astype(np.float32), np.array(labels, dtype=np.int32)


def run(X, labels, n_clusters, device, rows=None):
    return distance_sums(X, labels, n_clusters, rows=rows, progress=no_progress, device=device)


@pytest.mark.parametrize("n_threads", BLOCK_SIZES)
@pytest.mark.parametrize(("n", "d", "n_clusters"), SIZES)
def test_sums_are_the_oracles_in_every_schedule(n, d, n_clusters, n_threads, monkeypatch):
    monkeypatch.setattr(cuda_pair_plan, "BLOCK_THREADS", n_threads)
    X, labels = make(n, d, n_clusters)

    sums = [run(X, labels, n_clusters, HostDevice(schedule=order)) for order in SCHEDULES]

    assert np.isfinite(sums[0]).all()
    expected = oracle.distance_sums(X, labels, n_clusters)
    np.testing.assert_allclose(sums[0], expected, rtol=1e-5, atol=1e-30)
    for other in sums[1:]:
        np.testing.assert_array_equal(other, sums[0])


@pytest.mark.parametrize("n_threads", BLOCK_SIZES)
def test_given_rows_run_against_all_rows(n_threads, monkeypatch):
    monkeypatch.setattr(cuda_pair_plan, "BLOCK_THREADS", n_threads)
    X, labels = make(700, 9, (3, 5))
    rows = np.random.default_rng(1).integers(0, 700, 150)
    rows[:3] = (699, 0, 0)

    sums = run(X, labels, (3, 5), HostDevice(), rows)

    expected = oracle.distance_sums(X, labels, (3, 5), rows)
    np.testing.assert_allclose(sums, expected, rtol=1e-5)


def test_hardly_a_tile_of_an_ordinary_cloud_is_done_twice():
    X = np.random.default_rng(5).normal(size=(1536, 12)).astype(np.float32) + 5
    device = HostDevice()
    run(X, np.zeros((1, 1536), np.int32), (1,), device)

    n_tiles = 12 * 12
    assert device.shapes[0].grid[0] == 12
    # 3 barriers each, and 2 more for the 12 tiles in which rows meet themselves
    assert device.n_barriers == 3 * n_tiles + 2 * 12


def test_each_part_of_the_columns_has_sums_of_its_own():
    class KeepsSums(HostDevice):
        def launch(self, kernel, shape, arguments):
            super().launch(kernel, shape, arguments)
            self.sums = arguments["sums"]

    X, labels = make(700, 9, (1,))
    device = KeepsSums()
    run(X, labels, (1,), device)
    # on a device, parts that write to the same place would overwrite each other
    assert device.sums.shape[0] > 1
    assert (device.sums[:, :, 0] > 0).all()


def test_no_rows_give_no_sums():
    X, labels = make(9, 2, (3,))
    assert run(X, labels, (3,), HostDevice(), np.zeros(0, dtype=np.int64)).shape == (0, 3)


def test_many_launches_give_what_one_gives(monkeypatch):
    X, labels = make(900, 8, (2, 4))
    one, many = HostDevice(), HostDevice()
    expected = run(X, labels, (2, 4), one)
    fractions = []

    monkeypatch.setattr(cuda_pair_plan, "PAIRS_PER_LAUNCH", 250_000)
    sums = distance_sums(X, labels, (2, 4), rows=None, progress=fractions.append, device=many)

    assert len(one.shapes) == 1
    assert len(many.shapes) > 2
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)


def test_several_passes_give_what_one_gives(monkeypatch):
    X, labels = make(300, 8, (40, 30, 20))
    expected = oracle.distance_sums(X, labels, (40, 30, 20))
    device = HostDevice()

    sums = run(X, labels, (40, 30, 20), device)

    assert len(device.shapes) > 1
    np.testing.assert_allclose(sums, expected, rtol=1e-5)


def test_a_grid_smaller_than_the_work_is_walked_again_and_again(monkeypatch):
    X, labels = make(500, 30, (3,))
    device = HostDevice()

    def one_block(*arguments):
        plan = plan_launch(*arguments)
        return plan._replace(shape=plan.shape._replace(grid=(1, plan.shape.grid[1])))

    plan_launch = cuda_pair_plan.plan_launch
    monkeypatch.setattr(cuda_silhouette, "plan_launch", one_block)
    sums = run(X, labels, (3,), device)

    assert device.shapes[0].grid[0] == 1
    np.testing.assert_allclose(sums, oracle.distance_sums(X, labels, (3,)), rtol=1e-5)


@pytest.mark.parametrize(("n", "d", "n_clusters"), SANITIZED)
def test_no_access_outside_the_arrays(n, d, n_clusters):
    X, labels = make(n, d, n_clusters)
    device = HostDevice(options=SANITIZE)
    sums = run(X, labels, n_clusters, device, rows=np.arange(n - 1, -1, -1))
    expected = oracle.distance_sums(X, labels, n_clusters)[::-1]
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-30)


def test_launcher_and_kernel_agree_on_the_layout():
    c = cuda_pair_plan
    facts = {
        "BLOCK_THREADS": c.BLOCK_THREADS,
        "kTile": c.TILE,
        "kGroup": c.GROUP,
        "int(sizeof(Shared))": c.shared_bytes(0),
        "int(sizeof(Feature))": c.shared_bytes(1) - c.shared_bytes(0),
    }
    checks = [f'static_assert({name} == {value}, "{name}");' for name, value in facts.items()]
    build(kernel_text("silhouette") + "\n".join(checks), "distance_sums", options=("-O0",))


# -- precision ---------------------------------------------------------------------------


def blobs(rng, spread, centres, n=240):
    return rng.normal(size=(n, centres.shape[1])) * spread + centres[np.arange(n) % len(centres)]


def precision_cases():
    """Data on which squared distances by expansion, or float32 sums, would fail."""
    rng = np.random.default_rng(7)
    cloud = rng.normal(size=(240, 8))
    cloud[::2] += 3
    far = np.eye(8)[:3] * 1e4
    nearly = np.repeat(cloud[:60], 4, axis=0)
    return {
        "plain": cloud,
        "offset of 1e6 deviations": cloud + 1e6,
        "a different offset per column": cloud + 10.0 ** np.arange(8),
        "every row four times": nearly,
        "every row nearly four times": nearly + 1e-5 * rng.normal(size=(240, 8)),
        "two values in all": (cloud[:, :1] > 0) * np.ones((1, 8)),
        "small whole numbers": rng.integers(0, 2, size=(240, 8)),
        "tight blobs, fewer clusters than blobs": blobs(rng, 0.5, far),
        "one column 1e6 times the others": cloud * np.r_[1e6, np.ones(7)],
        "one row a million away": np.vstack([cloud[:-1], np.full((1, 8), 1e6)]),
        "tiny": cloud * 1e-30,
        "huge": cloud * 1e35,
        "a constant column": np.hstack([cloud[:, :7], np.full((240, 1), 12345.678)]),
        "all rows equal": np.full((240, 8), 3.3),
        "columns on a line": np.outer(np.arange(240), np.ones(8)),
    }


@pytest.mark.parametrize("name", precision_cases())
def test_silhouettes_are_within_1e_5_on_hard_data(name):
    X = precision_cases()[name].astype(np.float32)
    labels = np.array([np.arange(240) % 2, np.arange(240) % 3], dtype=np.int32)
    labels[0, X[:, 0] > np.median(X[:, 0])] = 0

    sums = run(X, labels, (2, 3), HostDevice())

    expected = oracle.distance_sums(X, labels, (2, 3))
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-6 * expected.max())
    for of_k, part in zip(labels, (slice(0, 2), slice(2, 5)), strict=True):
        scores = oracle.silhouettes(sums[:, part], of_k)
        wanted = oracle.silhouettes(expected[:, part], of_k)
        np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)


def test_without_the_second_look_at_close_pairs_it_would_not_be(monkeypatch):
    X = precision_cases()["every row nearly four times"].astype(np.float32)
    labels = (np.arange(240) // 4).astype(np.int32)[None]
    wanted = oracle.silhouettes(oracle.distance_sums(X, labels, (60,)), labels[0])
    seeing = run(X, labels, (60,), HostDevice())

    monkeypatch.setattr(cuda_silhouette, "close_share", lambda _: -1e9)
    unseeing = run(X, labels, (60,), HostDevice())

    assert abs(oracle.silhouettes(seeing, labels[0]) - wanted).max() < 1e-5
    assert abs(oracle.silhouettes(unseeing, labels[0]) - wanted).max() > 1e-5


@pytest.mark.parametrize("d", [8, 50, 500])
def test_no_single_distance_is_off_by_more_than_1e_5(d):
    """Rows on two opposite sides, just far enough apart to be expanded."""
    rng = np.random.default_rng(d)
    side = np.where(np.arange(200) % 2, 1, -1)[:, None]
    spread = np.sqrt(2 * cuda_pair_plan.close_share(d))
    X = (side + rng.normal(size=(200, d)) * spread).astype(np.float32)
    labels = np.arange(200, dtype=np.int32)[None]

    distances = run(X, labels, (200,), HostDevice())

    expected = oracle.distance_sums(X, labels, (200,))
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    if d == 500:  # so it was not all differences, which are a hundred times better
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(distances, expected, rtol=1e-6)
