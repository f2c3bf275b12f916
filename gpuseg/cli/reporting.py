"""What goes to stderr: progress, warnings and errors, for people or as JSON lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gpuseg.errors import GpusegError
from gpuseg.redaction import redact_text

if TYPE_CHECKING:
    from gpuseg.observing.json_log import JsonLog
    from gpuseg.stages import Observer


class Reporter(Protocol):
    """Writes to stderr in one format, and nothing of another."""

    def observer(self) -> Observer:
        """Return what shows a run while it works."""

    def warn(self, warnings: Iterable[str]) -> None:
        """Write warnings."""

    def note(self, sentence: str) -> None:
        """Write something that is good to know."""

    def fail(self, message: str, exit_code: int, trace: str) -> None:
        """Write why the command ends; the trace of the error, or nothing."""


class TextReporter:
    """For people."""

    def observer(self) -> Observer:
        """Return a moving bar on a terminal, plain lines elsewhere."""
        from gpuseg.terminal import Watcher

        return Watcher(sys.stderr)

    def warn(self, warnings: Iterable[str]) -> None:
        """Write a line for each warning."""
        sys.stderr.writelines(f"warning: {warning}\n" for warning in warnings)

    def note(self, sentence: str) -> None:
        """Write a line."""
        sys.stderr.write(f"{sentence}\n")

    def fail(self, message: str, exit_code: int, trace: str) -> None:  # noqa: ARG002
        """Write the trace, and why the command ends."""
        # the rooms keep credentials out of their messages; this is for what they overlook
        sys.stderr.write(f"{trace}gpuseg: {redact_text(message)}\n")


class JsonReporter:
    """For machines: every line on stderr is one JSON object."""

    def __init__(self) -> None:
        from gpuseg.observing.json_log import JsonLog

        self._log: JsonLog = JsonLog(sys.stderr)

    def observer(self) -> Observer:
        """Return what writes a line for each stage."""
        return self._log

    def warn(self, warnings: Iterable[str]) -> None:
        """Write a line for each warning."""
        for warning in warnings:
            self._log.write("WARN", warning, event="warning")

    def note(self, sentence: str) -> None:
        """Write a line."""
        self._log.write("INFO", sentence, event="note")

    def fail(self, message: str, exit_code: int, trace: str) -> None:
        """Write why the command ends."""
        attributes: dict[str, Any] = {"exception.stacktrace": redact_text(trace) or None}
        self._log.write("ERROR", message, event="failed", exit_code=exit_code, **attributes)


def reporter(log_format: str) -> Reporter:
    """Return the reporter of a format."""
    return JsonReporter() if log_format == "json" else TextReporter()


def reporter_before(options: Mapping[str, Any]) -> Reporter:
    """Return the reporter that a command's options seem to ask for, before they are checked."""
    asked = options.get("log_format") or os.environ.get("GPUSEG_LOG_FORMAT")
    if asked is None and options.get("config") is not None:
        from gpuseg.config import read_config

        try:
            asked = read_config(Path(options["config"]), environ=os.environ).get("log_format")
        except GpusegError:  # it will be said
            asked = None
    return reporter(str(asked))


def bring_in_logging(shown: Reporter, *, debug: bool) -> None:
    """Write what libraries log, and with JSON also what Python warns of, as the rest."""
    level = logging.INFO if debug else logging.ERROR
    if isinstance(shown, TextReporter):
        logging.basicConfig(level=level, stream=sys.stderr, format="%(name)s: %(message)s")
        return
    from gpuseg.observing.json_log import JsonHandler, JsonLog

    logging.basicConfig(level=level, handlers=[JsonHandler(JsonLog(sys.stderr))], force=True)
    logging.captureWarnings(True)
