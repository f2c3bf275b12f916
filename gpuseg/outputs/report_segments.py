"""The cards of the segments: name, size, what makes them different, rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpuseg.outputs.palette import cluster_names
from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.wording import day, number, percent, shown, unbroken

if TYPE_CHECKING:
    import pyarrow as pa

TRAITS = 4
DRIVERS = 3

#: Differences from all rows below so many standard deviations are not worth a line.
_WEAKEST_TRAIT = 0.2
#: A difference of so many standard deviations fills the bar beside a trait.
_FULL_BAR = 2.5
Row = Mapping[str, Any]


def segments(run: ReportInput) -> list[dict[str, Any]]:
    """Return one card for each segment."""
    rules = by_cluster(run.rules)
    profiles = by_cluster(run.profiles)
    shap = strongest(run.shap_values)
    largest = max((row["mean_abs_shap"] for rows in shap.values() for row in rows), default=0.0)
    outlines = run.sketch["silhouettes"] if run.sketch else [{}] * run.n_clusters
    names, colors = segment_names(run), cluster_names(run.cluster_ids)
    return [
        {
            "id": cluster,
            "name": names[place],
            "color": f"var(--{colors[cluster]})",
            "on_color": f"var(--on-{colors[cluster]})",
            "size": f"{size:,}",
            "share": percent(size / run.n_rows),
            "width": round(100 * size / run.n_rows, 2),
            "apart": _apart(outlines[place].get("mean")),
            "traits": [
                _trait(row, hidden=run.hide_table_contents)
                for row in _strong(profiles.get(cluster, []))[:TRAITS]
            ],
            "drivers": [_driver(row, largest) for row in shap.get(cluster, [])],
            "rules": [_rule(row) for row in rules.get(cluster, [])],
        }
        for place, (cluster, size) in enumerate(
            zip(run.cluster_ids, run.cluster_sizes, strict=True)
        )
    ]


def segment_names(run: ReportInput) -> list[str]:
    """Return the name of each segment, by position; its number where it has none."""
    names = {segment.cluster_id: shown(segment.name) for segment in run.segments}
    return [names.get(cluster, f"Segment {cluster}") for cluster in run.cluster_ids]


def strongest(shap_values: pa.Table | None, n: int = DRIVERS) -> dict[int, list[Row]]:
    """Return the `n` features with the largest mean absolute SHAP value of each cluster."""
    return {
        cluster: sorted(rows, key=lambda row: (-row["mean_abs_shap"], row["feature"]))[:n]
        for cluster, rows in by_cluster(shap_values).items()
    }


def by_cluster(table: pa.Table | None) -> dict[int, list[Row]]:
    """Group the rows of a table by their ``cluster_id``."""
    grouped: dict[int, list[Row]] = {}
    for row in table.to_pylist() if table is not None else []:
        grouped.setdefault(row["cluster_id"], []).append(row)
    return grouped


def typical(row: Row) -> str:
    """Say what a segment's rows have in a column: the mean, or the leading categories."""
    if row["kind"] == "categorical":
        return shown(row["top_values"] or "–")
    return day(row["mean"]) if _is_date(row) else number(row["mean"])


def everyone(row: Row) -> str:
    """Say what all rows have on average."""
    return day(row["overall_mean"]) if _is_date(row) else number(row["overall_mean"])


def _strong(profile: list[Row]) -> list[Row]:
    ranked = sorted(profile, key=lambda row: (-_strength(row), row["feature"]))
    return [row for row in ranked if _strength(row) >= _WEAKEST_TRAIT]


def _strength(row: Row) -> float:
    """Distance of a segment from all rows: of its mean, or of its most telling category."""
    return abs(float(row["z"])) if row["z"] is not None else 0.0


def _trait(row: Row, *, hidden: bool) -> dict[str, Any]:
    z = float(row["z"])
    if row["kind"] == "categorical":
        words, detail = ("an unusual mix", "") if hidden else ("typically", typical(row))
    else:
        words = _direction(z, ("later", "earlier") if _is_date(row) else ("higher", "lower"))
        detail = f"{typical(row)} on average, all rows {everyone(row)}" if not hidden else ""
    return {
        "feature": shown(row["feature"]),
        "words": words,
        "detail": unbroken(detail),
        "bar": round(min(abs(z) / _FULL_BAR, 1.0) * 50, 1),
        "below": z < 0,
    }


def _direction(z: float, words: tuple[str, str]) -> str:
    amount = ("slightly ", "", "much ")[(abs(z) >= 0.5) + (abs(z) >= 1.0)]
    return f"{amount}{words[z < 0]}"


def _apart(silhouette: float | None) -> str:
    """Say how far a segment's rows are from the other segments."""
    if silhouette is None:
        return ""
    grades = ((0.5, "well apart from"), (0.25, "apart from"), (0.05, "close to"))
    words = next((words for limit, words in grades if silhouette > limit), "hardly told from")
    return f"{words} the next segment (silhouette {number(round(silhouette, 2) + 0.0)})"


def _is_date(row: Row) -> bool:
    return bool(row["kind"] == "datetime")


def _driver(row: Row, largest: float) -> dict[str, Any]:
    return {
        "feature": shown(row["feature"]),
        "value": f"{row['mean_abs_shap']:.3f}",
        "width": round(100 * row["mean_abs_shap"] / largest, 1) if largest else 0.0,
    }


def _rule(row: Row) -> dict[str, str]:
    return {
        "rule": shown(row["rule"]),
        "sql": shown(row["sql"] or ""),
        "coverage": percent(row["coverage"]),
        "precision": percent(row["precision"]),
    }
