"""Blocks sized by what is free, and halved, with a word about it, when memory runs out."""

from __future__ import annotations

import gc
import logging
import tracemalloc
import weakref
from types import SimpleNamespace

import numpy as np
import oracles
import pyarrow as pa
import pytest
from doubles import cuml_on_host
from doubles.device_arrays import DeviceArray, xp
from doubles.gpu_on_host import StrictDevice

from gpuseg.backends.gpu import GpuBackend, memory, sums
from gpuseg.backends.gpu.forest import CumlForest
from gpuseg.backends.gpu.memory import FEWEST_ROWS, in_blocks, rows_per_block
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.explained import Forest
from gpuseg.features import FeatureSettings, prepare
from gpuseg.records import Table, no_progress


class Small:
    """A memory that holds so many rows at a time."""

    def __init__(self, most):
        self.most, self.n_releases, self.done, self.sizes = most, 0, [], []

    def free_bytes(self):
        return 1 << 40

    def release(self):
        self.n_releases += 1

    def work(self, rows):
        self.sizes.append(rows.stop - rows.start)
        if rows.stop - rows.start > self.most:
            raise MemoryError("Out of memory allocating 1,024 bytes")
        self.done += range(rows.start, rows.stop)


def test_blocks_are_halved_and_nothing_is_left_out_or_done_twice(caplog):
    small, calls = Small(600), []
    with caplog.at_level(logging.WARNING, "gpuseg"):
        in_blocks(small, 3000, 2048, small.work, operation="SHAP", progress=calls.append)
    assert small.done == list(range(3000))
    assert small.sizes[:3] == [2048, 1024, 512]
    assert set(small.sizes[2:]) <= {512, 3000 % 512}
    assert small.n_releases == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert caplog.messages[0] == (
        "SHAP: the device's memory ran out with 2,048 rows at a time; going on with 1,024"
    )
    assert calls == sorted(calls)
    assert calls[-1] == 1.0


def test_the_arrays_of_a_failed_attempt_are_gone_before_memory_is_freed():
    class Block(np.ndarray):
        pass

    alive, seen = [], []

    class Watched(Small):
        def release(self):
            seen.append(alive[-1]() is not None)

        def work(self, rows):
            block = np.zeros(8).view(Block)
            alive.append(weakref.ref(block))
            super().work(rows)

    gc.disable()  # reference counts alone must do it
    try:
        watched = Watched(FEWEST_ROWS)
        in_blocks(watched, 1000, 1000, watched.work, operation="a test")
    finally:
        gc.enable()
    assert seen == [False, False]


def test_what_can_never_fit_is_an_error():
    small = Small(10)
    with pytest.raises(MemoryError, match="1,024 bytes"):
        in_blocks(small, 1000, 512, small.work, operation="a test")
    assert small.sizes == [512, FEWEST_ROWS]


def test_other_errors_are_not_swallowed():
    def work(_rows):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        in_blocks(Small(1), 10, 5, work, operation="a test")


@pytest.mark.parametrize("free", [0, 10**5, 10**7, 10**9, 10**12])
@pytest.mark.parametrize("row_bytes", [4, 1000, 10**6])
def test_blocks_fit_their_share_or_are_the_smallest(free, row_bytes):
    rows = rows_per_block(row_bytes, free, at_most=50_000)
    assert rows <= 50_000
    assert rows == FEWEST_ROWS or rows * row_bytes <= free * memory.BLOCK_SHARE
    assert rows == 50_000 or rows & (rows - 1) == 0
    assert rows == 50_000 or 4 * max(rows, 1) * row_bytes > free * memory.BLOCK_SHARE


# -- the operations, on a device that runs out -------------------------------------------


class FullDevice(StrictDevice):
    """Refuses launches of too many rows, as a device without room for their sums would."""

    def __init__(self, most, **options):
        super().__init__(**options)
        self.most = most

    def launch(self, kernel, shape, arguments):
        if kernel.function == "distance_sums" and int(arguments["n_rows"]) > self.most:
            raise MemoryError("Out of memory")
        super().launch(kernel, shape, arguments)


def test_silhouette_sums_go_on_with_fewer_rows(caplog):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 3)).astype(np.float32)
    labels = (np.arange(900) % 3).astype(np.int32)[None]
    device = FullDevice(300)
    engine = GpuBackend(device)
    found = engine.distance_sums(
        xp.asarray(X), xp.asarray(labels), (3,), rows=None, progress=no_progress
    )
    np.testing.assert_allclose(found.get(), oracles.distance_sums(X, labels, (3,)), rtol=1e-5)
    assert device.n_releases == 2
    assert "silhouette" in caplog.messages[0]


