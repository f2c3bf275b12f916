"""Which charts a run gets: their words, their tables, and the numbers they are drawn from.

Each chart is drawn twice from the same numbers: by `svg_charts` as a still picture, and by
``templates/report.js`` as one that answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.outputs.public_ids import public_ids
from gpuseg.outputs.report_change import change_charts
from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.report_segments import everyone, segment_names, strongest, typical
from gpuseg.outputs.report_spread import spread_chart
from gpuseg.outputs.report_view import structure
from gpuseg.outputs.wording import number, percent, shown

#: Features drawn in a chart; the table beside it has more.
_MOST_DRAWN = 15
#: Features drawn for each segment where every segment has a chart of its own.
_MOST_DRAWN_EACH = 8
_MOST_ROWS = 200

_SHAP_AXIS = "Mean |SHAP| (change of probability)"

Floats = npt.NDArray[np.float64]


class Chart(NamedTuple):
    """One chart.

    Parameters
    ----------
    name
        Of its files and of its place on the page.
    kind
        How it is drawn: a key of ``svg_charts.DRAWINGS``.
    alt
        What it shows, in words, for those who cannot see it.
    x, y
        Names of its axes, with units.
    data
        What it is drawn from, JSON-able.
    head, rows
        The same as a table.
    """

    name: str
    kind: str
    title: str
    note: str
    alt: str
    x: str
    y: str
    data: dict[str, Any]
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def charts_of(run: ReportInput) -> Iterator[Chart]:
    """Yield the charts that this run has data for."""
    if run.k_scores.num_rows > 1:
        yield _silhouette_by_k(run)
    if run.sketch is not None:
        yield _knife(run, run.sketch["silhouettes"])
        if run.sketch["map"] is not None and len(run.sketch["map"]["points"]) > 1:
            yield _row_map(run, run.sketch["map"])
    if run.shap_values is not None and run.shap_values.num_rows:
        yield _top_features(run, run.shap_values)
        yield from _shap(run, run.shap_values)
    if run.profiles is not None and run.profiles.num_rows:
        yield from _profile(run, run.profiles)
    if run.feature_importance is not None and run.feature_importance.num_rows:
        yield _importance(run.feature_importance)
    yield from (Chart(**facts) for facts in spread_chart(run))
    yield from (Chart(**facts) for facts in change_charts(run))


def _silhouette_by_k(run: ReportInput) -> Chart:
    scores = run.k_scores.sort_by("n_clusters").to_pylist()
    ks = [score["n_clusters"] for score in scores]
    errors = [_reach(score) for score in scores]
    chosen = next((s["n_clusters"] for s in scores if s["chosen"]), run.n_clusters)
    best = float(scores[ks.index(chosen)]["silhouette"])
    how = (
        "Bars are 95 % intervals: these scores are estimated from a sample of the rows. Of two k "
        "the same rows were scored, so a difference is known better than the bars look."
        if any(errors)
        else "The scores are exact, from all pairs of rows, so there is no error to draw."
    )
    return Chart(
        "silhouette",
        "line",
        "How many segments: silhouette of each k",
        f"Higher is better: rows are nearer to their own segment than to the next one. {how}",
        f"Line chart of the mean silhouette for k = {ks[0]} to {ks[-1]}. The chosen k = {chosen} "
        f"has {best:.3f}: {structure(best)} structure.",
        "Number of segments k",
        "Mean silhouette (−1 to 1)",
        {"k": ks, "silhouette": [s["silhouette"] for s in scores], "reach": errors,
         "chosen": chosen},
        ("k", "silhouette", "± 95 %", "smallest segment", "Calinski-Harabasz", "Davies-Bouldin",
         "stability", "method"),
        [
            (
                f"{s['n_clusters']}{' ← chosen' if s['n_clusters'] == chosen else ''}",
                f"{s['silhouette']:.4f}",
                f"{_reach(s):.4f}",
                percent(s["min_cluster_share"]),
                number(s["calinski_harabasz"]),
                number(s["davies_bouldin"]),
                number(s["stability"]),
                s["method"],
            )
            for s in scores
        ],
    )  # fmt: skip


def _reach(score: Mapping[str, Any]) -> float:
    """Half of the interval; of runs that kept none, about two standard errors."""
    low, high = score.get("silhouette_low"), score.get("silhouette_high")
    if low is None or high is None:
        return 1.96 * (score["silhouette_stderr"] or 0.0)
    return float((high - low) / 2)


def _knife(run: ReportInput, outlines: Sequence[dict[str, Any]]) -> Chart:
    total = max(sum(own["n_rows"] for own in outlines), 1)
    ids, names = run.cluster_ids, segment_names(run)
    told = [own for own in outlines if own["n_rows"]]
    worst = min(range(len(outlines)), key=lambda c: outlines[c]["mean"] or 1.0)
    return Chart(
        "knife",
        "knife",
        "How well each row fits: silhouettes of all rows",
        f"Each blade is a segment, its rows sorted by silhouette ({total:,} rows scored); its "
        "height is the number of rows. Long, blunt blades are clear segments; what lies left "
        "of 0 is nearer to another segment. The dashed line is the mean.",
        f"Silhouette plot of {len(told)} segments. The lowest mean silhouette has segment "
        f"{ids[worst]}, {number(outlines[worst]['mean'])}.",
        "Silhouette (−1 to 1)",
        "Rows, by segment",
        {
            "ids": ids,
            "mean": run.silhouette,
            "segments": [
                {"id": ids[c], "share": own["n_rows"] / total, "outline": own["outline"],
                 "mean": own["mean"], "below_zero": own["below_zero"]}
                for c, own in enumerate(outlines) if own["n_rows"]
            ],
        },
        ("segment", "name", "rows scored", "mean silhouette", "below 0"),
        [
            (str(ids[c]), names[c], f"{own['n_rows']:,}", number(own["mean"]),
             percent(own["below_zero"]))
            for c, own in enumerate(outlines)
        ],
    )  # fmt: skip


def _row_map(run: ReportInput, drawn: dict[str, Any]) -> Chart:
    points, labels = np.array(drawn["points"]), np.array(drawn["labels"])
    counts = np.bincount(labels, minlength=run.n_clusters)
    low, high = np.percentile(points, [0.5, 99.5], axis=0)
    pad = np.maximum(0.06 * (high - low), 1e-6)
    inside = np.round(np.clip(points, low - pad, high + pad), 3)
    first, second = (percent(share) for share in drawn["variance_shares"])
    centres = [
        np.median(inside[labels == c], axis=0).tolist() if counts[c] else None
        for c in range(run.n_clusters)
    ]
    ids, names = run.cluster_ids, segment_names(run)
    return Chart(
        "map",
        "scatter",
        "Map of the rows",
        f"{len(points):,} rows, a fair sample, projected on the two directions in which rows "
        "differ most. Segments that overlap here may be apart in other directions; far rows "
        "are drawn on the border.",
        f"Scatter plot of {len(points):,} rows on two principal axes, coloured by segment.",
        f"First principal axis, scaled units ({first} of the variance)",
        f"Second principal axis, scaled units ({second})",
        {"points": inside.tolist(), "labels": public_ids(labels, ids).tolist(), "ids": ids,
         "centres": centres},
        ("segment", "name", "rows drawn", "middle, first axis", "middle, second axis"),
        [
            (str(ids[c]), names[c], str(counts[c]), *(number(v) for v in middle or (None, None)))
            for c, middle in enumerate(centres)
        ],
    )  # fmt: skip


def _top_features(run: ReportInput, shap_values: pa.Table) -> Chart:
    groups = strongest(shap_values)
    clusters = sorted(groups)
    names = dict(zip(run.cluster_ids, segment_names(run), strict=True))
    leaders = "; ".join(
        f"segment {c}: {', '.join(shown(row['feature']) for row in groups[c])}" for c in clusters
    )
    return Chart(
        "top_features",
        "groups",
        "What decides each segment: its top three features",
        "The three features whose values move the forest's probability of a segment most.",
        f"Bar chart of the three strongest features of each segment. {leaders}.",
        _SHAP_AXIS,
        "Feature, by segment",
        {
            "ids": run.cluster_ids,
            "groups": [
                {"id": c, "bars": [
                    {"feature": shown(row["feature"]), "value": row["mean_abs_shap"]}
                    for row in groups[c]
                ]}
                for c in clusters
            ]
        },
        ("segment", "name", "feature", "mean |SHAP|", "mean SHAP of members"),
        [
            (str(c), names[c], shown(row["feature"]), number(row["mean_abs_shap"]),
             number(row["mean_shap"]))
            for c in clusters
            for row in groups[c]
        ],
    )  # fmt: skip


def _shap(run: ReportInput, shap_values: pa.Table) -> Iterator[Chart]:
    ids = run.cluster_ids
    features, mean_abs = matrix(shap_values, "mean_abs_shap", ids)
    features, mean_signed = matrix(shap_values, "mean_shap", ids)
    order = np.argsort(-np.nansum(mean_abs, axis=1), kind="stable")
    ranked = [features[i] for i in order]
    drawn, names = order[:_MOST_DRAWN], ranked[:_MOST_DRAWN]
    head = ("feature", *(f"segment {c}" for c in run.cluster_ids))
    absolute = np.nan_to_num(mean_abs[drawn])
    yield Chart(
        "shap",
        "stacked",
        "Mean SHAP values of all segments",
        _drawn_note(
            len(order),
            "How much each feature moves the forest's probability, and of which segments.",
        ),
        f"Stacked bar chart of mean absolute SHAP values; the strongest feature is {ranked[0]}.",
        "Mean |SHAP| (probability), added up",
        "Feature",
        {"ids": ids, "features": names, "values": _rounded(absolute)},
        head,
        _matrix_rows(ranked, mean_abs[order]),
    )
    yield Chart(
        "shap_by_segment",
        "facets",
        "Mean SHAP values, segment by segment",
        f"The {min(_MOST_DRAWN_EACH, len(order))} features that matter most to each segment.",
        f"Bar charts of mean absolute SHAP values, one for each of {run.n_clusters} segments.",
        _SHAP_AXIS,
        "Feature",
        {"most": _MOST_DRAWN_EACH, "ids": ids, "features": names, "values": _rounded(absolute),
         "signed": _rounded(np.nan_to_num(mean_signed[drawn]))},
        head,
        _matrix_rows(ranked, mean_abs[order]),
    )  # fmt: skip
    yield Chart(
        "shap_signed",
        "heatmap",
        "Direction of the effect on a segment's own rows",
        "Mean SHAP value over a segment's members: how much the values that they have speak "
        "for (+) or against (−) their segment.",
        "Heatmap of mean signed SHAP values, features by segments; see the table.",
        "Segment",
        "Feature",
        {"ids": ids, "features": names, "values": _rounded(mean_signed[drawn]),
         "limit": float(np.nanmax(np.abs(mean_signed[drawn]), initial=0.0)),
         "unit": "mean SHAP, change of probability", "low": "speaks against",
         "high": "speaks for"},
        head,
        _matrix_rows(ranked, mean_signed[order]),
    )  # fmt: skip


def _profile(run: ReportInput, profiles: pa.Table) -> Iterator[Chart]:
    features, z = matrix(profiles, "z", run.cluster_ids)
    with_z = np.flatnonzero(~np.isnan(z).all(axis=1))
    if not len(with_z):
        return
    order = with_z[np.argsort(-np.nanmax(np.abs(z[with_z]), axis=1), kind="stable")]
    ranked = [features[i] for i in order]
    drawn = order[:_MOST_DRAWN]
    head = ("feature", *(f"segment {c}" for c in run.cluster_ids))
    rows = _matrix_rows(ranked, z[order])
    note = (
        "Distance of a segment's mean from the mean of all rows, in standard deviations; for "
        "categories, of the share of the value that sets the segment apart most."
    )
    if not run.hide_table_contents:
        head = ("feature", "all rows", *head[1:])
        rows = _typical_rows(profiles, ranked, run.cluster_ids)
        note += " The table has the means and categories themselves."
    yield Chart(
        "profile",
        "heatmap",
        "Profile of the segments",
        _drawn_note(len(order), note),
        "Heatmap of z-scores, features by segments; the feature that sets segments apart most "
        f"is {ranked[0]}.",
        "Segment",
        "Feature",
        {"ids": run.cluster_ids, "features": ranked[:_MOST_DRAWN], "values": _rounded(z[drawn]),
         "limit": 2.0,
         "unit": "standard deviations from all rows", "low": "lower than all rows",
         "high": "higher than all rows"},
        head,
        rows,
    )  # fmt: skip


def _importance(table: pa.Table) -> Chart:
    ranked = table.sort_by("rank").to_pylist()
    names = [shown(row["feature"]) for row in ranked]
    values = [float(row["importance"]) for row in ranked]
    return Chart(
        "importance",
        "bars",
        "Importance of each feature",
        _drawn_note(
            len(names),
            "How much each feature helps to tell all segments apart; all features sum to 1.",
        ),
        f"Bar chart of Gini importance; the most important feature is {names[0]}.",
        "Gini importance (share of the total)",
        "Feature",
        {"features": names[:_MOST_DRAWN], "values": values[:_MOST_DRAWN]},
        ("rank", "feature", "importance"),
        [(str(i + 1), names[i], number(values[i])) for i in range(len(names))][:_MOST_ROWS],
    )


def matrix(table: pa.Table, column: str, cluster_ids: Sequence[int]) -> tuple[list[str], Floats]:
    """Spread a column of a long table over features (down) and clusters (across)."""
    features = list(dict.fromkeys(table.column("feature").to_pylist()))
    place = {feature: i for i, feature in enumerate(features)}
    across = {cluster: i for i, cluster in enumerate(cluster_ids)}
    values = np.full((len(features), len(cluster_ids)), np.nan)
    for row in table.select(["feature", "cluster_id", column]).to_pylist():
        if row[column] is not None:
            values[place[row["feature"]], across[row["cluster_id"]]] = row[column]
    return [shown(feature) for feature in features], values


def _rounded(values: Floats) -> list[list[float | None]]:
    """Return numbers as JSON has them: NaN as None, and no more digits than are drawn."""
    return [[None if np.isnan(value) else float(f"{value:.5g}") for value in row] for row in values]


def _matrix_rows(names: Sequence[str], values: Floats) -> list[tuple[str, ...]]:
    shortest = list(zip(names, values.tolist(), strict=True))[:_MOST_ROWS]
    return [(name, *(number(value) for value in row)) for name, row in shortest]


def _typical_rows(
    profiles: pa.Table, names: Sequence[str], cluster_ids: Sequence[int]
) -> list[tuple[str, ...]]:
    place = {cluster: i for i, cluster in enumerate(cluster_ids, start=1)}
    cells: dict[str, list[str]] = {}
    for row in profiles.to_pylist():
        line = cells.setdefault(shown(row["feature"]), [everyone(row), *["–"] * len(place)])
        line[place[row["cluster_id"]]] = typical(row)
    return [(name, *cells[name]) for name in names[:_MOST_ROWS]]


def _drawn_note(n_features: int, note: str) -> str:
    if n_features <= _MOST_DRAWN:
        return note
    return f"{note} The {_MOST_DRAWN} strongest of {n_features:,} features are drawn."
