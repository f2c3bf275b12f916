"""The log as JSON, one object a line, in the words of OpenTelemetry's log data model.

https://opentelemetry.io/docs/specs/otel/logs/data-model/ names the fields; here they are
written in lower case with underscores, as the model's own examples of JSON do not fix it.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from gpuseg import __version__
from gpuseg.outputs.json_safe import json_safe
from gpuseg.records import StageCost
from gpuseg.redaction import redact_text

#: Severity numbers of the data model.
SEVERITIES = {"DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}

#: Between two lines of progress of one stage.
PROGRESS_SECONDS = 10.0

_RESOURCE = {"service.name": "gpuseg", "service.version": __version__}


class JsonLog:
    """Writes lines; it is an observer of stages too, see `gpuseg.stages.Observer`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_progress = 0.0

    def write(self, severity: str, body: str, **attributes: Any) -> None:
        """Write one line.

        Parameters
        ----------
        severity
            A key of `SEVERITIES`.
        attributes
            What machines look at; those that are None are left out.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {name: value for name, value in attributes.items() if value is not None}
        line = {
            "timestamp": now,
            "severity_number": SEVERITIES[severity],
            "severity_text": severity,
            "body": redact_text(body),
            "resource": _RESOURCE,
            "attributes": json_safe(known),
        }
        self._stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()

    def started(self, stage: str) -> None:
        """Say that a stage begins."""
        self._last_progress = time.perf_counter()
        self.write("INFO", f"{stage} begins", event="stage.started", stage=stage)

    def progress(self, stage: str, fraction: float, n_rows: int | None) -> None:
        """Say how far a stage is, not too often."""
        now = time.perf_counter()
        if now - self._last_progress < PROGRESS_SECONDS or not 0 < fraction < 1:
            return
        self._last_progress = now
        self.write(
            "INFO", f"{stage} {fraction:.0%}", event="stage.progress", stage=stage,
            fraction=round(fraction, 4), rows=n_rows,
        )  # fmt: skip

    def finished(self, stage: str, cost: StageCost, detail: str) -> None:
        """Say what a stage took and what came out."""
        self.write(
            "INFO", f"{stage}: {detail}", event="stage.finished", stage=stage, fraction=1.0,
            seconds=round(cost.seconds, 4), peak_bytes=cost.peak_bytes,
        )  # fmt: skip

    def close(self) -> None:
        """Do nothing: every line is written at once."""


class JsonHandler(logging.Handler):
    """Brings what libraries log, and Python's warnings, into the same log."""

    _SEVERITIES = ((logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"))

    def __init__(self, log: JsonLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of the logging module."""
        severity = next((s for level, s in self._SEVERITIES if record.levelno >= level), "DEBUG")
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        attributes = {"event": "log", "logger": record.name, "exception.stacktrace": trace}
        self._log.write(severity, record.getMessage(), **attributes)
