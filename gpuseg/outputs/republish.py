"""Publish a run of the past once more: promote what the gate refused, or go back.

It takes the way of every run: the tables are written to the side and checked, all change
together, and only then the model becomes the current one. What would lose rows that are
newer than the run is refused; ``model_only`` changes the model and leaves the tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpuseg.errors import GpusegError, ModelError, SettingsError, TableNotFoundError
from gpuseg.interrupts import after_publishing
from gpuseg.outputs.destinations import Destinations
from gpuseg.outputs.history import no_model
from gpuseg.outputs.keeping import LEFT, content_hash, record_left
from gpuseg.outputs.locking import model_lock
from gpuseg.outputs.manifest import read_manifest
from gpuseg.outputs.model_names import check_run_id, model_folder
from gpuseg.outputs.models import load_model
from gpuseg.outputs.past_run import PastRun, read_past_run
from gpuseg.outputs.promotions import CHAMPION, Champion, read_champion
from gpuseg.outputs.publication import finish_publication, publish_run
from gpuseg.outputs.results import without_own_columns
from gpuseg.outputs.retention import finished_runs, rollback_run
from gpuseg.outputs.run_folder import ROWS, has_table, read_kept_table
from gpuseg.settings import PARAMETERS, Settings
from gpuseg.tables import Location, Output, locate_warehouse, mark
from gpuseg.tables.input import read_input

MODEL_ONLY = "--model-only changes the model and leaves the tables as they are"


class Republished(NamedTuple):
    """What was published again.

    Parameters
    ----------
    previous_run_id
        The run that was current before.
    outputs
        Places that were written, as people know them; none with ``model_only``.
    """

    model_name: str
    run_id: str
    previous_run_id: str | None
    outputs: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return self._asdict() | {"outputs": list(self.outputs), "notes": list(self.notes)}


def promote_run(
    runs_dir: Path,
    name: str,
    run_id: str,
    *,
    warehouse: str | None = None,
    model_only: bool = False,
) -> Republished:
    """Publish the tables of a run from its folder, and make its model the current one.

    It also repairs a damaged ``champion.json``; the promotions before are lost then.

    Parameters
    ----------
    warehouse
        The address of the run's warehouse, where it takes more to connect than the manifest
        has: manifests keep no secrets.
    model_only
        Leave the tables as they are.

    Raises
    ------
    SettingsError
        If the tables would lose newer rows, or their places cannot be told any more.
    ModelError
        If there is no such run, it is damaged, or its rows are no longer kept.
    SinkError
        If writing failed. In all cases the previous tables and model stand.
    """
    with model_lock(runs_dir, name):
        return _promoted(runs_dir, name, run_id, warehouse, model_only, how="promote")


def _promoted(
    runs_dir: Path, name: str, run_id: str, warehouse: str | None, model_only: bool, how: str
) -> Republished:
    run_dir = model_folder(runs_dir, name) / check_run_id(run_id)
    if run_id not in finished_runs(runs_dir, name):
        raise ModelError(
            f"the model '{name}' has no run {run_id} in '{runs_dir}' (gpuseg models history "
            f"{name} lists its runs)"
        )
    load_model(runs_dir, name, run_id)
    healed = finish_publication(runs_dir, name, warehouse=warehouse)
    past, (current, damage) = read_past_run(run_dir), _current(runs_dir, name)
    outputs: Mapping[str, Output] = {}
    notes = (*healed, *damage, *_notes(past, model_only))
    if not model_only:
        notes += _left(past, runs_dir, name, current)
        outputs = _outputs(past, runs_dir, name, warehouse)
        notes += _changed_since(runs_dir, name, current, outputs)
    left = publish_run(runs_dir, name, run_id, outputs, how=how)
    if outputs:
        with after_publishing():
            record_left(run_dir, left)
    return Republished(
        model_name=name,
        run_id=run_id,
        previous_run_id=current.run_id if current else None,
        outputs=tuple(output.location.display for output in outputs.values()),
        notes=notes,
    )


def _current(runs_dir: Path, name: str) -> tuple[Champion | None, tuple[str, ...]]:
    """Return what is current; a damaged file is no reason against a run that was named."""
    try:
        return read_champion(runs_dir, name), ()
    except ModelError:
        said = (
            f"'{model_folder(runs_dir, name) / CHAMPION}' was damaged and is written anew; which "
            "runs were published before is lost, so there is no run to roll back to"
        )
        return None, (said,)


def roll_back(
    runs_dir: Path, name: str, *, warehouse: str | None = None, model_only: bool = False
) -> Republished:
    """Go back to the published run before the current one, tables and model.

    Raises
    ------
    ModelError
        If there is no run to go back to; else as `promote_run`.
    """
    with model_lock(runs_dir, name):
        return _rolled_back(runs_dir, name, warehouse, model_only)


def _rolled_back(runs_dir: Path, name: str, warehouse: str | None, model_only: bool) -> Republished:
    finish_publication(runs_dir, name, warehouse=warehouse)
    current = read_champion(runs_dir, name)
    if current is None:
        raise ModelError(no_model(runs_dir, name))
    before = rollback_run(runs_dir, name, current)
    if before is None:
        raise ModelError(
            f"run {current.run_id} of the model '{name}' has no published run before it that is "
            f"still kept; there is nothing to go back to (gpuseg models history {name})"
        )
    return _promoted(runs_dir, name, before, warehouse, model_only, how="rollback")


def _outputs(past: PastRun, runs_dir: Path, name: str, warehouse: str | None) -> dict[str, Output]:
    """Read the tables of a run and find their places; refuse what would do harm."""
    written = [str(output["kind"]) for output in past.facts.get("outputs") or ()]
    if not written:
        return {}
    settings = _settings(past, warehouse)
    destinations = Destinations.of(settings)
    places = {kind: p for kind, p in _places(destinations).items() if kind in written}
    lost = [kind for kind in written if kind not in places]
    if lost:
        raise ModelError(
            f"the manifest of run {past.run_id} does not say where its table '{lost[0]}' went; "
            + MODEL_ONLY
        )
    _check_folder(past, places)
    if ROWS in places:
        _check_append(past, runs_dir, name, settings, places[ROWS])
        _check_rows_kept(past, runs_dir, name)
        _check_in_place(past, settings, destinations)
    return {
        kind: Output(
            place,
            read_kept_table(past.run_dir, kind),
            append=kind == ROWS and settings.appends,
        )
        for kind, place in places.items()
    }


def _places(destinations: Destinations) -> dict[str, Location]:
    rows = {} if destinations.rows is None else {ROWS: destinations.rows}
    return {**destinations.exports, **rows}


def _settings(past: PastRun, warehouse: str | None) -> Settings:
    """Return the run's parameters, with the warehouse's address as it is now."""
    if warehouse == PARAMETERS["warehouse"].default:
        warehouse = None  # nobody gave it
    settings = past.resolve({"warehouse": warehouse}, environ={})
    known = past.parameters.get("warehouse")
    if known and _server(known) != _server(settings.warehouse):
        raise SettingsError(
            f"run {past.run_id} published into {_server(known)}, but the warehouse given now is "
            f"{_server(settings.warehouse)}; leave --warehouse and GPUSEG_WAREHOUSE out, or give "
            "the same one"
        )
    return settings


def _server(address: str) -> str:
    return locate_warehouse(address).display.removeprefix("query in ")


def _check_folder(past: PastRun, places: dict[str, Location]) -> None:
    """Refuse relative names anywhere but where they were given: they would mean other files."""
    folder = past.facts.get("working_folder")
    if folder is None or Path(str(folder)) == Path.cwd():
        return
    for place in places.values():
        is_file = not place.in_warehouse or place.kind == "duckdb"
        if is_file and not place.path.is_absolute():
            raise SettingsError(
                f"run {past.run_id} wrote '{place.display}' relative to '{folder}'; run this "
                f"command in that folder, or: {MODEL_ONLY}"
            )


def _check_append(
    past: PastRun, runs_dir: Path, name: str, settings: Settings, rows: Location
) -> None:
    if not settings.appends:
        return
    current, damage = _current(runs_dir, name)
    if damage:
        raise SettingsError(
            f"'{CHAMPION}' is damaged, so nobody can tell whether run {past.run_id} has appended "
            f"its rows to '{rows.display}'; rows are not added twice; {MODEL_ONLY}"
        )
    if current is not None and past.run_id in {p.run_id for p in current.promotions}:
        raise SettingsError(
            f"run {past.run_id} appended its rows to '{rows.display}'; rows that were added are "
            f"neither taken back nor added twice; {MODEL_ONLY}"
        )


def _check_rows_kept(past: PastRun, runs_dir: Path, name: str) -> None:
    if not has_table(past.run_dir, ROWS):
        raise ModelError(
            f"the rows of run {past.run_id} are no longer kept (only those of the newest two "
            f"published runs are); {MODEL_ONLY}, and then gpuseg run --no-force-refit "
            f"--model-name {name} --runs-dir {runs_dir} places today's rows with it"
        )


def _check_in_place(past: PastRun, settings: Settings, destinations: Destinations) -> None:
    """Refuse to put back rows of the past where the input itself stands."""
    rows, source = destinations.rows, destinations.source
    if rows is None or source is None or rows.place != source.place:
        return
    try:
        today = without_own_columns(read_input(settings))
    except TableNotFoundError:
        return  # nothing is lost by putting it back
    if content_hash(today.arrow) != past.facts["input"].get("content_hash"):
        raise SettingsError(
            f"run {past.run_id} wrote its segments into its own input '{source.display}', which "
            f"holds other rows now; they would be lost. {MODEL_ONLY}, and then gpuseg run "
            "--no-force-refit places today's rows with it"
        )


def _changed_since(
    runs_dir: Path, name: str, current: Champion | None, outputs: Mapping[str, Output]
) -> tuple[str, ...]:
    """Say which places no longer hold what the current run left there, before they are replaced."""
    if current is None:
        return ()
    run_dir = model_folder(runs_dir, name) / current.run_id
    try:
        manifest, left = read_manifest(run_dir), dict(json.loads((run_dir / LEFT).read_bytes()))
    except (OSError, ValueError, TypeError, GpusegError):
        return ()  # nobody knows what it left
    appended = manifest["settings"].get("output_mode") == "append"
    changed = [
        f"'{output.location.display}'"
        for kind, output in outputs.items()
        if left.get(kind)
        and output.location.display in _targets(manifest)
        and mark(output.location, append=appended and kind == ROWS) not in (left[kind], "nothing")
    ]
    if not changed:
        return ()
    said = (
        f"{', '.join(changed)} had changed since run {current.run_id} published it: rows that were "
        "added or changed there since are gone (gpuseg watch or gpuseg assign places new rows "
        "again)"
    )
    return (said,)


def _left(past: PastRun, runs_dir: Path, name: str, current: Champion | None) -> tuple[str, ...]:
    """Say which outputs of the run that was current stay, since this one has none there."""
    if current is None or current.run_id not in finished_runs(runs_dir, name):
        return ()
    before = read_manifest(model_folder(runs_dir, name) / current.run_id)
    written = _targets(past.facts)
    left = ", ".join(f"'{target}'" for target in _targets(before) if target not in written)
    return (f"of run {current.run_id} stays as it is: {left}",) if left else ()


def _targets(manifest: Mapping[str, Any]) -> list[str]:
    return [str(output["target"]) for output in manifest.get("outputs") or ()]


def _notes(past: PastRun, model_only: bool) -> tuple[str, ...]:
    notes = []
    if model_only and past.facts.get("outputs"):
        notes.append("the tables were left as they are")
    if past.parameters.get("audience_name"):
        notes.append("the audience was not changed; gpuseg audience push brings it up to date")
    return tuple(notes)
