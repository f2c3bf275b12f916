"""The chart that compares one feature's distribution in each segment with everyone's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.wording import apart, day, number, percent, shown

#: Features that can be chosen; the strongest come first.
_MOST_FEATURES = 60

Column = Mapping[str, Any]


def spread_chart(run: ReportInput) -> Iterator[dict[str, Any]]:
    """Yield the facts of the chart, if the run kept any distribution."""
    features = [_feature(column) for column in _columns(run)]
    if not features:
        return
    first = features[0]
    yield {
        "name": "spread",
        "kind": "spread",
        "title": "Distribution of a feature: each segment against everyone",
        "note": (
            "Coloured: the rows of the segment. Line or mark: all rows. Shares are of the rows "
            "that have a value"
            + (
                "; values are counted in standard deviations from the mean, and categories "
                "have no names, as asked."
                if run.hide_table_contents
                else "."
            )
        ),
        "alt": (
            f"Histograms of {first['name']}, one for each segment, with that of all rows behind; "
            "the numbers are in the table."
        ),
        "x": "Value",
        "y": "Share of rows (%)",
        "data": {"ids": run.cluster_ids, "features": features},
        "head": (
            "value of " + first["name"],
            "all rows",
            *(f"segment {c}" for c in run.cluster_ids),
        ),
        "rows": _rows(first),
    }


def _columns(run: ReportInput) -> list[Column]:
    """Return the kept columns that have a distribution, the most important first."""
    seen = run.sketch["columns"] if run.sketch else []
    kept = {row["column"] for row in run.columns.to_pylist() if row["decision"] == "kept"}
    ranked: dict[str, int] = {}
    if run.feature_importance is not None:
        table = run.feature_importance.to_pylist()
        ranked = {row["feature"]: row["rank"] for row in table}
    drawn = [c for c in seen if c["name"] in kept and any(map(sum, c.get("counts", [])))]
    return sorted(drawn, key=lambda c: ranked.get(c["name"], len(ranked) + 1))[:_MOST_FEATURES]


def _feature(column: Column) -> dict[str, Any]:
    counts: Sequence[Sequence[int]] = column["counts"]
    totals = [sum(bin_counts) for bin_counts in zip(*counts, strict=True)]
    return {
        "name": shown(column["name"]),
        "is_number": "edges" in column,
        "unit": _unit(column),
        "bins": _bins(column, len(totals)),
        "ends": _ends(column),
        "everyone": _shares(totals),
        "segments": [_shares(own) for own in counts],
    }


def _unit(column: Column) -> str:
    name = shown(column["name"])
    if column.get("hidden") and "edges" in column:
        return f"{name} (standard deviations from the mean)"
    return f"{name} (date)" if column["kind"] == "datetime" else name


def _bins(column: Column, n_bins: int) -> list[str]:
    """Say what is in each bin."""
    if "values" in column:
        names = [shown(value) if value.strip() else "(blank)" for value in column["values"]]
        return [*names, *[f"{column['others']:,} others"] * (n_bins - len(names))]
    edges = column["edges"]
    if _is_stepwise(column):
        return [_say(column, edge + 0.5) for edge in edges[:-1]]
    pairs = list(pairwise(edges))
    if column["kind"] == "datetime" and not column.get("hidden"):
        return [f"{day(low)} to {day(high)}" for low, high in pairs]
    return [" to ".join(apart(low, high)) for low, high in pairs]


def _ends(column: Column) -> list[str]:
    """Say where each bin begins, and where the last one ends; nothing for categories."""
    if "values" in column:
        return []
    if _is_stepwise(column):
        return [_say(column, edge + 0.5) for edge in column["edges"]]
    return [_say(column, edge) for edge in column["edges"]]


def _say(column: Column, value: float) -> str:
    if column["kind"] == "datetime" and not column.get("hidden"):
        return day(value)
    return number(value)


def _is_stepwise(column: Column) -> bool:
    """Say whether each bin holds one whole number."""
    edges = column["edges"]
    return (
        not column.get("hidden")
        and all((edge - 0.5).is_integer() for edge in edges)
        and (len(edges) - 1 == edges[-1] - edges[0])
    )


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(sum(counts), 1)
    return [round(100 * count / total, 2) for count in counts]


def _rows(feature: Mapping[str, Any]) -> list[tuple[str, ...]]:
    series = [feature["everyone"], *feature["segments"]]
    return [
        (name, *(percent(shares[place] / 100) for shares in series))
        for place, name in enumerate(feature["bins"])
    ]
