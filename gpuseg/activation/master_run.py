"""The workflow of a master segment, which joins the attributes: run, and waited for."""

from __future__ import annotations

import time
from typing import Any

from gpuseg.activation.cdp import Cdp, RefusedError, UnansweredError
from gpuseg.activation.master_segment import MasterSegment
from gpuseg.errors import SinkError

#: Seconds that all runs which are waited for may take together.
RUN_SECONDS = 12 * 3600.0
#: Between two looks; it doubles up to the second.
POLL_SECONDS = (1.0, 60.0)
UNFINISHED = ("queued", "running", "blocked", "canceling")
START_TRIES = 4


class RunFailedError(SinkError):
    """The workflow ended badly."""


def run_and_wait(cdp: Cdp, master: MasterSegment) -> None:
    """Run the master segment's workflow and wait for its end.

    Raises
    ------
    RunFailedError
        If it ended otherwise than well.
    SinkError
        If it has not ended in time, or could not be started.
    """
    end = time.monotonic() + RUN_SECONDS
    attempt = _start(cdp, master, end)
    status = _wait(cdp, master, attempt, end)
    if status != "success":
        raise RunFailedError(
            f"the run of the master segment '{master.name}' ended as '{status}' (workflow "
            f"attempt {attempt}; its log is in the console)"
        )


def _start(cdp: Cdp, master: MasterSegment, end: float) -> str:
    """Start a run; one that runs already read the configuration of before, so it must end."""
    for is_last in [False] * (START_TRIES - 1) + [True]:
        known = set()
        for execution in _executions(cdp, master):
            known.add(_attempt(execution))
            if execution["status"] in UNFINISHED:
                _wait(cdp, master, _attempt(execution), end)
        try:
            return _attempt(cdp.post(f"/audiences/{master.id}/run", None))
        except UnansweredError:
            new = [a for a in map(_attempt, _executions(cdp, master)) if a not in known]
            if new:
                return new[0]
            if is_last:
                raise
        except RefusedError as error:
            # 409: somebody else started one just now
            if error.status != 409 or is_last:
                raise
        time.sleep(POLL_SECONDS[0])
    raise AssertionError("the last try returns or raises")


def _wait(cdp: Cdp, master: MasterSegment, attempt: str, end: float) -> str:
    """Wait until a run is over and return how it ended."""
    seconds, longest = POLL_SECONDS
    while True:
        found = [e for e in _executions(cdp, master) if _attempt(e) == attempt]
        if found and found[0]["status"] not in UNFINISHED:
            return str(found[0]["status"])
        if time.monotonic() > end:
            raise SinkError(
                f"the run of the master segment '{master.name}' has not ended after "
                f"{RUN_SECONDS / 3600:g} hours (workflow attempt {attempt}); when it has, run "
                "gpuseg audience push again"
            )
        time.sleep(seconds)
        seconds = min(seconds * 2, longest)


def _executions(cdp: Cdp, master: MasterSegment) -> list[dict[str, Any]]:
    return list(cdp.get(f"/audiences/{master.id}/executions") or [])


def _attempt(execution: Any) -> str:
    return str(execution["workflowAttemptId"])
