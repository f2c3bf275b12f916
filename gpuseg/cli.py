"""The command line: parse, call, print, exit code. The only file that knows the terminal.

stdout carries the result (a short table for people, or one JSON object with ``--json``
and nothing else); stderr carries progress, warnings and errors.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from gpuseg import __version__
from gpuseg.errors import GpusegError, SettingsError, SinkError
from gpuseg.interrupts import after_publishing
from gpuseg.redaction import redact_text
from gpuseg.settings import PARAMETERS, Settings, base_type, resolve

if TYPE_CHECKING:
    from gpuseg.records import Segmentation
    from gpuseg.terminal import Watcher

INTERRUPTED = 130

CONFIG_HELP = "Read parameters from a YAML file, or from the notebook's task in a digdag .dig file."

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes cut long option names and swallow "[default: 2]"
    help="Turn a table into segments, and say why each row is where it is.",
)
models_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at stored models.")
app.add_typer(models_app, name="models")
audience_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Use the segments in Treasure Data's audiences.",
)
app.add_typer(audience_app, name="audience")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Plots = Annotated[Path | None, typer.Option("--plots", help="Folder for a picture per column.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Run the command line; the entry point of the ``gpuseg`` script."""
    app()


# -- how commands are made -----------------------------------------------------------


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Map every error to its exit code; tracebacks are shown with ``--debug`` only."""

    def call(*, debug: bool = False, **options: Any) -> None:
        level = logging.INFO if debug else logging.ERROR
        logging.basicConfig(level=level, stream=sys.stderr, format="%(name)s: %(message)s")
        try:
            command(**options)
        except GpusegError as error:
            _fail(str(error), error.exit_code, debug)
        except KeyboardInterrupt as interrupt:
            _fail(str(interrupt) or "interrupted; nothing was published", INTERRUPTED, debug)
        except MemoryError:
            _fail("out of memory; `gpuseg plan` says what each stage needs", 4, debug)
        except typer.Exit:
            raise
        except Exception as error:
            _fail(
                f"unexpected {type(error).__name__}: {error}\nThis is a bug in gpuseg; run it "
                "again with --debug and report the traceback",
                GpusegError.exit_code,
                debug,
            )

    signature = inspect.signature(command, eval_str=True)
    return _dressed(
        call, command, [*signature.parameters.values(), _keyword("debug", Debug, False)]
    )


def with_settings(names: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these parameters; it receives them as `Settings`."""
    chosen = tuple(names)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def call(*, config: Path | None = None, **options: Any) -> None:
            given = {name: options.pop(name) for name in chosen}
            command(_resolve(given, config), **options)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        source = Annotated[Path | None, typer.Option("--config", help=CONFIG_HELP)]
        return _dressed(
            call, command, [*map(_option, chosen), _keyword("config", source, None), *own]
        )

    return decorate


