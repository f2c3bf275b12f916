"""Place rows as they arrive: those of a table that its output does not hold yet.

A round asks what is new, places it with the current model, and appends it. Whether a row is
new is asked once more in the very transaction (for files: under the lock) that adds it, so
each row is placed exactly once, whoever else watches and whenever a process dies; nothing
has to be remembered from round to round. See docs/decisions/watching.md.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gpuseg import pipeline
from gpuseg.errors import SettingsError, SinkError, SourceError, TableNotFoundError
from gpuseg.interrupts import SIGNALS
from gpuseg.outputs.model_names import model_folder
from gpuseg.outputs.models import StoredModel, champion, load_model
from gpuseg.outputs.publication import JOURNAL, heal
from gpuseg.outputs.results import CLUSTER_COLUMN, check_names_are_free
from gpuseg.outputs.reuse import required_model
from gpuseg.places import this_machine
from gpuseg.records import Segmentation, Table
from gpuseg.settings import Settings
from gpuseg.stages import Stages
from gpuseg.tables import Location, Newness, Output, locate, publish, read_newcomers, stamp
from gpuseg.tables.duckdb_file import keep_warm
from gpuseg.tables.input import csv_options, input_location

#: How long a round waits for a run of the same model that is publishing its tables.
PATIENCE_SECONDS = 30.0

#: While a source is down, pauses double up to this many seconds.
LONGEST_PAUSE_SECONDS = 300.0

STOPPED = "stopped between two rounds; all rows that were placed are in the output"

CUT_OFF = "cut off within a round; its rows are all in the output, or none of them"

#: Called with a sentence for people.
Say = Callable[[str], None]


class Round(NamedTuple):
    """What one look brought.

    Parameters
    ----------
    run_id
        The run whose model placed the rows.
    n_rows
        Rows that were new, and are in the output now.
    cluster_sizes
        How many of the rows that were looked at fell into each segment, by its id; of these
        another watcher may have brought some first.
    warnings
        Sentences for people, also where nothing was placed.
    """

    model_name: str
    run_id: str
    output_table: str
    n_rows: int
    cluster_sizes: dict[int, int]
    warnings: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        sizes = {str(cluster): size for cluster, size in self.cluster_sizes.items()}
        return self._asdict() | {"cluster_sizes": sizes, "unchanged": self.n_rows == 0}

    @property
    def summary(self) -> str:
        """The round in one line."""
        rows = "row" if self.n_rows == 1 else "rows"
        return (
            f"{self.model_name}: {self.n_rows:,} new {rows} placed in {self.output_table} "
            f"({self.seconds:.1f} s)"
        )


class _OvertakenError(SinkError):
    """The model was replaced while it placed rows, or is being replaced now."""


class Watch:
    """Looks for new rows and places them, a round at a time; keeps nothing on disk.

    Raises
    ------
    SettingsError
        If the settings do not name input, output, model and what tells that a row is new.
    ModelError
        If there is no such model.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runs_dir = Path(settings.runs_dir)
        self._new = _newness(settings)
        self._source, self._output = _places(settings)
        if "duckdb" in (self._source.kind, self._output.kind):
            keep_warm()
        self._place = this_machine(settings)
        self._model = required_model(settings)
        #: stamps of both tables, and the model, when a round found nothing new
        self._nothing_new_at: Any = None

    def round(self) -> Round:
        """Place the rows that are new.

        Raises
        ------
        GpusegError
            As `pipeline.assign`. What was not published is found again by the next round.
        """
        begin = time.perf_counter()
        until = time.monotonic() + PATIENCE_SECONDS
        healed = heal(self._runs_dir, self._model.name, warehouse=self._settings.warehouse)
        while True:
            try:
                return self._round(begin, healed)
            except _OvertakenError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.05)

    def _round(self, begin: float, healed: tuple[str, ...]) -> Round:
        seen = self._look()
        if seen is not None and seen == self._nothing_new_at:
            return self._ended(begin, 0, healed)
        found = read_newcomers(
            self._source, self._output, self._new, csv=csv_options(self._settings)
        )
        warnings = healed + _left_out(found.n_untold, found.n_repeated, self._new)
        if not found.rows.num_rows:
            self._nothing_new_at = seen
            return self._ended(begin, 0, warnings)
        rows = Table(self._source.display, found.rows)
        check_names_are_free(rows, row_scores=self._settings.row_scores)
        model = self._current_model()
        result = pipeline.place_rows(self._settings, self._place, rows, model, Stages())
        [n_rows] = publish(
            [Output(self._output, result.table, append=True, new=self._new)],
            last_look=self._still_current,
        )
        return self._ended(begin, n_rows, warnings + result.warnings, _sizes(result))

    def _look(self) -> Any:
        """Return what changes when there may be something new; None where only SQL can tell."""
        try:
            stamps = stamp(self._source), stamp(self._output)
        except OSError:  # reading will say what is wrong
            return None
        return None if None in stamps else stamps

    def _current_model(self) -> StoredModel:
        run_id = champion(self._runs_dir, self._model.name)
        if run_id is not None and run_id != self._model.run_id:
            self._model = load_model(self._runs_dir, self._model.name, run_id)
        return self._model

    def _still_current(self) -> None:
        """Refuse to add rows to tables of a newer model than the one that placed them."""
        name = self._model.name
        is_publishing = (model_folder(self._runs_dir, name) / JOURNAL).exists()
        if is_publishing or champion(self._runs_dir, name) != self._model.run_id:
            raise _OvertakenError(
                f"a run of the model '{name}' is publishing its tables; no row was placed"
            )

    def _ended(
        self,
        begin: float,
        n_rows: int,
        warnings: tuple[str, ...] = (),
        sizes: dict[int, int] | None = None,
    ) -> Round:
        return Round(
            model_name=self._model.name,
            run_id=self._model.run_id,
            output_table=self._output.display,
            n_rows=n_rows,
            cluster_sizes=sizes or {},
            warnings=warnings,
            seconds=time.perf_counter() - begin,
        )


