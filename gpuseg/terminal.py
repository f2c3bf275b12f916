"""What `cli/` shows: progress while a run works, and its result as short tables."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from gpuseg.outputs.one_line import one_line
from gpuseg.outputs.wording import apart, day

if TYPE_CHECKING:
    from gpuseg.activation import PushPlan, PushReport
    from gpuseg.backends.gpu_checks import Check
    from gpuseg.doctor import Examination
    from gpuseg.explain.bucket_columns import BucketReport
    from gpuseg.explain.buckets import ColumnBuckets
    from gpuseg.explained import SegmentTree
    from gpuseg.outputs.models import ModelEntry
    from gpuseg.plan import Plan, StagePlan
    from gpuseg.records import Segmentation, StageCost

#: Between two progress lines when the output is a file or a log, in seconds.
LINE_INTERVAL_SECONDS = 10.0

TOP_FEATURES = 3


class Watcher:
    """Shows a run while it works: a moving bar on a terminal, plain lines elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began = self._last_line = 0.0

    def started(self, stage: str) -> None:
        """Show that a stage begins; one that was given up may begin anew."""
        self.close()
        self._began = self._last_line = time.perf_counter()
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(stage, total=1.0, rate="")
        self._bar.start()

    def progress(self, stage: str, fraction: float, n_rows: int | None) -> None:
        """Show how far a stage is."""
        now = time.perf_counter()
        rate = _rate(fraction, n_rows, now - self._began)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=fraction, rate=rate)
        elif now - self._last_line >= LINE_INTERVAL_SECONDS and 0 < fraction < 1:
            self._last_line = now
            left = (now - self._began) * (1 - fraction) / fraction
            self._say(f"{stage:<8} {fraction:4.0%}  {rate}  {_duration(left)} left")

    def finished(self, stage: str, cost: StageCost, detail: str) -> None:
        """Show what a stage took and what came out."""
        self.close()
        self._say(f"{stage:<8} {_duration(cost.seconds):>8}  {detail}")

    def close(self) -> None:
        """Take the bar away, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def _say(self, line: str) -> None:
        # Text, not str: square brackets in a column name are not markup
        self._console.print(Text(line))


def _rate(fraction: float, n_rows: int | None, seconds: float) -> str:
    if not n_rows or seconds <= 0:
        return ""
    return f"{fraction * n_rows / seconds:,.0f} rows/s"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02} min"


def _bytes(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> RichTable:
    """Make a plain table; the first column is text, columns named in capitals are too."""
    table = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    return table


class _Console(Console):
    """A console that leaves it to `cli/` what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        """Say so, instead of ending the process with exit code 1."""
        raise BrokenPipeError


def _console(stream: TextIO) -> Console:
    # a pipe has no width: do not fold what another program reads
    return _Console(file=stream, highlight=False, width=None if stream.isatty() else 160)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], stream: TextIO
) -> None:
    """Print a plain table."""
    _console(stream).print(_table(title, columns, rows))


def print_segmentation(
    result: Segmentation, stream: TextIO, *, hide_table_contents: bool = False
) -> None:
    """Print k against silhouette, the sizes and the strongest features of each segment.

    The k scores of rows that were only placed are those of another table: left out.
    """
    console = _console(stream)
    if result.explanation is not None:
        console.print(_k_table(result.k_scores.to_pylist()))
        console.print()
    console.print(_segment_table(result, hide_table_contents))
    console.print()
    console.print(Text(result.reason))
    if result.tree is not None:
        console.print(Text(_tree_line(result.tree)))
    places = (
        ("rows", result.output_table),
        ("report", result.report),
        ("run", result.run_dir),
        ("model", f"{result.model_name}" if result.run_dir else None),
        ("backend", f"{result.backend} ({result.backend_reason})"),
    )
    for what, where in places:
        if where:
            console.print(Text(f"{what:<8} {where}"), soft_wrap=True)
    console.print(Text(one_line(result)), soft_wrap=True)


def _k_table(k_scores: Iterable[Mapping[str, Any]]) -> RichTable:
    rows = (
        (
            f"{score['n_clusters']}{' *' if score['chosen'] else ''}",
            _with_error(score["silhouette"], score["silhouette_stderr"]),
            f"{score['inertia']:.6g}",
            f"{score['min_cluster_share']:.1%}",
            _stability(score["stability"]),
        )
        for score in k_scores
    )
    names = ("k", "silhouette", "inertia", "smallest cluster", "stability")
    return _table("Number of clusters (* chosen)", names, rows)


