"""Columns cut into a few dozen cells, so that searching them is counting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gpuseg.explain.conditions import RuleColumn, Threshold
from gpuseg.explain.round_numbers import roundest_date, roundest_number

#: Cells of a column, at most; thresholds are refined on the values themselves later.
MAX_CELLS = 64
#: Two more: categories that are too rare to be named, and missing values.
OTHER, MISSING = MAX_CELLS, MAX_CELLS + 1
N_CODES = MAX_CELLS + 2


@dataclass(frozen=True)
class Cells:
    """One column in cells.

    Parameters
    ----------
    codes
        (n,) uint8: cell of each row; `OTHER` and `MISSING` are the last two.
    cuts
        Ordered columns: ascending; cell i holds what is at least ``cuts[i - 1]`` and less
        than ``cuts[i]``.
    named
        Categorical columns: category of each cell.
    """

    column: RuleColumn
    codes: npt.NDArray[np.uint8]
    cuts: tuple[Threshold, ...] = ()
    named: tuple[int, ...] = ()


def cut_columns(columns: Sequence[RuleColumn]) -> list[Cells]:
    """Cut every column into cells; columns that have only one are left out."""
    cells = [_ordered(c) if c.is_ordered else _categorical(c) for c in columns]
    return [c for c in cells if len(c.codes) and c.codes.min() != c.codes.max()]


def cut_between(column: RuleColumn, low: Threshold, high: Threshold) -> Threshold:
    """Return a round threshold: values up to `low` are below it, those from `high` are not."""
    if column.kind == "datetime":
        return roundest_date(low, high).astype(column.values.dtype)
    return roundest_number(float(low), float(high), include="high")


def _ordered(column: RuleColumn) -> Cells:
    present = column.values[~column.missing]
    cuts = np.unique([cut_between(column, low, high) for low, high in _gaps(np.sort(present))])
    codes = np.full(len(column.values), MISSING, dtype=np.uint8)
    if len(cuts):
        codes[~column.missing] = np.searchsorted(cuts, present, side="right")
    else:
        codes[~column.missing] = 0
    return Cells(column, codes, cuts=tuple(cuts))


def _gaps(ordered: npt.NDArray[np.generic]) -> list[tuple[Threshold, Threshold]]:
    """Return pairs of values to cut between: all neighbours, or some around quantiles."""
    distinct = np.unique(ordered)
    if len(distinct) <= MAX_CELLS:
        return list(pairwise(distinct))
    # half a cell wide, so that there is a round number in it; each may give two cuts
    eighths = np.linspace(0, len(ordered) - 1, 2 * MAX_CELLS + 1).astype(np.int64)
    lows, highs = ordered[eighths[3:-4:4]], ordered[eighths[5:-2:4]]
    gaps: list[tuple[Threshold, Threshold]] = []
    for low, high in zip(lows, highs, strict=True):
        if low < high:
            gaps.append((low, high))
            continue
        # one value fills the place: cut in front of it and behind it
        place = int(np.searchsorted(distinct, low))
        gaps += pairwise(distinct[max(place - 1, 0) : place + 2])
    return gaps


def _categorical(column: RuleColumn) -> Cells:
    counts = np.bincount(column.values[column.values >= 0], minlength=len(column.categories))
    by_size = np.argsort(-counts, kind="stable")[:MAX_CELLS]  # ties by name
    named = by_size[counts[by_size] > 0]
    cell_of = np.full(len(column.categories) + 1, OTHER, dtype=np.uint8)
    cell_of[named] = np.arange(len(named))
    cell_of[-1] = MISSING  # what code -1 points at
    return Cells(column, cell_of[column.values], named=tuple(named.tolist()))
