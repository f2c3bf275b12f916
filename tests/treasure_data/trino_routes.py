"""The Trino protocol: a statement, and the pages of its result."""

from __future__ import annotations

import re
from typing import Any

import duckdb
from treasure_data.loopback import Answer, Loopback, Request, route

TRINO_TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "tinyint",
    "SMALLINT": "smallint",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "HUGEINT": "bigint",
    "FLOAT": "real",
    "DOUBLE": "double",
    "VARCHAR": "varchar",
    "DATE": "date",
    "TIMESTAMP": "timestamp(6)",
    "TIMESTAMP WITH TIME ZONE": "timestamp(6) with time zone",
    "TIME": "time(6)",
    "BLOB": "varbinary",
}


def trino_type(duck: str) -> str:
    if duck.endswith("[]"):
        return f"array({trino_type(duck[:-2])})"
    if duck.startswith("DECIMAL"):
        return duck.lower()
    if duck.startswith("MAP"):
        key, value = re.fullmatch(r"MAP\((\w+), (\w+)\)", duck).groups()
        return f"map({trino_type(key)}, {trino_type(value)})"
    return TRINO_TYPES[duck]


def signature(name: str) -> dict[str, Any]:
    raw, _, rest = name.partition("(")
    inside, _, tail = rest.rpartition(")")
    raw += tail
    if raw in ("array", "map"):
        inner = [{"kind": "TYPE", "value": signature(part.strip())} for part in inside.split(",")]
        return {"rawType": raw, "arguments": inner}
    numbers = [int(number) for number in inside.split(",") if number.strip()]
    if raw == "varchar":
        numbers = [2147483647]
    return {"rawType": raw, "arguments": [{"kind": "LONG", "value": n} for n in numbers]}


def failed(message: str, name: str, kind: str = "USER_ERROR") -> dict[str, Any]:
    facts = {"message": message, "errorCode": 1, "errorName": name, "errorType": kind}
    return facts | {"failureInfo": {"type": "x", "message": message}}


def page(server: Loopback, query: str, **more: Any) -> Answer:
    facts = {"id": query, "infoUri": f"{server.base}/ui/{query}", "stats": {"state": "RUNNING"}}
    return Answer(200, facts | more)


@route("POST", "/v1/statement")
def statement(server: Loopback, request: Request) -> Answer:
    query = f"q{server.store.next_id()}"
    text = request.body.decode()
    try:
        cursor = server.store.connection.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        kinds = cursor.execute(f"DESCRIBE {text}").fetchall() if "SELECT" in text else []
        cursor.execute(text)
    except duckdb.Error as error:
        missing = isinstance(error, duckdb.CatalogException)
        name = "TABLE_NOT_FOUND" if missing else "SYNTAX_ERROR"
        return page(server, query, error=failed(f"line 1:1: {error}"[:200], name))
    names = [trino_type(kind[1]) for kind in kinds]
    columns = [
        {"name": kind[0], "type": name, "typeSignature": signature(name)}
        for kind, name in zip(kinds, names, strict=True)
    ]
    server.store.statements[query] = (cursor, columns)
    return page(server, query, nextUri=f"{server.base}/v1/next/{query}/0")


@route("GET", "/v1/next/*/*")
def next_page(server: Loopback, request: Request) -> Answer:
    query, token = request.arguments
    cursor, columns = server.store.statements[query]
    # a page that got lost is asked for again, and must be the same
    pages = server.store.statements.setdefault(f"pages of {query}", {})
    if token not in pages:
        pages[token] = cursor.fetchmany(server.page_rows)
    rows = pages[token]
    more = {} if not rows else {"nextUri": f"{server.base}/v1/next/{query}/{int(token) + 1}"}
    data = [[_plain(value) for value in row] for row in rows]
    return page(server, query, columns=columns, **({"data": data} if rows else {}), **more)


@route("DELETE", "/v1/next/*/*")
def cancel(server: Loopback, request: Request) -> Answer:
    server.store.statements.pop(request.arguments[0], None)
    return Answer(204, b"")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        names = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
        return names.get(str(value), value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tzinfo") and hasattr(value, "year"):
        text = str(value).replace("+00:00", "")
        return f"{text} UTC" if value.tzinfo is not None else text
    return str(value)
