"""``gpuseg plan``: what a run would do, from a look at the first rows. Writes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from gpuseg import pipeline
from gpuseg.clustering.sweep import silhouette_work
from gpuseg.outputs.destinations import Destinations
from gpuseg.records import Segmentation, Table
from gpuseg.settings import Settings
from gpuseg.tables.input import peek_input
from gpuseg.tables.reading import TableSummary

#: Rows of the trial run whose times are scaled up.
TRIAL_ROWS = 4_000

#: Python, the libraries and the compiled kernels, before any data.
BASE_BYTES = 350 * 2**20


class StagePlan(NamedTuple):
    """What one stage is expected to take."""

    name: str
    memory_bytes: int
    seconds: float
    note: str


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
    sample = Table(seen.name, seen.sample.slice(0, TRIAL_ROWS))
    trial = pipeline.run(settings, table=sample, keep=False)
    return Plan(
        table=seen.name,
        n_rows=seen.n_rows,
        rows_exact=seen.rows_exact,
        n_columns=len(seen.columns),
        n_features=trial.n_features,
        backend=trial.backend,
        backend_reason=trial.backend_reason,
        columns=tuple(tuple(row.values()) for row in trial.columns.to_pylist()),
        stages=_stages(settings, seen, sample.n_rows, trial),
        warnings=_warnings(seen, sample.n_rows),
    )


def _stages(
    settings: Settings, seen: TableSummary, trial_rows: int, trial: Segmentation
) -> tuple[StagePlan, ...]:
    n, d = seen.n_rows, trial.n_features
    growth = n / trial_rows
    labels_bytes = 4 * n * len(settings.k_values)
    sums_bytes = 8 * n * sum(settings.k_values)
    matrix_bytes = 4 * n * d
    resident = BASE_BYTES + seen.n_bytes
    work = silhouette_work(n, d, settings.sample_size)
    trial_work = silhouette_work(trial_rows, d, settings.sample_size)
    exact = "exact" if work.n_scored == n else f"sampled: {work.n_scored:,} rows"

    def seconds(stage: str) -> float:
        return trial.stages[stage].seconds

    plans: list[tuple[str, int, float, str]] = [
        ("read", resident, seconds("read") * growth, f"{seen.n_bytes / 2**20:,.0f} MiB of rows"),
        ("prepare", resident + 2 * matrix_bytes, seconds("prepare") * growth, f"{d} features"),
        (
            "sweep",
            resident + 3 * matrix_bytes + labels_bytes + sums_bytes,
            seconds("sweep") * max(growth, work.multiply_adds / trial_work.multiply_adds),
            f"k = {settings.k_values[0]} to {settings.k_values[-1]}, silhouette {exact}",
        ),
        (
            "explain",
            resident + 2 * matrix_bytes + labels_bytes,
            seconds("explain") * growth,
            "forest, SHAP, profiles, rules",
        ),
        ("publish", resident + seen.n_bytes, seconds("read") * growth, "staged, checked, swapped"),
    ]
    return tuple(StagePlan(*plan) for plan in plans)


def _warnings(seen: TableSummary, trial_rows: int) -> tuple[str, ...]:
    found = [f"times are scaled from a trial on the first {trial_rows:,} rows; a guide, no promise"]
    if trial_rows < seen.n_rows:
        found.append("columns were judged by the first rows; the whole table may decide otherwise")
    if not seen.rows_exact:
        found.append("the number of rows is estimated from the size of the file")
    return tuple(found)
