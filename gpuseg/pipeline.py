"""The whole way through the house: `run` names the rooms, below is what each is given."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from gpuseg.backends.base import Backend
from gpuseg.backends.select import select_backend
from gpuseg.clustering.choice import choose
from gpuseg.clustering.placing import place, score_placed
from gpuseg.clustering.sweep import sweep
from gpuseg.explain.explain import explain
from gpuseg.explain.rule_columns import rule_columns
from gpuseg.explain.rules import find_rules
from gpuseg.features import FeatureSettings, prepare, prepare_again
from gpuseg.interrupts import after_publishing
from gpuseg.outputs.conclusion import conclude, conclude_placed
from gpuseg.outputs.destinations import Destinations
from gpuseg.outputs.keeping import keep_run, record_costs
from gpuseg.outputs.models import StoredModel
from gpuseg.outputs.reuse import encoder_of, required_model, stored_model
from gpuseg.outputs.sketch import sketch
from gpuseg.records import (
    Choice,
    Explanation,
    FeatureMatrix,
    Segmentation,
    SweepResult,
    Table,
    part,
)
from gpuseg.settings import Settings
from gpuseg.stages import Observer, Stages
from gpuseg.tables import load as load_file
from gpuseg.tables import locate
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
    engine = select_backend(settings.backend)
    destinations = Destinations.of(settings)
    model = None if settings.force_refit else stored_model(settings, table)
    stages = Stages(observer)

    table = _read(settings, table, destinations, stages)
    features = _prepare(settings, engine.backend, table, model, stages)
    swept, choice = _segment(settings, engine.backend, features, model, stages)
    explanation, rules = _explain(settings, engine.backend, table, features, choice, stages)
    result = conclude(
        settings, engine, table, features, swept, choice, explanation, rules, model, stages.costs
    )
    if not keep:
        return result
    with stages.stage("publish") as stage:
        seen = sketch(engine.backend, table, features, choice.fit, swept)
        result = keep_run(result, table, seen, settings, destinations)
        stage.detail = destinations.summary
    with after_publishing():
        record_costs(result)
    return result


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
    engine = select_backend(settings.backend)
    destinations = Destinations.of(settings)
    model = model or required_model(settings)
    stages = Stages(observer)

    table = _read(settings, table, destinations, stages)
    features = _prepare(settings, engine.backend, table, model, stages)
    with stages.stage("place") as stage:
        fit = place(engine.backend, features.X, model.centroids, progress=stage.progress)
        stage.detail = f"{model.n_clusters} clusters of model '{model.name}'"
    result = conclude_placed(settings, engine, table, features, fit, model, stages.costs)
    if settings.output_table is None:
        return result
    with stages.stage("publish") as stage:
        destinations.publish(result)
        stage.detail = destinations.summary
    return replace(result, output_table=settings.output_table)


def load(file: str, table: str, settings: Settings) -> Table:
    """Put a file, or a folder of Parquet parts, into a table of the warehouse."""
    source = locate(file, warehouse=settings.warehouse)
    target = locate(table, warehouse=settings.warehouse)
    return load_file(source, target, append=settings.appends, csv=csv_options(settings))


# -- the rooms, each timed and watched -----------------------------------------------


def _read(
    settings: Settings, table: Table | None, destinations: Destinations, stages: Stages
) -> Table:
    with stages.stage("read") as stage:
        table = destinations.accept(table or read_input(settings, stage.progress))
        stages.n_rows = table.n_rows
        stage.detail = f"{table.n_rows:,} rows, {table.arrow.num_columns} columns"
    return table


def _prepare(
    settings: Settings, backend: Backend, table: Table, model: StoredModel | None, stages: Stages
) -> FeatureMatrix:
    with stages.stage("prepare") as stage:
        if model is None:
            wishes = FeatureSettings.of(settings)
            features = prepare(backend, table, wishes, progress=stage.progress)
        else:
            features = prepare_again(backend, encoder_of(model), table, progress=stage.progress)
        stage.detail = f"{features.X.shape[1]} features from {len(features.columns)} columns"
    return features


def _segment(
    settings: Settings,
    backend: Backend,
    features: FeatureMatrix,
    model: StoredModel | None,
    stages: Stages,
) -> tuple[SweepResult, Choice]:
    with stages.stage("sweep") as stage:
        if model is None:
            swept = sweep(
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
            swept, choice = score_placed(
                backend, features.X, model.centroids, settings.sample_size, progress=stage.progress
            )
        stage.detail = choice.reason
    return swept, choice


def _explain(
    settings: Settings,
    backend: Backend,
    table: Table,
    features: FeatureMatrix,
    choice: Choice,
    stages: Stages,
) -> tuple[Explanation, pa.Table]:
    with stages.stage("explain") as stage:
        explanation = explain(
            backend,
            features,
            table,
            choice,
            random_state=settings.random_state,
            progress=part(stage.progress, 0.0, 0.9),
        )
        rules = find_rules(
            rule_columns(features, table),
            features.in_table_order(backend.to_host(choice.fit.labels)),
            choice.n_clusters,
            random_state=settings.random_state,
            progress=part(stage.progress, 0.9, 1.0),
        )
        stage.detail = f"forest right for {explanation.oob_accuracy:.1%} of rows out of bag"
    return explanation, rules
