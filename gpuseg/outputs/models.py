"""The model store: each run keeps its model, and one of them is the champion.

::

    RUNS_DIR/<name>/champion.json             which run's model is current
    RUNS_DIR/<name>/<run_id>/model/           model.json, arrays, SHA256SUMS
    RUNS_DIR/<name>/<run_id>/model/names.json what people call its segments

See docs/decisions/model-files.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.errors import GpusegError, ModelError, did_you_mean
from gpuseg.explained import Segment
from gpuseg.outputs.durable import replace_file, writing
from gpuseg.outputs.json_safe import json_safe
from gpuseg.outputs.locking import model_lock
from gpuseg.outputs.manifest import read_manifest
from gpuseg.outputs.model_checks import (
    KINDS,
    NAMES,
    problem_with,
    stored_cluster_ids,
    stored_reach,
    stored_segments,
)
from gpuseg.outputs.model_files import (
    HostArray,
    damaged,
    read_model_files,
    write_model_files,
)
from gpuseg.outputs.model_names import RUN_ID, check_run_id, model_folder, refuse_link
from gpuseg.outputs.promotions import Promotion, read_champion, status_of, write_champion
from gpuseg.outputs.segments import (
    check_segment_name,
    segments_to_dicts,
)
from gpuseg.records import first_ids
from gpuseg.redaction import redact, redact_settings

MODEL_FOLDER = "model"

_ENCODER_PREFIX = "encoder."


@dataclass(frozen=True, eq=False)
class StoredModel:
    """Everything that places rows later, and where it came from.

    Parameters
    ----------
    name, run_id
        The model's name and the run that fitted it.
    created
        UTC, ISO 8601, e.g. ``2026-11-23T22:30:45Z``.
    encoder_dict, encoder_arrays
        What ``features.Encoder.to_dict`` gave: JSON-able values, and numeric arrays.
    centroids
        Array of shape (n_clusters, n_features), float32, finite.
    columns
        Input columns that carry features, in table order.
    k_scores
        The rows of the k scores table.
    input_name
        The table it was fitted on, without credentials.
    settings
        Resolved parameters; secrets are removed when the model is saved.
    versions
        Library name -> version.
    segments
        Name and description of each cluster; none in models that were made before there
        were names.
    cluster_ids
        What outputs call the cluster of each centroid, ascending.
    next_cluster_id
        Larger than every id that a model of this name has given so far: ids are not used twice.
    reach
        For each cluster the distance from its centroid, in features, within which 99 % of its
        rows were; () in models that did not keep it.
    """

    name: str
    run_id: str
    created: str
    input_name: str
    n_rows: int
    n_clusters: int
    silhouette: float
    columns: tuple[str, ...]
    k_scores: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    backend: str
    encoder_dict: Mapping[str, Any]
    encoder_arrays: Mapping[str, HostArray]
    centroids: npt.NDArray[np.float32]
    segments: tuple[Segment, ...] = ()
    cluster_ids: tuple[int, ...] = ()
    next_cluster_id: int = 0
    reach: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Models of before there were ids call their clusters by position."""
        ids = self.cluster_ids or first_ids(self.n_clusters)
        object.__setattr__(self, "cluster_ids", ids)
        object.__setattr__(self, "next_cluster_id", max(self.next_cluster_id, ids[-1] + 1))


class EarlierModel(NamedTuple):
    """The model that a new fit is going to replace."""

    model: StoredModel | None = None  # None when there is none, or it cannot be read
    next_cluster_id: int = 0  # the smallest id that no model of the name has given yet
    warnings: tuple[str, ...] = ()


class ModelEntry(NamedTuple):
    """One line of ``gpuseg models list``."""

    name: str
    run_id: str
    is_champion: bool
    model: StoredModel | None  # None when it cannot be read
    problem: str  # what is wrong with it, or empty
    status: str  # see `history.RunFacts`; of a damaged ``champion.json`` that of the manifest


