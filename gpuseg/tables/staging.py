"""Files that appear at once: written in a hidden folder beside, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from gpuseg.errors import SettingsError, SinkError

PREFIX = ".gpuseg-"

#: How long to wait for another process that writes in the same folder, and between two looks.
LOCK_SECONDS = 60.0
LOCK_PAUSE_SECONDS = 0.01
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class StagingFolder:
    """A hidden folder beside the outputs, on the same file system, gone when all is done.

    Its owner holds a lock on it. A folder whose lock is free was left behind by a process
    that died; whoever publishes next beside it removes it.
    """

    def __init__(self, parent: Path) -> None:
        remove_leftovers(parent)
        while True:
            self.path = parent / f"{PREFIX}{uuid.uuid4().hex[:12]}"
            self.path.mkdir(mode=0o700)  # rows are in it
            self._lock = os.open(self.path, os.O_RDONLY)
            # between the two calls somebody may have taken it for a leftover
            if _try_lock(self._lock) and self.path.exists():
                return
            os.close(self._lock)

    def close(self) -> None:
        """Remove the folder and what is left in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_leftovers(parent: Path) -> None:
    """Remove the staging folders of processes that are no more."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # its owner may be removing it just now
            lock = os.open(folder, os.O_RDONLY)
            try:
                if _try_lock(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


class FolderLock:
    """Nobody else adds to the files of a folder, or to a database in it, or replaces them.

    The lock is the system's own: it ends with the process, however that ends.

    Raises
    ------
    SinkError
        If somebody holds it for too long.
    """

    def __init__(self, folder: Path, wait_seconds: float = LOCK_SECONDS) -> None:
        self._lock = os.open(folder, os.O_RDONLY)
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(self._lock):
            if time.monotonic() > deadline:
                os.close(self._lock)
                raise SinkError(
                    f"another gpuseg has been writing in '{folder}' for {wait_seconds:.0f} "
                    "seconds; the previous tables stand; run again when it is done"
                )
            time.sleep(LOCK_PAUSE_SECONDS)

    def close(self) -> None:
        """Let others write."""
        os.close(self._lock)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass
class Swap:
    """One file or folder that takes its place, and can be put back."""

    staged: Path
    target: Path
    #: where the previous one waits until all is done; None when there was none
    backup: Path | None = None
    done: bool = False

    def prepare(self) -> None:
        """Bring the bytes to the disk and keep a second name of the previous file."""
        sync(self.staged)
        if self.target.is_dir():
            return  # a folder is exchanged, so that the staged name becomes its backup
        if self.target.exists():
            backup = self.staged.with_name(self.staged.name + ".previous")
            shutil.copymode(self.target, self.staged)
            try:
                os.link(self.target, backup)
            except OSError:  # some file systems know one name per file only
                shutil.copy2(self.target, backup)
            self.backup = backup

    def swap(self) -> None:
        """Take the place, in one step."""
        if self.target.is_dir():
            exchange(self.staged, self.target)
            self.backup = self.staged
        else:
            self.staged.rename(self.target)
        self.done = True
        _sync_one(self.target.parent)

    def undo(self) -> None:
        """Put the previous one back."""
        if not self.done:
            return
        if self.backup is None:
            shutil.rmtree(self.target) if self.target.is_dir() else self.target.unlink()
        elif self.backup.is_dir():
            exchange(self.backup, self.target)
        else:
            self.backup.rename(self.target)
        self.done = False


def sync(path: Path) -> None:
    """Wait until a file, or a folder and the files in it, are on the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            if entry.is_file():
                _sync_one(entry)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> None:
    """Let two folders change names in one step.

    Raises
    ------
    SinkError
        If this system cannot.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    if rename is None or rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        raise SinkError(
            f"folder '{other}' cannot be replaced in one step on this file system; write to a "
            ".parquet file, or to a folder that does not exist yet"
        )


def check_folder(target: Path) -> None:
    """Refuse a target whose folder is not there.

    Raises
    ------
    SettingsError
    """
    if not target.parent.is_dir():
        raise SettingsError(f"'{target}' cannot be written: there is no folder '{target.parent}'")
