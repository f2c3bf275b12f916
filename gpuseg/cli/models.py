"""The commands that look at stored models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuseg.cli.command import AsJson, emit, emit_json, guarded, with_settings
from gpuseg.cli.reporting import reporter
from gpuseg.errors import SettingsError
from gpuseg.settings import Settings

if TYPE_CHECKING:
    from gpuseg.outputs.republish import Republished

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at stored models, and change them."
)

Name = Annotated[str, typer.Argument(help="Name of the model.")]
ModelOnly = Annotated[
    bool, typer.Option("--model-only", help="Change the current model; leave the tables.")
]


@app.command("list")
@guarded
@with_settings(("runs_dir",))
def models_list(settings: Settings, *, as_json: AsJson = False) -> None:
    """List the stored models."""
    from gpuseg.outputs.models import describe_entry, list_models
    from gpuseg.outputs.publication import unfinished
    from gpuseg.terminal import print_models

    entries = list_models(Path(settings.runs_dir))
    reporter(settings.log_format).warn(unfinished(Path(settings.runs_dir)))
    if as_json:
        emit_json([describe_entry(entry) for entry in entries])
    else:
        emit(lambda out: print_models(entries, out))


@app.command("show")
@guarded
@with_settings(("runs_dir",))
def models_show(
    settings: Settings,
    name: Name,
    *,
    as_json: AsJson = False,
) -> None:
    """Show one stored model: clusters, columns, where it came from."""
    from gpuseg.outputs.models import describe, load_model
    from gpuseg.terminal import print_model

    facts = describe(load_model(Path(settings.runs_dir), name))
    if as_json:
        emit_json(facts)
    else:
        emit(lambda out: print_model(facts, out))


@app.command("rename")
@guarded
@with_settings(("runs_dir",))
def models_rename(
    settings: Settings,
    name: Name,
    cluster_id: Annotated[int, typer.Argument(help="Which segment.")],
    called: Annotated[str, typer.Argument(metavar="NEW_NAME", help="What to call it.")],
) -> None:
    """Call a segment of the current model something else."""
    from gpuseg.outputs.models import rename_segment

    model = rename_segment(Path(settings.runs_dir), name, cluster_id, called)
    called = next(s.name for s in model.segments if s.cluster_id == cluster_id)
    said = f"segment {cluster_id} of model '{name}' is '{called}'\n"
    emit(lambda out: out.write(said))


@app.command("export")
@guarded
@with_settings(("runs_dir", "input_table"))
def models_export(
    settings: Settings,
    name: Name,
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
        emit_json(model_document(model))
    else:
        query = scoring_query(model, dialect, settings.input_table)
        emit(lambda out: out.write(query))


@app.command("promote")
@guarded
@with_settings(("runs_dir", "warehouse"))
def models_promote(
    settings: Settings,
    name: Name,
    run_id: Annotated[str, typer.Argument(help="Which run; `models history` lists them.")],
    *,
    model_only: ModelOnly = False,
    as_json: AsJson = False,
) -> None:
    """Publish a run from its folder, such as one that the gate refused; its model is current."""
    from gpuseg.outputs.republish import promote_run

    done = promote_run(
        Path(settings.runs_dir),
        name,
        run_id,
        warehouse=settings.warehouse,
        model_only=model_only,
    )
    _show_republished(done, as_json)


@app.command("rollback")
@guarded
@with_settings(("runs_dir", "warehouse"))
def models_rollback(
    settings: Settings, name: Name, *, model_only: ModelOnly = False, as_json: AsJson = False
) -> None:
    """Go back to the published run before the current one, tables and model."""
    from gpuseg.outputs.republish import roll_back

    done = roll_back(
        Path(settings.runs_dir), name, warehouse=settings.warehouse, model_only=model_only
    )
    _show_republished(done, as_json)


@app.command("history")
@guarded
@with_settings(("runs_dir",))
def models_history(settings: Settings, name: Name, *, as_json: AsJson = False) -> None:
    """List the runs of a model: which are published, refused, rolled back, and why."""
    from gpuseg.outputs.history import run_history
    from gpuseg.terminal_models import print_history

    runs = run_history(Path(settings.runs_dir), name)
    if as_json:
        emit_json([run.as_dict() for run in runs])
    else:
        emit(lambda out: print_history(runs, out))


@app.command("diff")
@guarded
@with_settings(("runs_dir",))
def models_diff(
    settings: Settings,
    name: Name,
    run_a: Annotated[str, typer.Argument(help="The one run.")],
    run_b: Annotated[str, typer.Argument(help="The other run.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Compare two runs of a model: scores, segments, columns, settings, rows."""
    from gpuseg.outputs.comparison import compare_runs
    from gpuseg.terminal_models import print_difference

    found = compare_runs(Path(settings.runs_dir), name, run_a, run_b)
    if as_json:
        emit_json(found.as_dict())
    else:
        emit(lambda out: print_difference(found, out))


def _show_republished(done: Republished, as_json: bool) -> None:
    from gpuseg.terminal_models import print_republished

    if as_json:
        emit_json(done.as_dict())
    else:
        emit(lambda out: print_republished(done, out))
