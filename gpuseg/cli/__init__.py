"""The command line: parse, call, print, exit code. The only room that knows the terminal.

stdout carries the result (a short table for people, or one JSON object with ``--json``
and nothing else); stderr carries progress, warnings and errors.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gpuseg import __version__
from gpuseg.cli import audience, jobs, models

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes cut long option names and swallow "[default: 2]"
    help="Turn a table into segments, and say why each row is where it is.",
)
for command in jobs.COMMANDS:
    app.command()(command)
app.add_typer(models.app, name="models")
app.add_typer(audience.app, name="audience")
app.command()(jobs.doctor)


def main() -> None:
    """Run the command line; the entry point of the ``gpuseg`` script."""
    app()


@app.callback(invoke_without_command=True)
def version_or_command(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Print the version when asked; else leave the word to the command."""
    if version:
        sys.stdout.write(f"gpuseg {__version__}\n")
        raise typer.Exit
