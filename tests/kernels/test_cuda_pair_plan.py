"""The layout of the pairs and the launch shapes, without running a kernel."""

import numpy as np
import pytest
from kernels.cuda_on_host import HostDevice

from gpuseg.backends import cuda_pair_plan as plan
from gpuseg.backends.cuda_device import DeviceLimits
from gpuseg.backends.cuda_silhouette import distance_sums
from gpuseg.errors import DataError, ShapeError
from gpuseg.records import no_progress

#: Multiprocessors, shared bytes of a block and of a multiprocessor, from NVIDIA's tables.
DEVICES = {
    "T4": DeviceLimits(40, 65_536, 65_536),
    "A100": DeviceLimits(108, 166_912, 167_936),
    "L4": DeviceLimits(58, 101_376, 102_400),
    "H200": DeviceLimits(132, 232_448, 233_472),
}


def lay_out(X, labels, first_slots, *, most_rows=0, n_slots=12):
    cells, device = plan.joint_cells(labels, np), HostDevice()
    return plan.plan_pairs(
        device,
        X,
        labels,
        first_slots,
        cells,
        frame=plan.frame_of(device, X),
        n_slots=n_slots,
        most_rows=most_rows,
    )


def make(n=333, d=5, n_clusters=(2, 3, 7), seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    labels = np.array([rng.integers(0, k, n) for k in n_clusters], dtype=np.int32)
    return X, labels, [0, *np.cumsum(n_clusters)[:-1]]


@pytest.mark.parametrize("n", [1, 2, 127, 128, 333])
def test_every_row_has_a_column_of_its_own_in_its_cells_groups(n):
    X, labels, first_slots = make(n)
    cells = plan.joint_cells(labels, np)
    pairs = lay_out(X, labels, first_slots)

    assert pairs.columns.shape == (5, cells.n_columns)
    assert cells.n_columns % plan.TILE == 0
    assert len(set(pairs.column_of)) == n
    np.testing.assert_array_equal(pairs.columns[:, pairs.column_of].T, X * pairs.frame.scale)
    assert np.isnan(np.delete(pairs.columns, pairs.column_of, axis=1)).all()

    cell_of_group = np.searchsorted(pairs.cell_ends, np.arange(cells.n_columns // 4), "right")
    slots = pairs.cell_slots[cell_of_group[pairs.column_of // 4]]
    np.testing.assert_array_equal(slots, labels.T + np.array(first_slots))
    np.testing.assert_array_equal(pairs.tile_cells, cell_of_group[:: plan.TILE // 4])


def test_rows_lie_behind_the_columns_in_tiles_of_a_slot_of_their_own():
    X, labels, first_slots = make()
    pairs = lay_out(X, labels, first_slots, most_rows=150, n_slots=12)
    assert pairs.columns.shape[1] == pairs.n_columns + 2 * plan.TILE
    rows = np.array([7, 332, 7, 0])
    places = plan.put_rows(HostDevice(), pairs, X, rows)
    np.testing.assert_array_equal(places, pairs.n_columns + np.arange(4))
    # the very bits of their columns, so that a row's distance to itself is 0
    np.testing.assert_array_equal(pairs.columns[:, places], pairs.columns[:, pairs.column_of[rows]])
    np.testing.assert_array_equal(pairs.sq_norms[places], pairs.sq_norms[pairs.column_of[rows]])
    first = pairs.n_columns // plan.TILE
    assert (pairs.tile_cells[first:] == len(pairs.cell_ends) - 1).all()
    assert (pairs.tile_cells[:first] < len(pairs.cell_ends) - 1).all()
    assert (pairs.cell_slots[-1] == 12).all()
    assert (pairs.cell_slots[:-1] < 12).all()


def test_norms_are_those_of_the_centred_rows():
    X, labels, first_slots = make()
    X += 1000
    pairs = lay_out(X, labels, first_slots)
    centred = X.astype(np.float64) * pairs.frame.scale - pairs.frame.centre
    expected = (centred**2).sum(axis=1)
    np.testing.assert_allclose(pairs.sq_norms[pairs.column_of], expected, rtol=1e-4)


@pytest.mark.parametrize("largest", [0.0, 1e-45, 1e-30, 0.75, 1.0, 3.4e38, -3.4e38])
def test_the_scale_is_an_exact_power_of_two_that_float32_has(largest):
    X, labels, first_slots = make(n=4, d=1)
    X[:] = largest
    X[0] = 0
    pairs = lay_out(X, labels, first_slots)
    assert np.frexp(pairs.frame.scale)[0] == 0.5
    assert np.finfo(np.float32).tiny <= pairs.frame.scale < np.inf
    assert np.nanmax(abs(pairs.columns)) <= 4
    np.testing.assert_array_equal(pairs.columns[0, pairs.column_of] / pairs.frame.scale, X[:, 0])


def test_joint_labels_of_many_segmentations_do_not_overflow():
    labels = np.random.default_rng(0).integers(0, 100, (40, 500)).astype(np.int32)
    cells = plan.joint_cells(labels, np)
    assert cells.n_cells == len(np.unique(labels, axis=1).T)


def test_nested_segmentations_share_one_pass():
    finest = np.arange(4000) % 8
    labels = np.array([finest // 4, finest // 2, finest], dtype=np.int32)
    (only,) = plan.plan_passes(labels, 20, np)
    assert only.segmentations == slice(0, 3)
    assert only.cells.n_cells == 8


def test_unrelated_segmentations_with_many_clusters_go_apart():
    _, labels, _ = make(n=4000, n_clusters=(60, 60, 60, 60))
    passes = plan.plan_passes(labels, 20, np)
    covered = [i for part, _ in passes for i in range(part.start, part.stop)]
    assert len(passes) > 1
    assert covered == [0, 1, 2, 3]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_features", [1, 20, 64, 5000])
@pytest.mark.parametrize("n_rows", [1, 2000, 135_168])
def test_launches_fit_the_device(device, n_features, n_rows):
    limits = DEVICES[device]
    n_columns = 1_000_064
    launch = plan.plan_launch(n_rows, n_columns, n_features, 44, limits)

    shape, depth, part_tiles = launch
    assert 1 <= depth <= n_features
    assert shape.shared_bytes <= limits.shared_bytes_per_block
    # two blocks fit, with the KiB that the device keeps of each
    assert 2 * (shape.shared_bytes + 1024) <= limits.shared_bytes_per_multiprocessor
    assert shape.grid[0] * plan.BLOCK_THREADS // 2 >= n_rows
    n_tiles = n_columns // plan.TILE
    assert (shape.grid[1] - 1) * part_tiles < n_tiles <= shape.grid[1] * part_tiles
    assert shape.grid[1] <= 65_535
    assert 8 * shape.grid[1] * n_rows * 44 <= max(plan.PART_BYTES, 8 * n_rows * 44)


def test_large_jobs_go_in_whole_waves_of_about_as_many_pairs():
    rows = plan.rows_per_launch(1_000_064, 44, DEVICES["H200"])
    assert rows % (132 * 2 * 128) == 0
    assert plan.PAIRS_PER_LAUNCH / 2 < rows * 1_000_064 <= plan.PAIRS_PER_LAUNCH


def test_many_clusters_make_smaller_launches():
    rows = plan.rows_per_launch(1_000_064, 500_000, DEVICES["H200"])
    assert 0 < 8 * rows * 500_000 <= plan.PART_BYTES


# -- the door ----------------------------------------------------------------------------


def refuse(X, labels, n_clusters=(2,), rows=None):
    distance_sums(X, labels, n_clusters, rows=rows, progress=no_progress, device=HostDevice())


@pytest.mark.parametrize(
    ("X", "labels", "message"),
    [
        (np.zeros((4, 2)), np.zeros((1, 4), np.int32), "X is float64"),
        (np.zeros((2, 4), np.float32).T, np.zeros((1, 4), np.int32), "X is .* not in C order"),
        (np.zeros(4, np.float32), np.zeros((1, 4), np.int32), "X is .* 1-dimensional"),
        ([[0.0]], np.zeros((1, 1), np.int32), "X is list"),
        (np.zeros((0, 2), np.float32), np.zeros((1, 0), np.int32), "at least one row"),
        (np.zeros((4, 2), np.float32), np.zeros((1, 4)), "labels is float64"),
        (np.zeros((4, 2), np.float32), np.zeros((1, 5), np.int32), r"expected \(1, 4\)"),
    ],
)
def test_arrays_of_another_kind_are_refused(X, labels, message):
    with pytest.raises(ShapeError, match=message):
        refuse(X, labels)


def test_values_out_of_range_are_refused():
    X, labels = np.zeros((4, 2), np.float32), np.zeros((1, 4), np.int32)
    with pytest.raises(DataError, match="labels run from 0 to 2; expected 0 to 1"):
        refuse(X, labels + np.array([[0, 0, 0, 2]], np.int32))
    with pytest.raises(DataError, match="labels run from -1"):
        refuse(X, labels - np.array([[0, 0, 0, 1]], np.int32))
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="not finite"):
            refuse(X + np.float32(bad), labels)
    for bad in (-1, 4):
        with pytest.raises(DataError, match="X has 4 rows"):
            refuse(X, labels, rows=np.array([0, bad]))
    with pytest.raises(ShapeError, match="rows is int32"):
        refuse(X, labels, rows=np.zeros(2, np.int32))