def save_model(run_dir: Path, model: StoredModel) -> Path:
    """Write a model into ``run_dir/model``, and return that folder.

    Raises
    ------
    ModelError
        If the model contradicts itself or holds what files cannot.
    SinkError
        If the disk refuses.
    """
    folder = run_dir / MODEL_FOLDER
    problem = problem_with(model.centroids, model.n_clusters)
    if problem:
        raise ModelError(f"the model '{model.name}' cannot be saved: {problem}")
    arrays = {"centroids": model.centroids}
    arrays |= {f"{_ENCODER_PREFIX}{name}": a for name, a in model.encoder_arrays.items()}
    with writing(folder):
        write_model_files(folder, _document(model), arrays)
    return folder


def load_model(runs_dir: Path, name: str, run_id: str | None = None) -> StoredModel:
    """Load the champion of that name, or the model of one run.

    Raises
    ------
    SettingsError
        If the name cannot be the name of a model.
    ModelError
        If there is no such model, or it is damaged.
    """
    folder = model_folder(runs_dir, name)
    run_id = check_run_id(run_id) if run_id else champion(runs_dir, name)
    if run_id is None:
        known = sorted({entry.name for entry in list_models(runs_dir)})
        raise ModelError(
            f"there is no current model '{name}' in '{runs_dir}'{did_you_mean(name, known)}; "
            f"models there: {', '.join(known) or 'none'} (gpuseg run --model-name makes one)"
        )
    return load_model_folder(refuse_link(refuse_link(folder / run_id) / MODEL_FOLDER))


def load_model_folder(path: Path) -> StoredModel:
    """Load a model from a folder that may come from anywhere.

    Raises
    ------
    ModelError
        If it is not there, is damaged or edited, or is of a newer format.
    """
    document, arrays = read_model_files(path)
    values: dict[str, Any] = {f.name: document.get(f.name) for f in fields(StoredModel)}
    for name, kinds in KINDS.items():
        if type(values[name]) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            damaged(path, f"'{name}' is {str(values[name])[:80]!r}, expected {expected}")
    if not all(isinstance(column, str) for column in values["columns"]):
        damaged(path, "'columns' is not a list of names")
    if "centroids" not in arrays:
        damaged(path, "its centroids are missing")
    problem = problem_with(arrays["centroids"], values["n_clusters"])
    if problem:
        damaged(path, problem)
    ids = stored_cluster_ids(path, values)
    segments = stored_segments(path, values["segments"] or [], ids)
    cut = len(_ENCODER_PREFIX)
    values |= {
        "columns": tuple(values["columns"]),
        "k_scores": tuple(values["k_scores"]),
        "centroids": arrays["centroids"],
        "segments": segments,
        "cluster_ids": ids,
        "next_cluster_id": values["next_cluster_id"] or 0,
        "reach": stored_reach(path, values),
        "encoder_arrays": {k[cut:]: a for k, a in arrays.items() if k.startswith(_ENCODER_PREFIX)},
    }
    return StoredModel(**values)


def rename_segment(runs_dir: Path, name: str, cluster_id: int, called: str) -> StoredModel:
    """Call a segment of the current model something else, and return the model.

    Raises
    ------
    SettingsError
        If there is no such segment, or it cannot be called that.
    ModelError
        If there is no such model, it is damaged, or it is older than names.
    SinkError
        If the disk refuses, or a run is under way, which would not carry the name on.
    """
    load_model(runs_dir, name)  # before the lock, which would make a folder
    with model_lock(runs_dir, name):
        return _renamed(runs_dir, name, cluster_id, called)


def _renamed(runs_dir: Path, name: str, cluster_id: int, called: str) -> StoredModel:
    model = load_model(runs_dir, name)
    called = check_segment_name(model.segments, cluster_id, called, model.name)
    names = {s.cluster_id: s.name for s in model.segments if s.name != s.draft}
    names[cluster_id] = called
    path = refuse_link(model_folder(runs_dir, name) / model.run_id / MODEL_FOLDER) / NAMES
    with writing(path):
        text = json.dumps({str(c): n for c, n in sorted(names.items())}, ensure_ascii=False)
        replace_file(path, text.encode("utf-8"))
    return load_model(runs_dir, name, model.run_id)


