"""The folder and its segments, one for each cluster, in the words of v5 and of v4."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from gpuseg.activation.cdp import Cdp, RefusedError
from gpuseg.activation.master_segment import ATTRIBUTE, GROUP, MasterSegment

FOLDER = GROUP
FOLDER_DESCRIPTION = "Segments of gpuseg, one for each cluster"
V5_IS_OFF = "v5 endpoints flag"

#: Which cluster a segment stands for: the notebook's description, which ours begins with. A
#: rule can read back empty and a name may change, so neither tells.
_OF_CLUSTER = re.compile(rf"{ATTRIBUTE} = (\d+)\b")


class Wish(NamedTuple):
    """A segment that should be there."""

    cluster_id: int
    name: str
    is_named: bool = True  # else the name is a stopgap, and one that is there stays

    @property
    def description(self) -> str:
        """What marks the segment as the one of its cluster."""
        return f"{ATTRIBUTE} = {self.cluster_id}, made by gpuseg"


class Existing(NamedTuple):
    """A segment that is in the folder."""

    id: str
    name: str
    cluster_id: int | None  # None: somebody else's


class Step(NamedTuple):
    """One call that changes something, and what it does in words."""

    says: str
    method: str
    path: str
    body: Any


class Dialect(Protocol):
    """How folders and segments are listed and changed."""

    def folders(self) -> dict[str, str]:
        """Name of each folder -> its id."""

    def existing(self, folder: str) -> list[Existing]:
        """Segments in a folder."""

    def new_folder(self) -> Step:
        """Make our folder."""

    def new_segment(self, folder: str, wish: Wish) -> Step:
        """Make a segment."""

    def changed_segment(self, folder: str, segment: str, wish: Wish) -> Step:
        """Give a segment this name, description and rule."""

    def removed_segment(self, segment: str) -> tuple[str, str]:
        """Return method and path."""


def dialect(cdp: Cdp, master: MasterSegment) -> Dialect:
    """Choose v5 where the master segment has it, else v4."""
    if not master.root_folder:
        return V4(cdp, master)
    v5 = V5(cdp, master)
    try:
        v5.folders()
    except RefusedError as error:
        if V5_IS_OFF not in error.said:
            raise
        return V4(cdp, master)
    return v5


def rule(cluster_id: int) -> dict[str, Any]:
    """Return the rule that finds a cluster."""
    equals = {
        "type": "Value",
        "leftValue": {"name": ATTRIBUTE, "visibility": "clear"},
        # a number, because the attribute is one
        "operator": {"type": "Equal", "not": False, "rightValue": cluster_id},
        "arrayMatching": None,
        "exclude": False,
    }
    group = {"type": "And", "conditions": [equals], "description": "", "expr": ""}
    return {"type": "And", "conditions": [group], "expr": ""}


def steps(
    words: Dialect,
    folder: str,
    wishes: Sequence[Wish],
    existing: Sequence[Existing],
    *,
    remove_stale: bool,
) -> list[Step]:
    """Return what makes the folder hold the wished segments; the same again changes nothing.

    Segments that are there keep their ids, so that what uses them goes on.
    """
    of_cluster = _by_cluster(existing)
    stale = stale_segments(wishes, existing)
    found: list[Step] = []
    for segment in stale if remove_stale else ():
        method, path = words.removed_segment(segment.id)
        found.append(Step(f"remove segment '{segment.name}'", method, path, None))
    found += _moved_aside(words, folder, wishes, of_cluster, () if remove_stale else stale)
    for wish in wishes:
        there = of_cluster.get(wish.cluster_id)
        found.append(
            words.new_segment(folder, wish)
            if there is None
            else words.changed_segment(folder, there.id, wish)
        )
    return found


def stale_segments(wishes: Sequence[Wish], existing: Sequence[Existing]) -> list[Existing]:
    """Return our segments of clusters that are no more, and doubles."""
    of_cluster, wanted = _by_cluster(existing), {wish.cluster_id for wish in wishes}
    return [
        segment
        for segment in existing
        if segment.cluster_id is not None
        and (segment.cluster_id not in wanted or of_cluster[segment.cluster_id] != segment)
    ]


def with_kept_names(wishes: Sequence[Wish], existing: Sequence[Existing]) -> list[Wish]:
    """Let segments that are there keep their names where nobody has named them anew."""
    of_cluster = _by_cluster(existing)
    return [
        wish
        if wish.is_named or wish.cluster_id not in of_cluster
        else wish._replace(name=of_cluster[wish.cluster_id].name)
        for wish in wishes
    ]


def foreign_names(wishes: Sequence[Wish], existing: Sequence[Existing]) -> list[str]:
    """Return wished names that segments of somebody else have."""
    taken = {segment.name for segment in existing if segment.cluster_id is None}
    return [wish.name for wish in wishes if wish.name in taken]


def _by_cluster(existing: Sequence[Existing]) -> dict[int, Existing]:
    found: dict[int, Existing] = {}
    for segment in existing:
        if segment.cluster_id is not None:
            found.setdefault(segment.cluster_id, segment)
    return found


def _moved_aside(
    words: Dialect,
    folder: str,
    wishes: Sequence[Wish],
    of_cluster: dict[int, Existing],
    stale: Sequence[Existing],
) -> list[Step]:
    """Free the names that one of our segments has and another one is to get."""
    wanted = {wish.name: wish.cluster_id for wish in wishes}
    moving = [*stale, *(s for c, s in of_cluster.items() if s not in stale)]
    return [
        words.changed_segment(
            folder, s.id, Wish(s.cluster_id, f"{s.name} ({ATTRIBUTE} = {s.cluster_id}, {s.id})")
        )
        for s in moving
        if s.cluster_id is not None
        and s.name in wanted
        and (s in stale or wanted[s.name] != s.cluster_id)
    ]


def _existing(identity: Any, name: Any, description: Any) -> Existing:
    of_cluster = _OF_CLUSTER.match(str(description or ""))
    return Existing(str(identity), str(name), int(of_cluster[1]) if of_cluster else None)


class V5:
    """Folders and segments under ``/entities``."""

    def __init__(self, cdp: Cdp, master: MasterSegment) -> None:
        self._cdp = cdp
        self._root = master.root_folder

    def folders(self) -> dict[str, str]:
        """Folders under the root."""
        return {
            entry["attributes"]["name"]: str(entry["id"])
            for entry in self._list(self._root)
            if entry["type"] == "folder-segment" and str(entry["id"]) != self._root
        }

    def existing(self, folder: str) -> list[Existing]:
        """Batch segments right in the folder."""
        found = []
        for entry in self._list(folder):
            parent = (entry.get("relationships") or {}).get("parentFolder") or {}
            is_here = str((parent.get("data") or {}).get("id")) == folder
            if entry["type"] == "segment-batch" and is_here:
                facts = entry["attributes"]
                found.append(_existing(entry["id"], facts["name"], facts.get("description")))
        return found

    def new_folder(self) -> Step:
        """POST of a folder under the root."""
        body = {
            "type": "folder-segment",
            "attributes": {"name": FOLDER, "description": FOLDER_DESCRIPTION},
            "relationships": _in_folder(self._root),
        }
        return Step(f"make folder '{FOLDER}'", "POST", "/entities/folders", body)

    def new_segment(self, folder: str, wish: Wish) -> Step:
        """POST of a segment."""
        says = f"make segment '{wish.name}' ({ATTRIBUTE} = {wish.cluster_id})"
        return Step(says, "POST", "/entities/segments", self._body(folder, wish))

    def changed_segment(self, folder: str, segment: str, wish: Wish) -> Step:
        """PATCH of a segment, with all that is ours; nothing is read back into it."""
        says = f"set segment '{wish.name}' ({ATTRIBUTE} = {wish.cluster_id}, id {segment})"
        path = f"/entities/segments/{segment}"
        return Step(says, "PATCH", path, self._body(folder, wish) | {"id": segment})

    def removed_segment(self, segment: str) -> tuple[str, str]:
        """DELETE of a segment."""
        return "DELETE", f"/entities/segments/{segment}"

    def _body(self, folder: str, wish: Wish) -> dict[str, Any]:
        facts = {"name": wish.name, "description": wish.description, "rule": rule(wish.cluster_id)}
        return {
            "type": "segment-batch",
            "attributes": facts,
            "relationships": _in_folder(folder),
        }

    def _list(self, folder: str) -> list[dict[str, Any]]:
        return list(self._cdp.get(f"/entities/by-folder/{folder}?depth=1")["data"])


def _in_folder(folder: str) -> dict[str, Any]:
    return {"parentFolder": {"data": {"id": folder, "type": "folder-segment"}}}


class V4:
    """Folders and segments under ``/audiences/{id}``."""

    def __init__(self, cdp: Cdp, master: MasterSegment) -> None:
        self._cdp = cdp
        self._base = f"/audiences/{master.id}"

    def folders(self) -> dict[str, str]:
        """All folders of the master segment."""
        return {f["name"]: str(f["id"]) for f in self._cdp.get(f"{self._base}/folders")}

    def existing(self, folder: str) -> list[Existing]:
        """Segments in the folder."""
        return [
            _existing(entry["id"], entry["name"], entry.get("description"))
            for entry in self._cdp.get(f"{self._base}/segments")
            if str(entry.get("segmentFolderId")) == folder
        ]

    def new_folder(self) -> Step:
        """POST of a folder."""
        body = {"name": FOLDER, "description": FOLDER_DESCRIPTION}
        return Step(f"make folder '{FOLDER}'", "POST", f"{self._base}/folders", body)

    def new_segment(self, folder: str, wish: Wish) -> Step:
        """POST of a segment."""
        says = f"make segment '{wish.name}' ({ATTRIBUTE} = {wish.cluster_id})"
        return Step(says, "POST", f"{self._base}/segments", _v4_body(folder, wish))

    def changed_segment(self, folder: str, segment: str, wish: Wish) -> Step:
        """PUT of a segment."""
        says = f"set segment '{wish.name}' ({ATTRIBUTE} = {wish.cluster_id}, id {segment})"
        return Step(says, "PUT", f"{self._base}/segments/{segment}", _v4_body(folder, wish))

    def removed_segment(self, segment: str) -> tuple[str, str]:
        """DELETE of a segment."""
        return "DELETE", f"{self._base}/segments/{segment}"


def _v4_body(folder: str, wish: Wish) -> dict[str, Any]:
    return {
        "name": wish.name,
        "kind": 0,  # a batch segment
        "description": wish.description,
        "segmentFolderId": int(folder) if folder.isdigit() else folder,
        "countPopulation": True,
        "rule": rule(wish.cluster_id),
    }
