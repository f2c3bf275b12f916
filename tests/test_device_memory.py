"""The memory of a GPU that a plan states: by hand for one table, and as laws."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from doubles.device_arrays import Memory, counted
from doubles.gpu_on_host import CountedDevice
from kernels.cuda_on_host import HostDevice

from gpuseg import pipeline, plan
from gpuseg.backends.content_order import content_order
from gpuseg.backends.cuda_pair_plan import frame_of, plan_pairs, plan_passes
from gpuseg.backends.gpu import GpuBackend, memory
from gpuseg.device_memory import DeviceWork, _resident, device_plan
from gpuseg.errors import DeviceMemoryError
from gpuseg.plan import Plan, StagePlan, with_device_memory
from gpuseg.records import Table
from gpuseg.settings import resolve
from gpuseg.tables.input import peek_input
from gpuseg.terminal import print_plan

WORK = DeviceWork(
    n_rows=1_000_000, n_encoded=20, n_features=20, n_columns=12, k_values=(2, 3, 4), n_scored=10_000
)
GIB = 2**30
STAGES = tuple(
    StagePlan(name, 2 * GIB, 1.0, "note")
    for name in ("read", "prepare", "sweep", "explain", "publish")
)


def device_bytes(work, free):
    return device_plan(work, free).stages


def test_by_hand():
    obstacle, found = device_plan(WORK, 80 * GIB)
    assert obstacle is None
    kept = 80_000_000 + 12_000_000  # the matrix, three sets of labels
    assert found["read"] == 0
    # features, twelve columns of float64 and nine such arrays while one is fitted
    assert found["prepare"] == 80_000_000 + 12 * 8_000_000 + 9 * 8_000_000
    assert found["publish"] == kept
    # the labels once more, and all rows as columns: labels twice, 20 values and the norm, five
    # arrays of their places; nine sums of 10,000 rows, and one launch's
    silhouette = 12_000_000 + 1_000_000 * (24 + 84 + 40) + 720_000 + 720_000
    assert found["sweep"] == kept + silhouette
    # 25,600 leaves x 4 classes x 9 elements of 88 bytes, three times; all rows in one block:
    # 12 x 4 x 21 of cuML, 8 x 3 x 12 x 4 by column, 9 x 4 of the own cluster, the row
    paths, row = 3 * 88 * 25_600 * 4 * 9, 1008 + 1152 + 36 + 80
    assert found["explain"] == kept + paths + 1_000_000 * row


def test_little_memory_makes_small_blocks_and_takes_no_more_than_there_is():
    free = 2 * GIB
    found = device_bytes(WORK, free)
    assert found["explain"] < free < device_bytes(WORK, 80 * GIB)["explain"]


def test_more_of_anything_never_takes_less():
    base = device_bytes(WORK, 80 * GIB)
    for change in (
        {"n_rows": 2_000_000},
        {"n_features": 40, "n_encoded": 40},
        {"n_encoded": 70},
        {"n_columns": 20},
        {"k_values": (2, 3, 4, 5)},
        {"n_scored": 1_000_000},
    ):
        more = device_bytes(WORK._replace(**change), 80 * GIB)
        assert all(more[stage] >= base[stage] for stage in base), change
        assert more != base


@pytest.mark.parametrize("n_features", [20, 5])
@pytest.mark.parametrize("n_rows", [80_000_000, 10**9])
def test_rows_that_do_not_fit_pass_through_in_blocks_that_do(n_rows, n_features):
    large = WORK._replace(n_rows=n_rows, n_features=n_features)
    stages, warnings = with_device_memory(STAGES, large, free_bytes=16 * GIB)
    (warning,) = warnings
    assert warning.startswith(
        "rows are kept in host memory and pass through the GPU in blocks: "
        f"{n_rows:,} rows x 20 features need about "
    )
    assert warning.endswith("GiB of GPU memory, 16.0 GiB are free")
    needed = {stage.name: stage.device_bytes for stage in stages}
    assert max(needed.values()) < 16 * GIB
    assert needed["prepare"] == (0 if n_features == 20 else 2**28 // 320 * 320)
    assert needed["sweep"] > GIB
    assert with_device_memory(STAGES, WORK, free_bytes=16 * GIB)[1] == ()


def test_what_does_not_fit_even_in_blocks_is_warned_about():
    warnings = with_device_memory(STAGES, WORK, free_bytes=10**7)[1]
    assert [w.split()[0] for w in warnings] == ["rows", "explain"]
    assert warnings[1].endswith("of GPU memory, 9.5 MiB are free")


@pytest.mark.parametrize("n_features", [3, 20, 60])
def test_the_plan_says_what_the_engine_decides(n_features):
    """Just enough memory, and a byte less, for the features and the matrix made of them."""
    n_rows = 1000
    work = DeviceWork(n_rows, n_features, n_features, n_features, (2, 3), 100)
    needed = memory.resident_bytes(n_rows, n_features)
    for n_bytes, is_kept in ((needed, True), (needed - 1, False)):
        room = Memory(n_bytes)
        with counted(room):
            engine = GpuBackend(CountedDevice(room))
            features = [engine.from_host(np.ones((n_features, n_rows), np.float32))]
            if is_kept:
                engine.matrix(features)
            else:
                with pytest.raises(DeviceMemoryError):
                    engine.matrix(features)
        # the forest's paths alone take more than such a device has
        without_explaining = (
            n_bytes for stage, n_bytes in _resident(work, n_bytes).items() if stage != "explain"
        )
        assert is_kept == (max(needed, *without_explaining) <= n_bytes)


def test_the_terminal_shows_it_where_a_gpu_is_used():
    def shown(stages) -> str:
        planned = Plan("t", 9, True, 2, 2, "gpu", "why", (), stages, ())
        text = io.StringIO()
        print_plan(planned, text)
        return text.getvalue()

    assert "GPU memory" not in shown(STAGES)
    with_gpu = shown(with_device_memory(STAGES, WORK, free_bytes=80 * GIB)[0])
    assert "GPU memory" in with_gpu
    assert "237 MiB" in with_gpu  # prepare: 248,000,000 bytes


def peak_arrays(n_rows: int, work: Callable[[], object]) -> float:
    """Return the most memory that a piece of work takes, in arrays of 8 bytes a row."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / n_rows / 8
    finally:
        tracemalloc.stop()


