"""From a run to the plain dict that the report's template shows."""

from __future__ import annotations

import re
from typing import Any

import gpuseg
from gpuseg.change import NOT_PUBLISHED
from gpuseg.outputs.model_names import promote_command
from gpuseg.outputs.palette import THEME
from gpuseg.outputs.report_change import change_view
from gpuseg.outputs.report_columns import input_view
from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.report_segments import segment_names, segments
from gpuseg.outputs.wording import megabytes, percent, seconds, shown, shown_lines
from gpuseg.settings import PARAMETERS


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
        "tree": shown_lines(run.tree_text or ""),
        "tree_fidelity": percent(run.tree_fidelity),
        "reason": shown(run.reason),
        "segments": segments(run),
        "refused": run.is_refused,
        "promote": shown(_promote(run)),
        "refusals": [shown(text.removeprefix(NOT_PUBLISHED)) for text in _refusals(run)],
        "warnings": [shown(text) for text in run.warnings if text not in _refusals(run)],
        "notes": [shown(text) for text in run.notes],
        "change": change_view(run),
        "input": input_view(run),
        "stages": [(n, seconds(c.seconds), megabytes(c.peak_bytes)) for n, c in run.stages.items()],
        "total": seconds(sum(cost.seconds for cost in run.stages.values())),
        "settings": [(name, _setting(value)) for name, value in run.settings.items()],
        "versions": list(run.versions.items()),
        "gpuseg": gpuseg.__version__,
        "backend": run.backend,
        "backend_reason": shown(run.backend_reason),
        "random_state": run.settings.get("random_state", "–"),
    }


def _promote(run: ReportInput) -> str:
    runs_dir = str(run.settings.get("runs_dir", PARAMETERS["runs_dir"].default))
    return promote_command(run.model_name, run.run_id, runs_dir)


def _refusals(run: ReportInput) -> list[str]:
    if not run.is_refused:
        return []
    return [text for text in run.warnings if text.startswith(NOT_PUBLISHED)]


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


def _summary(run: ReportInput) -> list[str]:
    """Say in a few sentences what came out, and what it is worth."""
    sizes, ids = run.cluster_sizes, run.cluster_ids
    names = segment_names(run)
    small = min(range(len(sizes)), key=lambda cluster: sizes[cluster])
    large = max(range(len(sizes)), key=lambda cluster: sizes[cluster])
    extremes = (
        f"Each holds {percent(1 / run.n_clusters)} of the rows."
        if sizes[small] == sizes[large]
        else f"The largest, segment {ids[large]} ({names[large]}), holds "
        f"{percent(sizes[large] / run.n_rows)} of the rows; the smallest, segment {ids[small]} "
        f"({names[small]}), {percent(sizes[small] / run.n_rows)}."
    )
    fall = f"The {run.n_rows:,} rows fall into {run.n_clusters} segments. {extremes}"
    worth = (
        f"A mean silhouette of {run.silhouette:.2f} stands for {structure(run.silhouette)} "
        "structure: 1 would be far apart, 0 is on the border, −1 is in the wrong segment."
        f"{_advice(run.silhouette)}"
    )
    sentences = [fall, worth]
    if run.feature_importance is not None and run.feature_importance.num_rows:
        sentences.append(_leaders(run.feature_importance.sort_by("rank").to_pylist()))
    return sentences


def _advice(silhouette: float) -> str:
    if silhouette > 0.5:
        return " The segments are there in the data."
    if silhouette > 0.25:
        return " Rows near a border could as well be in the next segment."
    return " Take the segments as a useful division of the rows, not as natural groups."


def _leaders(ranked: list[dict[str, Any]]) -> str:
    leaders = ranked[:3]
    listed = ", ".join(shown(row["feature"]) for row in leaders)
    if len(ranked) <= len(leaders):
        return f"What tells the segments apart: {listed}."
    share = percent(sum(row["importance"] for row in leaders))
    return (
        f"What tells the segments apart most: {listed}, together {share} of the importance of "
        f"all {len(ranked):,} columns."
    )


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(str(item)) for item in value) or "–"
    return "–" if value is None else shown(str(value))
