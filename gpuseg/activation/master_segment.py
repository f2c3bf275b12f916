"""The master segment: found, changed in one place only, proved, and run."""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gpuseg.activation.cdp import Cdp, RefusedError, UnansweredError
from gpuseg.errors import SettingsError, SinkError, did_you_mean

#: The notebook's own names, so that its attribute and its segments are continued.
GROUP = "AutoML"
ATTRIBUTE = "cluster_id"

COLLECTIONS = ("attributes", "behaviors", "audienceFilters")
#: Set by the service, whoever writes.
VOLATILE = frozenset(
    {"updatedAt", "updatedBy", "createdAt", "createdBy", "population", "matrixUpdatedAt"}
    | {"llmState"}
)
#: A full PUT makes the entries anew.
VOLATILE_IN_ENTRIES = VOLATILE | {"id"}


class MasterSegment(NamedTuple):
    """A master segment as it was found."""

    id: str  # of the configuration
    name: str
    root_folder: str  # of v5; empty where only v4 is there


class Source(NamedTuple):
    """Where the attribute's values are, and how they join."""

    database: str
    table: str
    rowid_column: str
    foreign_key: str


# -- finding -----------------------------------------------------------------------------


def find(cdp: Cdp, name: str) -> MasterSegment:
    """Find a master segment by its exact name, by v5 and else by v4.

    Raises
    ------
    SettingsError
        If there is none, or more than one.
    """
    try:
        entries = cdp.get("/entities/parent_segments")["data"]
        # some tenants tell the folder of a single master segment only
        found = [
            _v5(cdp.get(f"/entities/parent_segments/{entry['id']}")["data"])
            if entry["attributes"]["name"] == name and not _v5(entry).root_folder
            else _v5(entry)
            for entry in entries
        ]
    except RefusedError as error:
        # a tenant without v5 refuses in several ways; v4 then tells what is really wrong
        if error.status not in (400, 403, 404):
            raise
        found = [MasterSegment(str(a["id"]), a["name"], "") for a in cdp.get("/audiences")]
    same = [master for master in found if master.name == name]
    if len(same) == 1:
        return same[0]
    if same:
        raise SettingsError(
            f"{len(same)} master segments are called '{name}'; rename one, so that it is clear "
            "which is meant"
        )
    names = sorted(master.name for master in found)
    raise SettingsError(
        f"no master segment is called '{name}'{did_you_mean(name, names)}; there is "
        f"{', '.join(names[:10]) or 'none that this key may see'}"
    )


def _v5(entry: Mapping[str, Any]) -> MasterSegment:
    attributes, relations = entry["attributes"], entry.get("relationships") or {}
    folder = relations.get("parentSegmentFolder") or relations.get("parentFolder") or {}
    root = (folder.get("data") or {}).get("id") or ""
    return MasterSegment(str(attributes.get("v4Id") or entry["id"]), attributes["name"], str(root))


# -- the configuration -------------------------------------------------------------------


def read_config(cdp: Cdp, master: MasterSegment) -> dict[str, Any]:
    """Read the whole configuration.

    Raises
    ------
    SinkError
        If it is not whole: writing it back would delete what is missing.
    """
    config = cdp.get(f"/audiences/{master.id}")
    if not isinstance(config, dict) or "master" not in config or "attributes" not in config:
        raise SinkError(
            f"the configuration of '{master.name}' came without its master table or attributes; "
            "it is not touched"
        )
    return config