def test_the_arrays_of_a_row_are_counted_right():
    n, d, k_values = 1_000_000, 8, (2, 3, 4, 9)  # what is bounded no longer counts
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(d, n)).astype(np.float32)]
    ordering = peak_arrays(n, lambda: content_order(features, np))
    assert ordering <= memory.ORDER_ARRAYS - 2 < 1.5 * ordering

    X = np.ascontiguousarray(features[0].T)
    labels = np.stack([np.arange(n, dtype=np.int32) * k // n for k in k_values])

    device = HostDevice()
    frame = frame_of(device, X)

    def cells() -> None:
        (only,) = plan_passes(labels, d, np)
        plan_pairs(
            device, X, labels, (0, 2, 5, 9), only.cells, frame=frame, n_slots=18, most_rows=0
        )

    # besides the labels, and without what CuPy's sort takes
    stated = (memory.pair_row_bytes(d, len(k_values)) - labels.nbytes / n) / 8 - 2
    assert peak_arrays(n, cells) <= stated < 1.5 * peak_arrays(n, cells)


def test_a_plan_knows_what_decides_the_memory(tmp_path):
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=300) for i in range(4)}
    columns["city"] = rng.choice(["Rome", "Oslo", "Lima"], size=300)
    pl.DataFrame(columns).write_parquet(tmp_path / "t.parquet")
    settings = resolve(
        {"input_table": str(tmp_path / "t.parquet"), "max_clusters": 4, "sample_size": 100}
        | {"dimension_reduction_threshold": 5}
    )
    seen = peek_input(settings)
    trial = pipeline.run(settings, table=Table(seen.name, seen.sample), keep=False)
    work = plan._device_work(settings, seen, trial)
    assert (work.n_rows, work.n_encoded, work.n_columns) == (300, 7, 5)
    assert work.n_features == trial.n_features <= 5
    assert (work.k_values, work.n_scored) == ((2, 3, 4), 100)
    # both matrices stay when there is a projection
    assert work.matrix_bytes == 4 * 300 * (7 + trial.n_features)
