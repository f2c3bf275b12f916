"""Publish a run so that a crash at any moment heals: a journal is written ahead.

``RUNS_DIR/<model>/.publishing.json`` is there while a run is being published. It names the
run, and from the moment before the first table appears also the places, with marks that tell
later which of them had appeared. Whoever works on the model next finds it and finishes what
was begun, from the rows that the run folder keeps. See docs/decisions/crashes.md.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gpuseg.errors import GpusegError, ModelError, UnsureError
from gpuseg.outputs.checkpoint import remove_checkpoint
from gpuseg.outputs.durable import replace_file, sync_folder, writing
from gpuseg.outputs.locking import ModelBusyError, is_busy, model_lock
from gpuseg.outputs.manifest import MANIFEST
from gpuseg.outputs.model_names import check_run_id, model_folder, refuse_link
from gpuseg.outputs.models import champion, promote
from gpuseg.outputs.run_folder import partial_of, read_kept_table
from gpuseg.records import Progress, no_progress
from gpuseg.tables import Location, Marks, Output, mark, publish, publishing

log = logging.getLogger("gpuseg")

JOURNAL = ".publishing.json"
_FORMAT_VERSION = 1


class Item(NamedTuple):
    """One table of a publication."""

    kind: str  # rows, or a result table
    location: Location
    append: bool
    marks: Marks


@dataclass(frozen=True)
class Entry:
    """What the journal says.

    Parameters
    ----------
    run_id
        The run that is being published.
    is_new
        Whether its run folder is nothing worth if its tables never appear.
    how
        Why it is published, for the history: see `promote`.
    items
        What is to appear; none while nothing can have appeared yet.
    """

    run_id: str
    is_new: bool
    how: str = "run"
    items: tuple[Item, ...] = ()


def publish_run(
    runs_dir: Path,
    name: str,
    run_id: str,
    outputs: Mapping[str, Output],
    *,
    complete: Callable[[], object] | None = None,
    how: str = "run",
    progress: Progress = no_progress,
) -> dict[str, str]:
    """Let the tables of a run appear and its model become the current one, all or nothing.

    The caller holds the model's lock, and has called `finish_publication` under it.

    Parameters
    ----------
    outputs
        ``rows`` or the name of a result table -> the table and its place; may be empty.
    complete
        Shows the folder of a new run; it is removed if nothing appears. None for a run that
        was there before.
    how
        See `promote`.

    Returns
    -------
    marks
        Result table -> what tells whether its place still holds what was published.

    Raises
    ------
    SettingsError, DataError, SinkError
        As `tables.publish`: nothing has appeared and the earlier model is current.
    UnsureError
        Nobody can tell whether it has; `finish_publication` finds out.
    """
    journal = model_folder(runs_dir, name) / JOURNAL
    entry = Entry(run_id, is_new=complete is not None, how=how)
    try:
        _write(journal, entry)
        if complete is not None:
            complete()
    except BaseException:
        _forget(journal, entry)
        raise
    back = partial(_forget, journal, entry)
    return _publish(runs_dir, name, entry, outputs, take_back=back, progress=progress)


def _publish(
    runs_dir: Path,
    name: str,
    entry: Entry,
    outputs: Mapping[str, Output],
    *,
    take_back: Callable[[], None],
    progress: Progress = no_progress,
) -> dict[str, str]:
    """Publish what the journal announces; items of the entry that are no outputs are there."""
    journal = model_folder(runs_dir, name) / JOURNAL
    there = tuple(item for item in entry.items if item.kind not in outputs)
    appeared = False
    left: dict[str, str] = {}

    def write_ahead(marks: Sequence[Marks]) -> None:
        left.update(zip(outputs, (marks_of.after for marks_of in marks), strict=True))
        coming = tuple(
            Item(kind, output.location, output.append, marks_of)
            for (kind, output), marks_of in zip(outputs.items(), marks, strict=True)
        )
        _write(journal, replace(entry, items=there + coming))

    def make_current() -> None:
        nonlocal appeared
        appeared = True  # from here on the run folder describes tables that are there
        promote(runs_dir, name, entry.run_id, how=entry.how)
        publishing.reached("promoted")
        remove_checkpoint(runs_dir, name)
        _remove(journal)

    try:
        publish(list(outputs.values()), first=write_ahead, then=make_current, progress=progress)
    except UnsureError as error:
        raise UnsureError(f"{error}; the next run of the model '{name}' puts it right") from None
    except BaseException:
        if not appeared:
            take_back()
        raise
    return left


def finish_publication(
    runs_dir: Path, name: str, *, warehouse: str | None = None
) -> tuple[str, ...]:
    """Finish the publication that a process of this model was cut off in, if there is one.

    The caller holds the model's lock.

    Parameters
    ----------
    warehouse
        Its address is used for tables that were in the same one; the journal has no password.

    Returns
    -------
    tuple of str
        What was done, in sentences for people; nothing when there was nothing to do.

    Raises
    ------
    SinkError
        If a place cannot be reached now; nothing was changed, and the journal stays.
    ModelError
        If the journal or the run folder is damaged.
    """
    folder = model_folder(runs_dir, name)
    entry = _read(folder / JOURNAL, warehouse)
    if entry is None:
        return ()
    if not entry.items and champion(runs_dir, name) == entry.run_id:
        _remove(folder / JOURNAL)
        said = [f"run {entry.run_id} was cut off when it was complete"]
    elif not entry.items:
        _forget(folder / JOURNAL, entry)
        said = [f"run {entry.run_id} was cut off before its tables appeared, and was taken back"]
    elif not (folder / entry.run_id / MANIFEST).is_file():
        _remove(folder / JOURNAL)
        places = ", ".join(item.location.display for item in entry.items)
        said = [f"run {entry.run_id} was cut off while {places} appeared, and its folder is gone"]
    else:
        said = _finished(runs_dir, name, entry)
    for sentence in said:
        log.warning("model '%s': %s", name, sentence)
    return tuple(said)


def heal(runs_dir: Path, name: str, *, warehouse: str | None = None) -> tuple[str, ...]:
    """Finish a publication that was cut off, for somebody who only reads the model.

    Whoever is publishing right now is left alone. For parameters and errors see
    `finish_publication`.
    """
    if not (model_folder(runs_dir, name) / JOURNAL).exists():
        return ()
    try:
        with model_lock(runs_dir, name):
            return finish_publication(runs_dir, name, warehouse=warehouse)
    except ModelBusyError:
        return ()


def unfinished(runs_dir: Path) -> tuple[str, ...]:
    """Say of which models a publication was cut off and waits to be finished."""
    names = sorted(journal.parent.name for journal in runs_dir.glob(f"*/{JOURNAL}"))
    return tuple(
        f"a run of the model '{name}' was cut off while its tables appeared; the next run of the "
        "model finishes that"
        for name in names
        if not is_busy(runs_dir, name)
    )


# -- healing -----------------------------------------------------------------------------


def _finished(runs_dir: Path, name: str, entry: Entry) -> list[str]:
    """Publish what had not appeared; leave alone what somebody else has changed since."""
    folder = model_folder(runs_dir, name)
    journal = folder / JOURNAL
    try:
        states = [(item, _state(item)) for item in entry.items]
        waiting = [item for item, state in states if state == "waits"]
        outputs = {item.kind: _output(folder / entry.run_id, item) for item in waiting}
        _publish(runs_dir, name, entry, outputs, take_back=lambda: _write(journal, entry))
    except UnsureError:
        raise
    except GpusegError as error:
        raise type(error)(
            f"run {entry.run_id} of the model '{name}' was cut off while its tables appeared, and "
            f"cannot be finished now: {error}; to leave the tables as they are, remove '{journal}'"
        ) from error
    published = [item.location.display for item in waiting]
    there = [item.location.display for item, state in states if state == "there"]
    said = [f"run {entry.run_id} was cut off while its tables appeared, and was finished now"]
    if published:
        said[0] += f": {', '.join(published)} published"
    if there:
        said[0] += f"; {', '.join(there)} had appeared"
    words = {
        "changed": "was changed by somebody else since; it was left as it is",
        "unknown": "may have its new rows or not, which cannot be told; it was left as it is",
    }
    said += [
        f"'{item.location.display}' {words[state]}" for item, state in states if state in words
    ]
    return said


def _state(item: Item) -> str:
    """Tell whether a table is there, still waits, or was changed by somebody else."""
    before, after = item.marks
    if not (before and after):
        # the system cannot tell: twice the same table is no harm, twice the same rows are
        return "unknown" if item.append else "waits"
    now = mark(item.location, append=item.append)
    if now == after:
        return "there"
    return "waits" if now == before else "changed"


def _output(run_dir: Path, item: Item) -> Output:
    return Output(item.location, read_kept_table(run_dir, item.kind), append=item.append)


def _forget(journal: Path, entry: Entry) -> None:
    """Take back a publication of which nothing has appeared."""
    # the folder first: without a journal it would look like a run that was published
    if entry.is_new:
        run_dir = journal.parent / entry.run_id
        for folder in (run_dir, partial_of(run_dir)):
            shutil.rmtree(refuse_link(folder), ignore_errors=True)
    _remove(journal)


# -- the file ----------------------------------------------------------------------------


def _write(journal: Path, entry: Entry) -> None:
    facts = {
        "format_version": _FORMAT_VERSION,
        "run_id": entry.run_id,
        "is_new": entry.is_new,
        "how": entry.how,
        "items": [
            {
                "kind": item.kind,
                "location": item.location.to_dict(),
                "append": item.append,
                "marks": item.marks,
            }
            for item in entry.items
        ],
    }
    with writing(journal):
        replace_file(journal, json.dumps(facts, indent=1).encode())


def _read(journal: Path, warehouse: str | None) -> Entry | None:
    try:
        facts: dict[str, Any] = json.loads(refuse_link(journal).read_bytes())
        if facts["format_version"] > _FORMAT_VERSION:
            raise ValueError("it was written by a newer gpuseg; upgrade")
        items = tuple(
            Item(
                str(item["kind"]),
                Location.from_dict(item["location"], warehouse=warehouse),
                bool(item["append"]),
                Marks(*map(str, item["marks"])),
            )
            for item in facts["items"]
        )
        return Entry(
            check_run_id(str(facts["run_id"])), bool(facts["is_new"]), str(facts["how"]), items
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise ModelError(
            f"'{journal}' is damaged ({error}): a run was cut off while its tables appeared; look "
            "whether they are as they should be, and remove that file"
        ) from error


def _remove(journal: Path) -> None:
    with writing(journal):
        journal.unlink(missing_ok=True)
        sync_folder(journal.parent)
