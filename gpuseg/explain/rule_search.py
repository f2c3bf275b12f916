"""Search for the conjunction of few conditions that describes one segment best.

A beam search over columns cut into cells: counting the cells of the rows that meet a
conjunction gives the best next condition on every column at once. Thresholds are then
moved on the values themselves, to the roundest number that costs next to nothing.

The measure is F = (1 + b²) tp / (b² P + N), with tp rows of the segment among the N rows
that meet the rule, and P rows in the segment (van Rijsbergen, Information Retrieval, 1979);
b = 1 weighs precision and coverage alike, b < 1 favours precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.explain.cells import MAX_CELLS, MISSING, N_CODES, OTHER, Cells, cut_between
from gpuseg.explain.conditions import (
    Condition,
    InRange,
    Mask,
    Missing,
    OneOf,
    RuleColumn,
    Threshold,
    all_of,
)
from gpuseg.explain.round_numbers import roundest_number

MAX_CONDITIONS = 3
MAX_CATEGORIES = 4  # named in one condition
BEAM_WIDTH = 6
#: Further conditions are looked for on the columns that say most on their own.
MAX_COLUMNS = 60

#: What a further condition, or a further named category, must gain in F, and what a rounder
#: threshold may cost.
CONDITION_GAIN = 0.01
NAME_GAIN = 0.003
ROUNDING_COST = 0.004

#: Bit of a cell code that marks a row of the segment while cells are counted.
_WANTED = np.uint8(128)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """What a rule should select."""

    wanted: Mask  # (n,) rows of the segment
    allowed: Mask  # (n,) rows that count at all
    beta: float

    @cached_property
    def n_wanted(self) -> int:
        """Rows of the segment that count."""
        return int(np.count_nonzero(self.wanted & self.allowed))

    def f_score(self, hits: Any, selected: Any) -> Any:
        """Return F for `hits` rows of the segment among `selected` rows, elementwise."""
        weight = self.beta**2
        return (1 + weight) * hits / np.maximum(weight * self.n_wanted + selected, 1)

    def f_of(self, passing: Mask) -> float:
        """Return F of the rows that pass a rule."""
        passing = passing & self.allowed
        hits = np.count_nonzero(passing & self.wanted)
        return float(self.f_score(hits, np.count_nonzero(passing)))


def best_conjunction(columns: Sequence[Cells], target: Target) -> list[Condition]:
    """Return at most `MAX_CONDITIONS` conditions.

    The empty list means that no condition describes the segment better than all rows do.
    """
    node = _beam_search(columns, target)
    conditions = [_condition(columns[place], cells) for place, cells in node.terms]
    for _ in range(2):  # thresholds depend on each other
        for i, condition in enumerate(conditions):
            if isinstance(condition, InRange):
                others = conditions[:i] + conditions[i + 1 :]
                conditions[i] = _refine(condition, all_of(others, len(target.wanted)), target)
    return _without_idle(conditions, target)


def _without_idle(conditions: list[Condition], target: Target) -> list[Condition]:
    """Drop conditions, the least useful first, that do not pay for their words."""
    n_rows = len(target.wanted)
    while conditions:
        f = target.f_of(all_of(conditions, n_rows))
        shorter = [conditions[:i] + conditions[i + 1 :] for i in range(len(conditions))]
        best = max(shorter, key=lambda kept: target.f_of(all_of(kept, n_rows)))
        if target.f_of(all_of(best, n_rows)) < f - CONDITION_GAIN:
            break
        conditions = best
    return conditions


# -- conjunctions of cells -----------------------------------------------------


class _Term(NamedTuple):
    """Rows pass whose cell in the column at `place` is marked in `cells`, (N_CODES,) bool."""

    place: int
    cells: Mask


class _Node(NamedTuple):
    terms: tuple[_Term, ...]
    f: float

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(sorted(term.place for term in self.terms))


def _beam_search(columns: Sequence[Cells], target: Target) -> _Node:
    best = root = _Node((), target.f_of(target.allowed))
    single = _ranked(_children(columns, root, range(len(columns)), target))
    telling = sorted(node.terms[0].place for node in single[:MAX_COLUMNS])
    beam = single[:BEAM_WIDTH]
    for length in range(1, MAX_CONDITIONS + 1):
        if length > 1:
            longer = [c for node in beam for c in _children(columns, node, telling, target)]
            beam = [_polish(columns, node, target) for node in _ranked(longer)[:BEAM_WIDTH]]
        top = max(beam, key=lambda node: node.f, default=root)
        if top.f > best.f + CONDITION_GAIN:
            best = top
    return best


def _ranked(nodes: Iterable[_Node]) -> list[_Node]:
    """Return the best node of each set of columns, best first; ties to the earlier columns."""
    best: dict[tuple[int, ...], _Node] = {}
    for node in nodes:
        known = best.get(node.places)
        if known is None or node.f > known.f:
            best[node.places] = node
    return sorted(best.values(), key=lambda node: (-node.f, node.places))


def _children(
    columns: Sequence[Cells], node: _Node, places: Iterable[int], target: Target
) -> Iterable[_Node]:
    """Yield the node with one more condition, the best one on each further column."""
    rows = _rows(columns, node.terms, target)
    for place in places:
        if place not in node.places:
            f, passing = _best_cells(columns[place], rows, target)
            if f > node.f:
                yield _Node((*node.terms, _Term(place, passing)), f)


def _polish(columns: Sequence[Cells], node: _Node, target: Target) -> _Node:
    """Choose each condition again, now that the others are known."""
    if len(node.terms) == 1:
        return node
    for i, term in enumerate(node.terms):
        before, after = node.terms[:i], node.terms[i + 1 :]
        rows = _rows(columns, before + after, target)
        f, passing = _best_cells(columns[term.place], rows, target)
        if f > node.f:
            node = _Node((*before, _Term(term.place, passing), *after), f)
    return node


def _rows(
    columns: Sequence[Cells], terms: Sequence[_Term], target: Target
) -> npt.NDArray[np.int64]:
    passing = target.allowed
    for place, cells in terms:
        passing = passing & cells[columns[place].codes]
    return np.flatnonzero(passing)


def _best_cells(cells: Cells, rows: npt.NDArray[np.int64], target: Target) -> tuple[float, Mask]:
    """Return the best F of one condition on this column among `rows`, and its cells."""
    marked = cells.codes[rows] | np.where(target.wanted[rows], _WANTED, np.uint8(0))
    counts = np.bincount(marked, minlength=256).astype(np.float64)
    hits = counts[_WANTED : _WANTED + N_CODES]
    selected = counts[:N_CODES] + hits
    if cells.column.is_ordered:
        return _best_interval(hits, selected, len(cells.cuts) + 1, target)
    return _best_categories(hits, selected, target)


def _best_interval(
    hits: Floats, selected: Floats, n_cells: int, target: Target
) -> tuple[float, Mask]:
    """Try all intervals of cells, with and without the missing, and the missing alone."""
    sums = [np.concatenate([[0.0], np.cumsum(x[:n_cells])]) for x in (hits, selected)]
    # [i, j] is the interval of cells i to j - 1; empty ones have no hits
    inside, among = (np.maximum(s[None, :] - s[:, None], 0) for s in sums)
    f = [target.f_score(inside, among)]
    if selected[MISSING]:
        f.append(target.f_score(inside + hits[MISSING], among + selected[MISSING]))
    best = int(np.argmax(f))
    or_missing, first, end = np.unravel_index(best, (len(f), *inside.shape))
    passing = np.zeros(N_CODES, dtype=bool)
    passing[first:end] = True
    passing[MISSING] = bool(or_missing)
    return float(np.ravel(f)[best]), passing


def _best_categories(hits: Floats, selected: Floats, target: Target) -> tuple[float, Mask]:
    """Choose few categories to name, as those that pass or as those that fail."""
    named = [_named_categories(hits, selected, target, negated) for negated in (False, True)]
    _, f, passing = max(named, key=lambda found: found[0])
    return f, passing


def _named_categories(
    hits: Floats, selected: Floats, target: Target, negated: bool
) -> tuple[float, float, Mask]:
    """Maximise F over sets of named cells with Dinkelbach's iterations for ratios.

    Returns
    -------
    worth, f, passing
        F less `NAME_GAIN` for each name, F, and the cells that pass.

    References
    ----------
    W. Dinkelbach, On nonlinear fractional programming, Management Science 13(7), 1967.
    """
    f, passing = float(target.f_score(hits.sum(), selected.sum())), np.full(N_CODES, True)
    worth = -np.inf
    for _ in range(4):  # settles after two or three
        gain = hits - f / (1 + target.beta**2) * selected
        gain = -gain if negated else gain
        gain[OTHER] = -np.inf  # has no name
        order = np.argsort(-gain, kind="stable")[:MAX_CATEGORIES]
        sets = np.full((MAX_CATEGORIES, N_CODES), negated)
        for n_named in range(1, MAX_CATEGORIES + 1):
            sets[n_named - 1, order[:n_named]] = not negated
        scores = target.f_score(sets @ hits, sets @ selected)
        worths = scores - NAME_GAIN * np.arange(1, MAX_CATEGORIES + 1)
        best = int(np.argmax(worths))
        worth, f, passing = float(worths[best]), float(scores[best]), sets[best]
    return worth, f, passing


# -- from cells to conditions --------------------------------------------------


def _condition(cells: Cells, passing: Mask) -> Condition:
    column = cells.column
    or_missing = bool(passing[MISSING]) and column.has_missing
    if not column.is_ordered:
        negated = bool(passing[OTHER])
        chosen = np.flatnonzero(passing[: len(cells.named)] != negated)
        codes = tuple(sorted(cells.named[i] for i in chosen))
        return OneOf(column, codes, negated, or_missing)
    places = np.flatnonzero(passing[:MAX_CELLS])
    if not len(places):
        return Missing(column)
    low = cells.cuts[places[0] - 1] if places[0] > 0 else None
    high = cells.cuts[places[-1]] if places[-1] < len(cells.cuts) else None
    if high is not None and column.kind == "numeric":
        high = np.nextafter(high, -np.inf)
    return InRange(column, low, high, or_missing)


def _refine(condition: InRange, others: Mask, target: Target) -> InRange:
    """Move both bounds to the roundest place that is as good as the best one."""
    for move in (_move_low, _move_high):
        condition = move(condition, others & target.allowed, target)
    return condition


def _move_low(condition: InRange, rows: Mask, target: Target) -> InRange:
    column = condition.column
    values, hits, selected = _totals(InRange(column, None, condition.high), rows, target)
    if not len(values):
        return condition
    missing = _missing_totals(condition, rows, target)
    f = target.f_score(
        np.cumsum(hits[::-1])[::-1] + missing[0], np.cumsum(selected[::-1])[::-1] + missing[1]
    )
    first, last = _as_good_as_best(f)
    low = None if first == 0 else cut_between(column, values[first - 1], values[last])
    return InRange(column, low, condition.high, condition.or_missing)


def _move_high(condition: InRange, rows: Mask, target: Target) -> InRange:
    column = condition.column
    values, hits, selected = _totals(InRange(column, condition.low, None), rows, target)
    if not len(values):
        return condition
    missing = _missing_totals(condition, rows, target)
    f = target.f_score(np.cumsum(hits) + missing[0], np.cumsum(selected) + missing[1])
    first, last = _as_good_as_best(f)
    high: Threshold | None = None
    if last < len(values) - 1:
        high = _last_inside(column, values[first], values[last + 1])
    return InRange(column, condition.low, high, condition.or_missing)


def _last_inside(column: RuleColumn, low: Threshold, high: Threshold) -> Threshold:
    """Return a round upper bound that `low` passes and `high` does not."""
    if column.kind == "datetime":
        return cut_between(column, low, high)
    return roundest_number(float(low), float(high), include="low")


def _totals(condition: InRange, rows: Mask, target: Target) -> tuple[Any, Floats, Floats]:
    """Count, for each distinct value that passes, rows of the segment and all rows."""
    rows = rows & condition.mask()
    values, place = np.unique(condition.column.values[rows], return_inverse=True)
    selected = np.bincount(place, minlength=len(values)).astype(np.float64)
    hits = np.bincount(place[target.wanted[rows]], minlength=len(values)).astype(np.float64)
    return values, hits, selected


def _missing_totals(condition: InRange, rows: Mask, target: Target) -> tuple[int, int]:
    if not condition.or_missing:
        return 0, 0
    rows = rows & condition.column.missing
    return int(np.count_nonzero(rows & target.wanted)), int(np.count_nonzero(rows))


def _as_good_as_best(f: Floats) -> tuple[int, int]:
    """Return the first and last index of the run around the maximum that is almost as good."""
    best = int(np.argmax(f))
    worse = np.flatnonzero(f < f[best] - ROUNDING_COST)
    place = int(np.searchsorted(worse, best))
    first = int(worse[place - 1]) + 1 if place > 0 else 0
    last = int(worse[place]) - 1 if place < len(worse) else len(f) - 1
    return first, last
