"""The REST routes that td-client calls: databases, tables, bulk import, jobs."""

from __future__ import annotations

import gzip
import io
import json
import re
from typing import Any

import msgpack
import pyarrow as pa
from treasure_data.loopback import Answer, Loopback, Request, route
from treasure_data.store import STORED_TYPES, TIME, ImportSession

NAME = re.compile(r"[a-z0-9_]{3,128}")
COLUMN = re.compile(r"[a-z_][a-z0-9_]*")


def missing(what: str) -> Answer:
    return Answer(404, {"error": f"Resource not found: {what}", "message": f"{what} not found"})


@route("GET", "/v3/database/list")
def list_databases(server: Loopback, _request: Request) -> Answer:
    databases = [{"name": name, "count": 0} for name in server.store.databases]
    return Answer(200, {"databases": databases})


@route("GET", "/v3/table/list/*")
def list_tables(server: Loopback, request: Request) -> Answer:
    (database,) = request.arguments
    if database not in server.store.databases:
        return missing(f"Couldn't find UserDatabase with name = {database}")
    tables = [
        {
            "id": facts.id,
            "name": table,
            "type": "log",
            "count": server.store.count(owner, table),
            "estimated_storage_size": 1,
            "schema": json.dumps([[name, kind] for name, kind in facts.schema]),
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
        }
        for (owner, table), facts in server.store.tables.items()
        if owner == database
    ]
    return Answer(200, {"database": database, "tables": tables})


@route("POST", "/v3/table/create/*/*/log")
def create_table(server: Loopback, request: Request) -> Answer:
    database, table = request.arguments
    if database not in server.store.databases:
        return missing(database)
    if (database, table) in server.store.tables:
        return Answer(409, {"error": f"Table {table} already exists"})
    if not NAME.fullmatch(table):
        return Answer(422, {"error": f"Validation failed: Name '{table}'"})
    server.store.create_table(database, table)
    return Answer(200, {"database": database, "table": table, "type": "log"})


@route("POST", "/v3/table/delete/*/*")
def delete_table(server: Loopback, request: Request) -> Answer:
    if request.arguments not in server.store.tables:
        return missing(request.arguments[1])
    server.store.delete_table(*request.arguments)
    return Answer(200, {"type": "log"})


@route("POST", "/v3/table/swap/*/*/*")
def swap_tables(server: Loopback, request: Request) -> Answer:
    database, one, other = request.arguments
    for table in (one, other):
        if (database, table) not in server.store.tables:
            return missing(table)
    server.store.swap_tables(database, one, other)
    return Answer(200, {"database": database, "table1": one, "table2": other})


@route("POST", "/v3/table/update-schema/*/*")
def update_schema(server: Loopback, request: Request) -> Answer:
    if request.arguments not in server.store.tables:
        return missing(request.arguments[1])
    schema = [(column[0], column[1]) for column in json.loads(request.form()["schema"])]
    for name, kind in schema:
        if not COLUMN.fullmatch(name) or kind not in STORED_TYPES or name == "time":
            return Answer(422, {"error": f"Invalid schema: {name} {kind}"})
    server.store.set_schema(*request.arguments, schema)
    return Answer(200, {"table": request.arguments[1]})


# -- bulk import -------------------------------------------------------------------------


@route("POST", "/v3/bulk_import/create/*/*/*")
def create_import(server: Loopback, request: Request) -> Answer:
    session, database, table = request.arguments
    if (database, table) not in server.store.tables:
        return missing(table)
    if session in server.store.sessions:
        return Answer(409, {"error": f"Bulk import {session} already exists"})
    server.store.sessions[session] = ImportSession(database, table)
    return Answer(200, {"name": session})


@route("PUT", "/v3/bulk_import/upload_part/*/*")
def upload_part(server: Loopback, request: Request) -> Answer:
    session, part = request.arguments
    if session not in server.store.sessions:
        return missing(session)
    if server.store.sessions[session].frozen:
        return Answer(422, {"error": "frozen"})
    server.store.sessions[session].parts[part] = request.body
    return Answer(200, {"name": session})


@route("GET", "/v3/bulk_import/show/*")
def show_import(server: Loopback, request: Request) -> Answer:
    (session,) = request.arguments
    found = server.store.sessions.get(session)
    if found is None:
        return missing(session)
    return Answer(
        200,
        {
            "name": session,
            "database": found.database,
            "table": found.table,
            "status": found.status,
            "upload_frozen": found.frozen,
            "job_id": found.job_id,
            "valid_records": 0 if found.rows is None else found.rows.num_rows,
            "error_records": found.error_records,
            "valid_parts": len(found.parts),
            "error_parts": 0,
        },
    )


@route("POST", "/v3/bulk_import/freeze/*")
def freeze_import(server: Loopback, request: Request) -> Answer:
    server.store.sessions[request.arguments[0]].frozen = True
    return Answer(200, {"name": request.arguments[0]})


