"""The memory of a GPU that a plan states: by hand for one table, and as laws."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from gpuseg import pipeline, plan
from gpuseg.backends.cuda_pair_plan import plan_pairs, plan_passes
from gpuseg.device_memory import CELL_ARRAYS, ORDER_ARRAYS, DeviceWork, device_bytes
from gpuseg.plan import Plan, StagePlan, with_device_memory
from gpuseg.records import Table
from gpuseg.settings import resolve
from gpuseg.tables.input import peek_input
from gpuseg.terminal import print_plan

needs_engine = pytest.mark.skipif(
    find_spec("gpuseg.backends.gpu") is None, reason="the GPU engine is not part of this checkout"
)

WORK = DeviceWork(
    n_rows=1_000_000, n_encoded=20, n_features=20, n_columns=12, k_values=(2, 3, 4), n_scored=10_000
)
GIB = 2**30
STAGES = tuple(
    StagePlan(name, 2 * GIB, 1.0, "note")
    for name in ("read", "prepare", "sweep", "explain", "publish")
)


@needs_engine
def test_by_hand():
    found = device_bytes(WORK, 80 * GIB)
    kept = 80_000_000 + 12_000_000  # the matrix, three sets of labels
    assert found["read"] == 0
    # features, twelve columns of float64 and eleven such arrays while one is fitted
    assert found["prepare"] == 80_000_000 + 12 * 8_000_000 + 11 * 8_000_000
    assert found["publish"] == kept
    # rows once more with their norms, nine sums of 10,000 rows and one launch's parts, cells
    silhouette = 84_000_000 + 720_000 + 720_000 + 80_000_000
    assert found["sweep"] == kept + silhouette
    # 25,600 leaves x 4 classes x 9 elements of 88 bytes, three times; all rows in one block:
    # 12 x 4 x 21 of cuML, 8 x 3 x 12 x 4 by column, 9 x 4 of the own cluster, the row
    paths, row = 3 * 88 * 25_600 * 4 * 9, 1008 + 1152 + 36 + 80
    assert found["explain"] == kept + paths + 1_000_000 * row


@needs_engine
def test_little_memory_makes_small_blocks_and_takes_no_more_than_there_is():
    free = 2 * GIB
    found = device_bytes(WORK, free)
    assert found["explain"] < free < device_bytes(WORK, 80 * GIB)["explain"]


@needs_engine
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


@needs_engine
def test_a_stage_that_does_not_fit_is_warned_about():
    large = WORK._replace(n_rows=200_000_000)
    stages, warnings = with_device_memory(STAGES, large, free_bytes=16 * GIB)
    needed = {stage.name: stage.device_bytes for stage in stages}
    assert [w.split()[0] for w in warnings] == [n for n, b in needed.items() if b > 16 * GIB]
    assert f"prepare needs about {48e9 / GIB:.1f} GiB of GPU memory, 16.0 are free" in warnings
    assert with_device_memory(STAGES, WORK, free_bytes=16 * GIB)[1] == ()


@needs_engine
def test_the_terminal_shows_it_where_a_gpu_is_used():
    def shown(stages) -> str:
        planned = Plan("t", 9, True, 2, 2, "gpu", "why", (), stages, ())
        text = io.StringIO()
        print_plan(planned, text)
        return text.getvalue()

    assert "GPU memory" not in shown(STAGES)
    with_gpu = shown(with_device_memory(STAGES, WORK, free_bytes=80 * GIB)[0])
    assert "GPU memory" in with_gpu
    assert "252 MiB" in with_gpu  # prepare: 264,000,000 bytes


def peak_arrays(n_rows: int, work: Callable[[], object]) -> float:
    """Return the most memory that a piece of work takes, in arrays of 8 bytes a row."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / n_rows / 8
    finally:
        tracemalloc.stop()


@needs_engine
def test_the_arrays_of_a_row_are_counted_right():
    from gpuseg.backends.content_order import content_order

    n, d, k_values = 1_000_000, 8, (2, 3, 4, 9)  # what is bounded no longer counts
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(d, n)).astype(np.float32)]
    ordering = peak_arrays(n, lambda: content_order(features, np))
    assert ordering <= ORDER_ARRAYS - 2 < 1.5 * ordering

    X = np.ascontiguousarray(features[0].T)
    labels = np.stack([np.arange(n, dtype=np.int32) * k // n for k in k_values])

    def cells() -> None:
        (only,) = plan_passes(labels, d, np)
        plan_pairs(X, labels, (0, 2, 5, 9), only.cells, np)

    # half an array for each feature of the columns, and their norms
    stated = (d + 1) / 2 + CELL_ARRAYS - 2
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
