"""What each stage of a run takes of memory: the model that ``gpuseg plan`` tells.

The sizes of what is as long as the table are counted; what does not grow with it was measured
(``bench/scale.py`` keeps prediction and measurement side by side).
"""

from __future__ import annotations

from typing import NamedTuple

from gpuseg.backends.cpu.by_buckets import MANY_ROWS
from gpuseg.backends.cpu.distance_sums import CHUNK_ROWS
from gpuseg.clustering.kmeans import N_FINALISTS
from gpuseg.explain.rule_columns import MAX_ROWS
from gpuseg.memory.budget import in_units
from gpuseg.memory.room import COLUMN_BYTES, PAGER_SHARE, WORK_SHARE, held_bytes
from gpuseg.memory.scratch import FOLDER_VARIABLE, scratch_folder

#: Python, the libraries and the compiled kernels: when the table is read, and when the forest's
#: libraries are there too.
BASE_BYTES = 260 << 20
PREPARING_BYTES = 320 << 20
LATER_BYTES = 430 << 20

#: A forest on 100,000 rows and its explanation: for each encoded feature, and for each thread.
FOREST_BYTES_PER_FEATURE = 1 << 20
FOREST_BYTES_PER_THREAD = 25 << 20
FOREST_ROWS = 100_000

#: For a row and column that rules look at: its value, its cells, and what DuckDB keeps.
RULE_BYTES = 13

#: Charts, tables and pictures of the report.
REPORT_BYTES = 70 << 20

#: For a row of a block that chosen rows are compared with, besides its features and labels.
CHUNK_ROW_BYTES = 80

#: For each row of a row group that is written.
WRITTEN_ROWS = 1 << 20

#: What comes in between two looks of the pager, as a share of the budget.
OVERSHOOT = 0.04


class MemoryWork(NamedTuple):
    """What there is to do, in numbers."""

    n_rows: int
    table_bytes: int
    n_columns: int  # of the table
    n_encoded: int
    n_features: int  # after a projection, if there is one
    k_values: tuple[int, ...]
    n_scored: int
    n_threads: int


class _Stage(NamedTuple):
    """What a stage holds at its peak, in bytes."""

    arrays: float  # long ones, which go to files where memory is used up
    work: float  # in memory, whatever happens
    base: float = LATER_BYTES


def memory_of_stages(of: MemoryWork, budget_bytes: int) -> dict[str, int]:
    """Return the resident size of the process at the peak of each stage, in bytes.

    Parameters
    ----------
    budget_bytes
        What the run may take.
    """
    table_held = of.table_bytes if of.table_bytes <= held_bytes(budget_bytes) else 0
    found = {}
    for name, stage in _stages(of, budget_bytes).items():
        arrays_held = min(stage.arrays, held_bytes(budget_bytes))
        held = stage.base + table_held + arrays_held + stage.work
        mapped = stage.arrays - arrays_held + of.table_bytes - table_held
        if name == "read":  # what is written to a file is not mapped yet
            mapped = 0
        limit = (PAGER_SHARE + OVERSHOOT) * budget_bytes
        found[name] = round(max(held, min(held + mapped, limit)))
    return found


def scratch_words(of: MemoryWork, budget_bytes: int) -> tuple[str, ...]:
    """Say what goes to scratch files, where anything does."""
    table = of.table_bytes if of.table_bytes > held_bytes(budget_bytes) else 0
    arrays = max(stage.arrays for stage in _stages(of, budget_bytes).values())
    n_bytes = table + max(0.0, arrays - held_bytes(budget_bytes))
    if not n_bytes:
        return ()
    words = (
        f"{in_units(n_bytes)} of scratch files will lie in '{scratch_folder()}' "
        f"({FOLDER_VARIABLE} names another folder), because memory is limited to "
        f"{in_units(budget_bytes)}"
    )
    return (words,)


def _stages(of: MemoryWork, budget_bytes: int) -> dict[str, _Stage]:
    n, matrix = of.n_rows, 4 * of.n_rows * of.n_encoded
    projected = 4 * n * of.n_features if of.n_features != of.n_encoded else 0
    kept = matrix + projected + 8 * n  # the rows and their order, from here on
    block = 2 * of.table_bytes * min(1.0, (1 << 17) / max(n, 1))
    column = min(COLUMN_BYTES * n, WORK_SHARE * budget_bytes)
    in_buckets = n >= MANY_ROWS
    ordering = 64 * n if not in_buckets else 128 << 20
    gathering = matrix if not in_buckets else 128 << 20
    n_k = len(of.k_values)
    labels = (2 * N_FINALISTS * n_k if n > 1 << 16 else 4 * N_FINALISTS * n_k) * n
    panels = 4 * n * of.n_features
    if 2 * (panels + N_FINALISTS * n_k * n) > WORK_SHARE * budget_bytes:
        panels = 64 << 20
    met = min(n, CHUNK_ROWS)
    scoring = met * (4 * of.n_features + CHUNK_ROW_BYTES) + 16 * of.n_scored * sum(of.k_values)
    rules = min(n, MAX_ROWS) * of.n_columns * RULE_BYTES
    forest = min(1.0, n / FOREST_ROWS) * FOREST_BYTES_PER_FEATURE * of.n_encoded
    forest += FOREST_BYTES_PER_THREAD * of.n_threads
    written = of.table_bytes * min(1.0, WRITTEN_ROWS / max(n, 1))
    return {
        "read": _Stage(0, block, BASE_BYTES),
        "prepare": _Stage(
            2 * matrix + projected + 24 * n,
            max(column, ordering, gathering),
            PREPARING_BYTES,
        ),
        "sweep": _Stage(kept + max(labels, 16 * n + n_k * n), max(panels, scoring)),
        "explain": _Stage(kept + 8 * n, forest + max(0.6 * column, rules)),
        "publish": _Stage(kept + 4 * n, REPORT_BYTES + 1.5 * written),
    }
