"""Older runs go, so that a nightly job does not fill the disk.

What is current and what a rollback goes back to always stay, and so does everything that is
not a finished run of this model. A run is first renamed out of sight and then removed, so a
crash in the middle leaves no half of a run; the next night removes the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from gpuseg.errors import GpusegError, ModelError
from gpuseg.outputs.manifest import read_manifest
from gpuseg.outputs.model_names import RUN_ID, model_folder
from gpuseg.outputs.promotions import Champion, read_champion, standing
from gpuseg.outputs.run_folder import ROWS, remove_kept, table_files

_REMOVED = ".removed"


def finished_runs(runs_dir: Path, name: str) -> tuple[str, ...]:
    """Return the runs of a model whose folders are complete, from the oldest to the newest."""
    folder = model_folder(runs_dir, name)
    if not folder.is_dir():
        return ()
    found = (entry for entry in folder.iterdir() if RUN_ID.fullmatch(entry.name))
    return tuple(sorted(entry.name for entry in found if _is_run(entry, name)))


def rollback_run(runs_dir: Path, name: str, current: Champion | None) -> str | None:
    """Return the published run before the current one; None when there is none any more."""
    if current is None:
        return None
    there = set(finished_runs(runs_dir, name)) - {current.run_id}
    before = [run_id for run_id in standing(current.promotions) if run_id in there]
    return before[-1] if before else None


def prune_runs(runs_dir: Path, name: str, keep: int) -> tuple[str, ...]:
    """Remove the runs of a model that are older than the newest `keep`.

    Rows are kept for the current run, for the one that a rollback goes back to, and for
    those that were never published: they wait for somebody to look at them.

    Returns
    -------
    tuple of str
        Warnings: what could not be removed. Nothing that fails here fails a run.
    """
    try:
        current = read_champion(runs_dir, name)
        runs = finished_runs(runs_dir, name)
        needed = {current.run_id if current else None, rollback_run(runs_dir, name, current)}
    except (GpusegError, OSError) as error:
        return (f"older runs of the model '{name}' were not removed: {error}",)
    folder = model_folder(runs_dir, name)
    stale = [run_id for run_id in runs[:-keep] if run_id not in needed]
    published = {p.run_id for p in current.promotions} if current else set()
    without_rows = [r for r in runs if r in published and r not in needed and r not in stale]
    return (
        *_remove_runs(folder, stale),
        *_remove_rows(folder / run_id for run_id in without_rows),
    )


def _is_run(path: Path, name: str) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        facts = read_manifest(path)
    except ModelError:
        return False
    return facts["run_id"] == path.name and facts.get("model_name") == name


def _remove_runs(folder: Path, run_ids: Iterable[str]) -> Iterable[str]:
    for run_id in run_ids:
        try:
            (folder / run_id).rename(folder / f".{run_id}{_REMOVED}")
        except OSError as error:
            yield f"the older run '{folder / run_id}' was not removed: {error.strerror or error}"
    for hidden in folder.glob(f".*{_REMOVED}"):
        if hidden.is_symlink() or not RUN_ID.fullmatch(hidden.name[1 : -len(_REMOVED)]):
            continue
        try:
            shutil.rmtree(hidden)
        except OSError as error:
            yield f"the older run '{hidden}' was not removed: {error.strerror or error}"


def _remove_rows(run_dirs: Iterable[Path]) -> Iterable[str]:
    for run_dir in run_dirs:
        for path in table_files(run_dir, ROWS):
            try:
                remove_kept(path)
            except OSError as error:
                yield f"the rows in '{path}' were not removed: {error.strerror or error}"
