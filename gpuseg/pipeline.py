"""The whole way through the house: `run` names the rooms (see `rooms`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from gpuseg import rooms
from gpuseg.activation import (
    Audience,
    PushPlan,
    PushReport,
    plan_push,
    push,
    required_audience,
    wishes_of_table,
)
from gpuseg.backends.select import Engine
from gpuseg.errors import GateRefusedError
from gpuseg.explain.bucket_columns import BucketReport, suggest_buckets
from gpuseg.interrupts import after_publishing
from gpuseg.memory import working_within
from gpuseg.nightly.gate import gated, refusal
from gpuseg.nightly.identity import continued, means_of_earlier
from gpuseg.outputs.bucket_results import bucket_place, buckets_table, check_plots_folder
from gpuseg.outputs.checkpoint import Checkpoint, remove_checkpoint
from gpuseg.outputs.conclusion import conclude, conclude_placed
from gpuseg.outputs.destinations import Destinations
from gpuseg.outputs.keeping import keep_run, record_costs
from gpuseg.outputs.locking import model_lock
from gpuseg.outputs.models import EarlierModel, StoredModel
from gpuseg.outputs.past_run import PastRun
from gpuseg.outputs.publication import finish_publication, heal
from gpuseg.outputs.results import without_own_columns
from gpuseg.outputs.retention import prune_runs
from gpuseg.outputs.reuse import (
    earlier_model,
    name_before_reading,
    required_model,
    stored_model,
)
from gpuseg.outputs.sketch import Sketch
from gpuseg.outputs.unchanged import unchanged_result
from gpuseg.places import Place, place_of_work
from gpuseg.records import Segmentation, Table
from gpuseg.settings import Settings
from gpuseg.stages import Deadline, Observer, Stages
from gpuseg.tables import Output, here, locate, publish
from gpuseg.tables import load as load_file
from gpuseg.tables.input import csv_options, read_input

Given = ParamSpec("Given")
Result = TypeVar("Result")


def within_memory(
    work: Callable[Concatenate[Settings, Given], Result],
) -> Callable[Concatenate[Settings, Given], Result]:
    """Let work keep to the memory that its settings allow."""

    @functools.wraps(work)
    def kept(settings: Settings, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with working_within(settings.memory):
            return work(settings, *args, **kwargs)

    return kept


@within_memory
def run(
    settings: Settings,
    *,
    table: Table | None = None,
    observer: Observer | None = None,
    keep: bool = True,
    past: PastRun | None = None,
) -> Segmentation:
    """Segment a table: read, prepare, sweep, choose, explain, publish.

    Parameters
    ----------
    table
        The rows, when they are in memory already; else they are read as the settings say.
    keep
        Whether anything is written; False for a look in a notebook.
    past
        The run that is done again, whose parameters the settings are: it continues the same
        earlier run, and what differs since then is warned about.

    Raises
    ------
    GateRefusedError
        If the gate refused; the result is kept in its run folder, and the error has it.
    GpusegError
        See `gpuseg.errors`. Nothing was published then.
    """
    Destinations.of(settings)  # a slip of the pen is said before a cluster starts
    with place_of_work(settings) as place:
        return run_at(place, settings, table=table, observer=observer, keep=keep, past=past)


def run_at(
    place: Place,
    settings: Settings,
    *,
    table: Table | None = None,
    observer: Observer | None = None,
    keep: bool = True,
    past: PastRun | None = None,
) -> Segmentation:
    """Segment a table as `run` does, on this machine or on a cluster that is there already."""
    if not keep:
        return _run(place, settings, table, observer, keep, past)
    runs_dir, name = Path(settings.runs_dir), name_before_reading(settings, table)
    # before anything is read: whoever has to wait shall know it at once
    with model_lock(runs_dir, name):
        healed = finish_publication(runs_dir, name, warehouse=settings.warehouse)
        try:
            result = _run(place, settings, table, observer, keep, past)
        except GateRefusedError:  # it has come to its end, though nothing was published
            remove_checkpoint(runs_dir, name)
            raise
    return replace(result, warnings=(*healed, *result.warnings))


def _run(
    place: Place,
    settings: Settings,
    table: Table | None,
    observer: Observer | None,
    keep: bool,
    past: PastRun | None,
) -> Segmentation:
    stages = Stages(observer, Deadline.after(settings.max_seconds))
    destinations = Destinations.of(settings)
    audience = Audience.of(settings) if keep else None
    if audience is not None:
        audience.check_service()
    model = None if settings.force_refit else stored_model(settings, table, past)

    rows = rooms.read(settings, place, table, destinations, stages)
    # rows are compared with the run before by it, long before columns are prepared
    rooms.feature_settings(settings, rows).check_rowid(rows.name, rows.arrow.column_names)
    if audience is not None:
        audience.check_rows(rows)
    if keep and model is not None and past is None:
        result = unchanged_result(settings, rows, model, destinations, stages.costs)
        if result is not None:
            return replace(result, warnings=(*rows.warnings, *result.warnings))
    is_fit = keep and model is None
    earlier = earlier_model(settings, rows, past) if is_fit else EarlierModel()

    result, seen = place.engine.where_it_fits(
        lambda engine: _segmented(settings, place.at(engine), rows, model, earlier, stages, keep)
    )
    if past is not None:
        continues = (earlier.model or model) is not None
        said = past.differences(rows, result.backend, continues=continues)
        result = replace(result, warnings=(*result.warnings, *said))
    if seen is None:  # whoever looks at the rows may do so when the workers have gone
        return replace(result, table=here(result.table))
    result = gated(
        settings,
        result,
        earlier.model,
        is_fitted=model is None,
        past=past,
        is_first_again=past is not None and past.is_first_again(rows),
    )
    return _published(settings, result, rows, seen, destinations, audience, stages)


def _published(
    settings: Settings,
    result: Segmentation,
    rows: Table,
    seen: Sketch,
    destinations: Destinations,
    audience: Audience | None,
    stages: Stages,
) -> Segmentation:
    """Keep the run, and publish it unless the gate refused."""
    is_refused = result.gate is not None and not result.gate.passed
    with stages.stage("publish") as stage:
        result = keep_run(result, rows, seen, settings, destinations, stage.progress)
        stage.detail = "refused by the gate" if is_refused else destinations.summary
    with after_publishing() if not is_refused else nullcontext():
        try:
            stale = prune_runs(Path(settings.runs_dir), result.model_name, settings.keep)
            result = replace(result, warnings=(*result.warnings, *stale))
            if audience is not None and not is_refused:
                result = rooms.activate(audience, result, stages)
        finally:
            record_costs(result)
    if is_refused:
        raise GateRefusedError(refusal(result, settings), result)
    return result


def _segmented(
    settings: Settings,
    place: Place,
    table: Table,
    model: StoredModel | None,
    earlier: EarlierModel,
    stages: Stages,
    keep: bool,
) -> tuple[Segmentation, Sketch | None]:
    """Prepare, sweep, choose, explain; a sketch of the rows is drawn for what is kept."""
    backend = place.backend
    before = rooms.compare(settings, place, table, earlier, stages)
    features = rooms.prepare(settings, place, table, model, stages)
    means = means_of_earlier(features, backend, before.typical) if before.typical else None
    # tasks outlive a worker by themselves
    keeps = keep and place.is_here
    checkpoint = Checkpoint.of(settings, table.name) if keeps else Checkpoint(None)
    swept, choice = rooms.segment(settings, backend, features, model, means, stages, checkpoint)
    lineage = None
    if model is None:
        choice, lineage = continued(backend, features, choice, earlier, before.typical, means)
        choice = replace(choice, warnings=earlier.warnings + before.warnings + choice.warnings)
    said = rooms.explain(settings, place, table, features, choice, stages)
    result = conclude(
        settings, place.engine, table, features, swept, choice, said, model, earlier, lineage,
        stages.costs,
    )  # fmt: skip
    if not keep:
        return result, None
    result = rooms.look_back(
        settings, backend, table, features, swept, result, earlier.model or model, before, stages
    )
    return result, place.work.sketch(backend, table, features, choice.fit, swept)


@within_memory
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
    destinations = Destinations.of(settings)
    healed: tuple[str, ...] = ()
    if model is None and settings.model_name is not None:
        healed = heal(Path(settings.runs_dir), settings.model_name, warehouse=settings.warehouse)
    model = model or required_model(settings)
    stages = Stages(observer)

    rows = rooms.read(settings, place, table, destinations, stages)
    result = place_rows(settings, place, rows, model, stages)
    result = replace(result, warnings=(*healed, *result.warnings))
    if settings.output_table is None:
        return replace(result, table=here(result.table))
    with stages.stage("publish") as stage:
        destinations.publish(result, stage.progress)
        stage.detail = destinations.summary
    return replace(result, output_table=settings.output_table)


def place_rows(
    settings: Settings, place: Place, rows: Table, model: StoredModel, stages: Stages
) -> Segmentation:
    """Prepare and place rows that have been read; nothing is written."""

    def placed(engine: Engine) -> Segmentation:
        there = place.at(engine)
        features = rooms.prepare(settings, there, rows, model, stages)
        fit = rooms.put_in_place(there, features, model, stages)
        return conclude_placed(settings, engine, rows, features, fit, model, stages.costs)

    return place.engine.where_it_fits(placed)


@within_memory
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
    labels = None if model is None else rooms.place_in_table_order(settings, table, model, stages)
    with stages.stage("cut") as stage:
        report = suggest_buckets(
            table,
            rooms.feature_settings(settings, table),
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
        warnings=(*table.warnings, *report.warnings),
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
    with working_within(settings.memory):
        return load_file(source, target, append=settings.appends, csv=csv_options(settings))


def push_audience(settings: Settings) -> PushReport:
    """Push the segments of an output table that an earlier run wrote."""
    audience = required_audience(settings)
    return push(audience, wishes_of_table(settings, audience))


def plan_audience(settings: Settings) -> PushPlan:
    """Say what `push_audience` would do; change nothing."""
    audience = required_audience(settings)
    return plan_push(audience, wishes_of_table(settings, audience))
