"""What the report is made from: plain data and the contract's tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuseg.explained import Segment
from gpuseg.outputs.change_facts import change_facts, without_values_of_rows
from gpuseg.outputs.results import lineage_table
from gpuseg.outputs.segments import discreet
from gpuseg.outputs.sketch import Sketch, without_contents
from gpuseg.outputs.wording import without_values
from gpuseg.records import Segmentation, StageCost, first_ids
from gpuseg.redaction import redact, redact_settings, redact_text

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class ReportInput:
    """One run, as the report needs it.

    Parameters
    ----------
    created
        UTC, ISO 8601.
    cluster_sizes
        Rows in each cluster, in the order of `cluster_ids`.
    cluster_ids
        What the clusters are called, ascending; () stands for 0, 1, …
    k_scores, columns, profiles, feature_importance, shap_values, rules
        The contract's tables; None for what the run did not make.
    oob_accuracy
        Share of rows whose segment the forest knows from the columns, out of bag.
    n_explained_rows
        Rows whose SHAP values were computed.
    sketch
        What `gpuseg.outputs.sketch.sketch` saw of the rows; None when nothing looked.
    segments
        Names of the clusters and what sets them apart; empty when they have none.
    tree_text, tree_fidelity
        One tree for all segments, and the share of rows that it puts where they belong.
    hide_table_contents
        Leave out every row-level value and category text.
    change
        Figures of what changed, see `gpuseg.outputs.change_facts`; None in a first run.
    lineage, migration, drift, trend
        The tables of what changed; None in a first run.
    is_refused
        Whether the gate refused to publish the run.
    """

    model_name: str
    run_id: str
    created: str
    input_name: str
    cluster_sizes: tuple[int, ...]
    silhouette: float
    reason: str
    k_scores: pa.Table
    columns: pa.Table
    backend: str
    backend_reason: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    stages: Mapping[str, StageCost]
    profiles: pa.Table | None = None
    feature_importance: pa.Table | None = None
    shap_values: pa.Table | None = None
    rules: pa.Table | None = None
    oob_accuracy: float | None = None
    n_explained_rows: int | None = None
    sketch: Sketch | None = None
    segments: tuple[Segment, ...] = ()
    tree_text: str | None = None
    tree_fidelity: float | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hide_table_contents: bool = False
    cluster_ids: tuple[int, ...] = ()
    change: Mapping[str, Any] | None = None
    lineage: pa.Table | None = None
    migration: pa.Table | None = None
    drift: pa.Table | None = None
    trend: pa.Table | None = None
    is_refused: bool = False

    def __post_init__(self) -> None:
        """Call clusters by their positions where nothing else is said."""
        object.__setattr__(self, "cluster_ids", self.cluster_ids or first_ids(self.n_clusters))

    @classmethod
    def of(
        cls,
        result: Segmentation,
        sketch: Sketch | None = None,
        *,
        settings: Mapping[str, Any],
        versions: Mapping[str, str],
        input_name: str,
        run_id: str,
        created: str,
        hide_table_contents: bool = False,
    ) -> ReportInput:
        """Take what the report needs from the result of a run."""
        explanation, change = result.explanation, result.change
        return cls(
            model_name=result.model_name,
            run_id=run_id,
            created=created,
            input_name=input_name,
            cluster_sizes=tuple(result.cluster_sizes),
            cluster_ids=result.cluster_ids,
            silhouette=result.silhouette,
            reason=result.reason,
            k_scores=result.k_scores,
            columns=result.columns,
            backend=result.backend,
            backend_reason=result.backend_reason,
            settings=settings,
            versions=versions,
            stages=result.stages,
            profiles=explanation.profiles if explanation else None,
            feature_importance=explanation.feature_importance if explanation else None,
            shap_values=explanation.shap_values if explanation else None,
            rules=result.rules,
            oob_accuracy=_known(explanation.oob_accuracy) if explanation else None,
            n_explained_rows=explanation.shap.n_explained_rows if explanation else None,
            sketch=sketch,
            segments=result.segments,
            tree_text=result.tree.text if result.tree else None,
            tree_fidelity=result.tree.fidelity if result.tree else None,
            notes=explanation.notes if explanation else (),
            warnings=result.warnings,
            hide_table_contents=hide_table_contents,
            change=change_facts(change),
            lineage=lineage_table(change.lineage.events) if change else None,
            migration=change.migration if change else None,
            drift=change.drift if change else None,
            trend=change.trend if change else None,
            is_refused=result.gate is not None and not result.gate.passed,
        )

    @property
    def n_rows(self) -> int:
        """Rows of the input."""
        return sum(self.cluster_sizes)

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.cluster_sizes)

    def discreet(self) -> ReportInput:
        """Return the same run without secrets and, if asked, without table contents."""
        clean = replace(
            self,
            input_name=redact_text(self.input_name),
            backend_reason=redact_text(self.backend_reason),
            settings=redact_settings(self.settings),
            warnings=tuple(redact(self.warnings)),
            notes=tuple(redact(self.notes)),
        )
        return _without_contents(clean) if self.hide_table_contents else clean


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _without_contents(run: ReportInput) -> ReportInput:
    names = set(run.columns.column("column").to_pylist())

    def without(texts: Sequence[str | None]) -> tuple[str, ...]:
        return tuple(without_values(text or "", names) for text in texts)

    reasons = list(without(run.columns.column("reason").to_pylist()))
    place = run.columns.column_names.index("reason")
    return replace(
        run,
        columns=run.columns.set_column(place, "reason", [reasons]),
        rules=None,
        sketch=run.sketch and without_contents(run.sketch),
        segments=discreet(run.segments),
        tree_text=None,
        drift=run.drift and without_values_of_rows(run.drift),
        notes=without(run.notes),
        warnings=without(run.warnings),
        settings={name: v for name, v in run.settings.items() if name != "input_query"},
    )
