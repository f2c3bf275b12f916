"""What travels between one night and the next: where rows were, and what became of segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa


#: Begins the warning that says why a run was refused; the report shows it at the top.
NOT_PUBLISHED = "not published: "


class EarlierPlaces(NamedTuple):
    """Where the rows of today's table were in the run before.

    Parameters
    ----------
    run_id, created
        The run whose model is current; UTC, ISO 8601.
    matched_by
        ``rowid`` when rows were found by `rowid_column`, ``model`` when the earlier model
        placed today's rows.
    cluster_ids
        Host array of shape (n_rows,), int32, in the table's order: the id that the row had;
        -1 for a row that was not there. By model no row is unknown.
    since
        Host array of shape (n_rows,), datetime64[s], UTC: when the row came to that segment,
        NaT where unknown; None when matched by model.
    gone
        Rows of the run before that are not in today's table, by the id they had.
    """

    run_id: str
    created: str
    matched_by: str
    cluster_ids: Any
    since: Any | None
    gone: Mapping[int, int]


class LineageEvent(NamedTuple):
    """One row of the ``lineage`` table: what two segments have to do with each other."""

    event: str  # kept | split | merged | born | retired
    cluster_id: int | None  # today's; None when retired without an heir
    previous_cluster_id: int | None  # None when born of no segment in particular
    n_shared: int  # rows that were in the one and are in the other
    share_of_previous: float  # of the earlier segment's rows that are still there
    share_of_current: float  # of today's segment's rows that were there before


@dataclass(frozen=True)
class Lineage:
    """How today's clusters continue the earlier segments.

    Parameters
    ----------
    cluster_ids
        Of today's clusters, by their position: what the outputs call them.
    next_cluster_id
        The smallest id that was never given; ids are not used twice.
    """

    earlier_run_id: str
    matched_by: str
    cluster_ids: tuple[int, ...]
    next_cluster_id: int
    events: tuple[LineageEvent, ...]


@dataclass(frozen=True)
class Change:
    """Evidence of change since the run before; what the gate and the report look at.

    Parameters
    ----------
    churn
        Share of the rows known before whose segment is another one now, 0 to 1; NaN when no
        row was known before.
    max_psi, max_psi_column
        The population stability index of the column that moved most.
    earlier_silhouette
        Mean silhouette of the earlier model's placement of today's rows, in today's features;
        None when it cannot be had.
    migration, movements, drift, trend
        Tables; `movements` is None without `rowid_column`.
    """

    lineage: Lineage
    churn: float
    max_psi: float | None
    max_psi_column: str | None
    earlier_silhouette: float | None
    migration: pa.Table
    movements: pa.Table | None
    drift: pa.Table
    trend: pa.Table


@dataclass(frozen=True)
class Footprint:
    """What a run leaves in its folder for the next night.

    Parameters
    ----------
    movements
        Where each row is, and since when; None without `rowid_column`.
    texts
        Name of a file in the run folder -> what is in it.
    """

    movements: pa.Table | None
    texts: Mapping[str, str]


class GateCheck(NamedTuple):
    """One question that the gate asks before anything is published."""

    check: str  # max_churn | min_silhouette | max_psi | if-better
    limit: float | None  # None where there is nothing to compare with
    found: float | None  # None when it is not known
    passed: bool | None  # None when the check does not apply


@dataclass(frozen=True)
class Verdict:
    """What the gate decided.

    Parameters
    ----------
    passed
        Whether the result may be published; with ``publish: always`` it always may.
    publish
        The rule: ``always``, ``if-better`` or ``if-ok``.
    reasons
        A sentence for every check that failed.
    notes
        A sentence for every limit that was given but does not apply.
    evidence
        What was looked at: silhouette, churn, max_psi and the like; None where unknown.
    """

    passed: bool
    publish: str
    reasons: tuple[str, ...]
    checks: tuple[GateCheck, ...]
    evidence: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return what the manifest and ``--json`` say of it."""
        return {
            "passed": self.passed,
            "publish": self.publish,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "checks": [check._asdict() for check in self.checks],
            "evidence": dict(self.evidence),
        }
