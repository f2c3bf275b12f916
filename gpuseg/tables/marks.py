"""Tell later whether a table was published, and whether somebody else has changed it since.

A mark is a text that says what a place holds. It changes whenever the place changes; nobody
but this module and the systems' transactions knows what it is made from.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import NamedTuple

from gpuseg.errors import SinkError
from gpuseg.tables.location import Location
from gpuseg.tables.systems import system

#: The mark of a place that holds nothing.
NOTHING = "nothing"

#: The mark of a place of which nothing can be told.
UNKNOWN = ""


class Marks(NamedTuple):
    """What an output's place holds before it appears, and what it will hold then."""

    before: str
    after: str


def mark(location: Location, *, append: bool = False) -> str:
    """Return what a place holds now.

    Raises
    ------
    SettingsError, SinkError
        If the place cannot be reached.
    """
    if location.in_warehouse:
        with contextlib.closing(system(location).begin(location)) as transaction:
            return transaction.mark(location, append=append)
    try:
        return _said(_files(location.path.resolve()))
    except OSError as error:
        raise SinkError(f"'{location.path}' cannot be read: {error.strerror or error}") from None


def file_marks(place: Path, target: Path, staged: Path) -> Marks:
    """Return the marks of a file, or of a folder of parts.

    Renaming a file leaves its size and the time of its last change as they are, so both are
    known before.

    Parameters
    ----------
    place
        The file or the folder.
    target
        What is replaced: the same, or a new part in the folder.
    staged
        What takes its place.
    """
    before = _files(place)
    added = {
        name if target == place else target.name: facts for name, facts in _files(staged).items()
    }
    after = added if target == place else before | added
    return Marks(_said(before), _said(after))


def _files(place: Path) -> dict[str, list[int]]:
    """Return size and time of the last change of a file, or of each part in a folder."""
    if not place.exists():
        return {}
    if place.is_dir():
        # hidden entries are other processes' affairs
        files = {file.name: file for file in place.iterdir() if not file.name.startswith(".")}
    else:
        files = {"": place}
    stats = {name: file.stat() for name, file in sorted(files.items())}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _said(files: dict[str, list[int]]) -> str:
    return json.dumps(files, sort_keys=True) if files else NOTHING
