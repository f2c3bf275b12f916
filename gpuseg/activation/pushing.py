"""Push: the attribute into the master segment, a run, and a segment for each cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuseg.activation import master_segment as ms
from gpuseg.activation.audience import Audience, refusals_as_settings
from gpuseg.activation.cdp import Cdp, RefusedError, UnansweredError
from gpuseg.activation.master_run import RunFailedError, run_and_wait
from gpuseg.activation.planning import NEW_FOLDER, PushPlan, attribute_words, make_plan
from gpuseg.activation.segments import FOLDER, Dialect, Step, Wish
from gpuseg.errors import SinkError
from gpuseg.tables.treasure_data_site import Site

#: Edits of others that are waited out before giving up.
MAX_EDITS = 3
EDIT_SECONDS = 2.0
CREATE_TRIES = 3


@dataclass(frozen=True)
class PushReport:
    """What a push did."""

    master: str
    backup: str | None
    segments: tuple[str, ...]
    notes: tuple[str, ...] = ()
    done: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """What was done, for people."""
        if self.backup is None:
            return list(self.done)
        return [*self.done, f"the configuration of before is in {self.backup}"]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "master_segment": self.master,
            "backup": self.backup,
            "segments": list(self.segments),
            "done": list(self.done),
            "notes": list(self.notes),
        }


def push(audience: Audience, wishes: Sequence[Wish]) -> PushReport:
    """Bring the segments into the master segment; doing it again changes nothing more.

    Raises
    ------
    SettingsError
        As `plan_push`; nothing was changed then.
    SinkError
        If the service failed or refused. The master segment is as it was then, or as it
        should be; the message says what to do.
    """
    cdp = Cdp(Site.of_environment())
    with refusals_as_settings():
        plan = make_plan(cdp, audience, wishes)
    done: list[str] = []
    plan, backup = _write_attribute(cdp, audience, plan, done)
    try:
        run_and_wait(cdp, plan.master)
    except RunFailedError as error:
        if backup is None:
            raise
        # a master segment that cannot run would fail every night from now on
        ms.restore(cdp, plan.master, plan.before, backup)
        raise RunFailedError(f"{error}; its previous configuration was restored") from None
    done.append("ran the master segment")
    folder = plan.folder
    if folder == NEW_FOLDER:
        folder = _make_folder(cdp, plan.words)
        done.append(f"made folder '{FOLDER}'")
    _change_segments(cdp, plan, folder, done)
    return PushReport(
        master=plan.master.name,
        backup=None if backup is None else str(backup),
        segments=tuple(wish.name for wish in plan.wishes),
        notes=plan.notes,
        done=tuple(done),
    )


def _write_attribute(
    cdp: Cdp, audience: Audience, plan: PushPlan, done: list[str]
) -> tuple[PushPlan, Path | None]:
    """Write the configuration if it must change; plan anew when others edit it meanwhile."""
    for _attempt in range(MAX_EDITS):
        if not plan.changes_config:
            return plan, None
        backup = ms.write_backup(audience.backups, plan.before)
        if ms.write_config(cdp, plan.master, plan.before, plan.after, backup):
            done.append(attribute_words(plan.after))
            return plan, backup
        time.sleep(EDIT_SECONDS)
        plan = make_plan(cdp, audience, plan.wishes)
    raise SinkError(
        f"somebody is editing the master segment '{plan.master.name}'; it was not touched; run "
        "again when they are done"
    )


def _make_folder(cdp: Cdp, words: Dialect) -> str:
    step = words.new_folder()
    _post(cdp, step, lambda: FOLDER in words.folders())
    return words.folders()[FOLDER]


def _change_segments(cdp: Cdp, plan: PushPlan, folder: str, done: list[str]) -> None:
    """Do what can be done, and tell at the end what was refused."""
    refused: list[str] = []
    for step in plan.segment_steps(folder):
        try:
            _do(cdp, plan.words, folder, step)
            done.append(step.says)
        except RefusedError as error:
            if step.method == "DELETE" and error.status == 404:
                continue  # somebody removed it already
            if error.status in (401, 403):
                raise
            refused.append(f"{step.says}: {error}")
    if refused:
        raise SinkError(
            f"{len(refused)} of the segments of '{plan.master.name}' could not be changed; the "
            f"others are as they should be: {'; '.join(refused)}"
        )


def _do(cdp: Cdp, words: Dialect, folder: str, step: Step) -> None:
    if step.method != "POST":
        cdp.change(step.method, step.path, step.body)
        return
    facts = step.body.get("attributes") or step.body
    _post(cdp, step, lambda: facts["name"] in {s.name for s in words.existing(folder)})


def _post(cdp: Cdp, step: Step, is_there: Callable[[], bool]) -> None:
    """Make something once: when no answer comes, look before trying again."""
    for is_last in [False] * (CREATE_TRIES - 1) + [True]:
        try:
            cdp.post(step.path, step.body)
            return
        except (RefusedError, UnansweredError) as error:
            is_taken = isinstance(error, RefusedError) and error.is_name_taken
            if (is_taken or isinstance(error, UnansweredError)) and is_there():
                return
            if isinstance(error, RefusedError) or is_last:
                raise
