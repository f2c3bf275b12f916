"""The rooms of the way through the house, each timed and watched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpuseg.activation import Audience, push, wishes_of_result
from gpuseg.backends.base import Backend
from gpuseg.clustering.choice import choose
from gpuseg.clustering.earlier_score import earlier_silhouette
from gpuseg.clustering.placing import place as place_rows
from gpuseg.clustering.placing import score_placed
from gpuseg.errors import GpusegError, SettingsError, SinkError
from gpuseg.explained import Explained
from gpuseg.features import FeatureSettings
from gpuseg.nightly.earlier import Found, earlier_places
from gpuseg.nightly.evidence import with_evidence
from gpuseg.nightly.identity import Means, warm_starts
from gpuseg.outputs.checkpoint import Checkpoint
from gpuseg.outputs.destinations import Destinations
from gpuseg.outputs.models import EarlierModel, StoredModel
from gpuseg.outputs.public_ids import with_public_ids
from gpuseg.outputs.reuse import encoder_of
from gpuseg.places import Place, this_machine
from gpuseg.records import Choice, FeatureMatrix, KMeansFit, Segmentation, SweepResult, Table
from gpuseg.settings import Settings
from gpuseg.stages import Stages

#: Of the time that is left after reading and preparing, what the sweep may take where time is
#: limited; the rest is for the explanation and for publishing, which are not cut.
SWEEP_SHARE = 0.5


def read(
    settings: Settings,
    place: Place,
    table: Table | None,
    destinations: Destinations,
    stages: Stages,
) -> Table:
    """Read the rows, or take those in memory; refuse what cannot be published."""
    if table is not None and not place.is_here:
        raise SettingsError(
            "workers cannot read a table that is in memory here; write it to a Parquet file and "
            "name that, or leave out dask"
        )
    with stages.stage("read") as stage:
        table = destinations.accept(table or place.work.read(settings, stage.progress))
        stages.n_rows = table.n_rows
        stage.detail = f"{table.n_rows:,} rows, {table.arrow.num_columns} columns"
    return table


def place_in_table_order(
    settings: Settings, table: Table, model: StoredModel, stages: Stages
) -> Any:
    """Return the segment of each row of the table, by a stored model."""
    here = this_machine(settings)
    features = prepare(settings, here, table, model, stages)
    fit = put_in_place(here, features, model, stages)
    return features.in_table_order(here.backend.to_host(fit.labels))


def put_in_place(
    place: Place, features: FeatureMatrix, model: StoredModel, stages: Stages
) -> KMeansFit:
    """Give each row a segment of a stored model."""
    with stages.stage("place") as stage:
        fit = place_rows(place.backend, features.X, model.centroids, progress=stage.progress)
        stage.detail = f"{model.n_clusters} clusters of model '{model.name}'"
    return fit


def prepare(
    settings: Settings, place: Place, table: Table, model: StoredModel | None, stages: Stages
) -> FeatureMatrix:
    """Turn the rows into features: with a new encoder, or with the one of a stored model."""
    features: FeatureMatrix
    backend, work = place.backend, place.work
    with stages.stage("prepare") as stage:
        if model is None:
            wishes = feature_settings(settings, table)
            features = work.prepare(backend, table, wishes, progress=stage.progress)
        else:
            encoder = encoder_of(model)
            features = work.prepare_again(backend, encoder, table, progress=stage.progress)
        stage.detail = f"{features.X.shape[1]} features from {len(features.columns)} columns"
    return features


def feature_settings(settings: Settings, table: Table) -> FeatureSettings:
    """Return how to prepare the table, without the columns that were not even fetched."""
    wishes = FeatureSettings.of(settings)
    known = tuple(name for name in wishes.ignore_columns if name not in table.left_out)
    return replace(wishes, ignore_columns=known)


def compare(
    settings: Settings, place: Place, table: Table, earlier: EarlierModel, stages: Stages
) -> Found:
    """Find out where the rows were in the run before."""
    if earlier.model is None:
        return Found(None, None)
    with stages.stage("compare") as stage:
        found = earlier_places(
            settings,
            place.backend,
            table,
            earlier.model,
            prepare_again=place.work.prepare_again,
            progress=stage.progress,
        )
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
    place: Place,
    table: Table,
    features: FeatureMatrix,
    choice: Choice,
    stages: Stages,
) -> Explained:
    """Say what makes each segment what it is, under the ids that people see."""
    said: Explained
    with stages.stage("explain") as stage:
        said = place.work.say(
            place.backend,
            table,
            features,
            choice,
            random_state=settings.random_state,
            progress=stage.progress,
        )
        accuracy = said.explanation.oob_accuracy
        stage.detail = f"forest right for {accuracy:.1%} of rows out of bag"
    return with_public_ids(said, choice.cluster_ids)


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
                backend,
                features,
                places.cluster_ids,
                swept,
                result.n_clusters,
                progress=stage.progress,
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
