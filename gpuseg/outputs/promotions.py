"""``champion.json``: which run's model is current, and which ones were before.

The file is replaced in one step, so the current run and the way to it never disagree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gpuseg.errors import ModelError
from gpuseg.outputs.durable import replace_file, writing
from gpuseg.outputs.model_names import RUN_ID, model_folder, refuse_link

CHAMPION = "champion.json"

#: Promotions that are remembered; a nightly run makes this many in almost three years.
_MOST_PROMOTIONS = 1000
_LARGEST_BYTES = 1_000_000


class Promotion(NamedTuple):
    """When a run became the current one, and how."""

    run_id: str
    promoted: str  # UTC, ISO 8601
    how: str  # run | promote | rollback


class Champion(NamedTuple):
    """What ``champion.json`` says.

    Parameters
    ----------
    promotions
        From the oldest to the newest; the last one is that of `run_id`.
    next_cluster_id
        The smallest cluster id that no published run ever used.
    """

    run_id: str
    promotions: tuple[Promotion, ...]
    next_cluster_id: int


def read_champion(runs_dir: Path, name: str) -> Champion | None:
    """Return what is current, or None when nothing was promoted yet.

    Raises
    ------
    ModelError
        If ``champion.json`` is damaged.
    """
    path = refuse_link(model_folder(runs_dir, name) / CHAMPION)
    try:
        with path.open("rb") as file:
            facts = json.loads(file.read(_LARGEST_BYTES))
        run_id, promoted = facts["run_id"], str(facts.get("promoted", ""))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(_no_champion_in(path)) from error
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise ModelError(_no_champion_in(path))
    known = tuple(_promotions(facts.get("promotions")))
    if not known or known[-1].run_id != run_id:
        # made before promotions were remembered
        known = (*known, Promotion(run_id, promoted, "run"))
    next_id = facts.get("next_cluster_id")
    return Champion(run_id, known, next_id if type(next_id) is int and next_id > 0 else 0)


def write_champion(runs_dir: Path, name: str, promotion: Promotion, next_cluster_id: int) -> None:
    """Make a run the current one.

    Raises
    ------
    ModelError
        If a symbolic link stands in the model's place.
    SinkError
        If the disk refuses.
    """
    try:
        before = read_champion(runs_dir, name)
    except ModelError:  # damaged: what it said is lost, and this heals it
        before = None
    promotions = [*(before.promotions if before else ()), promotion][-_MOST_PROMOTIONS:]
    facts = {
        "run_id": promotion.run_id,
        "promoted": promotion.promoted,
        "next_cluster_id": max(next_cluster_id, before.next_cluster_id if before else 0),
        "promotions": [entry._asdict() for entry in promotions],
    }
    path = model_folder(runs_dir, name) / CHAMPION
    with writing(path):
        replace_file(path, json.dumps(facts, indent=1).encode())


def standing(promotions: Iterable[Promotion]) -> tuple[str, ...]:
    """Return the runs that a rollback goes back through: the last one is current.

    A rollback takes away what it left, so that the next one goes back further.

    Examples
    --------
    >>> log = [Promotion(run, "", "run") for run in "abc"] + [Promotion("b", "", "rollback")]
    >>> standing(log)
    ('a', 'b')
    """
    runs: list[str] = []
    for promotion in promotions:
        if promotion.how == "rollback" and promotion.run_id in runs:
            last = len(runs) - 1 - runs[::-1].index(promotion.run_id)
            del runs[last + 1 :]
        elif not runs or runs[-1] != promotion.run_id:
            runs.append(promotion.run_id)
    return tuple(runs)


def status_of(run_id: str, current: Champion | None, at_the_end: str | None) -> str:
    """Say what became of a run, whose manifest knows what it was at its end."""
    promotions = current.promotions if current else ()
    if run_id in standing(promotions):
        return "published"
    if any(promotion.run_id == run_id for promotion in promotions):
        return "rolled back"
    if at_the_end == "published":
        return "not published"
    # before there was a gate, every run that was kept had been published
    return at_the_end or "published"


def _promotions(entries: Any) -> Iterable[Promotion]:
    for entry in entries if isinstance(entries, list) else ():
        found = entry if isinstance(entry, dict) else {}
        run_id, promoted, how = (found.get(name) for name in Promotion._fields)
        if isinstance(run_id, str) and isinstance(promoted, str) and isinstance(how, str):
            yield Promotion(run_id, promoted, how)


def _no_champion_in(path: Path) -> str:
    return (
        f"'{path}' is damaged: it does not name a run; make one of its runs current ('gpuseg "
        f"models promote {path.parent.name} RUN_ID'; 'gpuseg models list' lists them), or fit the "
        "model again ('gpuseg run --model-name' with its name)"
    )
