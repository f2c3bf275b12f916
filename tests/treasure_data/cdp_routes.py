"""The CDP routes: master segments, their runs, folders and segments, v5 and v4."""

from __future__ import annotations

import copy
from typing import Any

import duckdb
from treasure_data.loopback import Answer, Loopback, Request, route
from treasure_data.rest_routes import missing
from treasure_data.store import quoted

COLLECTIONS = ("attributes", "behaviors", "audienceFilters")
TAKEN = "has already been taken"


def add_audience(server: Loopback, name: str, master: tuple[str, str]) -> str:
    """Put a master segment there, with an attribute and a behavior of somebody else."""
    store = server.store
    audience = str(store.next_id())
    database, table = master
    attribute = {
        "audienceId": audience, "name": "city", "type": "string", "groupingName": "Profile",
        "parentDatabaseName": database, "parentTableName": table, "parentColumn": "city",
        "parentKey": "customer", "foreignKey": "customer", "id": str(store.next_id()),
    }  # fmt: skip
    store.audiences[audience] = {
        "id": audience,
        "name": name,
        "description": "all customers",
        "scheduleType": "daily",
        "master": {"parentDatabaseName": database, "parentTableName": table},
        "attributes": [attribute],
        "behaviors": [{"id": "7", "name": "visits", "parentTableName": "visits", "schema": [1, 2]}],
        "audienceFilters": [{"id": "8", "name": "consent"}],
        "population": None,
        "updatedAt": "2026-01-01T00:00:00Z",
        "rootFolder": str(store.next_id()),
    }
    store.folders[store.audiences[audience]["rootFolder"]] = {
        "audience": audience, "name": name, "description": "", "parent": None,
    }  # fmt: skip
    store.executions[audience] = []
    return audience


def shown(audience: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in audience.items() if key != "rootFolder"}


# -- master segments ---------------------------------------------------------------------


def v5_refusal(server: Loopback) -> Answer | None:
    if server.v5:
        return None
    return Answer(403, {"errors": "v5 endpoints flag should be enabled for audience"})


def v5_master(audience: dict[str, Any], *, with_folder: bool) -> dict[str, Any]:
    folder = {"parentSegmentFolder": {"data": {"id": audience["rootFolder"]}}}
    return {
        "id": f"5{audience['id']}",  # v5 has ids of its own
        "type": "parent-segment",
        "attributes": {"name": audience["name"], "v4Id": int(audience["id"])},
        "relationships": folder if with_folder else {},
    }


@route("GET", "/entities/parent_segments")
def parent_segments(server: Loopback, _request: Request) -> Answer:
    found = server.store.audiences.values()
    data = [v5_master(audience, with_folder=server.folder_in_list) for audience in found]
    return v5_refusal(server) or Answer(200, {"data": data})


@route("GET", "/entities/parent_segments/*")
def parent_segment(server: Loopback, request: Request) -> Answer:
    found = server.store.audiences.get(request.arguments[0][1:])
    if found is None:
        return missing("parent segment")
    return v5_refusal(server) or Answer(200, {"data": v5_master(found, with_folder=True)})


@route("GET", "/audiences")
def audiences(server: Loopback, _request: Request) -> Answer:
    return Answer(200, [shown(audience) for audience in server.store.audiences.values()])


@route("GET", "/audiences/*")
def audience(server: Loopback, request: Request) -> Answer:
    found = server.store.audiences.get(request.arguments[0])
    return Answer(200, shown(found)) if found else missing("audience")


@route("PUT", "/audiences/*")
def put_audience(server: Loopback, request: Request) -> Answer:
    stored = server.store.audiences.get(request.arguments[0])
    if stored is None:
        return missing("audience")
    sent = request.json()
    names = [attribute["name"] for attribute in sent.get("attributes") or []]
    if len(set(names)) < len(names):
        return Answer(400, {"errors": {"base": ["attributes are not unique"]}})
    changed = copy.deepcopy(sent)
    replaces = "master" in sent
    for collection in COLLECTIONS:
        # with `master`, what is not sent is deleted; without it, collections stay
        changed[collection] = (sent.get(collection) or []) if replaces else stored[collection]
        for entry in changed[collection]:
            entry.setdefault("id", str(server.store.next_id()))
    server.mangle(changed)
    stored.update(changed, updatedAt=f"2026-01-01T00:00:{server.store.next_id() % 60:02}Z")
    return Answer(200, shown(stored))


@route("POST", "/audiences/*/run")
def run_audience(server: Loopback, request: Request) -> Answer:
    runs = server.store.executions[request.arguments[0]]
    if runs and runs[-1]["status"] in ("queued", "running"):
        return Answer(409, {"error": "an execution is in progress"})
    execution = {
        "workflowId": "1",
        "workflowSessionId": "1",
        "workflowAttemptId": str(server.store.next_id()),
        "createdAt": "2026-01-01T00:00:00Z",
        "finishedAt": None,
        "status": "queued",
    }
    runs.append(execution)
    return Answer(200, execution)


