"""The input table, column by column: what it holds and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.svg import Canvas, for_page
from gpuseg.outputs.wording import day, number, percent, shown, unbroken

#: Rows of the table that are shown; all of them are in the run's tables/ folder.
_MOST_ROWS = 1_000
#: Values named beside a column of categories.
_NAMED_VALUES = 3

_SPARK_WIDTH, _SPARK_HEIGHT = 96, 26

Column = Mapping[str, Any]


def input_view(run: ReportInput) -> dict[str, Any]:
    """Return the facts of the input and one row for each of its columns."""
    decisions = run.columns.to_pylist()
    seen = {column["name"]: column for column in run.sketch["columns"]} if run.sketch else {}
    rows = [_row(decision, seen.get(decision["column"], {})) for decision in decisions]
    dropped = sum(row["decision"] != "kept" for row in rows)
    return {
        "rows": rows[:_MOST_ROWS],
        "used": _used(len(rows) - dropped, dropped),
        "left_out": f"{len(rows) - _MOST_ROWS:,}" if len(rows) > _MOST_ROWS else "",
        "overview": _overview(run, list(seen.values())),
    }


def _used(kept: int, dropped: int) -> str:
    used = f"{kept:,} columns are used" if kept != 1 else "1 column is used"
    if not dropped:
        return f"{used}, none is left out."
    return f"{used}, {dropped:,} {'are' if dropped != 1 else 'is'} left out."


def _overview(run: ReportInput, seen: list[Column]) -> str:
    if not seen or run.sketch is None:
        return ""
    kinds = Counter(column["type"] for column in seen)
    types = ", ".join(f"{count} × {name}" for name, count in kinds.most_common())
    missing = sum(column["missing_share"] for column in seen) / len(seen)
    with_gaps = sum(column["missing_share"] > 0 for column in seen)
    gaps = (
        f"{percent(missing)} of all cells are empty (in {with_gaps} columns)"
        if with_gaps
        else "no cell is empty"
    )
    n_seen = run.sketch["n_rows_seen"]
    sampled = (
        f" The distributions are those of a fair sample of {n_seen:,} rows."
        if n_seen < run.n_rows
        else ""
    )
    return f"{run.n_rows:,} rows and {len(seen):,} columns ({types}); {gaps}.{sampled}"


def _row(decision: Mapping[str, str | None], column: Column) -> dict[str, Any]:
    said = {name: shown(text or "") for name, text in decision.items()}
    return {
        **said,
        "type": column.get("type", ""),
        "missing": percent(column["missing_share"]) if column else "–",
        "distinct": f"{column['n_distinct']:,}" if "n_distinct" in column else "–",
        "typical": _typical(column),
        "spark": _spark(column, said["column"]),
    }


def _typical(column: Column) -> str:
    """Say what the rows have in a column: its middle and its ends, or its leading values."""
    if "median" in column:
        say = day if column["kind"] == "datetime" else number
        low, middle, high = (say(column[name]) for name in ("low", "median", "high"))
        return f"{middle} (from {low} to {high})"
    if "values" in column and not column.get("hidden"):
        totals = _totals(column)
        rows = max(sum(totals), 1)
        leading = list(zip(column["values"], totals, strict=False))[:_NAMED_VALUES]
        return unbroken(
            ", ".join(f"{shown(value)} {percent(count / rows)}" for value, count in leading)
        )
    return ""


def _totals(column: Column) -> list[int]:
    return [sum(bin_counts) for bin_counts in zip(*column["counts"], strict=True)]


def _spark(column: Column, name: str) -> Markup:
    """Draw the distribution of a column, small enough for a table."""
    totals = _totals(column) if "counts" in column else []
    if not totals or not max(totals):
        return Markup()
    canvas = Canvas(_SPARK_WIDTH, _SPARK_HEIGHT, for_page)
    step = min(_SPARK_WIDTH / len(totals), 14)
    for place, count in enumerate(totals):
        height = max(_SPARK_HEIGHT * count / max(totals), 0.8 if count else 0)
        canvas.rect(place * step, _SPARK_HEIGHT - height, step - 1, height, "accent")
    # the canvas escapes whatever it writes
    return Markup(canvas.svg(f"Distribution of {name}"))  # noqa: S704
