"""Files that stand in for memory: mapped, and without a name from the first moment on.

A file whose name was removed lives as long as it is open or mapped. So nothing is left
behind, however a process ends, and nobody else can read what is in it.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from gpuseg.errors import SinkError
from gpuseg.memory.budget import in_units

#: Environment variable that names the folder; else that for temporary files.
FOLDER_VARIABLE = "GPUSEG_SCRATCH"

#: What is left free on the disk for others.
SPARE_BYTES = 256 << 20

#: Of the file system type, as ``statfs`` tells it: such a folder is memory itself.
_TMPFS_NAMES = ("tmpfs", "ramfs")


def scratch_folder() -> Path:
    """Return the folder for scratch files: not one that is kept in memory, if there is another.

    Raises
    ------
    SinkError
        If ``GPUSEG_SCRATCH`` names no folder.
    """
    asked = os.environ.get(FOLDER_VARIABLE)
    if asked:
        if not Path(asked).is_dir():
            raise SinkError(f"{FOLDER_VARIABLE} is '{asked}', which is no folder; make it first")
        return Path(asked)
    usual = Path(tempfile.gettempdir())
    on_disk = Path("/var/tmp")  # noqa: S108 - files there have no name
    if _is_memory(usual) and on_disk.is_dir() and not _is_memory(on_disk):
        return on_disk
    return usual


def open_scratch(folder: Path, n_bytes: int) -> BinaryIO:
    """Open a nameless file, to which so many bytes are going to be written.

    Raises
    ------
    SinkError
        If the disk has no room for them, or refuses.
    """
    try:
        check_space(folder, n_bytes)
        return tempfile.TemporaryFile(dir=folder, prefix="gpuseg-", buffering=0)
    except OSError as error:
        raise SinkError(f"no scratch file can be made in '{folder}': {error.strerror}") from None


def check_space(folder: Path, n_bytes: int) -> None:
    """Refuse what would fill the disk.

    Raises
    ------
    SinkError
        Says what is needed and what there is.
    """
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    if n_bytes > free:
        raise SinkError(
            f"'{folder}' has {in_units(max(free, 0))} free for scratch files, {in_units(n_bytes)} "
            f"more are needed; make room, or name a folder on another disk in {FOLDER_VARIABLE}"
        )


def mapped(file: BinaryIO, n_bytes: int) -> mmap.mmap:
    """Map a scratch file of so many bytes, and close it: the map keeps it.

    Raises
    ------
    SinkError
        If the disk refuses.
    """
    try:
        with file:
            reserve = getattr(os, "posix_fallocate", None)
            if reserve is not None and os.fstat(file.fileno()).st_size < n_bytes:
                reserve(file.fileno(), 0, n_bytes)  # a full disk fails here, not later
            elif reserve is None:
                os.ftruncate(file.fileno(), n_bytes)
            return mmap.mmap(file.fileno(), n_bytes)
    except OSError as error:
        raise SinkError(f"a scratch file could not be filled: {error.strerror}") from None


def _is_memory(folder: Path) -> bool:
    """Whether a folder lies in memory, as ``/proc/mounts`` tells."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return False
    kinds = {fields[1]: fields[2] for fields in map(str.split, lines) if len(fields) > 2}
    place = folder.resolve()
    home = next((str(p) for p in (place, *place.parents) if str(p) in kinds), "")
    return kinds.get(home) in _TMPFS_NAMES
