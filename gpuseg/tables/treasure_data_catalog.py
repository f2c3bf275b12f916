"""What is there in Treasure Data: databases, tables, columns, numbers of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gpuseg.errors import TableNotFoundError, did_you_mean
from gpuseg.tables.agreement import SHOWN_NAMES
from gpuseg.tables.location import Location
from gpuseg.tables.treasure_data_client import NOT_FOUND, ask
from gpuseg.tables.treasure_data_site import Site
from gpuseg.tables.treasure_data_types import TIME

if TYPE_CHECKING:  # the client module says what to do where it is not installed
    import pytd


class TableFacts(NamedTuple):
    """What Treasure Data's REST API tells about a table."""

    id: Any
    columns: dict[str, str]  # name in queries -> declared type; `time` last
    n_rows: int  # as last counted there


def find(client: pytd.Client, location: Location) -> TableFacts:
    """Return what is known of a table.

    Raises
    ------
    TableNotFoundError
        If there is no such database or table.
    """
    tables = tables_of(client, location.schema)
    name = location.table.lower()
    if name not in tables:
        asked = f"{location.schema}.{location.table}"
        raise TableNotFoundError(
            f"table '{asked}' is not in Treasure Data; database '{location.schema}' has "
            f"{_listed(tables)}{did_you_mean(name, tables)}"
        )
    return tables[name]


def tables_of(client: pytd.Client, database: str) -> dict[str, TableFacts]:
    """Return the tables of a database.

    Raises
    ------
    TableNotFoundError
        If there is no such database.
    """
    api = client.api_client.api
    try:
        tables = ask(lambda: api.list_tables(database.lower()))
    except NOT_FOUND:
        raise _no_database(client, database) from None
    return {name: _facts(about) for name, about in tables.items()}


def _facts(about: dict[str, Any]) -> TableFacts:
    # a third entry is the name that queries must use when the first is no legal one
    columns = {str((*column[2:3], column[0])[0]): str(column[1]) for column in about["schema"]}
    columns.setdefault(TIME, "long")
    return TableFacts(about.get("id"), columns, int(about["count"]))


def _no_database(client: pytd.Client, database: str) -> TableNotFoundError:
    site = Site.of_environment()
    try:
        names = list(ask(client.api_client.api.list_databases))
    except NOT_FOUND:
        return TableNotFoundError(
            f"{site.host} is no server of Treasure Data's REST API (404); TD_API_SERVER must "
            "name that of your region, for example https://api.eu01.treasuredata.com"
        )
    return TableNotFoundError(
        f"there is no database '{database}' at {site.host}, which has {_listed(names)}"
        f"{did_you_mean(database, names)}; create it there first, and if you expected others, "
        "see whether TD_API_SERVER names your region"
    )


def _listed(names: Any) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN_NAMES} more" if len(ordered) > SHOWN_NAMES else ""
    return ", ".join(ordered[:SHOWN_NAMES]) + more if ordered else "nothing in it"


def quoted(*names: str) -> str:
    """Return a column, or a table with its database, as SQL names it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def quoted_table(location: Location) -> str:
    """Return a table as SQL names it."""
    return quoted(location.schema.lower(), location.table.lower())


def count_rows(client: pytd.Client, source: str) -> int:
    """Count the rows of a table or of a query in parentheses."""
    cursor: Any = client.default_engine.cursor()
    cursor.execute(f"SELECT count(1) FROM {source}")
    [(n_rows,)] = cursor.fetchall()
    return int(n_rows)
