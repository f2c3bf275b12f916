"""The whole way through the house: `run` names the rooms, below is what each is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gpuseg.activation import (
    Audience,
    PushPlan,
    PushReport,
    plan_push,
    push,
    required_audience,
    wishes_of_result,
    wishes_of_table,
)
from gpuseg.backends.base import Backend
from gpuseg.backends.select import Engine, select_backend
from gpuseg.clustering.choice import choose
from gpuseg.errors import GpusegError, SettingsError, SinkError
from gpuseg.explain.bucket_columns import BucketReport, suggest_buckets
from gpuseg.features import FeatureSettings
from gpuseg.interrupts import after_publishing
from gpuseg.outputs.bucket_results import bucket_place, buckets_table, check_plots_folder
from gpuseg.outputs.conclusion import conclude, conclude_placed
from gpuseg.outputs.destinations import Destinations
from gpuseg.outputs.keeping import keep_run, record_costs
from gpuseg.outputs.models import StoredModel
from gpuseg.outputs.results import without_own_columns
from gpuseg.outputs.reuse import earlier_model, encoder_of, required_model, stored_model
from gpuseg.outputs.sketch import Sketch
from gpuseg.places import HERE, Place, Rooms, place_of_work
from gpuseg.records import (
    Choice,
    Explained,
    FeatureMatrix,
    Segmentation,
    SweepResult,
    Table,
)
from gpuseg.settings import Settings
from gpuseg.stages import Observer, Stages
from gpuseg.tables import Output, here, locate, publish
from gpuseg.tables import load as load_file
from gpuseg.tables.input import csv_options, read_input


def run(
    settings: Settings,
    *,
    table: Table | None = None,
    observer: Observer | None = None,
    keep: bool = True,
) -> Segmentation:
    """Segment a table: read, prepare, sweep, choose, explain, publish.

    Parameters
    ----------
    table
        The rows, when they are in memory already; else they are read as the settings say.
    keep
        Whether anything is written; False for a look in a notebook.

    Raises
    ------
    GpusegError
        See `gpuseg.errors`. Nothing was published then.
    """
    with place_of_work(settings) as place:
        return run_at(place, settings, table=table, observer=observer, keep=keep)


def run_at(
    place: Place,
    settings: Settings,
    *,
    table: Table | None = None,
    observer: Observer | None = None,
    keep: bool = True,
) -> Segmentation:
    """Segment a table as `run` does, on this machine or on a cluster that is there already."""
    engine, rooms = place
    destinations = Destinations.of(settings)
    audience = Audience.of(settings) if keep else None
    if audience is not None:
        audience.check_service()
    model = None if settings.force_refit else stored_model(settings, table)
    stages = Stages(observer)

    rows = _read(settings, rooms, table, destinations, stages)
    if audience is not None:
        audience.check_rows(rows)
    earlier = earlier_model(settings, rows) if keep and model is None else None

    result, seen = engine.where_it_fits(
        lambda engine: _segmented(settings, engine, rooms, rows, model, earlier, stages, keep)
    )
    if seen is None:  # whoever looks at the rows may do so when the workers have gone
        return replace(result, table=here(result.table))
    with stages.stage("publish") as stage:
        result = keep_run(result, rows, seen, settings, destinations)
        stage.detail = destinations.summary
    with after_publishing():
        try:
            if audience is not None:
                result = _activate(audience, result, stages)
        finally:
            record_costs(result)
    return result


def _segmented(
    settings: Settings,
    engine: Engine,
    rooms: Rooms,
    table: Table,
    model: StoredModel | None,
    earlier: StoredModel | None,
    stages: Stages,
    keep: bool,
) -> tuple[Segmentation, Sketch | None]:
    """Prepare, sweep, choose, explain; a sketch of the rows is drawn for what is kept."""
    backend = engine.backend
    features = _prepare(settings, rooms, backend, table, model, stages)
    swept, choice = _segment(settings, rooms, backend, features, model, stages)
    said = _explain(settings, rooms, backend, table, features, choice, stages)
    seen = rooms.sketch(backend, table, features, choice.fit, swept) if keep else None
    costs = stages.costs
    result = conclude(settings, engine, table, features, swept, choice, said, model, earlier, costs)
    return result, seen


def assign(
    settings: Settings,
    *,
    table: Table | None = None,
    model: StoredModel | None = None,
    observer: Observer | None = None,
) -> Segmentation:
    """Place rows with a stored model: read, prepare, place, publish. Nothing is fitted.

    Parameters
    ----------
    model
        By default the current model named ``settings.model_name``.

    Raises
    ------
    ModelError
        If there is no such model, or the table lacks a column that it needs.
    """
    with place_of_work(settings) as place:
        return _assign(place, settings, table, model, observer)


def _assign(
    place: Place,
    settings: Settings,
    table: Table | None,
    model: StoredModel | None,
    observer: Observer | None,
) -> Segmentation:
    engine, rooms = place
    destinations = Destinations.of(settings)
    model = model or required_model(settings)
    stages = Stages(observer)

    rows = _read(settings, rooms, table, destinations, stages)

    def placed(engine: Engine) -> Segmentation:
        features = _prepare(settings, rooms, engine.backend, rows, model, stages)
        with stages.stage("place") as stage:
            fit = rooms.place(engine.backend, features.X, model.centroids, progress=stage.progress)
            stage.detail = f"{model.n_clusters} clusters of model '{model.name}'"
        return conclude_placed(settings, engine, rows, features, fit, model, stages.costs)

    result = engine.where_it_fits(placed)
    if settings.output_table is None:
        return result
    with stages.stage("publish") as stage:
        destinations.publish(result)
        stage.detail = destinations.summary
    return replace(result, output_table=settings.output_table)


def buckets(
    settings: Settings,
    *,
    table: Table | None = None,
    plots: Path | None = None,
    observer: Observer | None = None,
) -> BucketReport:
    """Suggest buckets for single columns: read, place, cut, publish.

    Parameters
    ----------
    plots
        Folder for a picture of each column; None for no pictures.

    Raises
    ------
    SettingsError, DataError, ModelError
        As `run` and `assign`, and `suggest_buckets`.
    """
    place_of_table = bucket_place(settings)
    check_plots_folder(plots)
    model = required_model(settings) if settings.model_name else None
    stages = Stages(observer)

    with stages.stage("read") as stage:
        table = without_own_columns(table or read_input(settings, stage.progress))
        stages.n_rows = table.n_rows
        stage.detail = f"{table.n_rows:,} rows, {table.arrow.num_columns} columns"
    labels = None if model is None else _place_in_table_order(settings, table, model, stages)
    with stages.stage("cut") as stage:
        report = suggest_buckets(
            table,
            _wishes(settings, table),
            settings.k_values,
            labels=labels,
            n_clusters=model.n_clusters if model else None,
            progress=stage.progress,
        )
        stage.detail = f"{len(report.columns)} columns"
    if place_of_table is not None:
        publish([Output(place_of_table, buckets_table(report))])
    return replace(
        report,
        output_table=place_of_table.display if place_of_table else None,
        plots=_draw(report, plots) if plots else (),
    )


def _draw(report: BucketReport, folder: Path) -> tuple[str, ...]:
    from gpuseg.outputs.bucket_chart import draw_buckets

    return draw_buckets(report.columns, folder)


def load(file: str, table: str, settings: Settings) -> Table:
    """Put a file, or a folder of Parquet parts, into a table of the warehouse."""
    source = locate(file, warehouse=settings.warehouse)
    target = locate(table, warehouse=settings.warehouse)
    return load_file(source, target, append=settings.appends, csv=csv_options(settings))


def push_audience(settings: Settings) -> PushReport:
    """Push the segments of an output table that an earlier run wrote."""
    audience = required_audience(settings)
    return push(audience, wishes_of_table(settings, audience))


def plan_audience(settings: Settings) -> PushPlan:
    """Say what `push_audience` would do; change nothing."""
    audience = required_audience(settings)
    return plan_push(audience, wishes_of_table(settings, audience))


# -- the rooms, each timed and watched -----------------------------------------------


def _read(
    settings: Settings,
    rooms: Rooms,
    table: Table | None,
    destinations: Destinations,
    stages: Stages,
) -> Table:
    if table is not None and settings.dask is not None:
        raise SettingsError(
            "workers cannot read a table that is in memory here; write it to a Parquet file and "
            "name that, or leave out dask"
        )
    with stages.stage("read") as stage:
        table = destinations.accept(table or rooms.read(settings, stage.progress))
        stages.n_rows = table.n_rows
        stage.detail = f"{table.n_rows:,} rows, {table.arrow.num_columns} columns"
    return table


def _place_in_table_order(
    settings: Settings, table: Table, model: StoredModel, stages: Stages
) -> Any:
    """Return the segment of each row of the table, by a stored model."""
    backend = select_backend(settings.backend).backend
    features = _prepare(settings, HERE, backend, table, model, stages)
    with stages.stage("place") as stage:
        fit = HERE.place(backend, features.X, model.centroids, progress=stage.progress)
        stage.detail = f"{model.n_clusters} clusters of model '{model.name}'"
    return features.in_table_order(backend.to_host(fit.labels))


def _prepare(
    settings: Settings,
    rooms: Rooms,
    backend: Backend,
    table: Table,
    model: StoredModel | None,
    stages: Stages,
) -> FeatureMatrix:
    features: FeatureMatrix
    with stages.stage("prepare") as stage:
        if model is None:
            wishes = _wishes(settings, table)
            features = rooms.prepare(backend, table, wishes, progress=stage.progress)
        else:
            encoder = encoder_of(model)
            features = rooms.prepare_again(backend, encoder, table, progress=stage.progress)
        stage.detail = f"{features.X.shape[1]} features from {len(features.columns)} columns"
    return features


def _wishes(settings: Settings, table: Table) -> FeatureSettings:
    """Return how to prepare the table, without the columns that were not even fetched."""
    wishes = FeatureSettings.of(settings)
    known = tuple(name for name in wishes.ignore_columns if name not in table.left_out)
    return replace(wishes, ignore_columns=known)


def _segment(
    settings: Settings,
    rooms: Rooms,
    backend: Backend,
    features: FeatureMatrix,
    model: StoredModel | None,
    stages: Stages,
) -> tuple[SweepResult, Choice]:
    with stages.stage("sweep") as stage:
        if model is None:
            swept = rooms.sweep(
                backend,
                features.X,
                settings.k_values,
                n_init=settings.n_init,
                random_state=settings.random_state,
                sample_size=settings.sample_size,
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
            swept, choice = rooms.score_placed(
                backend, features.X, model.centroids, settings.sample_size, progress=stage.progress
            )
        stage.detail = choice.reason
    return swept, choice


def _explain(
    settings: Settings,
    rooms: Rooms,
    backend: Backend,
    table: Table,
    features: FeatureMatrix,
    choice: Choice,
    stages: Stages,
) -> Explained:
    said: Explained
    with stages.stage("explain") as stage:
        said = rooms.explain(
            backend,
            table,
            features,
            choice,
            random_state=settings.random_state,
            progress=stage.progress,
        )
        accuracy = said.explanation.oob_accuracy
        stage.detail = f"forest right for {accuracy:.1%} of rows out of bag"
    return said


def _activate(audience: Audience, result: Segmentation, stages: Stages) -> Segmentation:
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
