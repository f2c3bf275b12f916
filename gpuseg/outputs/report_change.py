"""What changed since the run before, in the report: in words, and as charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpuseg.outputs.change_facts import EVENTS, row_counts
from gpuseg.outputs.palette import cluster_names
from gpuseg.outputs.report_flow import flow_chart
from gpuseg.outputs.report_input import ReportInput
from gpuseg.outputs.wording import number, percent, shown, unbroken

#: Limits of the population stability index that are commonly used, and what they stand for.
LIMITS = ((0.1, "moved"), (0.25, "shifted"))
#: Colour of a bar that passes none, one, or both of them.
_GRADES = ("muted", "accent", "above")

#: A column that broke altogether has an index of 8 or so, beside which limits cannot be seen.
_LONGEST = 1.0
#: A smaller index is no bar that can be seen: when all are, a sentence says more.
_LEAST_DRAWN = 0.005
#: Silhouettes of runs that differ by less than this are drawn as the near equals that they are.
_LEAST_RANGE = 0.02
_DRIFT_TITLE = "Which columns moved"
_DRIFT_HEAD = (
    "column", "PSI", "verdict", "Wasserstein, in deviations", "mean before", "mean",
    "median before", "median", "missing before", "missing",
)  # fmt: skip
_MOST_DRAWN = 15
_MOST_ROWS = 200
_EVENT_WORDS = {
    "kept": "goes on", "split": "split", "merged": "merged", "born": "new", "retired": "no more",
}  # fmt: skip

#: What is said of a column without values that can be compared, by its status.
_LOST = {
    "gone": "is no longer in the table",
    "retyped": "can no longer be read as it was",
}

Row = Mapping[str, Any]


def change_view(run: ReportInput) -> dict[str, Any] | None:
    """Return what changed in words; None when there was no run before."""
    if run.change is None or run.lineage is None or run.migration is None:
        return None
    names = {segment.cluster_id: shown(segment.name) for segment in run.segments}
    drift = run.drift.to_pylist() if run.drift is not None else []
    told = sorted(run.lineage.to_pylist(), key=lambda row: EVENTS.index(row["event"]))
    return {
        "sentences": [
            unbroken(text) for text in _sentences(run.change, row_counts(run.migration), drift)
        ],
        "events": [
            {"event": row["event"], "words": _EVENT_WORDS[row["event"]], "text": _told(row, names)}
            for row in told
        ],
        "nothing_moved": _nothing_moved(drift),
    }


def change_charts(run: ReportInput) -> Iterator[dict[str, Any]]:
    """Yield the facts of the charts of the section on what changed."""
    if run.change is None:
        return
    if run.migration is not None and run.migration.num_rows:
        yield flow_chart(run.migration.to_pylist(), run.cluster_ids)
    if run.drift is not None:
        measured = [row for row in run.drift.to_pylist() if row["psi"] is not None]
        if measured and not _is_quiet(measured[0]["psi"]):
            yield _drift(measured, run.drift.to_pylist())
    if run.trend is not None and run.trend.num_rows:
        runs = [*run.trend.to_pylist(), _this_run(run)]
        yield _silhouettes(runs)
        yield _sizes(runs, run.cluster_ids)


def verdict(psi: float) -> str:
    """Say what a population stability index is commonly taken for."""
    return ("stable", *(word for _limit, word in LIMITS))[_passed(psi)]


def _passed(psi: float) -> int:
    return sum(psi >= limit for limit, _word in LIMITS)


def _is_quiet(largest_psi: float) -> bool:
    return largest_psi < _LEAST_DRAWN


# -- words ---------------------------------------------------------------------------


def _sentences(change: Row, rows: Mapping[str, int], drift: Sequence[Row]) -> Iterator[str]:
    run_id = change["earlier_run_id"]
    if change["matched_by"] == "rowid":
        yield (
            f"Since run {run_id}, {rows['moved']:,} of the {rows['known']:,} rows that were there "
            f"before ({percent(change['churn'])}) went to another segment; {rows['entrants']:,} "
            f"rows are new and {rows['leavers']:,} are gone."
        )
    elif change["matched_by"] == "model":
        yield (
            f"The model of run {run_id} would put {rows['moved']:,} of today's "
            f"{rows['known']:,} rows ({percent(change['churn'])}) into another segment than they "
            "are in now. Rows are compared by that model, because none are known by an id."
        )
    else:
        yield f"No row can be compared with run {run_id}: all segments are new."
    before = change["earlier_silhouette"]
    if before is not None:
        yield f"The earlier segments would have a mean silhouette of {before:.3f} today."
    status = next((r["status"] for r in drift if r["column"] == change["max_psi_column"]), None)
    if status in _LOST:
        yield f"The column {shown(change['max_psi_column'])} {_LOST[status]}."
    elif change["max_psi"] is not None and not _is_quiet(change["max_psi"]):
        yield (
            f"The column that moved most is {shown(change['max_psi_column'])}, with a population "
            f"stability index of {_index(change['max_psi'])}: {verdict(change['max_psi'])}."
        )


def _told(row: Row, names: Mapping[int, str]) -> str:
    was, now = row["previous_cluster_id"], row["cluster_id"]
    called = f"segment {now} ({names[now]})" if now in names else f"segment {now}"
    of_previous, of_current = percent(row["share_of_previous"]), percent(row["share_of_current"])
    if row["event"] == "kept":
        text = (
            f"{called}: {of_previous} of its rows that are still there stayed; of the rows it "
            f"has from before, {of_current} were in it already"
        )
    elif row["event"] == "split":
        text = f"{of_previous} of the rows of segment {was} still there are in {called} now"
    elif row["event"] == "merged":
        text = f"segment {was} went into {called}, with {of_previous} of its rows still there"
    elif row["event"] == "born":
        origin = f"{of_current} of its earlier rows were in segment {was}"
        text = f"{called}: {'no earlier segment makes up most of it' if was is None else origin}"
    else:
        heir = f"{of_previous} of its rows still there are in {called} now"
        text = f"segment {was}: {'its rows are spread or gone' if now is None else heir}"
    return unbroken(f"{text[0].upper()}{text[1:]}.")


# -- charts --------------------------------------------------------------------------


def _nothing_moved(drift: Sequence[Row]) -> dict[str, Any] | None:
    """Return what stands in place of the chart of drift when its bars would not be seen."""
    first = next((row for row in drift if row["psi"] is not None), None)
    if first is None or not _is_quiet(first["psi"]):
        return None
    return {
        "title": _DRIFT_TITLE,
        "text": f"No column moved: the largest population stability index is "
        f"{_index(first['psi'])} ({shown(first['column'])}).",
        "head": _DRIFT_HEAD,
        "rows": [_drift_row(row) for row in drift[:_MOST_ROWS]],
    }


def _drift(measured: Sequence[Row], all_rows: Sequence[Row]) -> dict[str, Any]:
    first = measured[0]
    drawn = measured[:_MOST_DRAWN]
    note = (
        "Population stability index of each column against the run before, the bin of missing "
        "values included. Commonly, under 0.1 is called stable and over 0.25 a shift."
    )
    if first["psi"] > _LONGEST:
        note += f" Bars are cut at {_LONGEST:g}."
    if len(measured) > _MOST_DRAWN:
        note += f" The {_MOST_DRAWN} that moved most of {len(measured):,} are drawn."
    return {
        "name": "drift",
        "kind": "limits",
        "title": _DRIFT_TITLE,
        "note": note,
        "alt": f"Bar chart of the population stability index of {len(drawn)} columns; largest is "
        f"{shown(first['column'])} with {_index(first['psi'])}, {verdict(first['psi'])}.",
        "x": "Population stability index",
        "y": "Column",
        "data": {
            "features": [shown(row["column"]) for row in drawn],
            "values": [round(row["psi"], 3) for row in drawn],
            "end": min(max(first["psi"], 1.2 * LIMITS[-1][0]), _LONGEST),
            "colors": [_GRADES[_passed(row["psi"])] for row in drawn],
            "words": [_moved(row) for row in drawn],
            "limits": [{"value": limit, "words": words} for limit, words in LIMITS],
        },
        "head": _DRIFT_HEAD,
        "rows": [_drift_row(row) for row in all_rows[:_MOST_ROWS]],
    }  # fmt: skip


def _index(psi: float | None) -> str:
    return "–" if psi is None else f"{psi:.3f}"


def _moved(row: Row) -> str:
    gaps = f"missing {percent(row['previous_missing_share'])}, now {percent(row['missing_share'])}"
    distance = row["wasserstein_scaled"]
    return gaps if distance is None else f"Wasserstein {number(distance)} deviations; {gaps}"


def _drift_row(row: Row) -> tuple[str, ...]:
    psi, status = row["psi"], row["status"]
    judged = "–" if psi is None else verdict(psi)
    # means and medians are not there when table contents are hidden
    values = (row.get(n) for n in ("previous_mean", "mean", "previous_median", "median"))
    return (
        shown(row["column"]),
        _index(psi),
        judged if status == "compared" else status if psi is None else f"{judged}, {status}",
        number(row["wasserstein_scaled"]),
        *(number(value) for value in values),
        percent(row["previous_missing_share"]),
        percent(row["missing_share"]),
    )


def _this_run(run: ReportInput) -> Row:
    assert run.change is not None
    sizes = zip(run.cluster_ids, run.cluster_sizes, strict=True)
    return {
        "run_id": run.run_id,
        "started": run.created,
        "status": "this run, refused" if run.is_refused else "this run",
        "n_rows": run.n_rows,
        "n_clusters": run.n_clusters,
        "silhouette": run.silhouette,
        "churn": run.change["churn"],
        "max_psi": run.change["max_psi"],
        "sizes": [{"cluster_id": c, "n_rows": n} for c, n in sizes],
    }


def _labels(runs: Sequence[Row]) -> list[str]:
    """Call every run by its day, and by its time too where another one began that day."""
    labels = []
    for row in runs:
        # month and day, to the minute, or to the second
        same = (
            (end, sum(other["started"][:end] == row["started"][:end] for other in runs))
            for end in (10, 16)
        )
        end = next((end for end, n in same if n == 1), 19)
        labels.append(row["started"][5:end].replace("T", " "))
    return labels


def _silhouettes(runs: Sequence[Row]) -> dict[str, Any]:
    first, last = runs[0], runs[-1]
    values = [row["silhouette"] for row in runs if row["silhouette"] is not None]
    pad = max(0.12 * (max(values) - min(values)), (_LEAST_RANGE - max(values) + min(values)) / 2)
    return {
        "name": "trend",
        "kind": "trend",
        "title": "The last runs: silhouette",
        "note": "Mean silhouette of each run of this model, the latest on the right. A hollow dot "
        "is a run that was not published.",
        "alt": f"Line chart of the mean silhouette of {len(runs)} runs, from "
        f"{number(first['silhouette'])} to {number(last['silhouette'])}.",
        "x": "Run",
        "y": "Mean silhouette (−1 to 1)",
        "data": {
            "low": min(values) - pad,
            "high": max(values) + pad,
            "runs": [
                {
                    "label": label,
                    "started": row["started"].replace("T", " ").replace("Z", " UTC"),
                    "published": not row["status"].endswith("refused"),
                    "silhouette": row["silhouette"],
                    "words": f"{row['status']}; {row['n_clusters']} segments; churn "
                    f"{percent(row['churn'])}; largest PSI {_index(row['max_psi'])}",
                }
                for row, label in zip(runs, _labels(runs), strict=True)
            ]
        },
        "head": ("run", "started", "status", "rows", "segments", "silhouette", "churn",
                 "largest PSI"),
        "rows": [
            (row["run_id"], row["started"], row["status"], f"{row['n_rows']:,}",
             str(row["n_clusters"]), number(row["silhouette"]), percent(row["churn"]),
             _index(row["max_psi"]))
            for row in runs
        ],
    }  # fmt: skip


def _sizes(runs: Sequence[Row], cluster_ids: Sequence[int]) -> dict[str, Any]:
    sizes = [{size["cluster_id"]: size["n_rows"] for size in row["sizes"]} for row in runs]
    ids = sorted(set().union(*sizes))
    colors = cluster_names(cluster_ids, ids)
    return {
        "name": "trend_sizes",
        "kind": "layers",
        "title": "The last runs: size of each segment",
        "note": "Rows in each segment, by its id; the latest run on the right.",
        "alt": f"Stacked bars of the sizes of {len(ids)} segments in {len(runs)} runs.",
        "x": "Run",
        "y": "Rows",
        "data": {
            "runs": _labels(runs),
            "started": [row["started"].replace("T", " ").replace("Z", " UTC") for row in runs],
            "ids": ids,
            "colors": [colors[cluster] for cluster in ids],
            "values": [[own.get(cluster, 0) for cluster in ids] for own in sizes],
        },
        "head": ("run", "started", *(f"segment {cluster}" for cluster in ids)),
        "rows": [
            (row["run_id"], row["started"],
             *(f"{own[cluster]:,}" if cluster in own else "–" for cluster in ids))
            for row, own in zip(runs, sizes, strict=True)
        ],
    }  # fmt: skip
