"""What became of each run of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from gpuseg.errors import ModelError, did_you_mean
from gpuseg.outputs.manifest import read_manifest
from gpuseg.outputs.model_names import model_folder
from gpuseg.outputs.models import list_models
from gpuseg.outputs.promotions import Champion, Promotion, read_champion, status_of
from gpuseg.outputs.retention import finished_runs
from gpuseg.outputs.run_folder import ROWS, has_table


class RunFacts(NamedTuple):
    """One line of ``gpuseg models history``.

    Parameters
    ----------
    status
        ``published``; ``refused`` by the gate; ``rolled back``; ``not published`` when it died
        before; ``removed`` when only the history knows it.
    promoted
        When it became the current one, and how; a run may do so several times.
    has_rows
        Whether its tables can be published again.
    """

    run_id: str
    started: str | None
    status: str
    is_current: bool
    n_clusters: int | None = None
    n_rows: int | None = None
    silhouette: float | None = None
    churn: float | None = None
    max_psi: float | None = None
    max_psi_column: str | None = None
    reasons: tuple[str, ...] = ()
    promoted: tuple[Promotion, ...] = ()
    has_rows: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints of it."""
        promoted = [{"when": p.promoted, "how": p.how} for p in self.promoted]
        return self._asdict() | {"reasons": list(self.reasons), "promoted": promoted}


def run_history(runs_dir: Path, name: str) -> tuple[RunFacts, ...]:
    """Return every run of a model that is known, from the oldest to the newest.

    Raises
    ------
    SettingsError
        If the name cannot be the name of a model.
    ModelError
        If there is no such model, or ``champion.json`` is damaged.
    """
    current = read_champion(runs_dir, name)
    there = finished_runs(runs_dir, name)
    promotions = current.promotions if current else ()
    known = sorted({*there, *(promotion.run_id for promotion in promotions)})
    if not known:
        raise ModelError(no_model(runs_dir, name))
    return tuple(_facts(runs_dir, name, run_id, current, run_id in there) for run_id in known)


def no_model(runs_dir: Path, name: str) -> str:
    """Say that there is no model of that name, and which there are."""
    known = sorted({entry.name for entry in list_models(runs_dir)})
    return (
        f"there is no model '{name}' in '{runs_dir}'{did_you_mean(name, known)}; models there: "
        f"{', '.join(known) or 'none'}"
    )


def _facts(
    runs_dir: Path, name: str, run_id: str, current: Champion | None, is_there: bool
) -> RunFacts:
    is_current = current is not None and current.run_id == run_id
    promoted = tuple(p for p in current.promotions if p.run_id == run_id) if current else ()
    if not is_there:
        return RunFacts(run_id, None, "removed", is_current, promoted=promoted)
    run_dir = model_folder(runs_dir, name) / run_id
    manifest = read_manifest(run_dir)
    gate = manifest.get("gate") or {}
    evidence = gate.get("evidence") or {}
    return RunFacts(
        run_id=run_id,
        started=manifest.get("started"),
        status=status_of(run_id, current, manifest.get("status")),
        is_current=is_current,
        n_clusters=manifest.get("n_clusters"),
        n_rows=manifest["input"].get("n_rows"),
        silhouette=manifest.get("silhouette"),
        churn=evidence.get("churn"),
        max_psi=evidence.get("max_psi"),
        max_psi_column=evidence.get("max_psi_column"),
        reasons=tuple(gate.get("reasons") or ()),
        promoted=promoted,
        has_rows=has_table(run_dir, ROWS),
    )
