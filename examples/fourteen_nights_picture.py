"""Draw what `fourteen_nights` found: which ids held, what became of segments, what was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpuseg.outputs.palette import cluster_names
from gpuseg.outputs.png import png_of
from gpuseg.outputs.svg import Canvas, for_file

WIDTH, LEFT, RIGHT = 980.0, 150.0, 966.0
LINES, BARS, LIMITS = (64.0, 170.0), (238.0, 470.0), (520.0, 600.0)
GATE = 640.0

Night = Mapping[str, Any]


def draw(facts: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the picture as SVG and as PNG."""
    nights = facts["nights"]
    canvas = Canvas(WIDTH, 692, for_file)
    canvas.text(4, 14, f"{len(nights)} nights of {facts['table']}", bold=True, size=15)
    _marked(canvas, facts)
    _stability(canvas, nights)
    _sizes(canvas, nights)
    _drift(canvas, nights, _limit(facts["arguments"], "--max-psi"))
    _gate(canvas, nights)
    svg = canvas.svg(_in_words(facts))
    return svg, png_of(svg)


def _x(place: int, n: int) -> float:
    return LEFT + (place + 0.5) * (RIGHT - LEFT) / n


def _marked(canvas: Canvas, facts: Mapping[str, Any]) -> None:
    n = len(facts["nights"])
    for night, words in (
        (facts["new_kind_on"], "a new kind of customer"),
        (facts["broken_on"], f"{facts['broken_column']} all zero"),
    ):
        x = _x(night - 1, n)
        canvas.line(x, 40, x, GATE - 14, "grid", width=2)
        canvas.text(x, 34, words, anchor="middle", color="muted")


def _stability(canvas: Canvas, nights: Sequence[Night]) -> None:
    top, bottom = LINES
    canvas.text(4, top + 4, "Unchanged rows", bold=True)
    canvas.text(4, top + 20, "that kept their id", color="muted")
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        canvas.line(LEFT, y, RIGHT, y)
        canvas.text(LEFT - 6, y, f"{share:.0%}", anchor="end", color="muted", size=11)
    for name, color, width in (("stability_by_size", "above", 1.5), ("stability", "accent", 2.5)):
        points = [
            (_x(i, len(nights)), bottom - night[name] * (bottom - top))
            for i, night in enumerate(nights)
            if night[name] is not None
        ]
        canvas.path(points, stroke=color, width=width)
        for x, y in points:
            canvas.circle(x, y, 3.5, color)
    for x, color, words in (
        (LEFT + 4, "accent", "ids of gpuseg"),
        (LEFT + 120, "above", "the same segments, numbered by size every night"),
    ):
        canvas.circle(x, bottom + 18, 4, color)
        canvas.text(x + 9, bottom + 18, words, color="muted", size=11)


def _sizes(canvas: Canvas, nights: Sequence[Night]) -> None:
    top, bottom = BARS
    canvas.text(4, top + 6, "Segments", bold=True)
    canvas.text(4, top + 22, "by id, rows", color="muted")
    ids = sorted({int(c) for night in nights for c in night["sizes"]})
    colors = cluster_names([int(c) for c in nights[-1]["sizes"]], ids)
    tallest = max(night["n_rows"] for night in nights)
    wide = (RIGHT - LEFT) / len(nights) * 0.66
    for i, night in enumerate(nights):
        x, y = _x(i, len(nights)), bottom
        faint = 1.0 if night["exit_code"] == 0 else 0.25
        for cluster, n in sorted((int(c), n) for c, n in night["sizes"].items()):
            tall = n / tallest * (bottom - top)
            y -= tall
            canvas.rect(x - wide / 2, y, wide, tall - 1, colors[cluster], opacity=faint)
            if tall > 13:
                ink = f"on-{colors[cluster]}" if faint == 1.0 else "ink"
                canvas.text(x, y + tall / 2, str(cluster), anchor="middle", color=ink, size=11)
        for line, words in enumerate(_events(night)):
            canvas.text(x, y - 10 - 13 * line, words, anchor="middle", size=11, bold=True)


def _events(night: Night) -> list[str]:
    """Say what became of segments that did not simply go on."""
    told = {
        "born": lambda e: f"{e['cluster_id']} new",
        "retired": lambda e: f"{e['previous_cluster_id']} ends",
        "merged": lambda e: f"{e['previous_cluster_id']} into {e['cluster_id']}",
        "split": lambda e: f"{e['previous_cluster_id']} splits",
    }
    return list(dict.fromkeys(told[e["event"]](e) for e in night["events"] if e["event"] in told))


def _drift(canvas: Canvas, nights: Sequence[Night], limit: float | None) -> None:
    top, bottom = LIMITS
    canvas.text(4, top + 6, "Largest PSI", bold=True)
    canvas.text(4, top + 22, "of any column", color="muted")
    most = 2.0 * (limit or 0.25)
    wide = (RIGHT - LEFT) / len(nights) * 0.3
    for i, night in enumerate(nights):
        psi = night["max_psi"]
        if psi is None:
            continue
        x = _x(i, len(nights))
        tall = min(psi / most, 1.0) * (bottom - top)
        over = limit is not None and psi > limit
        canvas.rect(x - wide / 2, bottom - tall, wide, tall, "above" if over else "accent")
        canvas.text(x, bottom - tall - 7, f"{psi:.2f}", anchor="middle", size=11)
    canvas.line(LEFT, bottom, RIGHT, bottom, "muted")
    if limit is not None:
        y = bottom - limit / most * (bottom - top)
        canvas.line(LEFT, y, RIGHT, y, "ink", dashed=True)
        canvas.text(LEFT - 6, y, f"{limit:g}", anchor="end", color="muted", size=11)


def _gate(canvas: Canvas, nights: Sequence[Night]) -> None:
    canvas.text(4, GATE, "The gate", bold=True)
    canvas.text(4, GATE + 36, "Night", color="muted")
    for i, night in enumerate(nights):
        x = _x(i, len(nights))
        passed = night["exit_code"] == 0
        canvas.circle(x, GATE, 9, "accent" if passed else "above")
        sign = [(x - 4, GATE), (x - 1, GATE + 3.5), (x + 4, GATE - 3.5)]
        if passed:
            canvas.path(sign, stroke="on-strong", width=2)
        else:
            for way in (-1, 1):
                canvas.line(x - 3.5, GATE - 3.5 * way, x + 3.5, GATE + 3.5 * way, "on-strong",
                            width=2)  # fmt: skip
            words = "refused"
            canvas.text(x, GATE + 18, words, anchor="middle", color="above", size=11)
        canvas.text(x, GATE + 36, str(night["night"]), anchor="middle", color="muted")


def _limit(arguments: Sequence[str], name: str) -> float | None:
    return float(arguments[arguments.index(name) + 1]) if name in arguments else None


def _in_words(facts: Mapping[str, Any]) -> str:
    nights = facts["nights"]
    kept = [night["stability"] for night in nights if night["stability"] is not None]
    refused = [str(night["night"]) for night in nights if night["exit_code"] != 0]
    return (
        f"{len(nights)} nights of {facts['table']}: of unchanged rows at least "
        f"{min(kept, default=1.0):.1%} kept their id from one published night to the next; refused "
        f"were the nights {', '.join(refused) or 'none'}."
    )
