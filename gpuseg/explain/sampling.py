"""A sample of rows that depends on their content, not on their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gpuseg.explain.conditions import RuleColumn

#: Values that a search may look at: wide tables are searched on fewer rows.
MAX_VALUES = 100_000_000


def sample_rows(
    columns: Sequence[RuleColumn], labels: npt.NDArray[np.int32], max_rows: int, random_state: int
) -> npt.NDArray[np.int64] | None:
    """Choose rows by content, so that the same rows are chosen in whatever order they come.

    Rows are sorted by segment and then by a hash of their values; every m-th is taken.
    Equal rows are interchangeable. None stands for all rows.
    """
    max_rows = max(1, min(max_rows, MAX_VALUES // max(len(columns), 1)))
    if len(labels) <= max_rows:
        return None
    keys = np.full(len(labels), random_state, dtype=np.uint64)
    for column in columns:
        keys = _mix(keys ^ _bits(column))
    order = np.lexsort((keys, labels))
    places = (np.arange(max_rows) + 0.5) * (len(labels) / max_rows)
    return np.asarray(order[places.astype(np.int64)])


def _bits(column: RuleColumn) -> npt.NDArray[np.uint64]:
    values = column.values.astype(np.int64) if column.kind != "numeric" else column.values + 0.0
    if column.kind == "numeric":
        values[column.missing] = np.nan  # one of its many bit patterns
    return values.view(np.uint64)


def _mix(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every bit over all others: the finaliser of SplitMix64 (Steele et al., 2014)."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def take(column: RuleColumn, rows: npt.NDArray[np.int64]) -> RuleColumn:
    """Return the column with these rows only."""
    return replace(column, values=column.values[rows])
