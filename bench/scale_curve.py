"""Draw the memory curve of a run that `scale.py` measured.

python bench/scale_curve.py bench/results/scale.json 50000000 docs/scale-memory.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 340, 64, 20, 44, 46
INK, FAINT, ANONYMOUS, MAPPED = "#333333", "#dddddd", "#2f6f9f", "#a9c9e0"


def drawn(run: dict[str, Any]) -> str:
    """Return the curve as SVG: memory of its own, and pages of mapped files on top."""
    curve, budget = run["curve"], _mebibytes(run["memory"])
    end = max(curve[-1][0], run["seconds"])
    x = _scale(0, end, LEFT, WIDTH - RIGHT)
    y = _scale(0, 1.1 * budget, HEIGHT - BOTTOM, TOP)
    both = [(second, anonymous + mapped) for second, anonymous, mapped in curve]
    own = [(second, anonymous) for second, anonymous, _mapped in curve]
    title = (
        f"{run['n_rows'] / 1e6:g} million rows, --memory {run['memory']}: peak "
        f"{run['peak_mib'] / 1024:.2f} GiB, {run['seconds'] / 60:.0f} minutes, "
        f"{run['threads']} threads"
    )
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="Noto Sans, sans-serif" font-size="12" fill="{INK}">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
        *_grid(x, y, end, budget),
        _area(both, x, y, MAPPED),
        _area(own, x, y, ANONYMOUS),
        *_stages(run, x),
        (
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(budget):.1f}" y2="{y(budget):.1f}" '
            'stroke="#b03030" stroke-dasharray="5 3"/>'
        ),
        (
            f'<text x="{WIDTH - RIGHT}" y="{y(budget) - 5:.1f}" text-anchor="end" fill="#b03030">'
            f"--memory {run['memory']}</text>"
        ),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _mebibytes(memory: str) -> float:
    assert memory.endswith("GiB"), "curves are drawn for limits in GiB"
    return float(memory.removesuffix("GiB")) * 1024


def _scale(low: float, high: float, first: float, last: float) -> Any:
    return lambda value: first + (last - first) * (value - low) / (high - low)


def _area(points: list[tuple[float, float]], x: Any, y: Any, colour: str) -> str:
    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    base = y(0)
    ends = f"{x(points[-1][0]):.1f},{base:.1f} {x(points[0][0]):.1f},{base:.1f}"
    return f'<polygon points="{line} {ends}" fill="{colour}"/>'


def _grid(x: Any, y: Any, end: float, budget: float) -> list[str]:
    parts = []
    for gibibytes in range(0, int(budget / 1024) + 1, 2):
        at = y(gibibytes * 1024)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{FAINT}"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{gibibytes} GiB</text>'
        )
    step = next(s for s in (1, 2, 5, 10, 20, 30, 60, 120) if end / 60 / s <= 9)
    parts.extend(
        f'<text x="{x(minute * 60):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
        f"{minute} min</text>"
        for minute in range(0, int(end / 60) + 1, step)
    )
    return parts


def _stages(run: dict[str, Any], x: Any) -> list[str]:
    """Mark where stages end; what is before the first is Python that starts."""
    second, parts = max(run["seconds"] - sum(run["stages"].values()), 0.0), []
    for name, seconds in run["stages"].items():
        if x(second + seconds) - x(second) > 40:
            middle = x(second + seconds / 2)
            parts.append(f'<text x="{middle:.1f}" y="{TOP - 6}" text-anchor="middle">{name}</text>')
        second += seconds
        parts.append(
            f'<line x1="{x(second):.1f}" x2="{x(second):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" '
            f'stroke="{INK}" stroke-dasharray="1 3"/>'
        )
    return parts


def _legend() -> list[str]:
    bottom = HEIGHT - 12
    return [
        (
            f'<rect x="{LEFT}" y="{bottom - 9}" width="12" height="10" fill="{ANONYMOUS}"/>'
            f'<text x="{LEFT + 18}" y="{bottom}">memory of its own</text>'
        ),
        (
            f'<rect x="{LEFT + 160}" y="{bottom - 9}" width="12" height="10" fill="{MAPPED}"/>'
            f'<text x="{LEFT + 178}" y="{bottom}">pages of mapped files, which the system may take '
            "back at any time</text>"
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("n_rows", type=int)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    runs = json.loads(options.results.read_text())["runs"]
    run = next(run for run in runs if run["n_rows"] == options.n_rows)
    options.out.write_text(drawn(run))


if __name__ == "__main__":
    main()
