"""Put together what the rooms found: the record that a run returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from gpuseg.backends.base import Backend
from gpuseg.backends.select import Engine
from gpuseg.change import Lineage
from gpuseg.explained import Explained, Explanation, Segment
from gpuseg.outputs.change_facts import change_summary
from gpuseg.outputs.manifest import versions
from gpuseg.outputs.model_names import default_model_name
from gpuseg.outputs.models import EarlierModel, StoredModel
from gpuseg.outputs.one_line import one_line
from gpuseg.outputs.public_ids import public_ids
from gpuseg.outputs.results import (
    columns_table,
    k_scores_table,
    output_table,
    row_score_columns,
)
from gpuseg.outputs.segments import (
    continued_segments,
    discreet,
    drafted_segments,
    segments_summary,
)
from gpuseg.records import (
    Choice,
    FeatureMatrix,
    KMeansFit,
    Segmentation,
    StageCost,
    SweepResult,
    Table,
    no_progress,
)
from gpuseg.settings import Settings

#: The share of a cluster's rows that its reach holds: outliers do not widen it.
REACHED = 0.99


def conclude(
    settings: Settings,
    engine: Engine,
    table: Table,
    features: FeatureMatrix,
    swept: SweepResult,
    choice: Choice,
    said: Explained,
    stored: StoredModel | None,
    earlier: EarlierModel,
    lineage: Lineage | None,
    stages: Mapping[str, StageCost],
) -> Segmentation:
    """Put a run's result together.

    Parameters
    ----------
    earlier
        The model that was current before; its segments keep their names where they go on.
    lineage
        How the clusters continue that model's; None when one was not fitted, or is the first.
    stored
        The model that placed the rows; None when one was fitted.
    stages
        Still growing: the last stages are added while the result is published.
    """
    backend = engine.backend
    labels = _labels(backend, features, choice.fit, choice.cluster_ids)
    k_scores = k_scores_table(swept.scores.values(), choice.n_clusters)
    silhouette = swept.scores[choice.n_clusters].silhouette
    segments, lost = _named(said.explanation, choice.cluster_ids, stored, earlier.model)
    model = stored or _fitted_model(
        settings, engine, table, features, choice, k_scores, silhouette, segments, earlier
    )
    return Segmentation(
        table=_rows(settings, backend, table, features, choice, labels, swept),
        labels=labels,
        n_clusters=choice.n_clusters,
        cluster_ids=choice.cluster_ids,
        lineage=lineage,
        silhouette=silhouette,
        reason=choice.reason,
        k_scores=k_scores,
        columns=columns_table(features.decisions),
        explanation=said.explanation,
        rules=said.rules,
        model=model,
        backend=backend.name,
        backend_reason=engine.reason,
        stages=stages,
        n_features=int(features.X.shape[1]),
        warnings=_warnings(engine, table, features, swept, choice, said.explanation) + lost,
        tree=said.tree,
        segments=segments,
        max_seconds=settings.max_seconds,
        cut=swept.cut,
        earlier_run_id=_run_id_of(stored or earlier.model),
    )


def conclude_placed(
    settings: Settings,
    engine: Engine,
    table: Table,
    features: FeatureMatrix,
    fit: KMeansFit,
    model: StoredModel,
    stages: Mapping[str, StageCost],
) -> Segmentation:
    """Put the result together when rows were only placed, not scored or explained."""
    reason = f"placed by model '{model.name}' of {model.created}; nothing was fitted"
    choice = Choice(model.n_clusters, fit, reason, cluster_ids=model.cluster_ids)
    labels = _labels(engine.backend, features, fit, model.cluster_ids)
    return Segmentation(
        table=_rows(settings, engine.backend, table, features, choice, labels, None),
        labels=labels,
        n_clusters=model.n_clusters,
        cluster_ids=model.cluster_ids,
        silhouette=model.silhouette,
        reason=reason,
        k_scores=pa.Table.from_pylist([dict(row) for row in model.k_scores]),
        columns=columns_table(features.decisions),
        explanation=None,
        rules=None,
        model=model,
        backend=engine.backend.name,
        backend_reason=engine.reason,
        stages=stages,
        n_features=int(features.X.shape[1]),
        warnings=_warnings(engine, table, features),
        segments=model.segments,
        earlier_run_id=_run_id_of(model),
    )


def _labels(
    backend: Backend, features: FeatureMatrix, fit: KMeansFit, cluster_ids: Sequence[int]
) -> np.ndarray:
    """Return the id of each row's cluster, in the table's order."""
    return public_ids(features.in_table_order(backend.to_host(fit.labels)), cluster_ids)


def _run_id_of(model: StoredModel | None) -> str | None:
    """Return the run that made a model; one that is in memory only has none."""
    return model.run_id or None if model is not None else None


def _named(
    explanation: Explanation,
    cluster_ids: Sequence[int],
    stored: StoredModel | None,
    earlier: StoredModel | None,
) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """Return the segments of a run, and warnings about names that were lost."""
    if stored is not None and stored.segments:
        return stored.segments, ()
    drafted = drafted_segments(explanation.traits, cluster_ids)
    return continued_segments(drafted, earlier.segments if earlier else ())


def model_name_of(settings: Settings, table_name: str) -> str:
    """Return the name under which the model is kept."""
    return settings.model_name or default_model_name(table_name)


def _rows(
    settings: Settings,
    backend: Backend,
    table: Table,
    features: FeatureMatrix,
    choice: Choice,
    labels: np.ndarray,
    swept: SweepResult | None,
) -> pa.Table:
    scores: dict[str, pa.Array] = {}
    if settings.row_scores:
        scores = row_score_columns(backend, features, choice.fit, swept, choice.cluster_ids)
    return output_table(table, labels, scores)


def _fitted_model(
    settings: Settings,
    engine: Engine,
    table: Table,
    features: FeatureMatrix,
    choice: Choice,
    k_scores: pa.Table,
    silhouette: float,
    segments: tuple[Segment, ...],
    earlier: EarlierModel,
) -> StoredModel:
    return StoredModel(
        name=model_name_of(settings, table.name),
        run_id="",  # given when it is kept
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        input_name=table.name,
        n_rows=table.n_rows,
        n_clusters=choice.n_clusters,
        silhouette=silhouette,
        columns=features.columns,
        k_scores=tuple(k_scores.to_pylist()),
        settings=asdict(settings),
        versions=versions(),
        backend=engine.backend.name,
        encoder_dict=features.encoder.to_dict(),
        encoder_arrays=features.encoder.arrays(),
        centroids=np.asarray(engine.backend.to_host(choice.fit.centroids)),
        segments=segments,
        cluster_ids=choice.cluster_ids,
        next_cluster_id=max(earlier.next_cluster_id, choice.cluster_ids[-1] + 1),
        reach=_reach(engine.backend, features, choice),
    )


def _reach(backend: Backend, features: FeatureMatrix, choice: Choice) -> tuple[float, ...]:
    """Return how far from its centroid the rows of each cluster are, but for the farthest."""
    if hasattr(features.X, "reach"):  # rows that lie elsewhere are measured there
        return tuple(features.X.reach(choice.fit.centroids, REACHED))
    found = backend.assign(features.X, choice.fit.centroids, progress=no_progress)
    labels = backend.to_host(found.labels)
    distances = np.sqrt(backend.to_host(found.sq_distances).astype(np.float64))
    own = (distances[labels == cluster] for cluster in range(choice.n_clusters))
    return tuple(float(np.quantile(d, REACHED)) if len(d) else 0.0 for d in own)


def _warnings(
    *rooms: Engine | Table | FeatureMatrix | SweepResult | Choice | Explanation,
) -> tuple[str, ...]:
    return tuple(warning for room in rooms for warning in room.warnings)


def summary(result: Segmentation, *, hide_table_contents: bool = False) -> dict[str, Any]:
    """Return the JSON object that ``--json`` prints."""
    segments = discreet(result.segments) if hide_table_contents else result.segments
    tree = result.tree
    return {
        "model_name": result.model_name,
        "run_id": result.run_id,
        "run_dir": result.run_dir,
        "report": result.report,
        "backend": result.backend,
        "backend_reason": result.backend_reason,
        "n_rows": len(result.labels),
        "n_features": result.n_features,
        "n_clusters": result.n_clusters,
        "silhouette": result.silhouette,
        "reason": result.reason,
        "k_scores": result.k_scores.to_pylist(),
        "cluster_sizes": result.cluster_sizes,
        "cluster_ids": list(result.cluster_ids),
        "segments": segments_summary(segments, result.cluster_sizes),
        "tree": {"depth": tree.depth, "fidelity": tree.fidelity} if tree else None,
        "lineage": [event._asdict() for event in result.lineage.events] if result.lineage else [],
        "change": change_summary(result.change, hide_table_contents=hide_table_contents),
        "output_table": result.output_table,
        "published": result.gate is None or result.gate.passed,
        "gate": result.gate.as_dict() if result.gate else None,
        "unchanged": result.unchanged,
        "summary": one_line(result),
        "warnings": list(result.warnings),
        "seconds": {name: round(cost.seconds, 4) for name, cost in result.stages.items()},
        "time_budget": _time_budget(result),
    }


def _time_budget(result: Segmentation) -> dict[str, Any] | None:
    if result.max_seconds is None:
        return None
    spent = round(sum(cost.seconds for cost in result.stages.values()), 4)
    return {"max_seconds": result.max_seconds, "spent": spent, "cut": list(result.cut)}
