"""The charts of the report as still pictures: for pages without script, paper, and slides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpuseg.outputs.palette import cluster_names
from gpuseg.outputs.svg import Canvas, Paint, text_width
from gpuseg.outputs.svg_change import draw_flow, draw_layers, draw_limits, draw_trend
from gpuseg.outputs.svg_parts import (
    FOOT,
    LETTERS,
    ROW,
    WIDTH,
    Frame,
    draw_bar,
    name_room,
    x_axis,
    x_name,
    y_axis,
    y_name,
)
from gpuseg.outputs.wording import shortened

if TYPE_CHECKING:
    from gpuseg.outputs.report_charts import Chart

_MOST_CELL_TEXTS = 12  # clusters; beyond, numbers in cells overlap

Data = Mapping[str, Any]


def draw(chart: Chart, paint: Paint, *, titled: bool = False) -> str:
    """Draw a chart.

    Parameters
    ----------
    paint
        What the names of colours stand for.
    titled
        Whether to write the title above it, for slides.
    """
    canvas = Canvas(WIDTH, 0, paint)
    DRAWINGS[chart.kind](canvas, chart, 30.0 if titled else 4.0)
    if titled:
        canvas.text(4, 14, chart.title, bold=True, size=15)
    return canvas.svg(chart.alt)


# -- lines and points ----------------------------------------------------------------


def _line(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw the silhouette of every k, with its interval where it was sampled."""
    data = chart.data
    ks, scores, errors = data["k"], data["silhouette"], data["reach"]
    low = min(s - e for s, e in zip(scores, errors, strict=True))
    high = max(s + e for s, e in zip(scores, errors, strict=True))
    pad = 0.12 * (high - low) or 0.01
    canvas.height = top + 270
    frame = Frame(62, top + 24, WIDTH - 18, canvas.height - FOOT,
                   ks[0] - 0.4, ks[-1] + 0.4, low - pad, high + pad)  # fmt: skip
    y_axis(canvas, frame, chart.y)
    best = scores[ks.index(data["chosen"])]
    at = frame.x(data["chosen"])
    canvas.line(at, frame.top, at, frame.bottom, "above", dashed=True)
    anchor = "start" if at < 150 else "end" if at > WIDTH - 150 else "middle"
    canvas.text(at, top + 10, f"chosen: k = {data['chosen']}, silhouette {best:.3f}",
                color="above", anchor=anchor, bold=True)  # fmt: skip
    for k, score, error in zip(ks, scores, errors, strict=True):
        if error:
            x, up, down = frame.x(k), frame.y(score + error), frame.y(score - error)
            canvas.line(x, up, x, down, "accent", width=1.5)
            for end in (up, down):
                canvas.line(x - 4, end, x + 4, end, "accent", width=1.5)
    canvas.path([(frame.x(k), frame.y(s)) for k, s in zip(ks, scores, strict=True)],
                stroke="accent", width=2)  # fmt: skip
    every = math.ceil(len(ks) / 15)
    for place, (k, score) in enumerate(zip(ks, scores, strict=True)):
        chosen = k == data["chosen"]
        canvas.circle(frame.x(k), frame.y(score), 6 if chosen else 4,
                      "above" if chosen else "accent")  # fmt: skip
        if place % every == 0:
            canvas.text(frame.x(k), frame.bottom + 14, str(k), anchor="middle", color="muted")
    x_name(canvas, frame, chart.x)


