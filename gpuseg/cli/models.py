"""The commands that look at stored models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gpuseg.cli.command import AsJson, emit, emit_json, guarded, with_settings
from gpuseg.errors import SettingsError
from gpuseg.settings import Settings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at stored models.")


@app.command("list")
@guarded
@with_settings(("runs_dir",))
def models_list(settings: Settings, *, as_json: AsJson = False) -> None:
    """List the stored models."""
    from gpuseg.outputs.models import describe_entry, list_models
    from gpuseg.outputs.publication import unfinished
    from gpuseg.terminal import print_models, print_warnings

    entries = list_models(Path(settings.runs_dir))
    print_warnings(unfinished(Path(settings.runs_dir)), sys.stderr)
    if as_json:
        emit_json([describe_entry(entry) for entry in entries])
    else:
        emit(lambda out: print_models(entries, out))


@app.command("show")
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
        emit_json(facts)
    else:
        emit(lambda out: print_model(facts, out))


@app.command("rename")
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
    emit(lambda out: out.write(said))


@app.command("export")
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
        emit_json(model_document(model))
    else:
        query = scoring_query(model, dialect, settings.input_table)
        emit(lambda out: out.write(query))
