"""A run's figures for Prometheus: a file for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/ defines the format. The file is
replaced as a whole. A run that fails or is refused keeps the figures of the last one that was
published, so that alerts can ask how old they are.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gpuseg.errors import GateRefusedError, GpusegError, SettingsError
from gpuseg.outputs.durable import replace_file
from gpuseg.records import Segmentation

INTERRUPTED = 130
OUT_OF_MEMORY = 4

#: Metric -> what it says; all of them are gauges, with the label ``model``.
METRICS: Mapping[str, str] = {
    "gpuseg_run_rows": "Rows of the table that was segmented.",
    "gpuseg_run_n_clusters": "Number of segments.",
    "gpuseg_run_silhouette": "Mean silhouette of the segments, -1 to 1.",
    "gpuseg_run_churn": "Share of the rows known before that changed their segment, 0 to 1.",
    "gpuseg_run_max_psi": "Population stability index of the column that moved most.",
    "gpuseg_run_seconds": "Time that each stage took.",
    "gpuseg_run_peak_bytes": "Largest resident memory of the process.",
    "gpuseg_run_warnings": "Warnings that the run gave.",
    "gpuseg_run_exit_code": "How the last run ended: 0 done, 2 bad input, 3 refused, 4 failed, …",
    "gpuseg_run_last_success_timestamp_seconds": "When a run was last published, Unix time.",
    "gpuseg_run_last_refused_timestamp_seconds": "When a gate last refused a run, Unix time.",
    "gpuseg_run_last_failure_timestamp_seconds": "When a run last failed, Unix time.",
}

_LINE = re.compile(r"(?P<metric>[a-z_]+)\{(?P<labels>.*)\} (?P<value>\S+)")


class Sample(NamedTuple):
    """What tells one figure from others."""

    metric: str
    labels: str  # as they stand in the file


Samples = dict[Sample, float]


@contextmanager
def measured(metrics_file: str | None, model_name: Callable[[], str]) -> Iterator[Meter]:
    """Write a run's exit code when it does not come to a result; else `Meter.done` is called.

    Parameters
    ----------
    model_name
        Called where there is a file to write; it may raise what the run would raise.

    Raises
    ------
    SettingsError
        Before the run, if the file cannot be: its folder is not there, or it is one.
    """
    meter = Meter(metrics_file, model_name() if metrics_file is not None else "")
    try:
        yield meter
    except BaseException as error:
        meter.failed(exit_code_of(error))
        raise


class Meter:
    """Knows the file of a model's figures."""

    def __init__(self, metrics_file: str | None, model_name: str) -> None:
        self._path = None if metrics_file is None else Path(metrics_file)
        self._model = model_name
        #: why the figures could not be written; a run is not lost for that
        self.problems: tuple[str, ...] = ()
        if self._path is not None and (self._path.is_dir() or not self._path.parent.is_dir()):
            raise SettingsError(
                f"metrics_file '{self._path}' cannot be written: it is a folder, or there is no "
                f"folder '{self._path.parent}'"
            )

    def done(self, result: Segmentation) -> None:
        """Write what a run brought that was published, or that found nothing changed."""
        figures = {
            "rows": float(len(result.labels)),
            "n_clusters": float(result.n_clusters),
            "silhouette": result.silhouette,
            "peak_bytes": float(max((c.peak_bytes for c in result.stages.values()), default=0)),
            "warnings": float(len(result.warnings)),
        }
        change = getattr(result, "change", None)
        if change is not None:
            figures |= {"churn": change.churn, "max_psi": change.max_psi}
        samples = {
            self._sample(f"gpuseg_run_{name}"): value
            for name, value in figures.items()
            if value is not None
        }
        for stage, cost in result.stages.items():
            samples[self._sample("gpuseg_run_seconds", stage=stage)] = cost.seconds
        self._write(samples, 0, "success")

    def failed(self, exit_code: int) -> None:
        """Write that a run ended without a result; figures of the last one stay."""
        what = "refused" if exit_code == GateRefusedError.exit_code else "failure"
        self._write(self._earlier(), exit_code, what)

    def _write(self, samples: Samples, exit_code: int, what: str) -> None:
        if self._path is None:
            return
        moments = {s: v for s, v in self._earlier().items() if s.metric.endswith("_seconds")}
        moments = {s: v for s, v in moments.items() if "timestamp" in s.metric}
        now = self._sample(f"gpuseg_run_last_{what}_timestamp_seconds")
        code = self._sample("gpuseg_run_exit_code")
        everything = samples | moments | {now: float(round(time.time())), code: float(exit_code)}
        try:
            replace_file(self._path, exposition(everything).encode())
            self._path.chmod(0o644)  # node_exporter is another user
        except OSError as error:
            self.problems = (f"metrics_file '{self._path}' was not written: {error.strerror}",)

    def _sample(self, metric: str, **labels: str) -> Sample:
        pairs = {"model": self._model, **labels}
        return Sample(metric, ",".join(f'{k}="{_escaped(v)}"' for k, v in pairs.items()))

    def _earlier(self) -> Samples:
        """Return the figures that stand in the file, of this model only."""
        if self._path is None:
            return {}
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return {}
        own = self._sample("").labels
        found = (_LINE.fullmatch(line) for line in text.split("\n"))
        return {
            Sample(match["metric"], match["labels"]): float(match["value"])
            for match in found
            if match and match["metric"] in METRICS and f"{match['labels']},".startswith(f"{own},")
        }


def exposition(samples: Samples) -> str:
    """Return figures in the text format of Prometheus, those of one metric together."""
    lines = []
    for metric, text in METRICS.items():
        own = {sample: value for sample, value in samples.items() if sample.metric == metric}
        if own:
            lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge"]
            lines += [f"{metric}{{{sample.labels}}} {value!r}" for sample, value in own.items()]
    return "".join(f"{line}\n" for line in lines)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code that an error leads to."""
    if isinstance(error, GpusegError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return OUT_OF_MEMORY if isinstance(error, MemoryError) else GpusegError.exit_code


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