def _knife(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw each cluster's silhouettes, the best row on top."""
    segments, colors = chart.data["segments"], cluster_names(chart.data["ids"])
    gap = 5.0
    canvas.height = top + 330 + FOOT
    lowest = min(min(own["outline"]) for own in segments)
    highest = max(max(own["outline"]) for own in segments)
    frame = Frame(62, top + 4, WIDTH - 18, canvas.height - FOOT,
                   min(lowest, 0.0), max(highest, 0.1))  # fmt: skip
    x_axis(canvas, frame, chart.x)
    room = frame.bottom - frame.top - gap * (len(segments) - 1)
    y = frame.top
    for own in segments:
        height = max(room * own["share"], 1.0)
        steps = max(len(own["outline"]) - 1, 1)
        edge = [(frame.x(s), y + height * i / steps) for i, s in enumerate(own["outline"])]
        canvas.path([(frame.x(0), y), *edge, (frame.x(0), y + height)],
                    fill=colors[own["id"]])  # fmt: skip
        if height > 8:
            canvas.text(frame.left - 8, y + height / 2, str(own["id"]), anchor="end")
        y += height + gap
    mean = frame.x(chart.data["mean"])
    canvas.line(mean, frame.top, mean, frame.bottom, "ink", dashed=True)
    canvas.line(frame.x(0), frame.top, frame.x(0), frame.bottom, "muted")
    y_name(canvas, frame, chart.y)


def _scatter(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw rows on the first two principal axes, with each cluster's number in its middle."""
    points, labels = chart.data["points"], chart.data["labels"]
    colors = cluster_names(chart.data["ids"])
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    canvas.height = top + 400
    frame = Frame(62, top + 4, WIDTH - 18, canvas.height - FOOT,
                   min(xs), max(xs) or 1.0, min(ys), max(ys) or 1.0)  # fmt: skip
    y_axis(canvas, frame, chart.y)
    x_axis(canvas, frame, chart.x)
    for (x, y), label in zip(points, labels, strict=True):
        canvas.circle(frame.x(x), frame.y(y), 2.2, colors[label], opacity=0.7)
    for cluster, middle in zip(chart.data["ids"], chart.data["centres"], strict=True):
        if middle is not None:
            x, y = frame.x(middle[0]), frame.y(middle[1])
            canvas.circle(x, y, 11, f"on-{colors[cluster]}")
            canvas.circle(x, y, 10, colors[cluster])
            canvas.text(
                x, y, str(cluster), color=f"on-{colors[cluster]}", anchor="middle", bold=True
            )


# -- bars ----------------------------------------------------------------------------


def _groups(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw the strongest features of each cluster, one group of bars under another."""
    groups, colors = chart.data["groups"], cluster_names(chart.data["ids"])
    longest = max((bar["value"] for group in groups for bar in group["bars"]), default=0.0)
    names = [bar["feature"] for group in groups for bar in group["bars"]]
    lines = sum(len(group["bars"]) + 1.3 for group in groups)
    canvas.height = top + lines * 20 + FOOT
    frame = Frame(name_room(names), top, WIDTH - 60, canvas.height - FOOT, 0.0, longest)
    x_axis(canvas, frame, chart.x)
    y = top
    for group in groups:
        canvas.text(4, y + 12, f"Segment {group['id']}", bold=True)
        y += 22
        for bar in group["bars"]:
            draw_bar(canvas, frame, y, 14, bar["feature"], bar["value"], colors[group["id"]])
            y += 20
        y += 4


def _bars(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw one bar for each feature."""
    features, values = chart.data["features"], chart.data["values"]
    canvas.height = top + len(features) * ROW + FOOT
    frame = Frame(name_room(features), top, WIDTH - 60, canvas.height - FOOT,
                   0.0, max(values))  # fmt: skip
    x_axis(canvas, frame, chart.x)
    for row, (feature, value) in enumerate(zip(features, values, strict=True)):
        draw_bar(canvas, frame, top + row * ROW + 4, 16, feature, value, "accent")


def _stacked(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw one bar for each feature, with a piece for each cluster."""
    features, values = chart.data["features"], chart.data["values"]
    ids, colors = chart.data["ids"], cluster_names(chart.data["ids"])
    top = _legend(canvas, top, ids)
    canvas.height = top + len(features) * ROW + FOOT
    frame = Frame(name_room(features), top, WIDTH - 18, canvas.height - FOOT,
                   0.0, max(sum(row) for row in values))  # fmt: skip
    x_axis(canvas, frame, chart.x)
    for row, (feature, pieces) in enumerate(zip(features, values, strict=True)):
        y, start = top + row * ROW + 4, 0.0
        canvas.text(frame.left - 8, y + 8, shortened(feature, LETTERS), anchor="end")
        for cluster, piece in zip(ids, pieces, strict=True):
            begin, end = frame.x(start), frame.x(start + piece)
            canvas.rect(begin, y, end - begin - 0.6, 16, colors[cluster])
            start += piece


def _facets(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw, for each cluster, the features that matter most to it; two clusters abreast."""
    features, values = chart.data["features"], chart.data["values"]
    ids, most = chart.data["ids"], min(chart.data["most"], len(features))
    colors, longest = cluster_names(ids), max(max(row) for row in values)
    height = 26 + most * 18
    canvas.height = top + math.ceil(len(ids) / 2) * (height + 8) + 18
    for place, cluster in enumerate(ids):
        left = 4 + (WIDTH / 2) * (place % 2)
        y = top + (place // 2) * (height + 8)
        canvas.text(left, y + 10, f"Segment {cluster}", bold=True)
        ranked = sorted(range(len(features)), key=lambda f: (-values[f][place], f))[:most]
        frame = Frame(left + 118, y + 24, left + WIDTH / 2 - 50, y + height, 0.0, longest)
        for row, feature in enumerate(ranked):
            draw_bar(canvas, frame, y + 22 + row * 18, 13, features[feature],
                 values[feature][place], colors[cluster], letters=18, size=11)  # fmt: skip
    canvas.text(WIDTH / 2, canvas.height - 8, chart.x, color="muted", anchor="middle")


def _heatmap(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw signed values of features (down) and clusters (across)."""
    features, values, limit = (chart.data[name] for name in ("features", "values", "limit"))
    ids = chart.data["ids"]
    n_clusters = len(ids)
    canvas.height = top + len(features) * ROW + 66
    left, bottom = name_room(features), top + len(features) * ROW
    step = (WIDTH - 8 - left) / n_clusters
    for row, (feature, cells) in enumerate(zip(features, values, strict=True)):
        y = top + row * ROW
        canvas.text(left - 8, y + ROW / 2, shortened(feature, LETTERS), anchor="end")
        for place, value in enumerate(cells):
            if value is None:
                continue
            shade = max(-1.0, min(1.0, value / limit if limit else 0.0))
            x = left + place * step
            canvas.rect(x + 1, y + 1, step - 2, ROW - 2, "above" if shade > 0 else "below",
                        opacity=round(0.04 + 0.9 * abs(shade), 3))  # fmt: skip
            if n_clusters <= _MOST_CELL_TEXTS:
                color = "on-strong" if abs(shade) > 0.82 else "ink"
                canvas.text(x + step / 2, y + ROW / 2, _signed(value, limit), color=color,
                            anchor="middle", size=11)  # fmt: skip
    every = math.ceil(n_clusters / 24)
    for place in range(0, n_clusters, every):
        canvas.text(left + (place + 0.5) * step, bottom + 13, str(ids[place]), anchor="middle")
    canvas.text(left + n_clusters * step / 2, bottom + 32, chart.x, color="muted", anchor="middle")
    _scale(canvas, left, bottom + 46, chart.data)


def _spread(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw the first feature's histogram of each cluster over everyone's."""
    feature = chart.data["features"][0]
    segments, everyone = feature["segments"], feature["everyone"]
    colors = cluster_names(chart.data["ids"])
    highest = max(max(everyone), *(max(own) for own in segments)) or 1.0
    height = 116.0
    canvas.text(4, top + 8, f"{feature['unit']}, share of rows up to {highest:.0f} %",
                color="muted")  # fmt: skip
    top += 22
    canvas.height = top + math.ceil(len(segments) / 3) * height
    for number_of, (cluster, own) in enumerate(zip(chart.data["ids"], segments, strict=True)):
        left = 4 + (WIDTH / 3) * (number_of % 3)
        y = top + (number_of // 3) * height
        frame = Frame(left, y + 20, left + WIDTH / 3 - 18, y + height - 24,
                       0.0, len(own), 0.0, highest)  # fmt: skip
        canvas.text(left, y + 10, f"Segment {cluster}", bold=True)
        for place, share in enumerate(own):
            canvas.rect(frame.x(place), frame.y(share), frame.x(1) - frame.x(0) - 0.6,
                        frame.bottom - frame.y(share), colors[cluster])  # fmt: skip
        steps = [
            (frame.x(place + side), frame.y(share))
            for place, share in enumerate(everyone)
            for side in (0, 1)
        ]
        canvas.path(steps, stroke="muted", width=1.2)
        canvas.line(frame.left, frame.bottom, frame.right, frame.bottom, "muted")
        first, last = (feature["ends"] or feature["bins"])[0], feature["bins"][-1]
        if feature["ends"] and feature["ends"][-1] != last:
            last = feature["ends"][-2] if last == feature["ends"][-2] else feature["ends"][-1]
        canvas.text(frame.left, frame.bottom + 10, shortened(first, 12), color="muted", size=10)
        canvas.text(frame.right, frame.bottom + 10, shortened(last, 12), color="muted", size=10,
                    anchor="end")  # fmt: skip


DRAWINGS: Mapping[str, Callable[[Canvas, Chart, float], None]] = {
    "line": _line,
    "knife": _knife,
    "scatter": _scatter,
    "groups": _groups,
    "bars": _bars,
    "stacked": _stacked,
    "facets": _facets,
    "heatmap": _heatmap,
    "spread": _spread,
    "flow": draw_flow,
    "limits": draw_limits,
    "trend": draw_trend,
    "layers": draw_layers,
}


# -- parts of charts -----------------------------------------------------------------


def _legend(canvas: Canvas, top: float, ids: Sequence[int]) -> float:
    """Draw which colour is whose, and return where the plot may begin."""
    canvas.text(4, top + 8, "Segment", color="muted")
    x, y, colors = 62.0, top + 8, cluster_names(ids)
    for cluster in ids:
        if x > WIDTH - 40:
            x, y = 62.0, y + 18
        canvas.rect(x, y - 6, 12, 12, colors[cluster])
        canvas.text(x + 16, y, str(cluster))
        x += 26 + text_width(str(cluster))
    return y + 18


def _scale(canvas: Canvas, left: float, y: float, data: Data) -> None:
    """Draw what the colours of a heatmap stand for."""
    middle = (left + WIDTH - 8) / 2
    for place in range(-5, 6):
        canvas.rect(middle + place * 12 - 6, y, 11, 8, "above" if place > 0 else "below",
                    opacity=round(0.04 + 0.9 * abs(place) / 5, 3))  # fmt: skip
    canvas.text(middle - 74, y + 4, data["low"], color="muted", anchor="end", size=10)
    canvas.text(middle + 74, y + 4, data["high"], color="muted", size=10)


def _signed(value: float, limit: float) -> str:
    text = f"{value:+.2f}".replace("0.", ".") if limit < 1 else f"{value:+.1f}"
    return text.replace("-", "−") if float(text) else "0"
