"""A picture of a column and its buckets. Import this module lazily: it brings in matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpuseg.explain.bucket_axes import DateAxis, NumberAxis
from gpuseg.explain.buckets import METHODS, Bucketing, ColumnBuckets
from gpuseg.outputs.durable import writing
from gpuseg.outputs.palette import ABOVE, ACCENT, GRID, INK, MUTED
from gpuseg.outputs.svg import render
from gpuseg.outputs.wording import number, percent, shortened

#: Bars of the histogram, at most.
_BARS = 80

#: More cuts in the title would not fit.
_MOST_CUTS_NAMED = 3

#: Of a column's far tails the picture shows nothing beyond these shares of the rows.
_SHOWN = (0.001, 0.999)

_COLORS = {"k_means": ACCENT, "segments": ABOVE}

Floats = npt.NDArray[np.float64]


def draw_buckets(columns: Sequence[ColumnBuckets], folder: Path) -> tuple[str, ...]:
    """Draw every column into a folder, as SVG and PNG; return the paths of the SVG files.

    Raises
    ------
    SinkError
        If the disk refuses.
    """
    paths = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for place, column in enumerate(columns):
            stem = folder / _file_name(place, column.column)
            render(partial(buckets_chart, column), stem, f"Buckets of {column.column}")
            paths.append(str(stem.with_suffix(".svg")))
    return tuple(paths)


def _file_name(place: int, column: str) -> str:
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in column)[:60]
    return f"{place + 1:02d}_{plain}"


def buckets_chart(column: ColumnBuckets) -> Figure:
    """Draw the histogram of a column, and under it where each method cuts."""
    figure = Figure(figsize=(7.6, 2.3 + 0.24 * len(column.bucketings)))
    heights = (2.0, 0.24 * len(column.bucketings))
    top, strips = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    low, high = _draw_histogram(top, column)
    for row, bucketing in enumerate(column.bucketings):
        _draw_strip(strips, row, column, bucketing, (low, high))
    strips.set_yticks(range(len(column.bucketings)), labels=[_name(b) for b in column.bucketings])
    strips.set_ylim(len(column.bucketings) - 0.4, -0.6)
    strips.spines[:].set_visible(False)
    strips.tick_params(axis="y", length=0)
    strips.set_xlim(low, high)
    _set_ticks(strips, column, low, high)
    return figure


def _name(bucketing: Bucketing) -> str:
    n_buckets = len(bucketing.labels)
    buckets = f"{n_buckets} bucket{'' if n_buckets == 1 else 's'}"
    return f"{METHODS[bucketing.method]}: {buckets}, {percent(bucketing.explained)} of variance"


def _draw_histogram(axes: Axes, column: ColumnBuckets) -> tuple[float, float]:
    """Draw rows along the column's scale, and the suggested cuts; return what is shown of it."""
    positions = column.axis.positions(column.values)
    shares = np.cumsum(column.counts) / column.counts.sum()
    first, last = np.minimum(np.searchsorted(shares, _SHOWN), len(shares) - 1)
    cuts = column.axis.positions(np.array(column.bucketings[0].cuts))
    low = min(positions[first], *cuts)
    high = max(positions[last], *cuts)
    pad = 0.02 * (high - low)
    edges = _bars(column, float(low), float(high))
    counts, _ = np.histogram(positions, edges, weights=column.counts)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=MUTED, alpha=0.45,
             edgecolor="white", linewidth=0.5)  # fmt: skip
    for bucketing in reversed(column.bucketings[:2]):
        if bucketing.method in _COLORS:
            for cut in column.axis.positions(np.array(bucketing.cuts)):
                axes.axvline(cut, color=_COLORS[bucketing.method], linewidth=1.4)
    axes.set_ylabel("Rows")
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.set_title(_title(column), color=INK, weight="bold", loc="left")
    return float(low - pad), float(high + pad)


def _bars(column: ColumnBuckets, low: float, high: float) -> Floats:
    """Return edges of bars: of equally many whole numbers where there are only those."""
    whole = isinstance(column.axis, DateAxis) or column.axis.is_whole
    if whole and column.axis.scale == "linear":
        width = np.ceil((high - low + 1) / _BARS)
        return np.asarray(np.arange(low, high + width + 1, width) - 0.5)
    return np.linspace(low, high, min(_BARS, max(len(column.values), 2)) + 1)


def _title(column: ColumnBuckets) -> str:
    suggested = column.bucketings[0]
    name = f"{shortened(column.column, 30)}: {len(suggested.labels)} buckets"
    if len(suggested.cuts) > _MOST_CUTS_NAMED:
        return name
    return f"{name}, cut at {', '.join(column.axis.text(cut) for cut in suggested.cuts)}"


def _draw_strip(
    axes: Axes, row: int, column: ColumnBuckets, bucketing: Bucketing, shown: tuple[float, float]
) -> None:
    """Draw one method as a line with a mark at each cut."""
    color = _COLORS.get(bucketing.method, MUTED)
    axes.plot(shown, (row, row), color=GRID, linewidth=5, solid_capstyle="butt", zorder=1)
    cuts = column.axis.positions(np.array(bucketing.cuts, dtype=np.float64))
    inside = cuts[(cuts >= shown[0]) & (cuts <= shown[1])]
    axes.plot(inside, np.full(len(inside), row), "|", color=color, markersize=11,
              markeredgewidth=2, zorder=2)  # fmt: skip


def _set_ticks(axes: Axes, column: ColumnBuckets, low: float, high: float) -> None:
    """Name places on the scale in the column's own numbers."""
    axes.set_xlabel(_scale_name(column))
    if isinstance(column.axis, NumberAxis) and column.axis.log_unit is not None:
        axes.grid(visible=False)
        marks = _log_marks()
        marks = marks[marks >= min(0.0, column.values[0])]
        places = column.axis.positions(marks)
        keep = _apart(places, low, high)
        axes.set_xticks(places[keep], labels=[number(mark) for mark in marks[keep]])
    elif isinstance(column.axis, DateAxis):
        days = [0.0, *column.axis.round_cuts(0.0, high)]
        texts = [column.axis.text(day).replace(" months", "") for day in days[1:]]
        axes.set_xticks(days, labels=["0", *texts])


def _scale_name(column: ColumnBuckets) -> str:
    name = shortened(column.column, 40)
    if isinstance(column.axis, DateAxis):
        return f"{name} (months before {column.axis.reference})"
    return f"{name} (logarithmic scale)" if column.axis.scale != "linear" else name


def _log_marks() -> Floats:
    powers = 10.0 ** np.arange(-3, 13)
    steps = np.concatenate([powers, 2 * powers, 5 * powers])
    return np.sort(np.concatenate([-steps, [0.0], steps]))


def _apart(places: Floats, low: float, high: float) -> npt.NDArray[np.int64]:
    """Return places inside that leave each other room, powers of ten and 0 first in line."""
    chosen: list[int] = []
    for i in np.flatnonzero((places >= low) & (places <= high)):
        if all(abs(places[i] - places[j]) > 0.09 * (high - low) for j in chosen):
            chosen.append(int(i))
    return np.array(chosen, dtype=np.int64)
