"""``gpuseg plan``: what a run would do, from a look at the first rows. Writes nothing."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from gpuseg import pipeline
from gpuseg.backends.cpu.threads import thread_count
from gpuseg.backends.gpu.memory import in_units
from gpuseg.backends.select import in_host_memory, select_backend
from gpuseg.clustering.sweep import silhouette_work
from gpuseg.device_memory import DeviceWork, device_plan, free_device_bytes
from gpuseg.errors import DataError
from gpuseg.memory.budget import memory_bytes
from gpuseg.outputs.destinations import Destinations
from gpuseg.outputs.reuse import encoder_of
from gpuseg.plan_memory import MemoryWork, memory_of_stages, scratch_words
from gpuseg.records import Segmentation, Table, no_progress
from gpuseg.settings import Settings
from gpuseg.tables.input import input_location, peek_input
from gpuseg.tables.reading import TableSummary

#: Rows of the trial run whose times, with those of a smaller one, are extended to the
#: whole table.
TRIAL_ROWS = 8_000

#: Rows of the pairs that are timed to learn how fast this machine scores.
PAIR_TRIAL_ROWS = 6_000

#: From here on the time of a stage hardly grows with the rows: k-means searches on a
#: sample, and the forest and SHAP are bounded.
ROWS_THAT_COUNT = 100_000

#: Measured with 1 M rows x 20 columns on two cores, in bytes of rows in memory. Publishing
#: draws the report first.
READ_BYTES_PER_SECOND = {"csv": 30e6, "jsonl": 8e6}
READ_BYTES_PER_SECOND_ELSE = 200e6
WRITE_BYTES_PER_SECOND = 50e6
REPORT_SECONDS = 3.5


class StagePlan(NamedTuple):
    """What one stage is expected to take."""

    name: str
    memory_bytes: int
    seconds: float
    note: str
    device_bytes: int | None = None  # of the GPU, besides; None where none is used


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    table: str
    n_rows: int
    rows_exact: bool
    n_columns: int
    n_features: int
    backend: str
    backend_reason: str
    columns: tuple[tuple[str, str, str, str], ...]
    stages: tuple[StagePlan, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self) | {
            "columns": [dict(zip(COLUMN_KEYS, row, strict=True)) for row in self.columns],
            "stages": [stage._asdict() for stage in self.stages],
        }


COLUMN_KEYS = ("column", "role", "decision", "reason")


def make_plan(settings: Settings) -> Plan:
    """Segment the first rows in memory and scale what that took up to the whole table.

    Raises
    ------
    GpusegError
        As a run would, as far as the first rows show it.
    """
    Destinations.of(settings)
    seen = peek_input(settings)
    _trial(settings, seen, TRIAL_ROWS)  # loads libraries and compiled kernels
    large = _trial(settings, seen, TRIAL_ROWS)
    try:
        small = _trial(settings, seen, TRIAL_ROWS // 4)
    except DataError:  # of a sorted table the first rows may be all alike
        small = large
    stages = _stages(settings, seen, small, large)
    too_much: tuple[str, ...] = ()
    if large.backend == "gpu":
        stages, too_much = with_device_memory(stages, _device_work(settings, seen, large))
    return Plan(
        table=seen.name,
        n_rows=seen.n_rows,
        rows_exact=seen.rows_exact,
        n_columns=len(seen.columns),
        n_features=large.n_features,
        backend=large.backend,
        backend_reason=large.backend_reason,
        columns=tuple(tuple(row.values()) for row in large.columns.to_pylist()),
        stages=stages,
        warnings=(
            *_warnings(seen, len(large.labels)),
            *scratch_words(memory_work(settings, seen, large), memory_bytes(settings.memory)),
            *too_much,
        ),
    )


def _trial(settings: Settings, seen: TableSummary, n_rows: int) -> Segmentation:
    table = Table(seen.name, seen.sample.slice(0, n_rows), left_out=seen.left_out)
    return pipeline.run(settings, table=table, keep=False)


def _stages(
    settings: Settings, seen: TableSummary, small: Segmentation, large: Segmentation
) -> tuple[StagePlan, ...]:
    n, d = seen.n_rows, large.n_features
    memory = memory_of_stages(memory_work(settings, seen, large), memory_bytes(settings.memory))
    work = silhouette_work(n, d, settings.sample_size)
    exact = "exact" if work.is_exact else f"sampled: up to {work.n_scored:,} rows"
    bounded = min(n, ROWS_THAT_COUNT)
    pair_seconds = work.multiply_adds / _pair_rate(settings, d)
    return (
        StagePlan("read", memory["read"], _read_seconds(settings, seen), _mebibytes(seen.n_bytes)),
        StagePlan(
            "prepare",
            memory["prepare"],
            _extended("prepare", small, large, n),
            f"{d} features",
        ),
        StagePlan(
            "sweep",
            memory["sweep"],
            _extended("sweep", small, large, bounded) + pair_seconds,
            f"k = {settings.k_values[0]} to {settings.k_values[-1]}, silhouette {exact}",
        ),
        StagePlan(
            "explain",
            memory["explain"],
            _extended("explain", small, large, bounded),
            "forest, SHAP, profiles, rules",
        ),
        StagePlan(
            "publish",
            memory["publish"],
            REPORT_SECONDS + seen.n_bytes / WRITE_BYTES_PER_SECOND,
            "report, then staged, checked, swapped",
        ),
    )


def memory_work(settings: Settings, seen: TableSummary, trial: Segmentation) -> MemoryWork:
    """Return what a run would have to hold, as far as a trial shows it."""
    work = silhouette_work(seen.n_rows, trial.n_features, settings.sample_size)
    return MemoryWork(
        n_rows=seen.n_rows,
        table_bytes=seen.n_bytes,
        n_columns=len(seen.columns),
        n_encoded=len(encoder_of(trial.model).feature_names),
        n_features=trial.n_features,
        k_values=tuple(settings.k_values),
        n_scored=work.n_scored,
        n_threads=thread_count(),
    )


def _device_work(settings: Settings, seen: TableSummary, trial: Segmentation) -> DeviceWork:
    work = silhouette_work(seen.n_rows, trial.n_features, settings.sample_size)
    return DeviceWork(
        n_rows=seen.n_rows,
        n_encoded=len(encoder_of(trial.model).feature_names),
        n_features=trial.n_features,
        n_columns=len(trial.model.columns),
        k_values=tuple(settings.k_values),
        n_scored=work.n_scored,
    )


def with_device_memory(
    stages: tuple[StagePlan, ...], work: DeviceWork, free_bytes: int | None = None
) -> tuple[tuple[StagePlan, ...], tuple[str, ...]]:
    """Add what each stage takes of the GPU, and warnings of what will not fit.

    Parameters
    ----------
    free_bytes
        Memory of the GPU; by default what is free now.
    """
    free = free_device_bytes() if free_bytes is None else free_bytes
    obstacle, needed = device_plan(work, free)
    warnings = [] if obstacle is None else [in_host_memory(obstacle)]
    warnings += [
        f"{stage} needs about {in_units(n_bytes)} of GPU memory, {in_units(free)} are free"
        for stage, n_bytes in needed.items()
        if n_bytes > free
    ]
    return tuple(s._replace(device_bytes=needed[s.name]) for s in stages), tuple(warnings)


def _extended(stage: str, small: Segmentation, large: Segmentation, n_rows: int) -> float:
    """Extend the line through two trials to the whole table."""
    (n_small, t_small), (n_large, t_large) = (
        (len(trial.labels), trial.stages[stage].seconds) for trial in (small, large)
    )
    if n_large <= n_small or n_rows <= n_large:
        return t_large
    slope = max(t_large - t_small, 0.0) / (n_large - n_small)
    return t_large + slope * (n_rows - n_large)


def _pair_rate(settings: Settings, n_features: int) -> float:
    """Measure how many multiply-adds over pairs of rows this machine does in a second."""
    backend = select_backend(settings.backend).backend
    rng = np.random.default_rng(0)
    X = rng.normal(size=(PAIR_TRIAL_ROWS, n_features)).astype(np.float32)
    ranks = np.argsort(np.argsort(X[:, 0]))
    k_values = settings.k_values
    labels = np.stack([ranks * k // PAIR_TRIAL_ROWS for k in k_values]).astype(np.int32)
    here, there = backend.from_host(X), backend.from_host(labels)
    begin = time.perf_counter()
    backend.distance_sums(here, there, k_values, rows=None, progress=no_progress)
    seconds = time.perf_counter() - begin
    return silhouette_work(PAIR_TRIAL_ROWS, n_features, None).multiply_adds / seconds


def _read_seconds(settings: Settings, seen: TableSummary) -> float:
    rate = READ_BYTES_PER_SECOND.get(input_location(settings).format, READ_BYTES_PER_SECOND_ELSE)
    return seen.n_bytes / rate


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB of rows"


def _warnings(seen: TableSummary, trial_rows: int) -> tuple[str, ...]:
    found = [f"times are extended from trials on the first {trial_rows:,} rows: a guide only"]
    if trial_rows < seen.n_rows:
        found.append("columns were judged by the first rows; the whole table may decide otherwise")
    if not seen.rows_exact:
        found.append("the number of rows is estimated from the size of the file")
    return tuple(found)