def _stability(value: float | None) -> str:
    """Of a single restart there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.2f}"


def _with_error(value: float, stderr: float) -> str:
    return f"{value:.4f}" if stderr == 0 else f"{value:.4f} ± {stderr:.4f}"


def _segment_table(result: Segmentation, hide_table_contents: bool) -> RichTable:
    from gpuseg.outputs.segments import discreet

    n_rows = len(result.labels)
    tops = _top_features(result, hide_table_contents)
    segments = discreet(result.segments) if hide_table_contents else result.segments
    called = {segment.cluster_id: segment.name for segment in segments}
    columns = {
        "cluster_id": result.cluster_ids,
        "rows": [f"{size:,}" for size in result.cluster_sizes],
        "share": [f"{size / n_rows:.1%}" for size in result.cluster_sizes],
    }
    if called:
        columns["name"] = [called[cluster] for cluster in result.cluster_ids]
    if tops:
        columns["strongest features (direction)"] = [
            tops.get(cluster, "") for cluster in result.cluster_ids
        ]
    return _table("Segments", tuple(columns), zip(*columns.values(), strict=True))


def _tree_line(tree: SegmentTree) -> str:
    questions = f"{tree.depth} question{'' if tree.depth == 1 else 's'}"
    return f"with {questions} at most, a tree puts {tree.fidelity:.1%} of the rows in their segment"


def _top_features(result: Segmentation, hide_table_contents: bool) -> dict[int, str]:
    """Return the top features of each cluster, and unless hidden what they look like."""
    if result.explanation is None:
        return {}
    looks = {
        (row["cluster_id"], row["feature"]): "" if hide_table_contents else _look(row)
        for row in result.explanation.profiles.to_pylist()
    }
    tops: dict[int, list[str]] = {}
    for row in result.explanation.shap_values.to_pylist():
        if row["rank"] <= TOP_FEATURES:
            key = (row["cluster_id"], row["feature"])
            tops.setdefault(row["cluster_id"], []).append(f"{row['feature']}{looks.get(key, '')}")
    return {cluster: ", ".join(features) for cluster, features in tops.items()}


def _look(profile: dict[str, Any]) -> str:
    if profile["kind"] == "categorical":
        top = (profile["top_values"] or "").split(",")[0].strip()
        return f" ({top})" if top else ""
    if profile["mean"] is None or profile["overall_mean"] is None:
        return ""
    arrow = "↑" if profile["mean"] > profile["overall_mean"] else "↓"
    if profile["kind"] == "datetime":
        return f" {arrow} ({day(profile['mean'])}, all {day(profile['overall_mean'])})"
    own, overall = apart(profile["mean"], profile["overall_mean"])
    return f" {arrow} ({own}, all {overall})"


def print_plan(plan: Plan, stream: TextIO) -> None:
    """Print what a run would do."""
    console = _console(stream)
    console.print(Text(f"{plan.table}: {plan.n_rows:,} rows, {plan.n_columns} columns"))
    console.print(Text(f"backend  {plan.backend} ({plan.backend_reason})"))
    console.print()
    console.print(_table("Columns", ("column", "role", "decision", "reason"), plan.columns))
    console.print()
    on_gpu = any(stage.device_bytes is not None for stage in plan.stages)
    names = ("stage", "memory", *(("GPU memory",) if on_gpu else ()), "time", "what")
    stages = (_stage_row(stage, on_gpu) for stage in plan.stages)
    console.print(_table("Stages (estimates)", names, stages))
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}"))


def _stage_row(stage: StagePlan, on_gpu: bool) -> tuple[str, ...]:
    device = (_bytes(stage.device_bytes or 0),) if on_gpu else ()
    return (
        stage.name,
        _bytes(stage.memory_bytes),
        *device,
        _duration(stage.seconds),
        stage.note,
    )


def print_buckets(report: BucketReport, stream: TextIO) -> None:
    """Print each column's ways to be cut, and the suggested one as SQL."""
    console = _console(stream)
    console.print(Text(f"{report.table}: {report.n_rows:,} rows"))
    for column in report.columns:
        missing = f", {column.n_missing:,} missing" if column.n_missing else ""
        scale = "" if column.axis.scale == "linear" else f", {column.axis.scale} scale"
        title = f"\n{column.column}: {len(column.values):,} different values{missing}{scale}"
        console.print(_bucketings_table(title, column))
        for bucketing in column.bucketings[:1]:
            console.print(Text(bucketing.sql or "no SQL yields the values of this column exactly"))
    for what, where in (("buckets", report.output_table), *(("picture", p) for p in report.plots)):
        if where:
            console.print(Text(f"{what:<8} {where}"), soft_wrap=True)


