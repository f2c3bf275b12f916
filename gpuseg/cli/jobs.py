"""The commands that work on tables: run, assign, plan, buckets, load, report; and doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuseg.cli.command import AsJson, Quiet, emit, emit_json, guarded, with_settings
from gpuseg.errors import GpusegError, SettingsError
from gpuseg.interrupts import after_publishing
from gpuseg.settings import PARAMETERS, Settings

if TYPE_CHECKING:
    from gpuseg.records import Segmentation
    from gpuseg.terminal import Watcher

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
    "dask",
    "runs_dir",
    *CSV_PARAMETERS,
)


BUCKETS_PARAMETERS = (
    "input_table", "input_query", "output_table", "columns", "model_name", "min_clusters",
    "max_clusters", "num_clusters", "ignore_columns", "numeric_columns", "rowid_column",
    "transform", "warehouse", "backend", "runs_dir", *CSV_PARAMETERS,
)  # fmt: skip


@guarded
@with_settings(PARAMETERS)
def run(settings: Settings, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Segment a table: read, prepare, sweep, choose, explain, publish."""
    from gpuseg import pipeline

    _show(pipeline.run(settings, observer=_watcher(quiet)), settings, as_json)


@guarded
@with_settings(ASSIGN_PARAMETERS)
def assign(settings: Settings, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Place rows with a stored model, without fitting anything."""
    from gpuseg import pipeline

    if settings.output_table is None:
        raise SettingsError("nowhere to put the rows: give --output-table (db.table or a file)")
    _show(pipeline.assign(settings, observer=_watcher(quiet)), settings, as_json)


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
    from gpuseg.terminal import print_buckets, print_warnings

    report = pipeline.buckets(settings, plots=plots, observer=_watcher(quiet))
    print_warnings(report.warnings, sys.stderr)
    if as_json:
        emit_json(buckets_summary(report))
    else:
        emit(lambda out: print_buckets(report, out))


@guarded
@with_settings(("warehouse", "output_mode", *CSV_PARAMETERS))
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
    if as_json:
        emit_json({"table": table, "n_rows": loaded.n_rows, "notes": list(loaded.notes)})
        return
    for note in loaded.notes:
        sys.stderr.write(f"{note}\n")
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
        sys.stderr.write(f"no browser could be started here; open {page} yourself\n")


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


def _watcher(quiet: bool) -> Watcher | None:
    from gpuseg.terminal import Watcher

    return None if quiet else Watcher(sys.stderr)


def _show(result: Segmentation, settings: Settings, as_json: bool) -> None:
    from gpuseg.outputs.conclusion import summary
    from gpuseg.terminal import print_segmentation, print_warnings

    print_warnings(result.warnings, sys.stderr)
    hide = settings.hide_table_contents
    with after_publishing():
        if as_json:
            emit_json(summary(result, hide_table_contents=hide))
        else:
            emit(lambda out: print_segmentation(result, out, hide_table_contents=hide))


#: In the order of the help page; the doctor comes after the groups of commands.
COMMANDS = (run, assign, plan, buckets, load, report)
