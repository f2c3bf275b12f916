"""The command that brings segments into an audience."""

from __future__ import annotations

from typing import Annotated

import typer

from gpuseg.cli.command import AsJson, emit, emit_json, guarded, with_settings
from gpuseg.cli.reporting import reporter
from gpuseg.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Use the segments in Treasure Data's audiences.",
)

AUDIENCE_PARAMETERS = (
    "audience_name", "foreign_key", "rowid_column", "output_table", "model_name",
    "remove_stale_segments", "warehouse", "runs_dir",
)  # fmt: skip


@app.command("push")
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
    from gpuseg.terminal import print_push

    pushed = (pipeline.plan_audience if dry_run else pipeline.push_audience)(settings)
    reporter(settings.log_format).warn(pushed.notes)
    if as_json:
        emit_json(pushed.as_dict())
    else:
        emit(lambda out: print_push(pushed, out))
