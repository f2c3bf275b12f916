"""One run of a model at a time: a lock that dies with its process.

``RUNS_DIR/<model>/.lock`` is locked by the operating system (``flock``), which lets go when
the process ends, however it ends. The file says who holds it. Where another host may share
the folder, or the file system knows no locks, the holder also touches the file every few
seconds: one that is not touched any more belongs to nobody. See docs/decisions/crashes.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from gpuseg.errors import SinkError
from gpuseg.outputs.durable import writing
from gpuseg.outputs.model_names import model_folder, refuse_link

log = logging.getLogger("gpuseg")

LOCK = ".lock"

#: The holder touches its lock so often; one that was not touched for so long is nobody's.
BEAT_SECONDS = 2.0
SILENT_SECONDS = 10.0

#: What the system says where a file cannot be locked at all.
_NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}


class Holder(NamedTuple):
    """Who holds a lock."""

    host: str
    pid: int
    since: str  # UTC, ISO 8601

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this host."""
        return self.host == socket.gethostname()


class ModelBusyError(SinkError):
    """Another process works on the same model."""


@contextmanager
def model_lock(runs_dir: Path, name: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Be the only one who changes a model and its tables, on this host and on others.

    It is not for two blocks inside each other: the inner one would wait for the outer one.

    Parameters
    ----------
    wait_seconds
        How long to wait for another one to finish.

    Raises
    ------
    ModelBusyError
        If another one works on the model; nothing was written.
    SettingsError, ModelError
        If the name cannot be the name of a model, or a link stands in its place.
    SinkError
        If the disk refuses.
    """
    folder = model_folder(runs_dir, name)
    path = refuse_link(folder / LOCK)
    made = [place for place in (folder, runs_dir, *runs_dir.parents) if not place.exists()]
    until = time.monotonic() + wait_seconds
    with writing(path):
        while (descriptor := _taken(path)) is None:
            if time.monotonic() >= until:
                raise ModelBusyError(_busy(name, path))
            time.sleep(min(0.2, max(0.0, until - time.monotonic())))
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(descriptor, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        # removed while it is locked: who waits for this very file sees that it is gone
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
        for place in made:  # a run that came to nothing leaves nothing
            with contextlib.suppress(OSError):
                place.rmdir()


def is_busy(runs_dir: Path, name: str) -> bool:
    """Tell whether somebody works on the model right now."""
    try:
        with model_lock(runs_dir, name):
            return False
    except ModelBusyError:
        return True


def _taken(path: Path) -> int | None:
    """Return a descriptor of the lock file, which is now ours, or None."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the holder before removed the empty folder just now
            continue
        try:
            locked = _try_lock(descriptor)
            if locked is False:
                os.close(descriptor)
                return None
            if not _is_still(path, descriptor):
                os.close(descriptor)
                continue
            if _is_held(path, locked is not None):
                os.close(descriptor)
                return None
            holder = _sign(descriptor)
            if locked is None and not _is_ours(path, holder):
                os.close(descriptor)
                return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _try_lock(descriptor: int) -> bool | None:
    """Lock a file; False when another has, None where there is no such thing."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to this file, rather than to nothing or a newer one."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_held(path: Path, locked: bool) -> bool:
    """Whether the one who signed the file is still there, for all that can be known."""
    holder = read_holder(path)
    if holder is None:
        return False
    if holder.is_here:
        # this host's lock would have been refused if its holder were alive
        alive = not locked and holder.pid != os.getpid() and is_running(holder.pid)
    else:
        alive = _beats(path)
    if not alive:
        log.warning("the lock of process %d on %s is stale: taken over", holder.pid, holder.host)
    return alive


def _beats(path: Path) -> bool:
    """Watch a lock for as long as its holder may be silent."""
    first = _touched(path)
    until = time.monotonic() + SILENT_SECONDS
    while time.monotonic() < until:
        time.sleep(min(0.25, SILENT_SECONDS / 4))
        if _touched(path) != first:
            return True
    return False


def _touched(path: Path) -> int | None:
    """Return when a file was touched; opened anew, because network file systems remember."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _sign(descriptor: int) -> Holder:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    holder = Holder(socket.gethostname(), os.getpid(), now)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder._asdict()).encode(), 0)
    return holder


def _is_ours(path: Path, holder: Holder) -> bool:
    """Whether nobody else has signed at the same moment, where there are no locks."""
    time.sleep(BEAT_SECONDS / 4)
    return read_holder(path) == holder


def is_running(pid: int) -> bool:
    """Tell whether there is a process of this number on this host."""
    if os.name == "nt":  # asking would be a signal there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def read_holder(path: Path) -> Holder | None:
    """Return who signed a lock file; None when nobody has."""
    try:
        facts = json.loads(path.read_bytes()[:10_000])
        return Holder(str(facts["host"]), int(facts["pid"]), str(facts["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _busy(name: str, path: Path) -> str:
    holder = read_holder(path)
    by = ""
    if holder is not None:
        on = "" if holder.is_here else f" on {holder.host}"
        by = f": process {holder.pid}{on} has been at it since {holder.since}"
    return (
        f"another run of the model '{name}' is at work{by}; wait until it is done and run again "
        "(nothing was written)"
    )
