"""The commands that work on tables: run, assign, plan, buckets, load, report; and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuseg.cli.command import AsJson, Quiet, emit, emit_json, guarded, with_settings
from gpuseg.cli.reporting import reporter
from gpuseg.errors import GateRefusedError, GpusegError, SettingsError
from gpuseg.interrupts import after_publishing
from gpuseg.settings import PARAMETERS, Settings

if TYPE_CHECKING:
    from gpuseg.records import Segmentation
    from gpuseg.stages import Observer

Plots = Annotated[Path | None, typer.Option("--plots", help="Folder for a picture per column.")]

CSV_PARAMETERS = tuple(name for name in PARAMETERS if name.startswith("csv_"))

ASSIGN_PARAMETERS = (
    "input_table",
    "input_query",
    "output_table",
    "model_name",
    "output_mode",
    "row_scores",
    "warehouse",
    "backend",
    "memory",
    "dask",
    "runs_dir",
    "log_format",
    *CSV_PARAMETERS,
)


WATCH_PARAMETERS = (
    "input_table", "output_table", "model_name", "rowid_column", "watermark_column",
    "row_scores", "warehouse", "backend", "runs_dir", "log_format", *CSV_PARAMETERS,
)  # fmt: skip

BUCKETS_PARAMETERS = (
    "input_table", "input_query", "output_table", "columns", "model_name", "min_clusters",
    "max_clusters", "num_clusters", "ignore_columns", "numeric_columns", "rowid_column",
    "transform", "warehouse", "backend", "memory", "runs_dir", *CSV_PARAMETERS,
)  # fmt: skip


@guarded
@with_settings(PARAMETERS, past_runs=True)
def run(
    settings: Settings,
    *,
    past: Any = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Segment a table: read, prepare, sweep, choose, explain, publish."""
    from gpuseg import pipeline
    from gpuseg.observing.metrics import measured
    from gpuseg.outputs.reuse import name_before_reading

    with measured(settings.metrics_file, lambda: name_before_reading(settings, None)) as meter:
        try:
            result = pipeline.run(settings, observer=_observer(settings, quiet), past=past)
        except GateRefusedError as refusal:
            if refusal.result is not None:
                reporter(settings.log_format).warn(refusal.result.warnings)
                if as_json:
                    _emit_summary(refusal.result, settings)
            raise
    with after_publishing():
        meter.done(result)
        reporter(settings.log_format).warn(meter.problems)
    _show(result, settings, as_json)