def _dressed(
    call: Callable[..., None], command: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """Make `call` look to typer like `command` with these parameters."""
    functools.update_wrapper(call, command)
    # typer tells arguments from options by their annotation, not by their kind
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    call.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    del call.__wrapped__  # type: ignore[attr-defined]
    return call


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _option(name: str) -> inspect.Parameter:
    """Make the typer option of a parameter; None means not given on the command line."""
    dashed = name.replace("_", "-")
    is_flag = base_type(name) is bool
    option = typer.Option(
        f"--{dashed}/--no-{dashed}" if is_flag else f"--{dashed}",
        help=PARAMETERS[name].metadata["help"] + _default_text(name),
        metavar=None if is_flag else _METAVARS[base_type(name)],
        show_default=False,
    )
    # everything else arrives as text: settings.py parses it, so that the command line,
    # the environment and a config file give the same message for the same mistake
    return _keyword(name, Annotated[bool | None if is_flag else str | None, option], None)


_METAVARS = {str: "TEXT", int: "INTEGER", float: "NUMBER", tuple: "A,B,…"}


def _default_text(name: str) -> str:
    default = PARAMETERS[name].default
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return f" [default: {'' if default else 'no-'}{name.replace('_', '-')}]"
    return f" [default: {','.join(default) if isinstance(default, tuple) else default}]"


def _resolve(given: Mapping[str, Any], config: Path | None) -> Settings:
    from gpuseg.config import read_config

    content = read_config(config, environ=os.environ) if config else None
    return resolve(given, environ=os.environ, config=content)


def _fail(message: str, exit_code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    # the rooms keep credentials out of their messages; this is for what they overlook
    sys.stderr.write(f"gpuseg: {redact_text(message)}\n")
    raise typer.Exit(exit_code)


def _emit(show: Callable[[TextIO], Any]) -> None:
    """Write a command's result to stdout, all of it now.

    Raises
    ------
    SinkError
        If stdout takes no more; whoever merely stopped reading (head, less) is no error.
    """
    try:
        show(sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        # Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise SinkError(
                f"the work is done, but its result could not be printed: {error.strerror}"
            ) from error


def _emit_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    _emit(lambda out: out.write(f"{text}\n"))


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
            _emit_json(summary(result, hide_table_contents=hide))
        else:
            _emit(lambda out: print_segmentation(result, out, hide_table_contents=hide))


# -- commands ------------------------------------------------------------------------

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
    "runs_dir",
    *CSV_PARAMETERS,
)


BUCKETS_PARAMETERS = (
    "input_table", "input_query", "output_table", "columns", "model_name", "min_clusters",
    "max_clusters", "num_clusters", "ignore_columns", "numeric_columns", "rowid_column",
    "transform", "warehouse", "backend", "runs_dir", *CSV_PARAMETERS,
)  # fmt: skip


@app.command()
@guarded
@with_settings(PARAMETERS)
def run(settings: Settings, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Segment a table: read, prepare, sweep, choose, explain, publish."""
    from gpuseg import pipeline

    _show(pipeline.run(settings, observer=_watcher(quiet)), settings, as_json)


@app.command()
@guarded
@with_settings(ASSIGN_PARAMETERS)
def assign(settings: Settings, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Place rows with a stored model, without fitting anything."""
    from gpuseg import pipeline

    if settings.output_table is None:
        raise SettingsError("nowhere to put the rows: give --output-table (db.table or a file)")
    _show(pipeline.assign(settings, observer=_watcher(quiet)), settings, as_json)


@app.command()
@guarded
@with_settings(PARAMETERS)
def plan(settings: Settings, *, as_json: AsJson = False) -> None:
    """Say what `run` would do: columns, memory and time per stage. Writes nothing."""
    from gpuseg.plan import make_plan
    from gpuseg.terminal import print_plan

    planned = make_plan(settings)
    if as_json:
        _emit_json(planned.as_dict())
    else:
        _emit(lambda out: print_plan(planned, out))


@app.command()
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
        _emit_json(buckets_summary(report))
    else:
        _emit(lambda out: print_buckets(report, out))


@app.command()
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
        _emit_json({"table": table, "n_rows": loaded.n_rows, "notes": list(loaded.notes)})
        return
    for note in loaded.notes:
        sys.stderr.write(f"{note}\n")
    _emit(lambda out: out.write(f"{loaded.n_rows:,} rows in {table}\n"))


@app.command()
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
        _emit_json({"run_dir": str(page.parent), "report": str(page)})
    else:
        _emit(lambda out: out.write(f"{page}\n"))
    if open_it and not _open(page):
        sys.stderr.write(f"no browser could be started here; open {page} yourself\n")


def _open(page: Path) -> bool:
    import webbrowser

    return webbrowser.open(page.resolve().as_uri())


@models_app.command("list")
@guarded
@with_settings(("runs_dir",))
def models_list(settings: Settings, *, as_json: AsJson = False) -> None:
    """List the stored models."""
    from gpuseg.outputs.models import describe_entry, list_models
    from gpuseg.terminal import print_models

    entries = list_models(Path(settings.runs_dir))
    if as_json:
        _emit_json([describe_entry(entry) for entry in entries])
    else:
        _emit(lambda out: print_models(entries, out))


@models_app.command("show")
@guarded
@with_settings(("runs_dir",))
def models_show(
    settings: Settings,
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one stored model: clusters, columns, where it came from."""
    from gpuseg.outputs.models import describe, load_model
    from gpuseg.terminal import print_model

    facts = describe(load_model(Path(settings.runs_dir), name))
    if as_json:
        _emit_json(facts)
    else:
        _emit(lambda out: print_model(facts, out))


@models_app.command("rename")
@guarded
@with_settings(("runs_dir",))
def models_rename(
    settings: Settings,
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    cluster_id: Annotated[int, typer.Argument(help="Which segment.")],
    called: Annotated[str, typer.Argument(metavar="NEW_NAME", help="What to call it.")],
) -> None:
    """Call a segment of the current model something else."""
    from gpuseg.outputs.models import rename_segment

    model = rename_segment(Path(settings.runs_dir), name, cluster_id, called)
    said = f"segment {cluster_id} of model '{name}' is '{model.segments[cluster_id].name}'\n"
    _emit(lambda out: out.write(said))


@models_app.command("export")
@guarded
@with_settings(("runs_dir", "input_table"))
def models_export(
    settings: Settings,
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    form: Annotated[
        str,
        typer.Option("--format", metavar="sql|json", help="A query, or all that places rows."),
    ] = "sql",
    dialect: Annotated[
        str, typer.Option(metavar="trino|duckdb|postgres", help="Of which system the query is.")
    ] = "duckdb",
) -> None:
    """Print a stored model as one SQL query, or as one JSON document."""
    from gpuseg.outputs.models import load_model
    from gpuseg.outputs.scoring import model_document, scoring_query

    if form not in ("sql", "json"):
        raise SettingsError(f"format is '{form}'; expected sql or json")
    model = load_model(Path(settings.runs_dir), name)
    if form == "json":
        _emit_json(model_document(model))
    else:
        query = scoring_query(model, dialect, settings.input_table)
        _emit(lambda out: out.write(query))


AUDIENCE_PARAMETERS = (
    "audience_name", "foreign_key", "rowid_column", "output_table", "model_name",
    "remove_stale_segments", "warehouse", "runs_dir",
)  # fmt: skip


@audience_app.command("push")
@guarded
@with_settings(AUDIENCE_PARAMETERS)
def audience_push(
    settings: Settings,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the segments of an output table into a master segment; safe to repeat."""
    from gpuseg import pipeline
    from gpuseg.terminal import print_push, print_warnings

    pushed = (pipeline.plan_audience if dry_run else pipeline.push_audience)(settings)
    print_warnings(pushed.notes, sys.stderr)
    if as_json:
        _emit_json(pushed.as_dict())
    else:
        _emit(lambda out: print_push(pushed, out))


@app.command()
@guarded
def doctor(*, as_json: AsJson = False) -> None:
    """Say which backend would run here and why; check versions and the kernels."""
    from gpuseg.doctor import examine
    from gpuseg.terminal import print_examination

    found = examine()
    if as_json:
        _emit_json(found.as_dict())
    else:
        _emit(lambda out: print_examination(found, out))
    if not found.healthy:
        raise typer.Exit(GpusegError.exit_code)


@app.callback(invoke_without_command=True)
def version_or_command(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Print the version when asked; else leave the word to the command."""
    if version:
        sys.stdout.write(f"gpuseg {__version__}\n")
        raise typer.Exit
