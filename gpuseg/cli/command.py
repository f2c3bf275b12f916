"""How commands are made: options from the parameters, an exit code for every error, output."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from gpuseg.cli.reporting import Reporter, bring_in_logging, reporter_before
from gpuseg.errors import GpusegError, SinkError
from gpuseg.interrupts import ending_cleanly
from gpuseg.settings import PARAMETERS, Settings, base_type, resolve

if TYPE_CHECKING:
    from gpuseg.outputs.past_run import PastRun

INTERRUPTED = 130

CONFIG_HELP = "Read parameters from a YAML file, or from the notebook's task in a digdag .dig file."

MANIFEST_HELP = "Do a past run again: its run folder, or its manifest.json; options go before it."

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Map every error to its exit code; tracebacks are shown with ``--debug`` only."""

    def call(*, debug: bool = False, **options: Any) -> None:
        shown = reporter_before(options)
        bring_in_logging(shown, debug=debug)
        try:
            with ending_cleanly():
                command(**options)
        except GpusegError as error:
            _fail(shown, str(error), error.exit_code, debug)
        except KeyboardInterrupt as interrupt:
            said = str(interrupt) or "interrupted; nothing was published"
            _fail(shown, said, INTERRUPTED, debug)
        except MemoryError:
            _fail(shown, "out of memory; `gpuseg plan` says what each stage needs", 4, debug)
        except typer.Exit:
            raise
        except Exception as error:
            _fail(
                shown,
                f"unexpected {type(error).__name__}: {error}\nThis is a bug in gpuseg; run it "
                "again with --debug and report the traceback",
                GpusegError.exit_code,
                debug,
            )

    signature = inspect.signature(command, eval_str=True)
    return _dressed(
        call, command, [*signature.parameters.values(), _keyword("debug", Debug, False)]
    )


def with_settings(
    names: Iterable[str], *, past_runs: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these parameters; it receives them as `Settings`.

    Parameters
    ----------
    past_runs
        Whether they may come from the manifest of a past run, which is then given as `past`.
    """
    chosen = tuple(names)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def call(
            *, config: Path | None = None, from_manifest: Path | None = None, **options: Any
        ) -> None:
            given = {name: options.pop(name) for name in chosen}
            if from_manifest is None:
                command(_resolve(given, config), **options)
            else:
                past = _past_run(from_manifest)
                command(_resolve(given, config, past), past=past, **options)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        source = Annotated[Path | None, typer.Option("--config", help=CONFIG_HELP)]
        extra = [_keyword("config", source, None)]
        if past_runs:
            own = [parameter for parameter in own if parameter.name != "past"]
            again = Annotated[Path | None, typer.Option("--from-manifest", help=MANIFEST_HELP)]
            extra.append(_keyword("from_manifest", again, None))
        return _dressed(call, command, [*map(_option, chosen), *extra, *own])

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
        help=PARAMETERS[name].metadata["help"] + default_text(name),
        metavar=None if is_flag else _METAVARS[base_type(name)],
        show_default=False,
    )
    # everything else arrives as text: settings.py parses it, so that the command line,
    # the environment and a config file give the same message for the same mistake
    return _keyword(name, Annotated[bool | None if is_flag else str | None, option], None)


_METAVARS = {str: "TEXT", int: "INTEGER", float: "NUMBER", tuple: "A,B,…"}


def default_text(name: str) -> str:
    """Return what the help says of a parameter's default."""
    default = PARAMETERS[name].default
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return f" [default: {'' if default else 'no-'}{name.replace('_', '-')}]"
    return f" [default: {','.join(default) if isinstance(default, tuple) else default}]"


def _resolve(
    given: Mapping[str, Any], config: Path | None, past: PastRun | None = None
) -> Settings:
    from gpuseg.config import read_config

    content = read_config(config, environ=os.environ) if config else None
    if past is not None:
        return past.resolve(given, environ=os.environ, config=content)
    return resolve(given, environ=os.environ, config=content)


def _past_run(where: Path) -> PastRun:
    from gpuseg.outputs.past_run import read_past_run

    return read_past_run(where)


def _fail(shown: Reporter, message: str, exit_code: int, debug: bool) -> NoReturn:
    shown.fail(message, exit_code, traceback.format_exc() if debug else "")
    raise typer.Exit(exit_code)


def emit(show: Callable[[TextIO], Any]) -> None:
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


def emit_json(value: Any) -> None:
    """Write one JSON value to stdout; what is not a number is null."""
    from gpuseg.outputs.json_safe import json_safe

    text = json.dumps(json_safe(value), ensure_ascii=False, allow_nan=False)
    emit(lambda out: out.write(f"{text}\n"))
