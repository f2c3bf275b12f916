"""A connection through ADBC that speaks SQL and says what goes wrong in the house's words."""

from __future__ import annotations

import contextlib
import importlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import pyarrow as pa

from gpuseg.addresses import secrets_of
from gpuseg.errors import DataError, GpusegError, SettingsError, SinkError, SourceError
from gpuseg.redaction import redact_text
from gpuseg.tables.adbc_dialect import STANDARD, Dialect, Failure, literal
from gpuseg.tables.location import Location

#: Seconds to wait before each new try when a server is not there, or was lost.
RETRY_SECONDS = (0.5, 2.0, 5.0)

#: What an error of reading, and one of writing, says at its end.
_ENDINGS = {SourceError: "run again", SinkError: "the previous table stands; run again"}

Result = TypeVar("Result")


class LostError(SourceError, SinkError):
    """The server was not there, or was lost on the way: worth another try."""


class Address(NamedTuple):
    """Which driver, and what it is told."""

    driver: str
    options: dict[str, str]
    dialect: Dialect


def address_of(location: Location) -> Address:
    """Read the address of a warehouse.

    Raises
    ------
    SettingsError
        If an option comes twice or has no value.
    """
    if location.kind != "adbc":
        return _with_timeouts(
            Address("adbc_driver_postgresql", {"uri": location.address}, STANDARD)
        )
    driver, _, query = location.address.removeprefix("adbc:").partition("?")
    try:
        pairs = parse_qsl(query, strict_parsing=bool(query), keep_blank_values=True)
    except ValueError:
        raise SettingsError(
            f"the options of 'adbc:{driver}?…' are not OPTION=VALUE pairs joined by &"
        ) from None
    if len(dict(pairs)) < len(pairs):
        raise SettingsError(f"an option of 'adbc:{driver}?…' comes twice")
    return _with_timeouts(Address(driver, dict(pairs), STANDARD))


def _with_timeouts(address: Address) -> Address:
    """Find the dialect, and add the time-outs that the address leaves open."""
    found = dialect_of(address.driver)
    uri = address.options.get("uri", "")
    for option, value in found.timeouts.items():
        if uri and not re.search(rf"[?&]{option}=", uri):
            uri += f"{'&' if '?' in uri.rpartition('@')[2] else '?'}{option}={value}"
    options = address.options | ({"uri": uri} if uri else {})
    return Address(address.driver, options, found)


def dialect_of(driver: str) -> Dialect:
    """Return the dialect of a driver's database; the standard's for one that is not known."""
    if driver.endswith("postgresql"):
        return importlib.import_module("gpuseg.tables.postgresql").POSTGRESQL  # type: ignore[no-any-return]
    if driver.endswith("sqlite"):
        return importlib.import_module("gpuseg.tables.sqlite").SQLITE  # type: ignore[no-any-return]
    return STANDARD


def retried(work: Callable[[], Result]) -> Result:
    """Do it again, after a while, as long as the server is not there or gets lost."""
    for seconds in RETRY_SECONDS:
        try:
            return work()
        except LostError:
            time.sleep(seconds)
    return work()


