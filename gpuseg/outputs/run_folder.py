"""The folder of one run: built out of sight, shown when it is complete.

While a run works, its folder is ``RUNS_DIR/<model>/.<run_id>.partial``; at the end it is
renamed to ``<run_id>``. A crash therefore leaves nothing that looks like a run, and the
next run of the same model clears the remains away.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from gpuseg.errors import ModelError
from gpuseg.outputs.durable import sync_folder, sync_tree, write_file, writing
from gpuseg.outputs.locking import is_running
from gpuseg.outputs.manifest import MANIFEST, Manifest, manifest_bytes, manifest_dict
from gpuseg.outputs.model_names import model_folder
from gpuseg.records import Progress, no_progress
from gpuseg.tables import here
from gpuseg.tables.files import write_parquet

_OWNER = ".owner.json"

#: Every row with its ``cluster_id``, as published: a run can be published again from here.
ROWS = "rows"

#: Remains of a process on another machine are cleared when they are older than this.
_ABANDONED_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Use it in ``with``: what is not completed disappears.

    Parameters
    ----------
    run_id
        UTC second in which the run began and six random digits: ``20261123T223045Z-4f2a9c``.
    partial
        Where files are written until `complete`.
    path
        Where the folder will be found afterwards.
    """

    model_name: str
    run_id: str
    partial: Path
    path: Path

    @classmethod
    def create(cls, runs_dir: Path, model_name: str, *, now: datetime | None = None) -> Self:
        """Begin a run folder and clear away what crashed runs of this model left.

        Raises
        ------
        SettingsError
            If the name cannot be the name of a folder.
        ModelError
            If a symbolic link stands in its place.
        SinkError
            If the disk refuses.
        """
        parent = model_folder(runs_dir, model_name)
        with writing(parent):
            parent.mkdir(parents=True, exist_ok=True)
            clear_abandoned(parent)
            while True:
                run_id = _new_run_id(now or datetime.now(UTC))
                folder = cls(model_name, run_id, partial_of(parent / run_id), parent / run_id)
                try:
                    folder.partial.mkdir()
                except FileExistsError:  # two runs of one second drew the same digits
                    continue
                if folder.path.exists():
                    folder.partial.rmdir()
                    continue
                break
            owner = {"host": socket.gethostname(), "pid": os.getpid()}
            try:
                write_file(folder.partial / _OWNER, json.dumps(owner).encode())
            except BaseException:
                folder.discard()
                raise
        return folder

    def write_table(self, name: str, table: pa.Table, progress: Progress = no_progress) -> Path:
        """Write ``tables/<name>.parquet`` and return its path for now.

        Rows that lie on workers are written by them, as a folder of parts of that name.
        Types that Parquet cannot hold, such as intervals, go into an ``.arrow`` file.
        """
        path, instead = table_files(self.partial, name)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            try:
                if hasattr(table, "write_parts"):  # rows that lie elsewhere: a folder of parts
                    path.mkdir()
                    table.write_parts(path)
                else:
                    write_parquet(path, table, compression="zstd", progress=progress)
            except pa.ArrowNotImplementedError:
                remove_kept(path)
                path = _write_arrow(instead, here(table))
        return path

    def write_rows(self, rows: pa.Table, progress: Progress = no_progress) -> Path:
        """Write ``tables/rows.parquet``, or ``rows.arrow`` where Parquet would change a type."""
        path = self.write_table(ROWS, rows, progress)
        if path.suffix == ".arrow" or kept_schema(path).equals(rows.schema):
            return path
        with writing(path):
            remove_kept(path)
            return _write_arrow(table_files(self.partial, ROWS)[1], here(rows))

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file and return its path for now."""
        path = self.partial / name
        with writing(path):
            write_file(path, f"{text}\n".encode())
        return path

    def write_manifest(self, manifest: Manifest) -> Path:
        """Write ``manifest.json``, without secrets."""
        path = self.partial / MANIFEST
        with writing(path):
            write_file(path, manifest_bytes(manifest_dict(manifest)))
        return path

    def complete(self) -> Path:
        """Show the folder under its name, once the disk has all of it.

        Raises
        ------
        SinkError
            If the disk refuses; the folder then stays out of sight.
        """
        with writing(self.path):
            sync_tree(self.partial)
            self.partial.rename(self.path)
            sync_folder(self.path.parent)
        # only now: remains without an owner would be kept for a day
        with contextlib.suppress(OSError):
            (self.path / _OWNER).unlink()
        return self.path

    def discard(self) -> None:
        """Remove what was written; a completed folder stays."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def partial_of(run_dir: Path) -> Path:
    """Return where a run's folder is until it is complete."""
    return run_dir.with_name(f".{run_dir.name}.partial")


def _write_arrow(path: Path, table: pa.Table) -> Path:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=options) as writer,
    ):
        writer.write_table(table)
    return path


def table_files(run_dir: Path, name: str) -> tuple[Path, Path]:
    """Return where a table of a run is: in the first of these files, or in the second."""
    folder = run_dir / "tables"
    return folder / f"{name}.parquet", folder / f"{name}.arrow"


def has_table(run_dir: Path, name: str) -> bool:
    """Whether a run still has a table."""
    return any(path.exists() for path in table_files(run_dir, name))


def kept_schema(path: Path) -> pa.Schema:
    """Return the columns of a Parquet file, or of a folder of parts."""
    return pq.read_schema(_parts(path)[0])


def remove_kept(path: Path) -> None:
    """Remove a table of a run, a file or a folder of parts, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _parts(path: Path) -> list[Path]:
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]


def read_kept_table(run_dir: Path, name: str) -> pa.Table:
    """Return a table of a run as it was written.

    Raises
    ------
    ModelError
        If it is not there or damaged.
    """
    parquet, arrow = table_files(run_dir, name)
    try:
        if parquet.exists():
            return pa.concat_tables([_read(part) for part in _parts(parquet)])
        with pa.OSFile(str(arrow)) as source:
            return pa.ipc.open_file(source).read_all()
    except FileNotFoundError as error:
        raise ModelError(f"'{run_dir}' does not keep the table '{name}'") from error
    except (OSError, pa.ArrowException) as error:
        raise ModelError(f"the table '{name}' in '{run_dir}' is damaged") from error


def _read(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read()


def clear_abandoned(parent: Path) -> None:
    """Remove the unfinished folders of runs that are gone."""
    for partial in parent.glob(".*.partial"):
        if not partial.is_symlink() and _is_abandoned(partial):
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)


def _new_run_id(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _is_abandoned(partial: Path) -> bool:
    try:
        age_seconds = time.time() - partial.stat().st_mtime
        owner = json.loads((partial / _OWNER).read_bytes())
        on_this_host = owner["host"] == socket.gethostname()
        pid = int(owner["pid"])
    except FileNotFoundError:  # just begun or just finished by another process
        return partial.exists() and age_seconds > _ABANDONED_SECONDS
    except (OSError, ValueError, KeyError, TypeError):
        return age_seconds > _ABANDONED_SECONDS
    # Process numbers mean nothing elsewhere, and on Windows asking would be a signal.
    if not on_this_host or os.name == "nt":
        return age_seconds > _ABANDONED_SECONDS
    return not is_running(pid)