def with_attribute(config: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Return the configuration with our attribute pointing to `source`.

    Raises
    ------
    SettingsError
        If an attribute of that name belongs to somebody else.
    """
    changed = copy.deepcopy(dict(config))
    wanted = {
        "audienceId": str(config["id"]),
        "name": ATTRIBUTE,
        "type": "number",
        "groupingName": GROUP,
        "parentDatabaseName": source.database,
        "parentTableName": source.table,
        "parentColumn": ATTRIBUTE,
        "parentKey": source.rowid_column,
        "foreignKey": source.foreign_key,
    }
    attributes = changed["attributes"] = list(changed["attributes"] or [])
    for position, entry in enumerate(attributes):
        if entry.get("name") == ATTRIBUTE:
            if not is_own(entry):
                raise SettingsError(
                    f"the master segment has an attribute '{ATTRIBUTE}' in the group "
                    f"'{entry.get('groupingName')}', which gpuseg did not make; rename it, or "
                    f"move it to the group '{GROUP}' to let gpuseg have it"
                )
            attributes[position] = {**entry, **wanted}
            return changed
    attributes.append(wanted)
    return changed


def is_own(entry: Mapping[str, Any]) -> bool:
    """Say whether an attribute is the one that gpuseg may change."""
    return bool(entry.get("name") == ATTRIBUTE and entry.get("groupingName") == GROUP)


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Name what differs between two configurations, but for what the service sets itself."""
    names = sorted((expected.keys() | found.keys()) - VOLATILE - {*COLLECTIONS})
    wrong = [f"'{name}' differs" for name in names if expected.get(name) != found.get(name)]
    for collection in COLLECTIONS:
        here, there = _entries(expected, collection), _entries(found, collection)
        wrong += [f"{collection}: {_name(entry)} is missing or changed" for entry in here - there]
        wrong += [f"{collection}: {_name(entry)} is new or changed" for entry in there - here]
    return wrong


def _entries(config: Mapping[str, Any], collection: str) -> Counter[str]:
    return Counter(_canonical(entry) for entry in config.get(collection) or [])


def _canonical(entry: Any) -> str:
    if isinstance(entry, dict):
        entry = {key: value for key, value in entry.items() if key not in VOLATILE_IN_ENTRIES}
    return json.dumps(entry, sort_keys=True)


def _name(entry: str) -> str:
    facts = json.loads(entry)
    return f"'{facts.get('name', '?')}'" if isinstance(facts, dict) else "an entry"


def write_config(
    cdp: Cdp, master: MasterSegment, before: dict[str, Any], after: dict[str, Any], backup: Path
) -> bool:
    """Write a configuration whole, read it again, and prove that the rest is as it was.

    Returns
    -------
    written
        False when somebody else changed the configuration since `before` was read; then
        nothing was written.

    Raises
    ------
    SinkError
        If it was refused, or something else changed; the previous one was restored then.
    """
    # the service knows no versions, so the last look is as late as it can be
    if differences(before, read_config(cdp, master)):
        return False
    try:
        cdp.change("PUT", f"/audiences/{master.id}", after)
    except (RefusedError, UnansweredError) as error:
        now = read_config(cdp, master)
        if isinstance(error, UnansweredError) and not differences(after, now):
            return True  # it was done, and only the answer got lost
        if differences(before, now):
            restore(cdp, master, before, backup)
        raise
    wrong = differences(after, read_config(cdp, master))
    if wrong:
        restore(cdp, master, before, backup)
        raise SinkError(
            f"after writing it, the master segment '{master.name}' was not what was sent: "
            f"{'; '.join(wrong[:5])}; the previous configuration was restored and is in "
            f"'{backup}' (somebody may be editing it; run again when they are done)"
        )
    return True


def restore(cdp: Cdp, master: MasterSegment, before: dict[str, Any], backup: Path) -> None:
    """Put back what was there, and keep what others added meanwhile.

    Raises
    ------
    SinkError
        If that fails too; the message says where the backup is.
    """
    try:
        wanted = _merged(before, read_config(cdp, master))
        cdp.change("PUT", f"/audiences/{master.id}", wanted)
        wrong = differences(wanted, read_config(cdp, master))
    except (RefusedError, UnansweredError) as error:
        wrong = [str(error)]
    if wrong:
        raise SinkError(
            f"the master segment '{master.name}' was changed and could not be restored "
            f"({'; '.join(wrong[:5])}); its configuration from before is in '{backup}': put it "
            f"back with PUT /audiences/{master.id}"
        )


def _merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(before)
    for collection in COLLECTIONS:
        ours = list(merged.get(collection) or [])
        known = {entry.get("name") for entry in ours if isinstance(entry, dict)}
        known |= {ATTRIBUTE} if collection == "attributes" else set()
        added = [
            entry
            for entry in now.get(collection) or []
            if isinstance(entry, dict) and entry.get("name") not in known
        ]
        merged[collection] = [*ours, *added]
    return merged


def write_backup(folder: Path, config: Mapping[str, Any]) -> Path:
    """Keep a configuration in a file that only its owner may read.

    Raises
    ------
    SinkError
        If the folder takes no file; nothing was changed then.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    path = folder / f"master_segment_{config['id']}_{stamp}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(config, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SinkError(
            f"no backup of the master segment could be written to '{folder}' "
            f"({error.strerror}); it was not touched"
        ) from None
    return path