class Connection:
    """An open connection, in a transaction. Use it in a ``with`` statement, or close it.

    Parameters
    ----------
    failure
        What an error becomes that is neither the user's nor worth another try.
    """

    def __init__(self, location: Location, failure: type[SourceError | SinkError]) -> None:
        self.location, self._failure = location, failure
        address = address_of(location)
        self.dialect = address.dialect
        # without the options of the address
        self.display = location.display
        module = _driver_manager()
        with self._translated():
            self._connection = module.connect(
                driver=_driver_path(address.driver),
                entrypoint=address.options.pop("entrypoint", None),
                db_kwargs=address.options,
                autocommit=False,
            )
        try:
            for statement in self.dialect.opening:
                self.run(statement)
            self.commit()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        options = dict(self.dialect.small_options)
        with self._translated(), self._connection.cursor(adbc_stmt_kwargs=options) as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]

    def batches(self, sql: str) -> Iterator[pa.RecordBatch | pa.Schema]:
        """Run a query; give its schema, then its rows as they come."""
        options = dict(self.dialect.statement_options)
        with self._translated(), self._connection.cursor(adbc_stmt_kwargs=options) as cursor:
            cursor.execute(sql)
            reader = cursor.fetch_record_batch()
            yield reader.schema
            yield from reader

    def ingest(self, table: pa.Table, schema: str, name: str) -> None:
        """Make a table of Arrow rows by bulk ingest."""
        place = {"db_schema_name": schema} if self.dialect.schema else {}
        with self._translated(), self._connection.cursor() as cursor:
            cursor.adbc_ingest(name, table, mode="create", **place)

    def tables(self) -> list[tuple[str, str, str]]:
        """Return kind, schema and name of every table and view."""
        return [(str(k), str(s), str(n)) for k, s, n in self.run(self.dialect.tables)]

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the SQL type of each column, in order."""
        return {
            str(name): str(kind) for name, kind in self.ask(self.dialect.columns, schema, table)
        }

    def ask(self, sql: str, schema: str, table: str, **more: str) -> list[tuple[Any, ...]]:
        """Ask the catalogue about a table; the names go in as literals."""
        return self.run(sql.format(schema=literal(schema), table=literal(table), **more))

    def commit(self) -> None:
        """Let everything appear."""
        with self._translated():
            self._connection.commit()

    def rollback(self) -> None:
        """Take everything back."""
        with self._translated():
            self._connection.rollback()

    def close(self) -> None:
        """Let go of the database; what was not committed never was."""
        # of a server that is gone there is nothing to let go of
        with contextlib.suppress(*_all_errors()):
            self._connection.rollback()
        with contextlib.suppress(*_all_errors(), RuntimeError):
            self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _all_errors() as error:
            raise self._said(error) from None

    def _said(self, error: Exception) -> GpusegError:
        sqlstate = getattr(error, "sqlstate", None) or _sqlstate(str(error))
        words = _own_words(error)
        meaning = _meaning(self.dialect, sqlstate, words)
        # the database may quote what it was given, and so a password or a customer's value
        said = meaning.said.format(what=redact_text(words, secrets_of(self.location.address)))
        where = f"{self._place()}: {said}"
        if meaning.again:
            return LostError(f"{where}; {_ENDINGS[self._failure]}")
        if meaning.kind is None:
            return self._failure(f"{where}; {_ENDINGS[self._failure]}")
        return meaning.kind(where)

    def _place(self) -> str:
        return f"'{self.location.display}' ({self.dialect.name})"


#: What every driver manager says of an address that can never work.
_NEVER = {
    "Could not load `": Failure(SettingsError, "{what}; name an installed ADBC driver"),
    "Unknown database option": Failure(SettingsError, "{what}; leave that option out"),
}


def _meaning(dialect: Dialect, sqlstate: str, words: str) -> Failure:
    for key in (sqlstate, sqlstate[:2]) if sqlstate else ():
        if key in dialect.failures:
            return dialect.failures[key]
    for phrase, meaning in (_NEVER | dict(dialect.phrases)).items():
        if re.search(phrase, words):
            return meaning
    return Failure(None, "{what}")


def _sqlstate(message: str) -> str:
    """Return the SQLSTATE that the driver puts at the end of its message, or nothing."""
    found = re.search(r"SQLSTATE: ([0-9A-Z]{5})", message)
    return found.group(1) if found else ""


def _own_words(error: Exception) -> str:
    """Return the database's own sentence, without the query that the driver repeats."""
    message = str(error)
    if isinstance(error, (OSError, pa.ArrowException)):
        # about rows on their way, so what it quotes may be a customer's value
        message = re.sub(r'"[^"]*"', '"…"', message)
    marked = re.search(r"(?:ERROR|FATAL|PANIC):\s+(.*)", message)
    if marked:
        return marked.group(1).strip()
    return re.sub(r"^[A-Z_]+: (\[\w+\] )?", "", message).partition("\n")[0].strip()


def _driver_manager() -> Any:
    try:
        return importlib.import_module("adbc_driver_manager.dbapi")
    except ImportError as error:
        raise SettingsError(
            f"this warehouse needs ADBC, which is not installed ({error}); "
            "pip install 'gpuseg[postgres]'"
        ) from None


def _driver_path(driver: str) -> str:
    """Return the library of a driver that is a Python package; else leave it to the manager."""
    try:
        module = importlib.import_module(driver)
    except ImportError:
        if driver.startswith("adbc_driver_"):
            raise SettingsError(
                f"the ADBC driver '{driver}' is not installed; pip install "
                f"{driver.replace('_', '-')}"
            ) from None
        return driver
    path = getattr(module, "_driver_path", None) or getattr(module, "driver_path", None)
    if path is None:
        raise SettingsError(f"'{driver}' is no ADBC driver; for example adbc_driver_sqlite is one")
    return str(path())


def _all_errors() -> tuple[type[Exception], ...]:
    """Return what the driver raises: its own errors, and Arrow's when rows stop coming."""
    return (_driver_manager().Error, pa.ArrowException, OSError)


def check_names(dialect: Dialect, names: Sequence[str]) -> None:
    """Refuse names that the database would cut off.

    Raises
    ------
    DataError
    """
    most = dialect.most_name_bytes
    for name in names:
        if "\0" in name or (most is not None and len(name.encode()) > most):
            raise DataError(
                f"the name '{name[:80]}' is longer than the {most} bytes of a {dialect.name} name; "
                "rename it, or write to a .parquet file"
            )


def with_type(field: pa.Field, dialect: Dialect, kind: str) -> pa.Field:
    """Let a field remember its SQL type."""
    metadata: Mapping[bytes, bytes] = {dialect.type_key: kind.encode()}
    return field.with_metadata(metadata)