@guarded
@with_settings(ASSIGN_PARAMETERS)
def assign(settings: Settings, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Place rows with a stored model, without fitting anything."""
    from gpuseg import pipeline

    if settings.output_table is None:
        raise SettingsError("nowhere to put the rows: give --output-table (db.table or a file)")
    _show(pipeline.assign(settings, observer=_observer(settings, quiet)), settings, as_json)


@guarded
@with_settings(WATCH_PARAMETERS)
def watch(
    settings: Settings,
    *,
    interval: Annotated[
        float | None, typer.Option(help="Look again and again, this many seconds apart.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Place rows that are not in the output yet with the current model, exactly once."""
    from gpuseg.watch import Round, Watch
    from gpuseg.watch import watch as watch_on

    if once is (interval is not None):
        raise SettingsError("give --interval SECONDS to go on, or --once for a single look")
    if interval is not None and not interval > 0:
        raise SettingsError(f"interval is {interval:g}; it must be more than 0 seconds")

    def show(found: Round) -> None:
        if as_json:
            emit_json(found.as_dict())
        elif found.n_rows:
            emit(lambda out: out.write(f"{found.summary}\n"))

    warn = reporter(settings.log_format).warn
    if interval is not None:
        watch_on(settings, interval, placed=show, say=lambda sentence: warn((sentence,)))
        return
    found = Watch(settings).round()
    warn(found.warnings)
    show(found)


@guarded
@with_settings(PARAMETERS)
def plan(settings: Settings, *, as_json: AsJson = False) -> None:
    """Say what `run` would do: columns, memory and time per stage. Writes nothing."""
    from gpuseg.plan import make_plan
    from gpuseg.terminal import print_plan

    planned = make_plan(settings)
    if as_json:
        emit_json(planned.as_dict())
    else:
        emit(lambda out: print_plan(planned, out))


@guarded
@with_settings(BUCKETS_PARAMETERS)
def buckets(
    settings: Settings,
    *,
    plots: Plots = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Suggest groupings of single columns (age, spend, months), also for a model's segments."""
    from gpuseg import pipeline
    from gpuseg.outputs.bucket_results import buckets_summary
    from gpuseg.terminal import print_buckets

    report = pipeline.buckets(settings, plots=plots, observer=_observer(settings, quiet))
    reporter(settings.log_format).warn(report.warnings)
    if as_json:
        emit_json(buckets_summary(report))
    else:
        emit(lambda out: print_buckets(report, out))


@guarded
@with_settings(("warehouse", "output_mode", "memory", *CSV_PARAMETERS))
def load(
    settings: Settings,
    file: Annotated[str, typer.Argument(help="A file, or a folder of Parquet parts.")],
    table: Annotated[str, typer.Argument(help="db.table in the warehouse.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Put a file into the warehouse."""
    from gpuseg import pipeline

    loaded = pipeline.load(file, table, settings)
    reporter(settings.log_format).warn(loaded.warnings)
    if as_json:
        emit_json({"table": table, "n_rows": loaded.n_rows, "notes": list(loaded.notes)})
        return
    for note in loaded.notes:
        if note not in loaded.warnings:
            reporter(settings.log_format).note(note)
    emit(lambda out: out.write(f"{loaded.n_rows:,} rows in {table}\n"))


@guarded
@with_settings(("runs_dir", "hide_table_contents"))
def report(
    settings: Settings,
    run: Annotated[str, typer.Argument(help="A run folder, or a model for its newest run.")],
    *,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild the report of a run from what is kept of it."""
    from gpuseg.outputs.report import rebuild_report

    page = rebuild_report(
        run, Path(settings.runs_dir), hide_table_contents=settings.hide_table_contents
    )
    if as_json:
        emit_json({"run_dir": str(page.parent), "report": str(page)})
    else:
        emit(lambda out: out.write(f"{page}\n"))
    if open_it and not _open(page):
        note = f"no browser could be started here; open {page} yourself"
        reporter(settings.log_format).note(note)


def _open(page: Path) -> bool:
    import webbrowser

    return webbrowser.open(page.resolve().as_uri())


@guarded
def doctor(*, as_json: AsJson = False) -> None:
    """Say which backend would run here and why; check versions and the kernels."""
    from gpuseg.doctor import examine
    from gpuseg.terminal import print_examination

    found = examine()
    if as_json:
        emit_json(found.as_dict())
    else:
        emit(lambda out: print_examination(found, out))
    if not found.healthy:
        raise typer.Exit(GpusegError.exit_code)


def _observer(settings: Settings, quiet: bool) -> Observer | None:
    return None if quiet else reporter(settings.log_format).observer()


def _emit_summary(result: Segmentation, settings: Settings) -> None:
    from gpuseg.outputs.conclusion import summary

    emit_json(summary(result, hide_table_contents=settings.hide_table_contents))


def _show(result: Segmentation, settings: Settings, as_json: bool) -> None:
    from gpuseg.terminal import print_segmentation

    reporter(settings.log_format).warn(result.warnings)
    hide = settings.hide_table_contents
    with after_publishing():
        if as_json:
            _emit_summary(result, settings)
        else:
            emit(lambda out: print_segmentation(result, out, hide_table_contents=hide))


#: In the order of the help page; the doctor comes after the groups of commands.
COMMANDS = (run, assign, watch, plan, buckets, load, report)