@route("GET", "/audiences/*/executions")
def executions(server: Loopback, request: Request) -> Answer:
    runs = server.store.executions[request.arguments[0]]
    found = copy.deepcopy(runs[::-1])
    if runs and runs[-1]["status"] == "running":
        runs[-1]["status"] = finished(server, request.arguments[0])
        runs[-1]["finishedAt"] = "2026-01-01T00:01:00Z"
    elif runs and runs[-1]["status"] == "queued":
        runs[-1]["status"] = "running"
    return Answer(200, found)


def finished(server: Loopback, audience: str) -> str:
    """Join the attributes to the master table, as the workflow of a master segment does."""
    config = server.store.audiences[audience]
    if server.execution_status != "success":
        return server.execution_status
    master = config["master"]
    columns, joins = ["m.*"], []
    for number, attribute in enumerate(config["attributes"]):
        source = quoted(attribute["parentDatabaseName"], attribute["parentTableName"])
        alias = f"a{number}"
        if attribute["name"] == "city":
            continue  # a column of the master table itself
        column = quoted(attribute["parentColumn"])
        columns.append(f"{alias}.{column} AS {quoted(attribute['name'])}")
        joins.append(
            f"LEFT JOIN {source} {alias} ON {alias}.{quoted(attribute['parentKey'])} = "
            f"m.{quoted(attribute['foreignKey'])}"
        )
    table = quoted(master["parentDatabaseName"], master["parentTableName"])
    target = f"cdp_audience_{audience}"
    try:
        server.store.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {target}")
        server.store.connection.execute(
            f"CREATE OR REPLACE TABLE {target}.customers AS "
            f"SELECT {', '.join(columns)} FROM {table} m {' '.join(joins)}"
        )
        count = f"SELECT count(*) FROM {target}.customers"
        config["population"] = server.store.connection.execute(count).fetchall()[0][0]
    except duckdb.Error:
        return "error"
    return "success"


# -- folders -----------------------------------------------------------------------------


def new_folder(server: Loopback, audience: str, parent: str | None, facts: dict[str, Any]) -> str:
    identity = str(server.store.next_id())
    facts = {"name": facts["name"], "description": facts.get("description", "")}
    server.store.folders[identity] = facts | {"audience": audience, "parent": parent}
    return identity


def folder_taken(server: Loopback, audience: str, name: str) -> bool:
    folders = server.store.folders.values()
    return any((f["audience"], f["name"]) == (audience, name) and f["parent"] for f in folders)


def v5_taken() -> Answer:
    code = "VIOLATES_UNIQUENESS_CONSTRAINT"
    error = {"detail": f"Name {TAKEN}", "meta": {"validationCode": code}}
    return Answer(400, {"errors": [error]})


def v5_folder(identity: str, folder: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": identity,
        "type": "folder-segment",
        "attributes": {"name": folder["name"], "description": folder["description"]},
        "relationships": {"parentFolder": {"data": {"id": folder["parent"]}}},
    }


@route("POST", "/entities/folders")
def create_folder(server: Loopback, request: Request) -> Answer:
    sent = request.json()
    parent = sent["relationships"]["parentFolder"]["data"]["id"]
    if parent not in server.store.folders:
        return missing("folder")
    audience = server.store.folders[parent]["audience"]
    if folder_taken(server, audience, sent["attributes"]["name"]):
        return v5_taken()
    identity = new_folder(server, audience, parent, sent["attributes"])
    return Answer(200, {"data": v5_folder(identity, server.store.folders[identity])})


@route("GET", "/entities/by-folder/*")
def by_folder(server: Loopback, request: Request) -> Answer:
    (asked,) = request.arguments
    if "depth" not in request.query:
        return Answer(400, {"errors": [{"detail": "depth is required"}]})
    if asked not in server.store.folders:
        return missing("folder")
    folders = server.store.folders.items()
    data = [v5_folder(i, f) for i, f in folders if asked in (i, f["parent"])]
    data += [v5_segment(i, s) for i, s in server.store.segments.items() if s["folder"] == asked]
    return Answer(200, {"data": data})


@route("GET", "/audiences/*/folders")
def v4_folders(server: Loopback, request: Request) -> Answer:
    (audience,) = request.arguments
    folders = server.store.folders.items()
    found = [(i, f) for i, f in folders if f["audience"] == audience and f["parent"]]
    return Answer(200, [{"id": i, "audienceId": audience, "name": f["name"]} for i, f in found])


@route("POST", "/audiences/*/folders")
def v4_create_folder(server: Loopback, request: Request) -> Answer:
    (audience,) = request.arguments
    sent = request.json()
    if not sent.get("name") or not sent.get("description"):
        return Answer(400, {"errors": {"description": ["can't be blank"]}})
    if folder_taken(server, audience, sent["name"]):
        return Answer(400, {"errors": {"name": [TAKEN]}})
    root = server.store.audiences[audience]["rootFolder"]
    return Answer(200, {"id": new_folder(server, audience, root, sent), "name": sent["name"]})


# -- segments ----------------------------------------------------------------------------


