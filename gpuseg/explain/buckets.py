"""The groupings that the data suggests for single columns, beside the usual fixed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.explain.bucket_axes import Axis, DateAxis, NumberAxis
from gpuseg.explain.conditions import RuleColumn
from gpuseg.explain.line import Bounds, Floats, Line
from gpuseg.explain.separation import SegmentCounts

#: What rounding one cut may cost, in explained variance or in separation.
ROUNDING_COST = 0.002

#: Fewer buckets are better than more when they separate the segments almost as well: this
#: share of the best, less what a handful of buckets takes away by chance.
ENOUGH_SEPARATION, CHANCE = 0.9, 0.005

#: Method -> what people call it.
METHODS = {
    "k_means": "k-means",
    "segments": "best for the segments",
    "equal_width": "equal width",
    "quantiles": "quantiles",
    "round": "round numbers",
}


class KOnLine(NamedTuple):
    """How good the best partition into `n_buckets` is."""

    n_buckets: int
    silhouette: float
    explained: float


@dataclass(frozen=True)
class Bucketing:
    """One way to cut a column.

    Parameters
    ----------
    method
        A key of `METHODS`.
    cuts
        Ascending, on the column's axis; a bucket begins with its cut.
    labels, n_rows
        Name and rows of each bucket, one more than cuts; a fixed bucket may be empty.
    conditions
        For each bucket, as SQL; empty where no SQL yields the column's values.
    explained
        Share of the column's variance that lies between the buckets, on its scale.
    silhouette
        Exact mean silhouette of the buckets on its scale; None for a single bucket.
    separation
        Share of the uncertainty about a row's segment that its bucket takes away; None
        without segments.
    """

    method: str
    cuts: tuple[float, ...]
    labels: tuple[str, ...]
    n_rows: tuple[int, ...]
    conditions: tuple[str, ...]
    explained: float
    silhouette: float | None
    separation: float | None

    @property
    def sql(self) -> str | None:
        """The buckets as a CASE expression; NULL for a missing value."""
        if not self.conditions:
            return None
        whens = (
            f"  WHEN {condition} THEN '{label.replace(chr(39), chr(39) * 2)}'"
            for condition, label in zip(self.conditions, self.labels, strict=True)
        )
        return "\n".join(["CASE", *whens, "END"])


@dataclass(frozen=True, eq=False)
class ColumnBuckets:
    """What is known of one column.

    Parameters
    ----------
    column, kind
        Its name; ``numeric`` or ``datetime``.
    axis
        What its cuts mean.
    values, counts
        Its distinct values on the axis, ascending, and how often each comes.
    k_scores
        Every number of buckets that was tried.
    bucketings
        The suggested one first.
    """

    column: str
    kind: str
    axis: Axis
    values: Floats
    counts: npt.NDArray[np.int64]
    n_missing: int
    k_scores: tuple[KOnLine, ...]
    bucketings: tuple[Bucketing, ...]


@dataclass(frozen=True, eq=False)
class _Cutter:
    """A column on its axis, on its scale, and beside the segments."""

    axis: Axis
    values: Floats  # distinct, ascending
    line: Line  # the same values on the scale
    segments: SegmentCounts | None

    def separation(self, bounds: Bounds) -> float:
        """Return what buckets say about the segments; 0 without any."""
        return 0.0 if self.segments is None else self.segments.separation(bounds)

    def at(self, cuts: Sequence[float]) -> Bounds:
        """Return the bounds that these cuts make; those of empty buckets coincide."""
        inner = np.searchsorted(self.values, np.asarray(cuts, dtype=np.float64))
        return np.concatenate([[0], inner, [len(self.values)]]).astype(np.int64)

    def bucketing(self, method: str, cuts: Sequence[float]) -> Bucketing:
        """Describe the buckets between these cuts."""
        bounds = self.at(cuts)
        filled = np.unique(bounds)
        n_below = np.concatenate([[0], np.cumsum(self.line.counts)])
        ends = [None, *cuts, None]
        return Bucketing(
            method=method,
            cuts=tuple(cuts),
            labels=tuple(self.axis.label(a, b) for a, b in pairwise(ends)),
            n_rows=tuple(np.diff(n_below[bounds]).tolist()),
            conditions=_conditions(self.axis, cuts),
            explained=self.line.explained(filled),
            silhouette=self.line.silhouette(filled),
            separation=None if self.segments is None else self.separation(filled),
        )


def suggest(
    column: RuleColumn,
    k_values: Sequence[int],
    *,
    labels: npt.NDArray[np.int32] | None = None,
    log_unit: float | None = None,
) -> ColumnBuckets:
    """Suggest buckets for a column of numbers or dates.

    Parameters
    ----------
    column
        With two different values at least; its `sql` may be empty.
    k_values
        Numbers of buckets to try, ascending. The one with the highest silhouette is taken,
        ties to the smaller one. A bucket for every single value has silhouette 1 and groups
        nothing: as many are only made where no smaller number is asked for.
    labels : array of shape (n,), int32, or None
        Segment of each row.
    log_unit
        Distances are measured on a logarithmic scale that is linear below this; None for
        the numbers as they are.
    """
    axis, on_axis = _on_axis(column, log_unit)
    known = ~np.isnan(on_axis)
    values, places, counts = np.unique(on_axis[known], return_inverse=True, return_counts=True)
    segments = None if labels is None else SegmentCounts.of(places, labels[known])
    cutter = _Cutter(axis, values, Line.of(axis.positions(values), counts), segments)
    k_values = _worth_trying(k_values, len(values))
    partitions = cutter.line.partitions(k_values[-1])
    scores = [_score(cutter.line, partitions[k - 1]) for k in k_values]
    best = max(scores, key=lambda score: (score.silhouette, -score.n_buckets))
    return ColumnBuckets(
        column=column.name,
        kind=column.kind,
        axis=axis,
        values=values,
        counts=counts,
        n_missing=int(np.count_nonzero(~known)),
        k_scores=tuple(scores),
        bucketings=tuple(_bucketings(cutter, partitions[best.n_buckets - 1], k_values)),
    )


def _bucketings(cutter: _Cutter, partition: Bounds, k_values: Sequence[int]) -> list[Bucketing]:
    """Describe the suggested buckets, and others beside them."""
    low, high = float(cutter.values[0]), float(cutter.values[-1])
    found = {"k_means": _rounded(cutter, partition, cutter.line.explained)}
    if cutter.segments is not None:
        separating = _separating(cutter.segments, k_values)
        found["segments"] = _rounded(cutter, separating, cutter.separation)
    k = len(partition) - 1
    found["equal_width"] = cutter.axis.even_cuts(low, high, k)
    found["quantiles"] = _quantile_cuts(cutter, k)
    found["round"] = _with_rows(cutter, cutter.axis.round_cuts(low, high))
    return [cutter.bucketing(method, sorted(set(cuts))) for method, cuts in found.items()]


def _on_axis(column: RuleColumn, log_unit: float | None) -> tuple[Axis, Floats]:
    if column.kind != "datetime":
        values = column.values + 0.0  # zero has no sign
        known = values[~column.missing]
        is_whole = bool((known == np.floor(known)).all())
        return NumberAxis(column.sql or None, is_whole, log_unit), values
    days = column.values.astype("datetime64[D]").astype(np.float64)
    days[column.missing] = np.nan
    latest = float(np.nanmax(days))
    reference = date(1970, 1, 1) + timedelta(days=latest)
    return DateAxis(column.sql or None, reference), latest - days


def _worth_trying(k_values: Sequence[int], n_values: int) -> list[int]:
    return [k for k in k_values if k < n_values] or [n_values]


def _score(line: Line, bounds: Bounds) -> KOnLine:
    silhouette = line.silhouette(bounds)
    assert silhouette is not None  # two buckets at least
    return KOnLine(len(bounds) - 1, silhouette, line.explained(bounds))


def _separating(segments: SegmentCounts, k_values: Sequence[int]) -> Bounds:
    """Return the fewest buckets that separate the segments about as well as any."""
    bounds = segments.best_bounds(k_values[-1])
    tried = {k: bounds[k - 1] for k in k_values if k <= len(bounds)} or {0: bounds[-1]}
    separations = {k: segments.separation(found) for k, found in tried.items()}
    enough = ENOUGH_SEPARATION * max(separations.values()) - CHANCE
    return next(tried[k] for k, separation in separations.items() if separation >= enough)


def _quantile_cuts(cutter: _Cutter, k: int) -> list[float]:
    n_up_to = np.cumsum(cutter.line.counts)
    wanted = n_up_to[-1] * np.arange(1, k) / k
    places = np.searchsorted(n_up_to, wanted, side="right")
    return [float(cutter.values[place]) for place in places if 0 < place < len(n_up_to)]


def _with_rows(cutter: _Cutter, cuts: Sequence[float]) -> list[float]:
    """Leave out cuts whose bucket would be empty: there is nothing below 100 but 0, say."""
    bounds = cutter.at(cuts)
    return [cut for cut, a, b in zip(cuts, bounds[1:], bounds[2:], strict=False) if a < b]


def _rounded(cutter: _Cutter, bounds: Bounds, score: Callable[[Bounds], float]) -> list[float]:
    """Return the roundest cuts that cost next to nothing, one after the other."""
    bounds, cuts = bounds.copy(), []
    for i in range(1, len(bounds) - 1):
        enough = score(bounds) - ROUNDING_COST
        first = _farthest(bounds, i, bounds[i - 1] + 1, score, enough)
        last = _farthest(bounds, i, bounds[i + 1] - 1, score, enough)
        values = cutter.values
        cut = cutter.axis.cut_between(float(values[first - 1]), float(values[last]))
        moved = bounds.copy()
        moved[i] = np.searchsorted(values, cut)
        if score(moved) < enough:  # worse in the middle than at both ends
            place = bounds[i]
            cut = cutter.axis.cut_between(float(values[place - 1]), float(values[place]))
            moved[i] = place
        bounds = moved
        cuts.append(cut)
    return cuts


def _farthest(
    bounds: Bounds, i: int, limit: int, score: Callable[[Bounds], float], enough: float
) -> int:
    """Return how far bound i can go towards `limit` with a score that is good enough."""
    moved, good, bad = bounds.copy(), int(bounds[i]), int(limit)
    step = 1 if bad >= good else -1
    bad += step
    while abs(bad - good) > 1:
        moved[i] = middle = (good + bad) // 2
        if score(moved) >= enough:
            good = middle
        else:
            bad = middle
    return good


def _conditions(axis: Axis, cuts: Sequence[float]) -> tuple[str, ...]:
    if axis.sql is None:
        return ()
    if not cuts:
        return (axis.known_sql(),)
    between: list[Any] = [
        f"{axis.from_sql(low)} AND {axis.below_sql(high)}" for low, high in pairwise(cuts)
    ]
    return (axis.below_sql(cuts[0]), *between, axis.from_sql(cuts[-1]))
