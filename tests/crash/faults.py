"""What strikes a running command, and at which moment."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: In the order in which a run comes by.
MOMENTS = (
    "read", "prepare", "sweep", "k-means kept", "scores kept", "explain", "publish",
    "run folder", "stage 0", "stage 2", "staged", "swap 0", "swap 1", "commit", "swapped",
    "promoted", "costs",
)  # fmt: skip

#: What the disk has been told to keep, one JSON line for each call of fsync.
SYNCED = "synced.jsonl"

_CLONE_NEWNS, _CLONE_NEWUSER, _MS_REC_PRIVATE = 0x20000, 0x10000000, 0x44000


def work(folder: str, arguments: list[str], moment: str, fault: str) -> int:
    """Run ``gpuseg`` with these arguments in the folder, struck at the moment.

    With the fault ``full`` the folder's contents are on a disk of their own meanwhile.
    """
    place = Path(folder)
    log = (place / "log.txt").open("a")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    os.chdir(place)
    if fault == "full":
        return _on_a_small_disk(place, lambda: _command(arguments, moment, _fill))
    if fault == "power":
        _remember_syncs(place)
    return _command(arguments, moment, STRIKES[fault])


def _command(arguments: list[str], moment: str, strike: Callable[[], None]) -> int:
    from gpuseg.cli import main

    _arm(moment, strike)
    sys.argv = ["gpuseg", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _arm(moment: str, strike: Callable[[], None]) -> None:
    from gpuseg import pipeline
    from gpuseg.outputs import checkpoint, report
    from gpuseg.stages import Stages
    from gpuseg.tables import publishing

    struck = []

    def reached(now: str) -> None:
        if now == moment and not struck:
            struck.append(now)
            strike()

    def before(function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            reached(name(*args))
            return function(*args)

        return call

    save = checkpoint._Kept.save

    def save_and_tell(kept: Any, step: str, contents: Any) -> None:
        save(kept, step, contents)
        reached("k-means kept" if step == "kmeans" else f"{step} kept")

    publishing.reached = reached
    checkpoint._Kept.save = save_and_tell
    checkpoint.WORTH_SECONDS = 0.0  # the table is small, but here its sweep is worth keeping
    Stages.stage = before(Stages.stage, lambda _stages, name: name)
    pipeline.record_costs = before(pipeline.record_costs, lambda _result: "costs")
    report.png_of = lambda *_args: b""  # pictures take longest and cannot break anything


def _signal(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


STRIKES = {
    "kill": _signal(signal.SIGKILL),
    "power": _signal(signal.SIGKILL),
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGINT": _signal(signal.SIGINT),
    "none": lambda: None,
}


# -- a power cut -------------------------------------------------------------------------


def _remember_syncs(folder: Path) -> None:
    """Write down what the disk is asked to keep: files by their number, folders by entries."""
    log = os.open(folder / SYNCED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        entries = None
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            entries = {e.name: e.inode() for e in os.scandir(descriptor)}
        fact = {"inode": os.fstat(descriptor).st_ino, "entries": entries}
        os.write(log, f"{json.dumps(fact)}\n".encode())

    os.fsync = fsync


def lose_what_was_not_synced(folder: Path, before: set[int]) -> list[str]:
    """Do to a folder what a power cut does; return what was lost.

    A new name is gone unless its folder was synced since; a new file whose name stays but
    which was not synced itself is empty. DuckDB's files are left to DuckDB.

    Parameters
    ----------
    before
        Numbers of the files and folders that were there before.
    """
    log = folder / SYNCED
    facts = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    synced = {fact["inode"] for fact in facts if fact["entries"] is None}
    entries = {fact["inode"]: set(fact["entries"].values()) for fact in facts if fact["entries"]}
    lost = []
    for path in sorted(folder.rglob("*")):
        if not path.exists() or path.name in (SYNCED, "log.txt") or ".duckdb" in path.name:
            continue
        number = path.stat().st_ino
        if number in before:
            continue
        parent = path.parent.stat().st_ino
        if number not in entries.get(parent, set()) and parent in before:
            lost.append(f"name {path.name}")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path.is_file() and number not in synced:
            lost.append(f"contents of {path.name}")
            path.write_bytes(b"")
    log.unlink(missing_ok=True)
    return lost


# -- a full disk -------------------------------------------------------------------------


def _on_a_small_disk(folder: Path, run: Callable[[], int]) -> int:
    """Run on a file system of a few megabytes; afterwards bring back what is on it."""
    disk = folder / "disk"
    disk.mkdir()
    if not mount_small_disk(disk):
        return 71
    for entry in folder.iterdir():
        if entry.name not in ("disk", "log.txt"):
            _move(entry, disk / entry.name)
    os.chdir(disk)
    code = run()
    os.chdir(folder)
    (disk / "filler").unlink(missing_ok=True)
    for entry in disk.iterdir():
        _move(entry, folder / entry.name)
    return code


def _move(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
        shutil.rmtree(source)
    else:
        shutil.copy2(source, target)
        source.unlink()


def mount_small_disk(place: Path) -> bool:
    """Mount a file system that only this process sees; False where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        return False
    libc.mount(None, b"/", None, _MS_REC_PRIVATE, None)
    return not libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"size=64m")


def _fill() -> None:
    """Take all that is left of the disk."""
    room = os.statvfs(".")
    with Path("filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize)