def v5_segment(identity: str, segment: dict[str, Any]) -> dict[str, Any]:
    # a rule can read back empty on the real service; whoever relies on it would erase it
    attributes = {"name": segment["name"], "description": segment["description"], "rule": None}
    parent = {"data": {"id": segment["folder"], "type": "folder-segment"}}
    return {
        "id": identity,
        "type": "segment-batch",
        "attributes": attributes,
        "relationships": {"parentFolder": parent},
    }


def segment_taken(server: Loopback, folder: str, name: str, but: str | None = None) -> bool:
    return any(
        (segment["folder"], segment["name"]) == (folder, name) and identity != but
        for identity, segment in server.store.segments.items()
    )


def bad_rule(server: Loopback, folder: str, rule: Any) -> Answer | None:
    config = server.store.audiences[server.store.folders[folder]["audience"]]
    known = {attribute["name"] for attribute in config["attributes"]}
    for group in rule["conditions"]:
        for value in group["conditions"]:
            keys = {"type", "leftValue", "operator", "arrayMatching", "exclude"}
            if not keys <= set(value) or value["leftValue"]["name"] not in known:
                return Answer(422, {"errors": [{"detail": "rule is invalid"}]})
    return None


@route("POST", "/entities/segments")
def create_segment(server: Loopback, request: Request) -> Answer:
    sent = request.json()
    folder = sent["relationships"]["parentFolder"]["data"]["id"]
    facts = sent["attributes"]
    if segment_taken(server, folder, facts["name"]):
        return v5_taken()
    refused = bad_rule(server, folder, facts["rule"])
    if refused:
        return refused
    identity = str(server.store.next_id())
    server.store.segments[identity] = {
        "folder": folder,
        "name": facts["name"],
        "description": facts["description"],
        "rule": facts["rule"],
    }
    return Answer(200, {"data": v5_segment(identity, server.store.segments[identity])})


@route("PATCH", "/entities/segments/*")
def patch_segment(server: Loopback, request: Request) -> Answer:
    (identity,) = request.arguments
    segment = server.store.segments.get(identity)
    if segment is None:
        return missing("segment")
    facts = request.json()["attributes"]
    if segment_taken(server, segment["folder"], facts["name"], but=identity):
        return v5_taken()
    segment.update({key: facts[key] for key in ("name", "description", "rule") if key in facts})
    return Answer(200, {"data": v5_segment(identity, segment)})


@route("DELETE", "/entities/segments/*")
def delete_segment(server: Loopback, request: Request) -> Answer:
    if server.store.segments.pop(request.arguments[0], None) is None:
        return missing("segment")
    return Answer(200, {})


@route("GET", "/audiences/*/segments")
def v4_segments(server: Loopback, request: Request) -> Answer:
    (audience,) = request.arguments
    own = {i for i, folder in server.store.folders.items() if folder["audience"] == audience}
    return Answer(
        200,
        [
            {
                "id": int(identity),
                "name": segment["name"],
                "description": segment["description"],
                "segmentFolderId": int(segment["folder"]),
                "kind": 0,
            }
            for identity, segment in server.store.segments.items()
            if segment["folder"] in own
        ],
    )


@route("POST", "/audiences/*/segments")
def v4_create_segment(server: Loopback, request: Request) -> Answer:
    sent = request.json()
    folder = str(sent["segmentFolderId"])
    if segment_taken(server, folder, sent["name"]):
        return Answer(400, {"errors": {"name": [TAKEN]}})
    refused = bad_rule(server, folder, sent["rule"])
    if refused:
        return refused
    identity = str(server.store.next_id())
    facts = {key: sent[key] for key in ("name", "description", "rule")}
    server.store.segments[identity] = facts | {"folder": folder}
    return Answer(200, {"id": int(identity)})


@route("PUT", "/audiences/*/segments/*")
def v4_put_segment(server: Loopback, request: Request) -> Answer:
    _audience, identity = request.arguments
    segment = server.store.segments.get(identity)
    if segment is None:
        return missing("segment")
    sent = request.json()
    segment.update({key: sent[key] for key in ("name", "description", "rule") if key in sent})
    return Answer(200, {"id": int(identity)})


@route("DELETE", "/audiences/*/segments/*")
def v4_delete_segment(server: Loopback, request: Request) -> Answer:
    if server.store.segments.pop(request.arguments[1], None) is None:
        return missing("segment")
    return Answer(200, {})


def population(server: Loopback, audience: str, segment: dict[str, Any]) -> int:
    """Count the customers that a segment's rule finds."""
    sets = []
    for group in segment["rule"]["conditions"]:
        tests = [
            f"{quoted(value['leftValue']['name'])} = {value['operator']['rightValue']!r}"
            for value in group["conditions"]
        ]
        sets.append(f" {group['type']} ".join(tests))
    where = f" {segment['rule']['type']} ".join(f"({text})" for text in sets)
    found = server.store.connection.execute(
        f"SELECT count(*) FROM cdp_audience_{audience}.customers WHERE {where}"
    )
    return found.fetchall()[0][0]
