"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from gpuseg.errors import SinkError


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it; an existing file is an error."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` at `path`: readers see the old content or the new one, never a mixture.

    Several writers may do so at once; the last one wins.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        write_file(beside, data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Wait until the disk has every file under `folder`, and their names."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in `folder`, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # some network file systems refuse to sync a folder; they give no such promise
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(what: Path) -> Iterator[None]:
    """Turn a failing disk into an error that names the place."""
    try:
        yield
    except OSError as error:
        raise SinkError(
            f"'{what}' cannot be written: {error.strerror or error}; check that the disk has "
            "space and that you may write there, then run again"
        ) from error
