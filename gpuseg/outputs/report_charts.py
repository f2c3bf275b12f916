"""Which charts a run gets, with their words and their tables. Import it lazily."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from gpuseg.outputs import charts
from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.report_view import everyone, strongest, structure, typical
from gpuseg.outputs.wording import number, percent, shown

#: Features drawn in a chart; the table beside it has more.
_MOST_DRAWN = 15
_MOST_ROWS = 200


class Chart(NamedTuple):
    """One chart: how to draw it, and how to say it."""

    name: str
    title: str
    note: str
    alt: str
    draw: Callable[[], Figure]
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def charts_of(run: ReportInput) -> Iterator[Chart]:
    """Yield the charts that this run has data for."""
    if run.k_scores.num_rows > 1:
        yield _silhouette_by_k(run)
    if run.map_points is not None and run.map_labels is not None and len(run.map_points) > 1:
        yield _row_map(run, run.map_points, run.map_labels)
    if run.shap_values is not None and run.shap_values.num_rows:
        yield _top_features(run.shap_values)
        yield from _shap(run, run.shap_values)
    if run.profiles is not None and run.profiles.num_rows:
        yield from _profile(run, run.profiles)
    if run.feature_importance is not None and run.feature_importance.num_rows:
        yield _importance(run.feature_importance)


def _silhouette_by_k(run: ReportInput) -> Chart:
    scores = run.k_scores.sort_by("n_clusters").to_pylist()
    ks = [score["n_clusters"] for score in scores]
    silhouette = np.array([score["silhouette"] for score in scores], np.float64)
    stderr = np.array([score["silhouette_stderr"] or 0.0 for score in scores], np.float64)
    chosen = next((s["n_clusters"] for s in scores if s["chosen"]), run.n_clusters)
    best = float(silhouette[ks.index(chosen)])
    sampled = "Bars are standard errors; scores are estimated from a sample. " * bool(stderr.any())
    return Chart(
        "silhouette",
        "How many segments: silhouette of each k",
        f"{sampled}Higher is better: rows are nearer to their own segment than to the next one.",
        f"Line chart of the mean silhouette for k = {ks[0]} to {ks[-1]}. The chosen k = {chosen} "
        f"has {best:.3f}: {structure(best)} structure.",
        lambda: charts.silhouette_by_k(ks, silhouette, stderr, chosen),
        ("k", "silhouette", "± error", "smallest segment", "Calinski-Harabasz", "Davies-Bouldin",
         "stability", "method"),
        [
            (
                f"{s['n_clusters']}{' ← chosen' if s['n_clusters'] == chosen else ''}",
                f"{s['silhouette']:.4f}",
                f"{s['silhouette_stderr'] or 0.0:.4f}",
                percent(s["min_cluster_share"]),
                number(s["calinski_harabasz"]),
                number(s["davies_bouldin"]),
                number(s["stability"]),
                s["method"],
            )
            for s in scores
        ],
    )  # fmt: skip


def _row_map(run: ReportInput, points: np.ndarray, labels: np.ndarray) -> Chart:
    counts = np.bincount(labels, minlength=run.n_clusters)
    centres = [
        np.median(points[labels == c], axis=0) if counts[c] else (np.nan, np.nan)
        for c in range(run.n_clusters)
    ]
    return Chart(
        "map",
        "Map of the rows",
        f"{len(points):,} rows, projected on the two directions in which rows differ most. "
        "Segments that overlap here may be apart in other directions; far rows are drawn on "
        "the border.",
        f"Scatter plot of {len(points):,} rows on two principal axes, coloured by segment.",
        lambda: charts.row_map(points, labels),
        ("segment", "rows drawn", "middle, first axis", "middle, second axis"),
        [
            (str(c), str(counts[c]), number(float(x)), number(float(y)))
            for c, (x, y) in enumerate(centres)
        ],
    )


def _top_features(shap_values: pa.Table) -> Chart:
    groups = strongest(shap_values)
    clusters = sorted(groups)
    names = [[shown(row["feature"]) for row in groups[c]] for c in clusters]
    values = [[row["mean_abs_shap"] for row in groups[c]] for c in clusters]
    leaders = "; ".join(f"segment {c}: {', '.join(names[i])}" for i, c in enumerate(clusters))
    return Chart(
        "top_features",
        "What decides each segment",
        "The three features whose values move the forest's probability of a segment most.",
        f"Bar chart of the three strongest features of each segment. {leaders}.",
        lambda: charts.top_features(names, values),
        ("segment", "feature", "mean |SHAP|", "mean SHAP of members"),
        [
            (str(c), shown(row["feature"]), number(row["mean_abs_shap"]), number(row["mean_shap"]))
            for c in clusters
            for row in groups[c]
        ],
    )


def _shap(run: ReportInput, shap_values: pa.Table) -> Iterator[Chart]:
    features, mean_abs = _matrix(shap_values, "mean_abs_shap", run.n_clusters)
    features, mean_signed = _matrix(shap_values, "mean_shap", run.n_clusters)
    order = np.argsort(-np.nansum(mean_abs, axis=1), kind="stable")
    ranked = [features[i] for i in order]
    drawn = order[:_MOST_DRAWN]
    head = ("feature", *(f"segment {c}" for c in range(run.n_clusters)))
    limit = float(np.nanmax(np.abs(mean_signed[drawn]), initial=0.0))
    yield Chart(
        "shap",
        "Mean SHAP values of all segments",
        _drawn_note(
            len(order),
            "How much each feature moves the forest's probability, and of which segments.",
        ),
        f"Stacked bar chart of mean absolute SHAP values; the strongest feature is {ranked[0]}.",
        lambda: charts.stacked_shap(ranked[:_MOST_DRAWN], np.nan_to_num(mean_abs[drawn])),
        head,
        _matrix_rows(ranked, mean_abs[order]),
    )
    yield Chart(
        "shap_signed",
        "Direction of the effect on a segment's own rows",
        "Mean SHAP value over a segment's members: how much the values that they have speak "
        "for (+) or against (−) their segment.",
        "Heatmap of mean signed SHAP values, features by segments; see the table.",
        lambda: charts.heatmap(
            ranked[:_MOST_DRAWN],
            mean_signed[drawn],
            limit=limit,
            legend="+ speaks for it, − against",
        ),
        head,
        _matrix_rows(ranked, mean_signed[order]),
    )


def _profile(run: ReportInput, profiles: pa.Table) -> Iterator[Chart]:
    features, z = _matrix(profiles, "z", run.n_clusters)
    with_z = np.flatnonzero(~np.isnan(z).all(axis=1))
    if not len(with_z):
        return
    order = with_z[np.argsort(-np.nanmax(np.abs(z[with_z]), axis=1), kind="stable")]
    ranked = [features[i] for i in order]
    drawn = order[:_MOST_DRAWN]
    head = ("feature", *(f"segment {c}" for c in range(run.n_clusters)))
    rows = _matrix_rows(ranked, z[order])
    note = (
        "Distance of a segment's mean from the mean of all rows, in standard deviations; for "
        "categories, of the share of the value that sets the segment apart most."
    )
    if not run.hide_table_contents:
        head = ("feature", "all rows", *head[1:])
        rows = _typical_rows(profiles, ranked, run.n_clusters)
        note += " The table has the means and categories themselves."
    yield Chart(
        "profile",
        "Profile of the segments",
        _drawn_note(len(order), note),
        "Heatmap of z-scores, features by segments; the feature that sets segments apart most "
        f"is {ranked[0]}.",
        lambda: charts.heatmap(
            ranked[:_MOST_DRAWN], z[drawn], limit=2.0, legend="standard deviations from all rows"
        ),
        head,
        rows,
    )


def _importance(table: pa.Table) -> Chart:
    ranked = table.sort_by("rank").to_pylist()
    names = [shown(row["feature"]) for row in ranked]
    values = np.array([row["importance"] for row in ranked], np.float64)
    return Chart(
        "importance",
        "Importance of each feature",
        _drawn_note(
            len(names),
            "How much each feature helps to tell all segments apart; all features sum to 1.",
        ),
        f"Bar chart of Gini importance; the most important feature is {names[0]}.",
        lambda: charts.importance(names[:_MOST_DRAWN], values[:_MOST_DRAWN]),
        ("rank", "feature", "importance"),
        [(str(i + 1), names[i], number(float(values[i]))) for i in range(len(names))][:_MOST_ROWS],
    )


def _matrix(table: pa.Table, column: str, n_clusters: int) -> tuple[list[str], np.ndarray]:
    """Spread a column of a long table over features (down) and clusters (across)."""
    features = list(dict.fromkeys(table.column("feature").to_pylist()))
    place = {feature: i for i, feature in enumerate(features)}
    values = np.full((len(features), n_clusters), np.nan)
    for row in table.select(["feature", "cluster_id", column]).to_pylist():
        if row[column] is not None:
            values[place[row["feature"]], row["cluster_id"]] = row[column]
    return [shown(feature) for feature in features], values


def _matrix_rows(names: Sequence[str], values: np.ndarray) -> list[tuple[str, ...]]:
    shortest = list(zip(names, values.tolist(), strict=True))[:_MOST_ROWS]
    return [(name, *(number(value) for value in row)) for name, row in shortest]


def _typical_rows(
    profiles: pa.Table, names: Sequence[str], n_clusters: int
) -> list[tuple[str, ...]]:
    cells: dict[str, list[str]] = {}
    for row in profiles.to_pylist():
        line = cells.setdefault(shown(row["feature"]), [everyone(row), *["–"] * n_clusters])
        line[1 + row["cluster_id"]] = typical(row)
    return [(name, *cells[name]) for name in names[:_MOST_ROWS]]


def _drawn_note(n_features: int, note: str) -> str:
    if n_features <= _MOST_DRAWN:
        return note
    return f"{note} The {_MOST_DRAWN} strongest of {n_features:,} features are drawn."
