"""Tables that the device cannot hold: the same answers, and never more memory than there is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from contracts.compare import TOLERANCE
from doubles import cuml_on_host
from doubles.device_arrays import DeviceArray, Memory, counted
from doubles.gpu_on_host import CountedDevice, gpu_on_host

from gpuseg import pipeline, places
from gpuseg.backends.gpu import GpuBackend, passes
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.backends.select import Engine
from gpuseg.clustering import kmeans
from gpuseg.errors import DeviceMemoryError
from gpuseg.explain import explain
from gpuseg.memory import Room
from gpuseg.records import Table, no_progress
from gpuseg.settings import resolve

KIB = 1024


def rows(n_samples, n_features):
    rng = np.random.default_rng(0)
    labels = (np.arange(n_samples) % 3).astype(np.int32)
    centres = rng.normal(0, 3, (3, n_features))
    return (rng.normal(size=(n_samples, n_features)) + centres[labels]).astype(np.float32), labels


def head(engine, X, n_rows):
    return engine.to_host(X[:n_rows])


def covariance(engine, X, _labels):
    return engine.covariance(X)


def project(engine, X, _labels):
    rng = np.random.default_rng(1)
    d = X.shape[1]
    return (engine.project(X, rng.normal(size=d), rng.normal(size=(5, d))),)


def assign(engine, X, _labels):
    return engine.assign(X, head(engine, X, 7), progress=no_progress)


def lloyd(engine, X, _labels):
    starts = [head(engine, X, 3), head(engine, X, 2)][: 1 if len(X) < 1000 else 2]
    fits = engine.lloyd(X, starts, max_iter=300, tol=1e-4, progress=no_progress)
    return tuple(value for fit in fits for value in (fit.inertia, fit.centroids, fit.labels))


def sums_of_some(engine, X, labels):
    chosen = engine.from_host(np.random.default_rng(2).integers(0, len(labels), 150))
    labels = engine.to_host(labels)
    both = engine.from_host(np.stack([labels, labels // 2]))
    return (engine.distance_sums(X, both, (3, 2), rows=chosen, progress=no_progress),)


def sums_of_all(engine, X, labels):
    return (engine.distance_sums(X, labels[None], (3,), rows=None, progress=no_progress),)


def reasons(engine, X, labels):
    forest = engine.forest(
        X, labels, 3, n_trees=3, max_depth=3, max_rows=300, random_state=0, progress=no_progress
    )
    columns = np.arange(X.shape[1], dtype=np.int32) // 2
    means = engine.shap_means(forest, X, labels, columns, 8, rows=None, progress=no_progress)
    return forest.importance, forest.oob_accuracy, *means[:4]


class Case(NamedTuple):
    """What is done with how many rows and features, and how close it must come."""

    work: Callable
    n_samples: int
    n_features: int
    tolerance: tuple[float, float] | None  # None promises the bits


CASES = {
    "covariance": Case(covariance, 12_000, 16, TOLERANCE["covariance"]),
    "project": Case(project, 12_000, 16, None),
    "assign": Case(assign, 12_000, 16, None),
    "lloyd": Case(lloyd, 12_000, 16, TOLERANCE["centroids"]),
    "sums of some rows": Case(sums_of_some, 2200, 64, TOLERANCE["distance_sums"]),
    "sums of all rows": Case(sums_of_all, 2200, 64, TOLERANCE["distance_sums"]),
    "forest and SHAP": Case(reasons, 12_000, 16, (1e-9, 1e-12)),
}


def on_host(engine, found):
    return [
        np.asarray(engine.to_host(value) if hasattr(value, "shape") else value) for value in found
    ]


@cache
def in_memory(name):
    case, engine = CASES[name], gpu_on_host()
    X, labels = rows(case.n_samples, case.n_features)
    return on_host(engine, case.work(engine, engine.from_host(X), engine.from_host(labels)))


def streamed(name, memory):
    """Run an operation with rows in host memory; nothing that comes out is on the device."""
    case = CASES[name]
    X, labels = rows(case.n_samples, case.n_features)
    with counted(memory):
        engine = GpuBackend(CountedDevice(memory), cuml_on_host.libraries(), streams=True)
        found = case.work(engine, X, labels)
        assert not any(isinstance(value, DeviceArray) for value in found)
    return on_host(engine, found)


def a_third(name):
    """Return a memory that holds a third of the rows."""
    return Memory(4 * CASES[name].n_samples * CASES[name].n_features // 3)


def assert_same(found, expected, tolerance):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        if tolerance is None:
            assert mine.tobytes() == theirs.tobytes()
        else:
            relative, absolute = tolerance
            np.testing.assert_allclose(mine, theirs, rtol=relative, atol=absolute)


@pytest.mark.parametrize("name", CASES)
def test_operations_on_a_device_that_holds_a_third_of_the_rows(name, caplog):
    memory = a_third(name)
    with caplog.at_level(logging.WARNING, "gpuseg"):
        found = streamed(name, memory)
    assert_same(found, in_memory(name), CASES[name].tolerance)
    # blocks were chosen to fit: nothing was ever asked for that was not there
    assert memory.n_refused == 0
    assert caplog.messages == []
    assert memory.n_bytes / 4 < memory.peak <= memory.n_bytes
    assert memory.used == 0


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_rows_may_lie_in_a_mapped_file(name, writable, tmp_path):
    """What memory does not hold comes as mapped pages, which some may only read."""
    case = CASES[name]
    X, labels = rows(case.n_samples, case.n_features)
    mapped = Room(1, tmp_path).empty(X.shape, X.dtype)
    mapped[:] = X
    mapped.flags.writeable = writable
    memory = a_third(name)
    with counted(memory):
        engine = GpuBackend(CountedDevice(memory), cuml_on_host.libraries(), streams=True)
        found = on_host(engine, case.work(engine, mapped, labels))
    assert_same(found, streamed(name, a_third(name)), None)


def test_k_means_lets_the_rows_by_as_often_as_its_slowest_run_needs(monkeypatch):
    """All runs share a pass, because the way to the device is what takes the time."""
    X, _labels = rows(900, 4)
    blocks = []
    on_device = passes.on_device
    monkeypatch.setattr(passes, "on_device", lambda *a: blocks.append(a[2]) or on_device(*a))
    device = CountedDevice(Memory(100_000))
    options = {"max_iter": 300, "tol": 1e-3, "variance": 10.0, "progress": no_progress}

    def n_passes(starts):
        blocks.clear()
        fits = passes.lloyd_in_passes(device, X, starts, **options)
        return sum(rows.start == 0 for rows in blocks), fits

    alone = [n_passes([X[:k]]) for k in (2, 3)]
    together, fits = n_passes([X[:k] for k in (2, 3)])
    assert together == max(n for n, _fits in alone)
    for fit, (_n, (own,)) in zip(fits, alone, strict=True):
        assert fit.centroids.tobytes() == own.centroids.tobytes()
        assert fit.labels.tobytes() == own.labels.tobytes()


# -- memory that runs out ------------------------------------------------------------------


def with_little(name, memory, *, streams):
    """Run an operation on few rows, which the memory holds if nothing goes wrong."""
    X, labels = rows(600, 4)
    with counted(memory):
        engine = GpuBackend(CountedDevice(memory), cuml_on_host.libraries(), streams=streams)
        found = CASES[name].work(engine, engine.from_host(X), engine.from_host(labels))
        return on_host(engine, found)


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_memory_that_runs_out_anywhere_changes_no_result(name, streams):
    """Refuse each allocation in turn: the right result, or an error that says what to do."""
    sound = Memory(2**22)
    expected = with_little(name, sound, streams=streams)
    assert sound.n_refused == 0
    n_right = 0
    for number in range(sound.n_allocations):
        memory = Memory(2**22, fails_at=number)
        try:
            found = with_little(name, memory, streams=streams)
        except DeviceMemoryError as error:
            assert "the GPU's memory ran out" in str(error)  # noqa: PT017
            assert "Out of memory allocating" in str(error)  # noqa: PT017
        else:
            assert_same(found, expected, CASES[name].tolerance)
            n_right += 1
        assert memory.n_refused == 1
        assert memory.used == 0  # nothing is kept, not even by the error
    # what stays on the device for good cannot be halved: the run then starts anew, elsewhere
    assert n_right > 0 or not streams


def test_a_forest_that_never_fits_is_grown_on_fewer_rows(caplog):
    X, labels = rows(4000, 16)
    memory = Memory(X.nbytes // 3)
    with counted(memory), caplog.at_level(logging.WARNING, "gpuseg"):
        engine = GpuBackend(CountedDevice(memory), cuml_on_host.libraries(), streams=True)
        growth = {"n_trees": 3, "max_depth": 3, "max_rows": 10**6, "random_state": 0}
        forest = engine.forest(X, labels, 3, **growth, progress=no_progress)
    assert forest.n_fitted_rows == 999  # a third of 1,000, rounded down, of each cluster
    assert caplog.messages[0] == (
        "forest: the device's memory ran out with 4,000 rows; going on with a sample of 2,000"
    )


@pytest.mark.parametrize("name", CASES)
def test_a_device_without_any_room_is_an_error_that_says_what_to_do(name):
    memory = Memory(1000)
    engine = GpuBackend(CountedDevice(memory), cuml_on_host.libraries(), streams=True)
    with counted(memory), pytest.raises(DeviceMemoryError) as caught:
        CASES[name].work(engine, *rows(600, 4))
    assert caught.value.exit_code == 2
    assert str(caught.value).count("ran out") == 1
    assert "KiB are free now. Close what else uses the GPU" in str(caught.value)


def test_features_that_cannot_stay_on_the_device_are_refused_by_matrix():
    memory = Memory(10**6)
    with counted(memory):
        engine = GpuBackend(CountedDevice(memory))
        features = [engine.from_host(np.ones((4, 6000), np.float32))]
        with pytest.raises(DeviceMemoryError, match="6,000 rows x 4 features need about 984"):
            engine.matrix(features)
        assert engine.matrix([block[:, :5000] for block in features]).shape == (5000, 4)
        elsewhere = engine.in_host_memory()
        assert elsewhere.in_host_memory() is elsewhere
        assert isinstance(elsewhere.matrix([np.ones((4, 6000), np.float32)]), np.ndarray)


def test_work_that_runs_out_is_done_again_elsewhere_once():
    def work(engine):
        seen.append(engine)
        if len(seen) <= n_failures:
            raise MemoryError("too large")
        return engine

    first = Engine(gpu_on_host(), "a device")
    seen, n_failures = [], 0
    assert first.where_it_fits(work) is first
    seen, n_failures = [], 1
    second = first.where_it_fits(work)
    assert second.backend.xp is np
    assert second.reason == f"a device; {second.warnings[0]}"
    assert second.warnings[0].endswith("pass through the GPU in blocks: too large")
    seen, n_failures = [], 2
    with pytest.raises(MemoryError):
        first.where_it_fits(work)
    assert len(seen) == 2
    seen, n_failures = [], 1
    with pytest.raises(MemoryError):
        Engine(NumPyBackend(), "asked for").where_it_fits(work)


# -- a whole run ---------------------------------------------------------------------------

N_ROWS = 20_000


def table(n_rows):
    rng = np.random.default_rng(0)
    group = np.arange(n_rows) % 3
    columns = {f"x{i}": rng.normal(size=n_rows) + 6 * (group == i % 3) for i in range(4)}
    columns["city"] = np.array(["Rome", "Oslo", "Lima"])[group]
    return Table("customers", pa.table(columns))


def segment(backend, n_rows, threshold):
    """Return a run; its rows make 7 features."""
    wishes = {"max_clusters": 3, "n_init": 1, "sample_size": 300, "row_scores": True}
    wishes["dimension_reduction_threshold"] = threshold
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "select_backend", lambda _asked: Engine(backend, "for a test"))
        patch.setattr(kmeans, "MAX_PATIENCE", 1)  # a process for each launch takes its time
        patch.setattr(kmeans, "N_FINALISTS", 1)
        patch.setattr(kmeans, "LEVELS", (1024,))
        patch.setattr(kmeans, "STABILITY_ROWS", 1024)
        patch.setattr(explain, "EXACT_BUDGET", 0)
        return pipeline.run(resolve(wishes), table=table(n_rows), keep=False)


def test_a_whole_run_on_a_device_that_holds_a_third_of_the_rows(caplog):
    expected = segment(gpu_on_host(), N_ROWS, 5)
    memory = Memory(4 * N_ROWS * 7 // 3)
    with counted(memory), caplog.at_level(logging.WARNING, "gpuseg"):
        found = segment(GpuBackend(CountedDevice(memory), cuml_on_host.libraries()), N_ROWS, 5)
    assert memory.peak <= memory.n_bytes
    assert memory.used == 0
    # the preparation on the device, then the forest: nothing else ran out
    elsewhere, *others = caplog.messages
    assert all(message.startswith("forest: ") for message in others)
    assert found.warnings == (elsewhere, *expected.warnings)
    assert elsewhere.startswith("rows are kept in host memory")
    assert found.backend_reason == f"for a test; {elsewhere}"

    np.testing.assert_array_equal(found.labels, expected.labels)
    for name in ("silhouette", "inertia", "calinski_harabasz", "davies_bouldin"):
        mine, theirs = (run.k_scores[name].to_numpy() for run in (found, expected))
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, err_msg=name)
    assert found.columns.equals(expected.columns)
    assert found.explanation.profiles.equals(expected.explanation.profiles)
    assert found.rules.equals(expected.rules)
    rows_of = [run.table.drop_columns("silhouette") for run in (found, expected)]
    assert rows_of[0].equals(rows_of[1])
    # the forest saw fewer rows, and says so
    assert "of 20,000 rows, stratified by cluster, is" in found.explanation.notes[0]
    importance = [run.explanation.feature_importance["feature"] for run in (found, expected)]
    assert importance[0][0] == importance[1][0]


@pytest.fixture(scope="module")
def whole():
    return segment(gpu_on_host(), 1500, 50)


@pytest.mark.parametrize("fails_at", [0, 60, 150, 400, 900])
def test_memory_that_runs_out_once_in_a_whole_run_changes_no_segment(whole, fails_at):
    memory = Memory(2**26, fails_at=fails_at)
    with counted(memory):
        found = segment(GpuBackend(CountedDevice(memory), cuml_on_host.libraries()), 1500, 50)
    assert memory.n_refused == 1
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.silhouette == pytest.approx(whole.silhouette, rel=1e-6)
    assert found.explanation.profiles.equals(whole.explanation.profiles)
