"""A picture of a column and its buckets, drawn by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpuseg.explain.bucket_axes import DateAxis, NumberAxis
from gpuseg.explain.buckets import METHODS, Bucketing, ColumnBuckets
from gpuseg.outputs.durable import writing
from gpuseg.outputs.png import png_of
from gpuseg.outputs.svg import Canvas, for_file, text_width, ticks
from gpuseg.outputs.wording import number, percent, shortened

#: Bars of the histogram, at most.
_BARS = 80

#: More cuts in the title would not fit.
_MOST_CUTS_NAMED = 3

#: Of a column's far tails the picture shows nothing beyond these shares of the rows.
_SHOWN = (0.001, 0.999)

#: Method -> name of its colour.
_COLORS = {"k_means": "accent", "segments": "above"}

_WIDTH, _TOP, _HISTOGRAM, _STRIP = 760.0, 34.0, 170.0, 24.0

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
            path = folder / f"{_file_name(place, column.column)}.svg"
            svg = buckets_chart(column)
            path.write_text(svg, encoding="utf-8")
            path.with_suffix(".png").write_bytes(png_of(svg))
            paths.append(str(path))
    return tuple(paths)


def _file_name(place: int, column: str) -> str:
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in column)[:60]
    return f"{place + 1:02d}_{plain}"


def buckets_chart(column: ColumnBuckets) -> str:
    """Draw the histogram of a column, and under it where each method cuts, as SVG."""
    names = [_name(bucketing) for bucketing in column.bucketings]
    left = 20 + max(text_width(name) for name in names)
    bottom = _TOP + _HISTOGRAM
    canvas = Canvas(_WIDTH, bottom + _STRIP * len(names) + 64, for_file)
    low, high = _shown_range(column)
    scale = _Scale(left, _WIDTH - 20, low, high)
    canvas.text(left, 16, _title(column), bold=True, size=14)
    _draw_histogram(canvas, column, scale, bottom)
    for row, (name, bucketing) in enumerate(zip(names, column.bucketings, strict=True)):
        y = bottom + 22 + row * _STRIP
        canvas.text(left - 10, y, name, anchor="end")
        _draw_strip(canvas, y, column, bucketing, scale)
    _draw_ticks(canvas, column, scale, bottom + 22 + len(names) * _STRIP)
    return canvas.svg(f"Buckets of {column.column}")


class _Scale:
    """Where a place on the column's scale is on the canvas."""

    def __init__(self, left: float, right: float, low: float, high: float) -> None:
        self.left, self.right, self.low, self.high = left, right, low, high

    def x(self, position: float) -> float:
        share = (position - self.low) / ((self.high - self.low) or 1.0)
        return self.left + min(max(share, 0.0), 1.0) * (self.right - self.left)


def _name(bucketing: Bucketing) -> str:
    n_buckets = len(bucketing.labels)
    buckets = f"{n_buckets} bucket{'' if n_buckets == 1 else 's'}"
    return f"{METHODS[bucketing.method]}: {buckets}, {percent(bucketing.explained)} of variance"


def _shown_range(column: ColumnBuckets) -> tuple[float, float]:
    """Return the part of the scale that is shown: nearly all rows, and all suggested cuts."""
    positions = column.axis.positions(column.values)
    shares = np.cumsum(column.counts) / column.counts.sum()
    first, last = np.minimum(np.searchsorted(shares, _SHOWN), len(shares) - 1)
    cuts = column.axis.positions(np.array(column.bucketings[0].cuts))
    low, high = float(min(positions[first], *cuts)), float(max(positions[last], *cuts))
    pad = 0.02 * (high - low)
    return low - pad, high + pad


def _draw_histogram(canvas: Canvas, column: ColumnBuckets, scale: _Scale, bottom: float) -> None:
    """Draw rows along the column's scale, and the suggested cuts."""
    edges = _bars(column, scale.low, scale.high)
    positions = column.axis.positions(column.values)
    counts, _ = np.histogram(positions, edges, weights=column.counts)
    highest = float(counts.max()) or 1.0
    height = _HISTOGRAM - 12
    for tick in ticks(0, highest, 4):
        y = bottom - height * tick / highest
        canvas.line(scale.left, y, scale.right, y)
        canvas.text(scale.left - 6, y, number(tick), color="muted", anchor="end")
    canvas.text(scale.left - 58, bottom - height / 2, "Rows", color="muted", turned=True,
                anchor="middle")  # fmt: skip
    for begin, end, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        x = scale.x(begin)
        tall = height * count / highest
        canvas.rect(x, bottom - tall, scale.x(end) - x - 0.6, tall, "muted", opacity=0.5)
    for bucketing in reversed(column.bucketings[:2]):
        if bucketing.method in _COLORS:
            for cut in column.axis.positions(np.array(bucketing.cuts)).tolist():
                x = scale.x(cut)
                canvas.line(x, bottom - height, x, bottom, _COLORS[bucketing.method], width=1.8)


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
    canvas: Canvas, y: float, column: ColumnBuckets, bucketing: Bucketing, scale: _Scale
) -> None:
    """Draw one method as a line with a mark at each cut."""
    canvas.line(scale.left, y, scale.right, y, "grid", width=6)
    cuts = column.axis.positions(np.array(bucketing.cuts, dtype=np.float64))
    for cut in cuts[(cuts >= scale.low) & (cuts <= scale.high)].tolist():
        color = _COLORS.get(bucketing.method, "muted")
        canvas.line(scale.x(cut), y - 7, scale.x(cut), y + 7, color, width=2.5)


def _draw_ticks(canvas: Canvas, column: ColumnBuckets, scale: _Scale, y: float) -> None:
    """Name places on the scale in the column's own numbers."""
    for position, text in _marks(column, scale.low, scale.high):
        canvas.text(scale.x(position), y, text, color="muted", anchor="middle")
    middle = (scale.left + scale.right) / 2
    canvas.text(middle, y + 22, _scale_name(column), color="muted", anchor="middle")


def _marks(column: ColumnBuckets, low: float, high: float) -> list[tuple[float, str]]:
    if isinstance(column.axis, DateAxis):
        days = [0.0, *column.axis.round_cuts(0.0, high)]
        texts = ["0", *(column.axis.text(day).replace(" months", "") for day in days[1:])]
        return [(day, text) for day, text in zip(days, texts, strict=True) if low <= day <= high]
    if isinstance(column.axis, NumberAxis) and column.axis.log_unit is not None:
        marks = _log_marks()
        marks = marks[marks >= min(0.0, column.values[0])]
        places = column.axis.positions(marks)
        return [(float(places[i]), number(float(marks[i]))) for i in _apart(places, low, high)]
    return [(tick, number(tick)) for tick in ticks(low, high, 8)]


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
