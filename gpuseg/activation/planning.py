"""Exactly what a push will do, decided from what is there now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuseg.activation import master_segment as ms
from gpuseg.activation.audience import Audience, refusals_as_settings
from gpuseg.activation.cdp import Cdp
from gpuseg.activation.segments import (
    FOLDER,
    Dialect,
    Existing,
    Step,
    Wish,
    dialect,
    foreign_names,
    stale_segments,
    steps,
    with_kept_names,
)
from gpuseg.errors import SettingsError
from gpuseg.tables.treasure_data_site import Site

#: Stands in a plan for the id of a folder that is yet to be made.
NEW_FOLDER = "(new folder)"


@dataclass(frozen=True)
class PushPlan:
    """Exactly what a push does, from what is there now."""

    master: ms.MasterSegment
    before: dict[str, Any]
    after: dict[str, Any]
    folder: str  # NEW_FOLDER when it must be made
    words: Dialect
    existing: tuple[Existing, ...]
    wishes: tuple[Wish, ...]
    stale: tuple[Existing, ...]
    remove_stale: bool

    @property
    def changes_config(self) -> bool:
        """Whether the attribute is not yet as it should be."""
        return bool(ms.differences(self.before, self.after))

    @property
    def steps(self) -> list[Step]:
        """Every call that changes something, in order."""
        found = []
        base = f"/audiences/{self.master.id}"
        if self.changes_config:
            found.append(Step(attribute_words(self.after), "PUT", base, self.after))
        found.append(Step("run the master segment and wait", "POST", f"{base}/run", None))
        if self.folder == NEW_FOLDER:
            found.append(self.words.new_folder())
        return [*found, *self.segment_steps(self.folder)]

    def segment_steps(self, folder: str) -> list[Step]:
        """Return the calls that change segments in a folder."""
        return steps(self.words, folder, self.wishes, self.existing, remove_stale=self.remove_stale)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about segments that stay although their cluster is gone."""
        if self.remove_stale:
            return ()
        return tuple(
            f"segment '{s.name}' stands for cluster {s.cluster_id}, which is no more; "
            "--remove-stale-segments removes it"
            for s in self.stale
        )

    @property
    def lines(self) -> list[str]:
        """Every call, for people."""
        head = f"master segment '{self.master.name}' (id {self.master.id})"
        return [head, *(f"{s.method:<6} {s.path:<32} {s.says}" for s in self.steps)]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "master_segment": {"id": self.master.id, "name": self.master.name},
            "steps": [step._asdict() for step in self.steps],
            "notes": list(self.notes),
        }


def plan_push(audience: Audience, wishes: Sequence[Wish]) -> PushPlan:
    """Look at what is there and decide what to do; change nothing.

    Raises
    ------
    SettingsError
        If the master segment is not there, the key may not do this, or a name is taken by
        something that gpuseg did not make.
    SinkError
        If the service does not answer.
    """
    with refusals_as_settings():
        return make_plan(Cdp(Site.of_environment()), audience, wishes)


def make_plan(cdp: Cdp, audience: Audience, wishes: Sequence[Wish]) -> PushPlan:
    """Do as `plan_push`, with a client that is there already."""
    master = ms.find(cdp, audience.name)
    before = ms.read_config(cdp, master)
    words = dialect(cdp, master)
    folder = words.folders().get(FOLDER, NEW_FOLDER)
    existing = [] if folder == NEW_FOLDER else words.existing(folder)
    wishes = with_kept_names(wishes, existing)
    taken = foreign_names(wishes, existing)
    if taken:
        raise SettingsError(
            f"folder '{FOLDER}' has a segment '{taken[0]}' that gpuseg did not make; rename it"
        )
    return PushPlan(
        master=master,
        before=before,
        after=ms.with_attribute(before, audience.source),
        folder=folder,
        words=words,
        existing=tuple(existing),
        wishes=tuple(wishes),
        stale=tuple(stale_segments(wishes, existing)),
        remove_stale=audience.remove_stale,
    )


def attribute_words(config: Mapping[str, Any]) -> str:
    """Say where our attribute comes from."""
    own = next(entry for entry in config["attributes"] if ms.is_own(entry))
    return (
        f"attribute '{own['name']}' in group '{own['groupingName']}' from "
        f"{own['parentDatabaseName']}.{own['parentTableName']}, joined by {own['parentKey']} = "
        f"{own['foreignKey']}"
    )
