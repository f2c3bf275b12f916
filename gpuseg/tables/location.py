"""Where a table lives: what the user wrote, made into a place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpuseg.addresses import check_address
from gpuseg.errors import SettingsError

DEFAULT_WAREHOUSE = "duckdb:gpuseg.duckdb"

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".csv.gz": "csv",
    ".tsv.gz": "csv",
    ".txt.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}

#: Warehouse systems by the first word of their address, with the module of this package that
#: is imported when a table in it is first named.
SYSTEMS = {
    "duckdb": "duckdb",
    "postgresql": "adbc",
    "postgres": "adbc",
    "adbc": "adbc",
    "td": "treasure_data",
}


@dataclass(frozen=True)
class Location:
    """A file, a folder of Parquet parts, or a table in a warehouse.

    Parameters
    ----------
    kind
        ``file``, ``folder``, or the warehouse's system (``duckdb``, ``td``).
    display
        How to call it in front of people: without credentials.
    path
        The file, the folder, or the file that holds the database.
    format
        Of a file or of a folder's parts: ``parquet``, ``csv``, ``jsonl`` or ``arrow``.
    schema, table
        In a warehouse. Both empty for the warehouse as a whole, which can be queried.
    address
        Of a server, with all that it takes to connect; never shown. Empty for files.
    leave_out
        Columns that are not fetched from there, except where they are named.
    """

    kind: str
    display: str
    path: Path
    format: str = ""
    schema: str = ""
    table: str = ""
    address: str = field(default="", repr=False)
    leave_out: tuple[str, ...] = ()

    @property
    def database(self) -> str:
        """The same for all tables that can appear together in one transaction."""
        return self.address or str(self.path.resolve())

    @property
    def place(self) -> tuple[str, str, str]:
        """The same for all ways to name the same table."""
        return self.database, self.schema.lower(), self.table.lower()

    def overlaps(self, other: Location) -> bool:
        """Whether writing to one changes the other: the same table, or one inside the other."""
        if self.place == other.place:
            return True
        if self.in_warehouse or other.in_warehouse:
            return False
        here, there = self.path.resolve(), other.path.resolve()
        return here in there.parents or there in here.parents

    @property
    def in_warehouse(self) -> bool:
        """Whether it is a table (or all) of a warehouse."""
        return self.kind in SYSTEMS

    def to_dict(self) -> dict[str, str]:
        """Return what finds the place again from any folder, JSON-able and without secrets."""
        names = ("kind", "display", "format", "schema", "table")
        facts = {name: str(getattr(self, name)) for name in names}
        path = "" if self.address else str(self.path.absolute())
        return facts | {"path": path, "address": _shown(self.address)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, str], *, warehouse: str | None = None) -> Location:
        """Return the place that `to_dict` wrote down.

        Parameters
        ----------
        warehouse
            An address with its secrets; used if the place is in the same warehouse.
        """
        address = facts["address"]
        if warehouse is not None and address == _shown(warehouse):
            address = warehouse
        return cls(
            kind=facts["kind"],
            display=facts["display"],
            path=Path(facts["path"]),
            format=facts["format"],
            schema=facts["schema"],
            table=facts["table"],
            address=address,
        )


def locate(
    argument: str, *, warehouse: str | None = None, default_schema: str | None = None
) -> Location:
    """Decide what the name of a table means.

    Parameters
    ----------
    argument
        A path (it exists, or its suffix is known, or it ends in ``/``), or ``db.table``;
        parts that hold dots or blanks may stand in double quotes.
    warehouse
        Where ``db.table`` lives: ``duckdb:PATH``, ``postgresql://…``, ``adbc:DRIVER?…`` or
        ``td``; ``duckdb:gpuseg.duckdb`` when not given.
    default_schema
        Lets a bare ``table`` mean a table of this schema.

    Raises
    ------
    SettingsError
        If it is neither a path with a known suffix nor ``db.table``, or if there is no
        such warehouse system.

    Examples
    --------
    >>> locate("sales/orders.csv.gz").format
    'csv'
    >>> locate("ml_datasets.gluon_train").table
    'gluon_train'
    """
    if not argument.strip() or "\0" in argument:
        raise SettingsError(f"a table's name is empty or holds a null character; {_BOTH_FORMS}")
    _refuse_address(argument)
    path = Path(argument).expanduser()
    suffix = format_suffix(path.name)
    if argument.endswith("/") or _is(path.is_dir):
        return Location("folder", argument, path, format="parquet")
    if suffix:
        return Location("file", argument, path, format=FORMATS[suffix])
    if "/" in argument or _is(path.is_file):
        raise SettingsError(
            f"'{argument}' has none of the suffixes that tell what it holds: {', '.join(FORMATS)}"
        )
    return _in_warehouse(argument, warehouse, default_schema)


def locate_warehouse(warehouse: str | None = None) -> Location:
    """Return the warehouse as a whole, to run ``--input-query`` in."""
    whole = _warehouse(warehouse or DEFAULT_WAREHOUSE)
    return replace(whole, display=f"query in {whole.display}")


def _refuse_address(argument: str) -> None:
    """Refuse what is no path without repeating it: an address may hold a password."""
    scheme, sign, _rest = argument.partition("://")
    if sign:
        raise SettingsError(
            f"an address ('{scheme[:20]}://…') is no table that gpuseg reads or writes; "
            f"{_BOTH_FORMS}"
        )


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # too long for a file's name, but not for a table's
        return False


def format_suffix(name: str) -> str:
    """Return the longest known suffix of a file name, or nothing."""
    known = (suffix for suffix in FORMATS if name.lower().endswith(suffix))
    return max(known, key=len, default="")


_BOTH_FORMS = "give a file (such as customers.csv) or a table of the warehouse as db.table"

_NAME = re.compile(r'"(?:[^"]|"")+"|[^."]+')


def _in_warehouse(argument: str, warehouse: str | None, default_schema: str | None) -> Location:
    parts = _split(argument)
    if len(parts) == 1 and default_schema:
        parts = [default_schema, *parts]
    if len(parts) != 2:
        raise SettingsError(
            f"'{argument}' is neither a file nor db.table (names that hold a dot go into "
            f"double quotes); {_BOTH_FORMS}"
        )
    schema, table = parts
    whole = _warehouse(warehouse or DEFAULT_WAREHOUSE)
    return replace(whole, display=argument, schema=schema, table=table)


def _split(argument: str) -> list[str]:
    """Split ``a.b`` and ``"a.b".c`` into names; an unreadable text gives no names."""
    names, position = [], 0
    while found := _NAME.match(argument, position):
        word = found.group()
        names.append(word[1:-1].replace('""', '"') if word.startswith('"') else word)
        position = found.end()
        if position == len(argument):
            return names
        if argument[position] != ".":
            break
        position += 1
    return []


def _warehouse(address: str) -> Location:
    """Return a warehouse as a whole."""
    check_address(address)
    system, _, rest = address.partition(":")
    if system not in SYSTEMS:
        # what follows the first word may hold a password
        raise SettingsError(
            f"no warehouse system is called '{system[:20]}'; there are duckdb:PATH (for example "
            f"{DEFAULT_WAREHOUSE}), postgresql://USER@HOST/DATABASE, adbc:DRIVER?OPTION=VALUE and "
            "td (Treasure Data)"
        )
    if system == "duckdb":
        path = _duckdb_path(address, rest)
        return Location(system, f"{system}:{path}", path)
    if system == "td":
        return _treasure_data(rest)
    expected = r"//" if system.startswith("postgres") else r"[\w.-]+(\?|$)"
    if not re.match(expected, rest):
        raise SettingsError(
            f"the address of the warehouse ('{system}:…') is incomplete; write "
            "postgresql://USER@HOST:PORT/DATABASE, or adbc:DRIVER?OPTION=VALUE&…"
        )
    return Location(system, _shown(address), Path(), address=address)


def _treasure_data(rest: str) -> Location:
    if rest:
        # not repeated: somebody may have put the key there
        raise SettingsError(
            "the warehouse td takes nothing after its name; the environment says where it "
            "is: TD_API_KEY and TD_API_SERVER"
        )
    return Location("td", "Treasure Data", Path(), address="td")


def _shown(address: str) -> str:
    """Return an address without password, and without options, which may hold secrets too."""
    scheme, sign, rest = address.partition("://")
    user, at, host = rest.rpartition("@")  # a password may hold any sign unescaped
    return f"{scheme}{sign}{user.partition(':')[0]}{at}{host}".partition("?")[0]


def _duckdb_path(address: str, rest: str) -> Path:
    if not rest or rest.startswith(":"):
        raise SettingsError(f"'{address}' names no database file; write duckdb:PATH")
    if "?" in rest or "://" in rest or rest.startswith(("md:", "motherduck:")):
        # not repeated either: such options carry tokens
        raise SettingsError("the DuckDB warehouse is a local file without options: duckdb:PATH")
    return Path(rest).expanduser()
