"""Use a model that is there already."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from gpuseg.errors import ModelError, SettingsError
from gpuseg.features import Encoder
from gpuseg.outputs.conclusion import model_name_of
from gpuseg.outputs.models import (
    MODEL_FOLDER,
    EarlierModel,
    StoredModel,
    champion,
    load_model,
    load_model_folder,
    next_cluster_id,
)
from gpuseg.outputs.past_run import PastRun
from gpuseg.records import Table
from gpuseg.settings import Settings
from gpuseg.tables.input import input_location


def name_before_reading(settings: Settings, table: Table | None) -> str:
    """Return the model's name, which is the same once the table is read.

    Raises
    ------
    SettingsError
        If the settings name no input, or one that cannot be.
    """
    return model_name_of(settings, table.name if table else input_location(settings).display)


def stored_model(
    settings: Settings, table: Table | None, past: PastRun | None = None
) -> StoredModel | None:
    """Return the model that ``--no-force-refit`` reuses; None if it is the first run.

    Parameters
    ----------
    past
        A run that is done again: it uses the model that it used.

    Raises
    ------
    SettingsError
        If the settings ask for another number of clusters than the model has.
    ModelError
        If there is a model, but it is damaged.
    """
    name = name_before_reading(settings, table)
    if past is not None:
        # a run that placed rows kept a copy of its model; one that was the first fitted anew
        return load_model_folder(past.run_dir / MODEL_FOLDER) if past.earlier_run_id else None
    if champion(Path(settings.runs_dir), name) is None:
        return None
    model = load_model(Path(settings.runs_dir), name)
    if settings.num_clusters not in (None, model.n_clusters):
        raise SettingsError(
            f"num_clusters is {settings.num_clusters}, but the stored model '{name}' has "
            f"{model.n_clusters} clusters; leave one of num_clusters and --no-force-refit out"
        )
    return model


def earlier_model(settings: Settings, table: Table, past: PastRun | None = None) -> EarlierModel:
    """Return the current model that a new fit is going to replace.

    One that cannot be read has nothing to hand on, and is no reason not to fit a new one.

    Parameters
    ----------
    past
        A run that is done again: it continues the model that it continued, if that is kept.
    """
    runs_dir, name = Path(settings.runs_dir), model_name_of(settings, table.name)
    try:
        if past is not None:
            return _continued_by(past, runs_dir, name)
        if champion(runs_dir, name) is None:
            return EarlierModel()
        return EarlierModel(load_model(runs_dir, name), next_cluster_id(runs_dir, name))
    except ModelError as error:
        what = f"ids and names of the segments do not go on, all of them are new: {error}"
        return EarlierModel(None, next_cluster_id(runs_dir, name), (what,))


def _continued_by(past: PastRun, runs_dir: Path, name: str) -> EarlierModel:
    """Return the model that a past run continued, with the ids that were free at that time."""
    if past.earlier_run_id is None:
        return EarlierModel()
    model = load_model(runs_dir, name, past.earlier_run_id)
    born: set[int] = set()
    if (past.run_dir / MODEL_FOLDER).is_dir():
        born = {*load_model_folder(past.run_dir / MODEL_FOLDER).cluster_ids} - {*model.cluster_ids}
    # runs that were refused meanwhile had taken ids as well: the first new one tells
    return EarlierModel(model, min(born, default=model.next_cluster_id))


def was_published(settings: Settings, name: str) -> bool:
    """Tell whether a run of that model was published before, even if it cannot be read now."""
    try:
        return champion(Path(settings.runs_dir), name) is not None
    except ModelError:
        return True


def problem_of_current(settings: Settings, name: str) -> str:
    """Say why the current model cannot be read; nothing where it can, or where there is none."""
    runs_dir = Path(settings.runs_dir)
    try:
        if champion(runs_dir, name) is not None:
            load_model(runs_dir, name)
    except ModelError as error:
        return str(error)
    return ""


def required_model(settings: Settings) -> StoredModel:
    """Return the current model of the name that the settings give.

    Raises
    ------
    SettingsError
        If they give none.
    ModelError
        If there is no such model, or it is damaged.
    """
    if settings.model_name is None:
        raise SettingsError("no model: give --model-name (gpuseg models list shows them)")
    return load_model(Path(settings.runs_dir), settings.model_name)


@lru_cache(maxsize=4)
def encoder_of(model: StoredModel) -> Encoder:
    """Return the model's encoder; kept, because rows may come one by one.

    Raises
    ------
    ModelError
        If it is damaged, or makes other features than the centroids have.
    """
    encoder = Encoder.from_dict(model.encoder_dict, model.encoder_arrays)
    if encoder.n_features != model.centroids.shape[1]:
        raise ModelError(
            f"the model '{model.name}' is damaged: its encoder makes {encoder.n_features} "
            f"features and its centroids have {model.centroids.shape[1]}; fit it again"
        )
    return encoder
