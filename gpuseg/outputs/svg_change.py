"""Still pictures of what changed since the run before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gpuseg.outputs.svg import Canvas, text_width
from gpuseg.outputs.svg_parts import (
    FOOT,
    LETTERS,
    ROW,
    WIDTH,
    Frame,
    name_room,
    x_axis,
    x_name,
    y_axis,
)
from gpuseg.outputs.wording import shortened

if TYPE_CHECKING:
    from gpuseg.outputs.report_charts import Chart

_NODE = 10.0
_STEPS = 24
_MOST_LABELS = 10


def draw_flow(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw the rows that went from the segments of the run before to those of today."""
    nodes, flows = chart.data["nodes"], chart.data["flows"]
    most = max(sum(node["side"] == side for node in nodes) for side in (0, 1))
    height = 250.0 + 14 * most
    canvas.height = top + 24 + height + 8
    top += 24
    room = 12 + max(text_width(_label(node)) for node in nodes)
    left, right = room, WIDTH - room
    canvas.text(left, top - 14, "the run before", color="muted", anchor="end")
    canvas.text(right, top - 14, "this run", color="muted")
    for flow in flows:
        (a0, a1), (b0, b1) = flow["from"], flow["to"]
        upper = _bend(left + _NODE, right - _NODE, top + a0 * height, top + b0 * height)
        lower = _bend(left + _NODE, right - _NODE, top + a1 * height, top + b1 * height)
        canvas.path(upper + lower[::-1], fill=flow["color"],
                    opacity=0.35 if flow["stays"] else 0.65)  # fmt: skip
    for node in nodes:
        x = right - _NODE if node["side"] else left
        y, tall = top + node["top"] * height, max((node["bottom"] - node["top"]) * height, 1.0)
        canvas.rect(x, y, _NODE, tall, node["color"])
        where = right + 6 if node["side"] else left - 6
        canvas.text(where, y + tall / 2, _label(node),
                    anchor="start" if node["side"] else "end", size=11)  # fmt: skip


def draw_limits(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw one bar for each column, and the limits beyond which a bar says something."""
    data = chart.data
    features, limits = data["features"], data["limits"]
    canvas.height = top + 20 + len(features) * ROW + FOOT
    frame = Frame(name_room(features), top + 20, WIDTH - 60, canvas.height - FOOT,
                  0.0, data["end"])  # fmt: skip
    x_axis(canvas, frame, chart.x)
    for row, (feature, value) in enumerate(zip(features, data["values"], strict=True)):
        y = frame.top + row * ROW + 4
        canvas.text(frame.left - 8, y + 8, shortened(feature, LETTERS), anchor="end")
        longest = frame.x(min(value, data["end"]))
        canvas.rect(frame.left, y, longest - frame.left, 16, data["colors"][row])
        canvas.text(frame.right + 8, y + 8, f"{value:.3f}", color="muted", size=11)
    free = 0.0
    for limit in limits:
        x = frame.x(limit["value"])
        canvas.line(x, frame.top, x, frame.bottom, "ink", dashed=True)
        text = f"{limit['words']}: {limit['value']:g}"
        at = max(x, free)
        canvas.text(at, top + 8, text, size=11)
        free = at + text_width(text, 11) + 8


def draw_trend(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw one figure of every run; what was not published is hollow."""
    runs = chart.data["runs"]
    canvas.height = top + 230
    frame = Frame(62, top + 6, WIDTH - 18, canvas.height - FOOT,
                  -0.4, len(runs) - 0.6, chart.data["low"], chart.data["high"])  # fmt: skip
    y_axis(canvas, frame, chart.y)
    published = [(i, run["silhouette"]) for i, run in enumerate(runs) if run["published"]]
    canvas.path([(frame.x(i), frame.y(v)) for i, v in published], stroke="accent", width=2)
    for i, run in enumerate(runs):
        x, y = frame.x(i), frame.y(run["silhouette"])
        canvas.circle(x, y, 4.5, "accent" if run["published"] else "above")
        if not run["published"]:
            canvas.circle(x, y, 2.5, "on-strong")
    _run_labels(canvas, frame, [run["label"] for run in runs], chart.x)


def draw_layers(canvas: Canvas, chart: Chart, top: float) -> None:
    """Draw, for every run, its segments one upon another."""
    data = chart.data
    ids, colors, values = data["ids"], data["colors"], data["values"]
    x = 62.0
    canvas.text(4, top + 8, "Segment", color="muted")
    for cluster, color in zip(ids, colors, strict=True):
        canvas.rect(x, top + 2, 12, 12, color)
        canvas.text(x + 16, top + 8, str(cluster))
        x += 26 + text_width(str(cluster))
        if x > WIDTH - 40:
            x, top = 62.0, top + 18
    top += 22
    canvas.height = top + 224
    frame = Frame(62, top + 6, WIDTH - 18, canvas.height - FOOT,
                  -0.5, len(values) - 0.5, 0.0, max(max(map(sum, values)), 1.0))  # fmt: skip
    y_axis(canvas, frame, chart.y)
    wide = min((frame.right - frame.left) / len(values) * 0.7, 40.0)
    for i, own in enumerate(values):
        below = 0.0
        for color, n in zip(colors, own, strict=True):
            y = frame.y(below + n)
            canvas.rect(frame.x(i) - wide / 2, y, wide, frame.y(below) - y - 0.5, color)
            below += n
    _run_labels(canvas, frame, data["runs"], chart.x)


def _run_labels(canvas: Canvas, frame: Frame, labels: list[str], name: str) -> None:
    wide = max(text_width(label, 11) for label in labels)
    most = min(_MOST_LABELS, max(int((frame.right - frame.left) / (wide + 10)), 1))
    every = math.ceil(len(labels) / most)
    for i in range(len(labels) - 1, -1, -every):
        x = min(frame.x(i), WIDTH - wide / 2 - 2)
        canvas.text(x, frame.bottom + 14, labels[i], anchor="middle", color="muted",
                    size=11)  # fmt: skip
    x_name(canvas, frame, name)


def _label(node: dict[str, Any]) -> str:
    return f"{node['name']} · {node['n']:,}"


def _bend(x0: float, x1: float, y0: float, y1: float) -> list[tuple[float, float]]:
    """Return points of the curve that leaves and arrives level."""
    steps = [i / _STEPS for i in range(_STEPS + 1)]
    return [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t * t * (3 - 2 * t)) for t in steps]