def _bucketings_table(title: str, column: ColumnBuckets) -> RichTable:
    from gpuseg.explain.buckets import METHODS

    has_segments = column.bucketings[0].separation is not None
    names = ["method", "buckets", "explained", "silhouette"]
    names += ["separation", "cuts"] if has_segments else ["cuts"]
    rows = []
    for bucketing in column.bucketings:
        silhouette = bucketing.silhouette
        row = [
            METHODS[bucketing.method],
            str(len(bucketing.labels)),
            f"{bucketing.explained:.1%}",
            "–" if silhouette is None else f"{silhouette:.3f}",
        ]
        row += [f"{bucketing.separation:.1%}"] if has_segments else []
        rows.append([*row, ", ".join(column.axis.text(cut) for cut in bucketing.cuts) or "none"])
    return _table(title, names, rows)


def print_models(entries: Sequence[ModelEntry], stream: TextIO) -> None:
    """Print one line for each stored model; * marks the current one of its name."""
    rows: list[tuple[Any, ...]] = []
    for entry in entries:
        run = f"{entry.run_id}{' *' if entry.is_champion else ''}"
        if entry.model is None:
            rows.append((entry.name, run, entry.status, "", "", "", entry.problem))
        else:
            m = entry.model
            numbers = (m.n_clusters, f"{m.silhouette:.4f}", f"{m.n_rows:,}")
            rows.append((m.name, run, entry.status, *numbers, m.input_name))
    names = ("model", "run (* current)", "status", "clusters", "silhouette", "rows", "fitted on")
    _console(stream).print(_table("", names, rows) if rows else Text("no models yet"))


def print_model(facts: Mapping[str, Any], stream: TextIO) -> None:
    """Print what is known of one stored model."""
    console = _console(stream)
    for name, value in facts.items():
        if isinstance(value, (list, tuple)):
            value = ", ".join(str(item) for item in value if not isinstance(item, dict))
        if value not in ("", None) and not isinstance(value, dict):
            console.print(Text(f"{name:<12} {value}"), soft_wrap=True)
    console.print()
    console.print(_k_table(facts["k_scores"]))
    if facts["segments"]:
        console.print()
        names = ("cluster_id", "name", "description")
        rows = ([segment[name] for name in names] for segment in facts["segments"])
        console.print(_table("Segments", names, rows))


def print_push(pushed: PushPlan | PushReport, stream: TextIO) -> None:
    """Print what a push would do, or did, line by line."""
    console = _console(stream)
    for line in pushed.lines:
        console.print(Text(line), soft_wrap=True)


def print_examination(found: Examination, stream: TextIO) -> None:
    """Print what the doctor saw, and what to do first where the GPU cannot be used."""
    console = _console(stream)
    console.print(Text(f"backend  {found.backend} ({found.backend_reason})"))
    for name, value in found.facts.items():
        console.print(Text(f"{name:<18} {value}"))
    console.print(Text("\nWhat the GPU engine needs"))
    _print_checks(found.gpu, console, failed="no")
    if found.gpu_obstacle is not None:
        console.print(Text(f"to use the GPU: {found.gpu_obstacle.remedy}"))
    console.print(Text(f"\nWhat the {found.backend} engine computes"))
    _print_checks(found.checks, console, failed="FAIL")


def _print_checks(checks: Iterable[Check], console: Console, *, failed: str) -> None:
    marks = {True: "ok", False: failed, None: "-"}
    for check in checks:
        console.print(Text(f"{marks[check.passed]:<4} {check.name}: {check.detail}"))
