"""The rooms of the way through the house, each timed and watched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpuseg.activation import Audience, push, wishes_of_result
from gpuseg.backends.base import Backend
from gpuseg.backends.select import select_backend
from gpuseg.clustering.choice import choose
from gpuseg.clustering.earlier_score import earlier_silhouette
from gpuseg.clustering.placing import place, score_placed
from gpuseg.errors import GpusegError, SinkError
from gpuseg.explain.explain import explain as explain_choice
from gpuseg.explain.rule_columns import rule_columns, told_rows
from gpuseg.explain.rules import find_rules
from gpuseg.explain.surrogate import segment_tree
from gpuseg.features import FeatureSettings, prepare_again
from gpuseg.features import prepare as prepare_table
from gpuseg.nightly.earlier import Found, earlier_places
from gpuseg.nightly.evidence import with_evidence
from gpuseg.nightly.identity import Means, warm_starts
from gpuseg.outputs.checkpoint import Checkpoint
from gpuseg.outputs.destinations import Destinations
from gpuseg.outputs.models import EarlierModel, StoredModel
from gpuseg.outputs.public_ids import public_ids, with_public_ids
from gpuseg.outputs.reuse import encoder_of
from gpuseg.records import (
    Choice,
    Explained,
    FeatureMatrix,
    Segmentation,
    SweepResult,
    Table,
    part,
)
from gpuseg.settings import Settings
from gpuseg.stages import Stages
from gpuseg.tables.input import read_input

#: Of the time that is left after reading and preparing, what the sweep may take where time is
#: limited; the rest is for the explanation and for publishing, which are not cut.
SWEEP_SHARE = 0.5


def read(
    settings: Settings, table: Table | None, destinations: Destinations, stages: Stages
) -> Table:
    """Read the rows, or take those in memory; refuse what cannot be published."""
    with stages.stage("read") as stage:
        table = destinations.accept(table or read_input(settings, stage.progress))
        stages.n_rows = table.n_rows
        stage.detail = f"{table.n_rows:,} rows, {table.arrow.num_columns} columns"
    return table


def place_in_table_order(
    settings: Settings, table: Table, model: StoredModel, stages: Stages
) -> Any:
    """Return the segment of each row of the table, by a stored model."""
    backend = select_backend(settings.backend).backend
    features = prepare(settings, backend, table, model, stages)
    with stages.stage("place") as stage:
        fit = place(backend, features.X, model.centroids, progress=stage.progress)
        stage.detail = f"{model.n_clusters} clusters of model '{model.name}'"
    return features.in_table_order(backend.to_host(fit.labels))


def prepare(
    settings: Settings, backend: Backend, table: Table, model: StoredModel | None, stages: Stages
) -> FeatureMatrix:
    """Turn the rows into features: with a new encoder, or with the one of a stored model."""
    with stages.stage("prepare") as stage:
        if model is None:
            wishes = feature_settings(settings, table)
            features = prepare_table(backend, table, wishes, progress=stage.progress)
        else:
            features = prepare_again(backend, encoder_of(model), table, progress=stage.progress)
        stage.detail = f"{features.X.shape[1]} features from {len(features.columns)} columns"
    return features


def feature_settings(settings: Settings, table: Table) -> FeatureSettings:
    """Return how to prepare the table, without the columns that were not even fetched."""
    wishes = FeatureSettings.of(settings)
    known = tuple(name for name in wishes.ignore_columns if name not in table.left_out)
    return replace(wishes, ignore_columns=known)


def compare(
    settings: Settings, backend: Backend, table: Table, earlier: EarlierModel, stages: Stages
) -> Found:
    """Find out where the rows were in the run before."""
    if earlier.model is None:
        return Found(None, None)
    with stages.stage("compare") as stage:
        found = earlier_places(settings, backend, table, earlier.model, progress=stage.progress)
        how = f"by {found.places.matched_by}" if found.places else "by nothing"
        stage.detail = f"rows matched {how} with run {earlier.model.run_id}"
    return found


def segment(
    settings: Settings,
    backend: Backend,
    features: FeatureMatrix,
    model: StoredModel | None,
    means: Means | None,
    stages: Stages,
    checkpoint: Checkpoint,
) -> tuple[SweepResult, Choice]:
    """Try every k and choose, or place the rows with a stored model and score that."""
    with stages.stage("sweep") as stage:
        deadline = stages.deadline.for_share(SWEEP_SHARE)
        if model is None:
            swept = checkpoint.sweep(
                backend,
                features.X,
                settings.k_values,
                n_init=settings.n_init,
                random_state=settings.random_state,
                sample_size=settings.sample_size,
                warm_starts=warm_starts(means),
                min_cluster_share=settings.min_cluster_share,
                deadline=deadline,
                progress=stage.progress,
            )
            choice = choose(
                backend,
                features.X,
                swept,
                asked_for=settings.num_clusters,
                largest_tried=settings.max_clusters,
                min_cluster_share=settings.min_cluster_share,
            )
        else:
            swept, choice = score_placed(
                backend,
                features.X,
                model.centroids,
                settings.sample_size,
                cluster_ids=model.cluster_ids,
                deadline=deadline,
                progress=stage.progress,
            )
        stage.detail = choice.reason
        if checkpoint.resumed:
            stage.detail += f" (resumed: {checkpoint.resumed})"
    return swept, choice


def explain(
    settings: Settings,
    backend: Backend,
    table: Table,
    features: FeatureMatrix,
    choice: Choice,
    stages: Stages,
) -> Explained:
    """Say what makes each segment what it is, under the ids that people see."""
    with stages.stage("explain") as stage:
        explanation = explain_choice(
            backend,
            features,
            table,
            choice,
            random_state=settings.random_state,
            progress=part(stage.progress, 0.0, 0.9),
        )
        told = told_rows(features, table, backend.to_host(choice.fit.labels))
        columns, labels = rule_columns(features, told.table), told.labels
        rules = find_rules(
            columns,
            labels,
            choice.n_clusters,
            random_state=settings.random_state,
            progress=part(stage.progress, 0.9, 1.0),
        )
        ids = public_ids(labels, choice.cluster_ids)
        tree = segment_tree(columns, ids, random_state=settings.random_state)
        stage.detail = f"forest right for {explanation.oob_accuracy:.1%} of rows out of bag"
    explanation = replace(explanation, notes=explanation.notes + told.notes)
    return with_public_ids(Explained(explanation, rules, tree), choice.cluster_ids)


def look_back(
    settings: Settings,
    backend: Backend,
    table: Table,
    features: FeatureMatrix,
    swept: SweepResult,
    result: Segmentation,
    earlier: StoredModel | None,
    before: Found,
    stages: Stages,
) -> Segmentation:
    """Add what changed since the run before, and what the next one will want to know."""
    places, silhouette = before.places, None
    with stages.stage("drift") as stage:
        # it takes as long as the silhouettes of the sweep: only for the one who asks for it
        if settings.publish == "if-better" and places is not None:
            silhouette = earlier_silhouette(
                backend, features, places.cluster_ids, swept.scored_rows, progress=stage.progress
            )
        return with_evidence(
            settings, table, features, result, earlier, places, stage,
            earlier_silhouette=silhouette,
        )  # fmt: skip


def activate(audience: Audience, result: Segmentation, stages: Stages) -> Segmentation:
    """Push the segments of a result that is published to its audience."""
    with stages.stage("audience") as stage:
        try:
            report = push(audience, wishes_of_result(result))
        except GpusegError as error:
            raise SinkError(
                f"the tables are published, but the audience '{audience.name}' is not up to date: "
                f"{error}; gpuseg audience push tries again"
            ) from error
        stage.detail = f"{len(report.segments)} segments in '{report.master}'"
    return replace(result, warnings=(*result.warnings, *report.notes))