def list_models(runs_dir: Path) -> tuple[ModelEntry, ...]:
    """Return every stored model, by name and then from the oldest to the newest run.

    Models that cannot be read are listed with the reason.
    """
    return tuple(
        entry for folder in _folders(runs_dir) for entry in _entries(runs_dir, folder.name)
    )


def champion(runs_dir: Path, name: str) -> str | None:
    """Return the run whose model is current, or None when none was promoted yet.

    Raises
    ------
    ModelError
        If ``champion.json`` is damaged.
    """
    current = read_champion(runs_dir, name)
    return current.run_id if current else None


def promote(runs_dir: Path, name: str, run_id: str, *, how: str = "run") -> None:
    """Make the model of a run the current one, after checking that it can be loaded.

    Readers see the old champion or the new one, also while several processes promote.

    Parameters
    ----------
    how
        ``run``, ``promote`` or ``rollback``, for the history.

    Raises
    ------
    SettingsError
        If the name cannot be the name of a model.
    ModelError
        If the run has no sound model.
    SinkError
        If the disk refuses.
    """
    model = load_model(runs_dir, name, check_run_id(run_id))
    next_id = model.next_cluster_id
    try:
        read_champion(runs_dir, name)
    except ModelError:  # what it said of ids is lost; the runs that are kept still know theirs
        next_id = max(next_id, next_cluster_id(runs_dir, name))
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    write_champion(runs_dir, name, Promotion(run_id, now, how), next_id)


def next_cluster_id(runs_dir: Path, name: str) -> int:
    """Return the smallest cluster id that no run of that model ever used.

    Also not one that was rolled back or removed, and not one that waits for somebody to
    promote it. What cannot be read does not count.
    """
    try:
        current = read_champion(runs_dir, name)
    except ModelError:
        current = None
    models = (entry.model for entry in _entries(runs_dir, name))
    given = [model.next_cluster_id for model in models if model is not None]
    return max([current.next_cluster_id if current else 0, *given])


def describe(model: StoredModel) -> dict[str, Any]:
    """Return what people want to know of a model, JSON-able: all but its arrays."""
    document = _document(model)
    del document["encoder_dict"]
    facts: dict[str, Any] = json_safe(document | {"n_features": int(model.centroids.shape[1])})
    return facts


def describe_entry(entry: ModelEntry) -> dict[str, Any]:
    """Return one line of the list of models, JSON-able."""
    facts = {"name": entry.name, "run_id": entry.run_id, "is_champion": entry.is_champion}
    facts["status"] = entry.status
    if entry.model is None:
        return facts | {"problem": entry.problem}
    shown = ("created", "input_name", "n_rows", "n_clusters", "silhouette", "backend")
    return facts | {name: getattr(entry.model, name) for name in shown}


def _document(model: StoredModel) -> dict[str, Any]:
    arrays = ("encoder_arrays", "centroids")
    document = {f.name: getattr(model, f.name) for f in fields(model) if f.name not in arrays}
    return document | {
        "input_name": redact(model.input_name),
        "k_scores": json_safe(model.k_scores),
        "settings": json_safe(redact_settings(model.settings)),
        "versions": dict(model.versions),
        "segments": segments_to_dicts(model.segments),
    }


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        real = (path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
        yield from sorted(path for path in real if not path.name.startswith("."))


def _entries(runs_dir: Path, name: str) -> Iterator[ModelEntry]:
    try:
        current, problem = read_champion(runs_dir, name), ""
    except GpusegError as error:
        current, problem = None, str(error)
    for folder in _folders(runs_dir / name):
        if RUN_ID.fullmatch(folder.name) and (folder / MODEL_FOLDER).is_dir():
            is_champion = current is not None and folder.name == current.run_id
            at_the_end = _status_at_the_end(folder)
            status = at_the_end if problem else status_of(folder.name, current, at_the_end)
            try:
                model = load_model(runs_dir, name, folder.name)
            except GpusegError as error:
                yield ModelEntry(name, folder.name, is_champion, None, str(error), status)
            else:
                yield ModelEntry(name, folder.name, is_champion, model, problem, status)


def _status_at_the_end(run_dir: Path) -> str:
    try:
        return str(read_manifest(run_dir).get("status") or "published")
    except ModelError:
        return "published"