def explained(free, most_rows, monkeypatch):
    """Return SHAP means and in how many calls they came."""
    monkeypatch.setattr(cuml_on_host.TreeExplainer, "most_rows", most_rows)
    monkeypatch.setattr(cuml_on_host.TreeExplainer, "n_calls", 0)
    monkeypatch.setattr(cuml_on_host.TreeExplainer, "n_held", 0)
    engine = GpuBackend(StrictDevice(free=free), cuml_on_host.libraries())
    rng = np.random.default_rng(0)
    labels = (np.arange(1500) % 3).astype(np.int32)
    X = (rng.normal(size=(1500, 4)) + labels[:, None]).astype(np.float32)
    forest = engine.forest(
        xp.asarray(X),
        xp.asarray(labels),
        3,
        n_trees=3,
        max_depth=3,
        max_rows=500,
        random_state=0,
        progress=no_progress,
    )
    columns = np.array([0, 0, 1, 1], dtype=np.int32)
    means = engine.shap_means(
        forest, xp.asarray(X), xp.asarray(labels), columns, 2, rows=None, progress=no_progress
    )
    assert cuml_on_host.TreeExplainer.n_held == 0
    return means, cuml_on_host.TreeExplainer.n_calls


def test_shap_goes_on_with_fewer_rows_and_says_the_same(monkeypatch, caplog):
    whole, one = explained(2**33, None, monkeypatch)
    halved, more = explained(2**33, 400, monkeypatch)
    planned, many = explained(2**19, None, monkeypatch)
    assert one == 1
    assert more == 2 + 4  # two that failed, then 375 rows at a time
    assert many > 2
    assert len([m for m in caplog.messages if "SHAP" in m]) == 2
    for other in (halved, planned):
        assert other.n_explained_rows == 1500
        np.testing.assert_allclose(other.mean_abs, whole.mean_abs, rtol=1e-9)
        np.testing.assert_allclose(other.mean_signed, whole.mean_signed, rtol=1e-9, atol=1e-12)


def test_sums_in_small_blocks_are_the_sums():
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(3000, 5)) + 100).astype(np.float32)
    large, small = GpuBackend(StrictDevice()), GpuBackend(StrictDevice(free=50_000))
    for one, other in zip(
        large.covariance(xp.asarray(X)), small.covariance(xp.asarray(X)), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)


# -- what a row takes is what the model says ----------------------------------------------


def peak_bytes(work):
    """Return what a call allocates at its peak; the stand-in's arrays are NumPy's."""
    work()  # whatever is allocated once
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("n_features", "n_clusters"), [(1, 40), (20, 5), (100, 3)])
def test_sums_take_what_the_model_says(n_features, n_clusters):
    X = xp.asarray(np.ones((8192, n_features), np.float32))
    labels = xp.asarray((np.arange(8192) % n_clusters).astype(np.int32))
    device = StrictDevice(free=2**40)
    promised = {
        "sums": 8192 * memory.sum_row_bytes(n_features, n_clusters),
        "covariance": 8192 * memory.covariance_row_bytes(n_features),
    }
    taken = {
        "sums": peak_bytes(lambda: sums.cluster_sums(device, X, labels, n_clusters)),
        "covariance": peak_bytes(lambda: sums.covariance(device, X)),
    }
    for name, n_bytes in promised.items():
        assert 0.4 * n_bytes < taken[name] < n_bytes + 300_000, name


@pytest.mark.parametrize(("n_features", "n_columns", "n_classes"), [(6, 6, 2), (30, 10, 9)])
def test_shap_takes_what_the_model_says(n_features, n_columns, n_classes):
    n_rows = 4096
    X = xp.asarray(np.ones((n_rows, n_features), np.float32))
    labels = xp.asarray((np.arange(n_rows) % n_classes).astype(np.int32))
    explainer = SimpleNamespace()

    def call(name, *_positional, **_given):
        """cuML without its work: a result of the right size and kind."""
        if name == "explainer":
            return explainer
        if name == "forest.predict_proba":
            return DeviceArray(np.zeros((n_rows, n_classes), np.float32))
        everything = np.zeros((n_rows, n_features + 1, n_classes), np.float32)
        explainer.expected_value = DeviceArray(everything[0, -1])
        return DeviceArray(everything[:, :-1])

    trees = CumlForest(object(), np.arange(n_classes), n_classes, 8, 10, 100)
    forest = Forest(trees, np.zeros(n_features), 1.0, n_rows)
    columns = np.arange(n_features) * n_columns // n_features
    engine = GpuBackend(StrictDevice(free=2**40), SimpleNamespace(call=call))
    taken = peak_bytes(
        lambda: engine.shap_means(
            forest, X, labels, columns, n_columns, rows=None, progress=no_progress
        )
    )
    inside_cuml = 8 * n_rows * n_classes * (n_features + 1)
    promised = n_rows * memory.shap_row_bytes(n_features, n_columns, n_classes, n_classes)
    assert 0.4 * (promised - inside_cuml) < taken < promised - inside_cuml + 300_000


@pytest.mark.parametrize("dates", [True, False])
def test_fitting_a_column_takes_what_the_model_says(dates):
    n_rows = 100_000
    rng = np.random.default_rng(0)
    values = (
        rng.integers(10**9, 2 * 10**9, n_rows) if dates else np.exp(2 * rng.normal(size=n_rows))
    )
    column = pa.array(values, pa.timestamp("s")) if dates else pa.array(values)
    table = Table("t", pa.table({"a": column}))
    taken = peak_bytes(lambda: prepare(NumPyBackend(), table, FeatureSettings()))
    # of these, the features and one column may stay
    promised = memory.fitting_bytes(n_rows, 1, 2**40) + 4 * n_rows * 5
    assert 0.5 * promised < taken < promised + 300_000
