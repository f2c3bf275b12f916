"""The gate: whether a new result may take the place of the published one.

It looks at evidence and limits and decides; it touches nothing. What cannot be known never
passes a limit: a job that runs at night must not publish what nobody could check. See
docs/decisions/gate.md.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from gpuseg.change import NOT_PUBLISHED, Change, GateCheck, Verdict
from gpuseg.outputs.model_names import promote_command
from gpuseg.outputs.models import StoredModel
from gpuseg.outputs.past_run import PastRun
from gpuseg.outputs.reuse import problem_of_current, was_published
from gpuseg.records import Segmentation
from gpuseg.settings import Settings

#: Two silhouettes that differ by less are the same one, rounded on different ways.
SAME_SILHOUETTE = 1e-6


class Evidence(NamedTuple):
    """What the gate looks at.

    Parameters
    ----------
    silhouette
        Mean silhouette of the new segments.
    earlier_silhouette, measured
        That of the published segments, and on which rows: ``on today's rows`` or ``on its own
        rows``; None when it is not known.
    churn, max_psi, max_psi_column
        See `change.Change`; None when they are not known.
    max_psi_status, max_psi_kind
        Of that column, as the drift table has them.
    is_first
        Whether no run of that model was published before, or one that continued none is done
        again.
    is_fitted
        Whether the segments are new; else a stored model placed the rows.
    earlier_problem
        Why the published segments cannot be read; empty where they can.
    """

    silhouette: float
    n_clusters: int
    min_cluster_share: float
    churn: float | None = None
    max_psi: float | None = None
    max_psi_column: str | None = None
    max_psi_status: str | None = None
    max_psi_kind: str | None = None
    earlier_silhouette: float | None = None
    measured: str | None = None
    is_first: bool = True
    is_fitted: bool = True
    earlier_problem: str = ""


def gated(
    settings: Settings,
    result: Segmentation,
    earlier: StoredModel | None,
    *,
    is_fitted: bool,
    past: PastRun | None = None,
    is_first_again: bool = False,
) -> Segmentation:
    """Return the result with the gate's verdict, and what it found among the warnings.

    Parameters
    ----------
    past
        A run that is done again.
    is_first_again
        Whether that is a run that continued none, with the rows that it had. It was judged as
        a first run and is judged so again; with other rows nobody could check what it brings.
    """
    is_first = is_first_again or not was_published(settings, result.model_name)
    evidence = evidence_of(result, earlier, is_first=is_first, is_fitted=is_fitted)
    if earlier is None:
        # what can be done about it is said by the refusal
        problem = problem_of_current(settings, result.model_name).partition("; ")[0]
        if past is not None:
            problem = past.without_earlier
        evidence = evidence._replace(earlier_problem=problem)
    verdict = decide(settings, evidence)
    begin = "published all the same: " if verdict.passed else NOT_PUBLISHED
    said = tuple(begin + reason for reason in verdict.reasons)
    return replace(result, gate=verdict, warnings=(*result.warnings, *said, *verdict.notes))


def refusal(result: Segmentation, settings: Settings) -> str:
    """Say that and why a result was refused, and what can be done about it."""
    reasons = "; ".join(result.gate.reasons) if result.gate else ""
    promote = promote_command(result.model_name, str(result.run_id), settings.runs_dir)
    return (
        f"run {result.run_id} of the model '{result.model_name}' was not published: {reasons}. "
        f"The tables and the model are as they were. Look at it: {result.report}; publish it all "
        f"the same: {promote}"
    )


def evidence_of(
    result: Segmentation, earlier: StoredModel | None, *, is_first: bool, is_fitted: bool
) -> Evidence:
    """Gather what is known of a result and of what changed since the run before.

    Parameters
    ----------
    earlier
        The model that is current; None in a first run, or when it cannot be read.
    """
    change = result.change
    sizes = result.cluster_sizes
    today = _known(change.earlier_silhouette) if change is not None else None
    stored = _known(earlier.silhouette) if earlier is not None else None
    measured = "on today's rows" if today is not None else "on its own rows"
    known = today if today is not None else stored
    status, kind = _moved_most(change) if change is not None else (None, None)
    return Evidence(
        silhouette=result.silhouette,
        n_clusters=result.n_clusters,
        min_cluster_share=min(sizes) / max(sum(sizes), 1),
        churn=_known(change.churn) if change is not None else None,
        max_psi=_known(change.max_psi) if change is not None else None,
        max_psi_column=change.max_psi_column if change is not None else None,
        max_psi_status=status,
        max_psi_kind=kind,
        earlier_silhouette=known,
        measured=measured if known is not None else None,
        is_first=is_first,
        is_fitted=is_fitted,
    )


def decide(settings: Settings, evidence: Evidence) -> Verdict:
    """Decide whether a result may be published.

    Returns
    -------
    Verdict
        ``if-ok``: refused when a limit that was given is broken; ``if-better``: also when
        the silhouette is lower than that of the published segments; ``always``: never
        refused, what is broken is only said.
    """
    judged = [
        judge(limit, evidence)
        for judge, limit in (
            (_min_silhouette, settings.min_silhouette),
            (_max_churn, settings.max_churn),
            (_max_psi, settings.max_psi),
        )
        if limit is not None
    ]
    if settings.publish == "if-better":
        judged.append(_if_better(evidence))
    broken = tuple(said for check, said in judged if check.passed is False)
    return Verdict(
        passed=settings.publish == "always" or not broken,
        publish=settings.publish,
        reasons=broken,
        notes=tuple(said for check, said in judged if said and check.passed is None),
        checks=tuple(check for check, _reason in judged),
        evidence=evidence._asdict() | {"silhouette": _known(evidence.silhouette)},
    )


#: What a column of each kind is read as.
_READ_AS = {"numeric": "numbers", "datetime": "dates", "categorical": "categories"}

#: What a check found, and a sentence where it failed or could not be made.
_Judged = tuple[GateCheck, str]


def _min_silhouette(limit: float, evidence: Evidence) -> _Judged:
    found = _known(evidence.silhouette)
    if found is None:
        return _unknown("min_silhouette", limit, "the silhouette of the new segments")
    return _compared(
        GateCheck("min_silhouette", limit, found, found >= limit),
        f"the mean silhouette is {found:.6g}, below min_silhouette {limit:g}",
    )


def _max_churn(limit: float, evidence: Evidence) -> _Judged:
    found = _known(evidence.churn)
    if found is None:
        return _without_change("max_churn", limit, "how many rows changed their segment", evidence)
    return _compared(
        GateCheck("max_churn", limit, found, found <= limit),
        f"{found:.6g} of the known rows changed their segment, more than max_churn {limit:g}",
    )


def _max_psi(limit: float, evidence: Evidence) -> _Judged:
    found = _known(evidence.max_psi)
    if found is None:
        return _without_change("max_psi", limit, "how far the columns moved", evidence)
    column = f"column '{evidence.max_psi_column}'" if evidence.max_psi_column else "a column"
    index = f"a population stability index of {found:.6g}, more than max_psi {limit:g}"
    if evidence.max_psi_status == "gone":
        reason = f"{column} is no longer in the table, which counts as {index}"
    elif evidence.max_psi_status == "retyped":
        what = _READ_AS.get(evidence.max_psi_kind or "", "what it was")
        reason = f"{column} can no longer be read as {what}, which counts as {index}"
    else:
        reason = f"{column} moved by {index}"
    return _compared(GateCheck("max_psi", limit, found, found <= limit), reason)


def _if_better(evidence: Evidence) -> _Judged:
    found, limit = _known(evidence.silhouette), _known(evidence.earlier_silhouette)
    if evidence.is_first or not evidence.is_fitted:
        # there is nothing to compare with, or it is the very same model
        return GateCheck("if-better", limit, found, None), ""
    if found is None or limit is None:
        whose = "the new" if found is None else "the published"
        what = f"the silhouette of {whose} segments"
        return _unknown("if-better", limit, what, found, evidence.earlier_problem)
    return _compared(
        GateCheck("if-better", limit, found, found >= limit - SAME_SILHOUETTE),
        f"the mean silhouette is {found:.6g}, lower than the {limit:.6g} of the published "
        f"segments ({evidence.measured})",
    )


def _compared(check: GateCheck, reason: str) -> _Judged:
    return check, "" if check.passed else reason


def _without_change(check: str, limit: float, what: str, evidence: Evidence) -> _Judged:
    if evidence.is_first:
        return GateCheck(check, limit, None, None), ""
    if not evidence.is_fitted:
        said = f"{what} was not measured, because rows were only placed; {check} was not applied"
        return GateCheck(check, limit, None, None), said
    return _unknown(check, limit, what, problem=evidence.earlier_problem)


def _unknown(
    check: str, limit: float | None, what: str, found: float | None = None, problem: str = ""
) -> _Judged:
    because = f" ({problem})" if problem else ""
    said = f"{what} is not known{because}, so {check} cannot be met"
    return GateCheck(check, limit, found, False), said


def _moved_most(change: Change) -> tuple[str | None, str | None]:
    """Return what became of the column that moved most, and its kind."""
    for row in change.drift.select(["column", "status", "kind"]).to_pylist():
        if row["column"] == change.max_psi_column:
            return row["status"], row["kind"]
    return None, None


def _known(value: float | None) -> float | None:
    """Return a number, or None for what is none."""
    return None if value is None or not math.isfinite(value) else float(value)