def watch(
    settings: Settings, interval_seconds: float, *, placed: Callable[[Round], None], say: Say
) -> None:
    """Place new rows again and again, until somebody stops it.

    Parameters
    ----------
    placed
        Called after each round that placed rows.
    say
        Called with warnings, and when a source or sink is down or there again, once each.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C and SIGTERM: between two rounds; the second one ends it at once.
    GpusegError
        If the input, the model or the settings are at fault.
    """
    watching = Watch(settings)
    troubles, n_failures = _Troubles(say), 0
    # what is not there at all is a mistake at first; later it may be about to be made anew
    passing: tuple[type[Exception], ...] = (SourceError, SinkError)
    with _Stop.on_signals() as stop:
        while True:
            try:
                found = watching.round()
            except passing as error:
                n_failures += 1
                troubles.came(str(error))
            else:
                n_failures = 0
                passing = (SourceError, SinkError, TableNotFoundError)
                troubles.went()
                troubles.warned(found.warnings)
                if found.n_rows:
                    placed(found)
            stop.sleep(pause_seconds(interval_seconds, n_failures))


def pause_seconds(interval_seconds: float, n_failures: int) -> float:
    """Return how long to wait after so many failures in a row.

    Examples
    --------
    >>> [pause_seconds(10, n) for n in (0, 1, 2, 3, 50)]
    [10, 20.0, 40.0, 80.0, 300.0]
    >>> pause_seconds(3600, 4)
    3600
    """
    if not n_failures:
        return interval_seconds
    longest = max(LONGEST_PAUSE_SECONDS, interval_seconds)
    return min(max(interval_seconds, 1.0) * 2.0 ** min(n_failures, 20), longest)


class _Troubles:
    """Says things once, and not every round."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._trouble: str | None = None
        self._warnings: tuple[str, ...] = ()

    def came(self, trouble: str) -> None:
        """Say what is wrong, and no more until it is over."""
        if self._trouble is None:
            self._say(f"{trouble} (it is tried again, with growing pauses)")
        self._trouble = trouble

    def went(self) -> None:
        """Say that it is over."""
        if self._trouble is not None:
            self._say("it works again")
        self._trouble = None

    def warned(self, warnings: tuple[str, ...]) -> None:
        """Pass on warnings that the round before did not have."""
        for warning in warnings:
            if warning not in self._warnings:
                self._say(warning)
        self._warnings = warnings


class _Stop:
    """Ctrl-C and SIGTERM, put off until no round is under way."""

    def __init__(self) -> None:
        self._asked = self._asleep = False

    @classmethod
    @contextmanager
    def on_signals(cls) -> Iterator[_Stop]:
        """Listen while the block runs, to the signals that the process was not told to ignore."""
        stop = cls()
        is_main = threading.current_thread() is threading.main_thread()
        heard = [n for n in SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, stop._came) for number in heard if is_main}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _came(self, _number: int, _frame: Any) -> None:
        if self._asleep or self._asked:
            raise KeyboardInterrupt(STOPPED if self._asleep else CUT_OFF)
        self._asked = True

    def sleep(self, seconds: float) -> None:
        """Wait; end instead when that was asked for."""
        self._asleep = True
        if self._asked:
            raise KeyboardInterrupt(STOPPED)
        time.sleep(seconds)
        self._asleep = False


def _newness(settings: Settings) -> Newness:
    if settings.rowid_column is None and settings.watermark_column is None:
        raise SettingsError(
            "what tells that a row is new? give --rowid-column (a column that identifies a row), "
            "--watermark-column (one that grows with each new row), or both"
        )
    return Newness(settings.rowid_column, settings.watermark_column)


def _places(settings: Settings) -> tuple[Location, Location]:
    """Locate input and output, which must be two tables."""
    if settings.input_query is not None:
        raise SettingsError("gpuseg watch looks at a table: give --input-table, no input_query")
    if settings.output_table is None:
        raise SettingsError("nowhere to put the rows: give --output-table (db.table or a file)")
    source = input_location(settings)
    output = locate(settings.output_table, warehouse=settings.warehouse)
    if output.overlaps(source):
        raise SettingsError(
            f"output_table '{output.display}' lies in the input, whose rows must stay what they "
            "are; give it another place"
        )
    return source, output


def _left_out(n_untold: int, n_repeated: int, new: Newness) -> tuple[str, ...]:
    warnings = []
    if n_untold:
        warnings.append(
            f"rows without a value of '{new.rowid or new.watermark}' are not placed, because they "
            f"cannot be told from others: {n_untold:,}"
        )
    if n_repeated:
        which = f"has the highest '{new.watermark}'" if new.watermark else "comes first"
        warnings.append(
            f"rows whose '{new.rowid}' another new row has too are not placed (the one that "
            f"{which} is): {n_repeated:,}"
        )
    return tuple(warnings)


def _sizes(result: Segmentation) -> dict[int, int]:
    counts = result.table[CLUSTER_COLUMN].value_counts().to_pylist()
    return {int(count["values"]): int(count["counts"]) for count in counts}
