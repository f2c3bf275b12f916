"""From a run to the plain dict that the report's template shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gpuseg
from gpuseg.outputs.palette import THEME, cluster_variable
from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.wording import day, megabytes, number, percent, seconds, shown

if TYPE_CHECKING:
    import pyarrow as pa

TRAITS = 4
DRIVERS = 3

#: Differences from all rows below so many standard deviations are not worth a line.
_WEAKEST_TRAIT = 0.2

#: Rows of a table that are shown; all of them are in the run's tables/ folder.
_MOST_ROWS = 1_000

Row = Mapping[str, Any]


def view(run: ReportInput) -> dict[str, Any]:
    """Return texts, numbers and tables, ready to be shown; nothing is escaped yet."""
    return {
        "theme": THEME,
        "title": shown(re.split(r"[/\\]", run.input_name.rstrip("/\\"))[-1]),  # not the path
        "model_name": shown(run.model_name),
        "run_id": run.run_id,
        "created": run.created.replace("T", " ").replace("Z", " UTC"),
        "hidden": run.hide_table_contents,
        "facts": _facts(run),
        "summary": _summary(run),
        "fidelity": fidelity(run),
        "reason": shown(run.reason),
        "segments": segments(run),
        "warnings": [shown(text) for text in run.warnings],
        "notes": [shown(text) for text in run.notes],
        "columns": _columns(run),
        "stages": [(n, seconds(c.seconds), megabytes(c.peak_bytes)) for n, c in run.stages.items()],
        "total": seconds(sum(cost.seconds for cost in run.stages.values())),
        "settings": [(name, _setting(value)) for name, value in run.settings.items()],
        "versions": list(run.versions.items()),
        "gpuseg": gpuseg.__version__,
        "backend": run.backend,
        "backend_reason": shown(run.backend_reason),
    }


def structure(silhouette: float) -> str:
    """Say what a mean silhouette means.

    References
    ----------
    Kaufman and Rousseeuw, "Finding Groups in Data", 1990, table 4 of chapter 2.
    """
    for limit, words in ((0.7, "strong"), (0.5, "reasonable"), (0.25, "weak")):
        if silhouette > limit:
            return words
    return "no clear"


def fidelity(run: ReportInput) -> str:
    """Say how far the explanations can be trusted."""
    if run.oob_accuracy is None:
        return ""
    words = "are rough; read them with care"
    for limit, praise in ((0.8, "hold for most rows"), (0.95, "describe the segments well")):
        if run.oob_accuracy >= limit:
            words = praise
    return (
        f"A random forest recognises the segment of {percent(run.oob_accuracy)} of the rows that "
        f"it was not trained on, so the explanations below {words}."
    )


def segments(run: ReportInput) -> list[dict[str, Any]]:
    """Return one card for each segment."""
    rules = _by_cluster(run.rules)
    profiles = _by_cluster(run.profiles)
    shap = strongest(run.shap_values)
    largest = max((row["mean_abs_shap"] for rows in shap.values() for row in rows), default=0.0)
    return [
        {
            "id": cluster,
            "color": cluster_variable(cluster),
            "size": f"{size:,}",
            "share": percent(size / run.n_rows),
            "width": 100 * size / run.n_rows,
            "traits": _traits(profiles.get(cluster, []), hidden=run.hide_table_contents),
            "drivers": [_driver(row, largest) for row in shap.get(cluster, [])],
            "rules": [_rule(row) for row in rules.get(cluster, [])],
        }
        for cluster, size in enumerate(run.cluster_sizes)
    ]


def strongest(shap_values: pa.Table | None, n: int = DRIVERS) -> dict[int, list[Row]]:
    """Return the `n` features with the largest mean absolute SHAP value of each cluster."""
    return {
        cluster: sorted(rows, key=lambda row: (-row["mean_abs_shap"], row["feature"]))[:n]
        for cluster, rows in _by_cluster(shap_values).items()
    }


def _facts(run: ReportInput) -> list[tuple[str, str]]:
    kept = run.columns.column("decision").to_pylist().count("kept")
    facts = [
        ("rows", f"{run.n_rows:,}"),
        ("segments", str(run.n_clusters)),
        ("columns used", f"{kept} of {run.columns.num_rows}"),
        ("mean silhouette", f"{run.silhouette:.3f}"),
    ]
    if run.oob_accuracy is not None:
        facts.append(("recognised by the forest", percent(run.oob_accuracy)))
    return facts


def _summary(run: ReportInput) -> str:
    sizes = run.cluster_sizes
    small = min(range(len(sizes)), key=lambda cluster: sizes[cluster])
    large = max(range(len(sizes)), key=lambda cluster: sizes[cluster])
    return (
        f"The {run.n_rows:,} rows fall into {run.n_clusters} segments. The largest, segment "
        f"{large}, holds {percent(sizes[large] / run.n_rows)} of the rows; the smallest, segment "
        f"{small}, {percent(sizes[small] / run.n_rows)}. A mean silhouette of "
        f"{run.silhouette:.2f} stands for {structure(run.silhouette)} structure (−1 is wrong, "
        "0 is on the border, 1 is far apart)."
    )


def _columns(run: ReportInput) -> dict[str, Any]:
    rows = [{k: shown(v or "") for k, v in row.items()} for row in run.columns.to_pylist()]
    dropped = sum(row["decision"] != "kept" for row in rows)
    return {
        "rows": rows[:_MOST_ROWS],
        "kept": f"{len(rows) - dropped:,}",
        "dropped": f"{dropped:,}",
        "left_out": f"{len(rows) - _MOST_ROWS:,}" if len(rows) > _MOST_ROWS else "",
    }


def _by_cluster(table: pa.Table | None) -> dict[int, list[Row]]:
    grouped: dict[int, list[Row]] = {}
    for row in table.to_pylist() if table is not None else []:
        grouped.setdefault(row["cluster_id"], []).append(row)
    return grouped


def _traits(profile: list[Row], *, hidden: bool) -> list[dict[str, str]]:
    ranked = sorted(profile, key=lambda row: (-_strength(row), row["feature"]))
    strong = [row for row in ranked if _strength(row) >= _WEAKEST_TRAIT]
    return [_trait(row, hidden=hidden) for row in strong[:TRAITS]]


def _strength(row: Row) -> float:
    """Distance of a segment from all rows: of its mean, or of its most telling category."""
    return abs(float(row["z"])) if row["z"] is not None else 0.0


def _trait(row: Row, *, hidden: bool) -> dict[str, str]:
    if row["kind"] == "categorical":
        words, detail = ("an unusual mix", "") if hidden else ("typically", typical(row))
    else:
        words = _direction(row["z"], ("later", "earlier") if _is_date(row) else ("higher", "lower"))
        detail = f"{typical(row)} on average, all rows {everyone(row)}" if not hidden else ""
    return {"feature": shown(row["feature"]), "words": words, "detail": detail}


def _direction(z: float, words: tuple[str, str]) -> str:
    amount = ("slightly ", "", "much ")[(abs(z) >= 0.5) + (abs(z) >= 1.0)]
    return f"{amount}{words[z < 0]}"


def typical(row: Row) -> str:
    """Say what a segment's rows have in a column: the mean, or the leading categories."""
    if row["kind"] == "categorical":
        return shown(row["top_values"] or "–")
    return day(row["mean"]) if _is_date(row) else number(row["mean"])


def everyone(row: Row) -> str:
    """Say what all rows have on average."""
    return day(row["overall_mean"]) if _is_date(row) else number(row["overall_mean"])


def _is_date(row: Row) -> bool:
    return bool(row["kind"] == "datetime")


def _driver(row: Row, largest: float) -> dict[str, Any]:
    return {
        "feature": shown(row["feature"]),
        "value": f"{row['mean_abs_shap']:.3f}",
        "width": 100 * row["mean_abs_shap"] / largest if largest else 0.0,
    }


def _rule(row: Row) -> dict[str, str]:
    return {
        "rule": shown(row["rule"]),
        "coverage": percent(row["coverage"]),
        "precision": percent(row["precision"]),
    }


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(str(item)) for item in value) or "–"
    return "–" if value is None else shown(str(value))