@route("POST", "/v3/bulk_import/perform/*")
def perform_import(server: Loopback, request: Request) -> Answer:
    session = server.store.sessions[request.arguments[0]]
    if not session.frozen:
        return Answer(422, {"error": "not frozen"})
    job_id = str(server.store.next_id())
    session.job_id, session.status = job_id, "ready"
    if server.job_status == "success":
        records = [record for part in session.parts.values() for record in unpacked(part)]
        del records[: server.lost_records]
        detect_schema(server, session, records)
        session.rows, session.error_records = typed(server, session, records)
    server.store.jobs[job_id] = {"status": server.job_status, "polls": 1}
    return Answer(200, {"name": request.arguments[0], "job_id": job_id})


@route("POST", "/v3/bulk_import/commit/*")
def commit_import(server: Loopback, request: Request) -> Answer:
    session = server.store.sessions[request.arguments[0]]
    if session.status == "committed":
        return Answer(200, {"name": request.arguments[0]})
    if session.rows is None or session.rows.num_rows == 0:
        return Answer(422, {"error": "nothing to commit"})
    server.store.insert(session.database, session.table, session.rows)
    session.status = "committed"
    return Answer(200, {"name": request.arguments[0]})


@route("POST", "/v3/bulk_import/delete/*")
def delete_import(server: Loopback, request: Request) -> Answer:
    if server.store.sessions.pop(request.arguments[0], None) is None:
        return missing(request.arguments[0])
    return Answer(200, {"name": request.arguments[0]})


def unpacked(part: bytes) -> list[dict[str, Any]]:
    return list(msgpack.Unpacker(io.BytesIO(gzip.decompress(part)), raw=False))


def detect_schema(server: Loopback, session: ImportSession, records: list[dict[str, Any]]) -> None:
    """Declare columns that nobody declared, from the first value of each."""
    facts = server.store.tables[session.database, session.table]
    known = {name for name, _kind in facts.schema} | {"time"}
    kinds = {int: "long", float: "double", str: "string"}
    found: dict[str, str] = {}
    for record in records:
        for name, value in record.items():
            if name not in known and type(value) in kinds:
                found.setdefault(name, kinds[type(value)])
    if found:
        server.store.set_schema(session.database, session.table, [*facts.schema, *found.items()])


def typed(
    server: Loopback, session: ImportSession, records: list[dict[str, Any]]
) -> tuple[pa.Table, int]:
    """Return the records that fit the declared schema, and how many do not."""
    declared = dict([*server.store.tables[session.database, session.table].schema, TIME])
    schema = pa.schema([(name, STORED_TYPES[kind][1]) for name, kind in declared.items()])
    good = [record for record in records if fits(record, declared)]
    return pa.Table.from_pylist(good, schema=schema), len(records) - len(good)


def fits(record: dict[str, Any], declared: dict[str, str]) -> bool:
    if type(record.get("time")) is not int or set(record) - set(declared):
        return False
    return all(_is(declared[name], value) for name, value in record.items() if value is not None)


def _is(kind: str, value: Any) -> bool:
    if kind.startswith("array<"):
        return type(value) is list and all(v is None or _is(kind[6:-1], v) for v in value)
    if kind == "long":
        return type(value) is int and -(2**63) <= value < 2**63
    return type(value) is {"double": float, "string": str}[kind]


# -- jobs --------------------------------------------------------------------------------


@route("GET", "/v3/job/status/*")
def job_status(server: Loopback, request: Request) -> Answer:
    job = server.store.jobs[request.arguments[0]]
    job["polls"] -= 1
    status = "running" if job["polls"] >= 0 and "rows" not in job else job["status"]
    return Answer(200, {"job_id": request.arguments[0], "status": status})


@route("GET", "/v3/job/show/*")
def show_job(server: Loopback, request: Request) -> Answer:
    job = server.store.jobs[request.arguments[0]]
    schema = json.dumps(job.get("schema", []))
    facts = {"job_id": request.arguments[0], "hive_result_schema": schema, "debug": {}}
    return Answer(200, facts | {"status": job["status"], "num_records": len(job.get("rows", ()))})


@route("POST", "/v3/job/issue/presto/*")
def issue_job(server: Loopback, request: Request) -> Answer:
    found = server.store.connection.execute(request.form()["query"])
    schema = [(column[0], str(column[1])) for column in found.description]
    job_id = str(server.store.next_id())
    rows = found.fetchall()
    server.store.jobs[job_id] = {"status": "success", "rows": rows, "schema": schema, "polls": 0}
    return Answer(200, {"job_id": job_id})


@route("GET", "/v3/job/result/*")
def job_result(server: Loopback, request: Request) -> Answer:
    rows = server.store.jobs[request.arguments[0]]["rows"]
    return Answer(200, b"".join(msgpack.packb(list(row)) for row in rows))
