"""The steps of a scoring query: each computes columns from those of the steps before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

#: In order, with what each does, for whoever reads the query.
STEPS = {
    "blanks": "signs that may stand around a text and say nothing",
    "trimmed": "texts without them",
    "texts": "what says 'nothing here' is NULL",
    "parts": "texts of numbers without units, texts of dates in parts",
    "digits": "what can be read as a number, spelt as SQL spells it",
    "reading": "numbers, and dates as days since 1970-01-01",
    "cleaned": "NaN, infinite and impossible values are NULL, categories have their number",
    "filled": "the median of the training table where there is no value",
    "angles": "the place of a date in its year and in its day",
    "scaled": "heavy tails tamed, centred, cut, scaled",
    "features": "rounded to float32 as gpuseg does",
    "components": "projected onto principal components",
    "rounded": "these too",
    "distances": "squared distance to each centroid",
    "nearest": "the nearest centroid, of equally near ones the first",
}


class _Item(NamedTuple):
    expression: str
    alias: str
    comment: str


@dataclass
class Steps:
    """Collects what each step computes."""

    items: dict[str, list[_Item]] = field(default_factory=lambda: {name: [] for name in STEPS})

    def add(self, step: str, alias: str, expression: str, comment: str = "") -> str:
        """Let a step compute something; return how later steps call it."""
        item = _Item(expression, alias, comment)
        if item not in self.items[step]:
            self.items[step].append(item)
        return f"{step}.{alias}"

    def written(self, fence: str) -> str:
        """Return all steps as joins."""
        return "\n".join(_join(name, items, fence) for name, items in self.items.items() if items)


def _join(name: str, items: list[_Item], fence: str) -> str:
    lines = []
    for position, item in enumerate(items):
        comma = "," if position < len(items) - 1 else ""
        comment = f"  -- {one_line(item.comment)}" if item.comment else ""
        lines.append(f"    {item.expression} AS {item.alias}{comma}{comment}")
    end = f"\n  {fence}" if fence else ""
    inner = "\n".join(lines)
    return f"-- {STEPS[name]}\nCROSS JOIN LATERAL (\n  SELECT\n{inner}{end}\n) AS {name}"


def one_line(text: str) -> str:
    """Return a text that cannot end a comment: any sign that may break a line is a blank."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
