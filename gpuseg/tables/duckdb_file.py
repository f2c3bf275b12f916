"""The file of a DuckDB database: opened, waited for while others hold it, closed."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from gpuseg.errors import DataError, SinkError, SourceError, TableNotFoundError
from gpuseg.tables.duckdb_types import quoted, within_room

#: Seconds to wait before each new try while another process holds the file.
RETRY_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.5)

#: A DuckDB without a file, once `keep_warm` was called.
_kept: list[duckdb.DuckDBPyConnection] = []

_OWN_NAMES = ("memory", "system", "temp")


def keep_warm() -> None:
    """Keep a DuckDB running in this process: a file then opens in one millisecond, not thirty.

    It holds no file between two uses.
    """
    if not _kept:
        _kept.append(duckdb.connect())


class DatabaseFile:
    """An open database.

    Raises
    ------
    DataError
        If the file is no DuckDB database.
    SourceError, SinkError
        As `failure` says, if it stays locked or unreadable.
    """

    def __init__(
        self, path: Path, failure: type[SourceError | SinkError], *, read_only: bool
    ) -> None:
        self._attached = ""
        warm = _attached(path, read_only) if _kept else None
        if warm is not None:
            self.connection, self._attached = warm
        else:
            self.connection = _connect(path, failure, read_only=read_only)

    def close(self) -> None:
        """Give the file free; what was not committed never was."""
        if self._attached:
            try:
                with contextlib.suppress(duckdb.TransactionException):  # there is none
                    self.connection.rollback()
                self.connection.execute(f"USE memory; DETACH {quoted(self._attached)}")
            except duckdb.Error:  # it cannot go on with this one
                _kept.pop().close()
        self.connection.close()


def _attached(path: Path, read_only: bool) -> tuple[duckdb.DuckDBPyConnection, str] | None:
    """Open a file in the DuckDB that runs already; None if it will not, whatever the reason."""
    name = path.stem
    if name.lower() in _OWN_NAMES:
        return None
    connection = _kept[0].cursor()
    place = str(path).replace("'", "''")
    try:
        mode = "READ_ONLY" if read_only else "READ_WRITE"
        connection.execute(f"ATTACH '{place}' AS {quoted(name)} (TYPE duckdb, {mode})")
        connection.execute(f"USE {quoted(name)}")
    except duckdb.Error:  # the ordinary way says what is wrong
        connection.close()
        return None
    return connection, name


@contextmanager
def opened(
    path: Path, failure: type[SourceError | SinkError]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database to read; a file that is not there is not made."""
    if not path.exists():
        raise TableNotFoundError(
            f"there is no database '{path}'; gpuseg load FILE db.table makes one, and "
            "--warehouse duckdb:PATH names another"
        )
    file = DatabaseFile(path, failure, read_only=True)
    try:
        with translated(path, failure):
            file.connection.execute("SET TimeZone = 'UTC'")
            yield file.connection
    finally:
        file.close()


def _connect(
    path: Path, failure: type[SourceError | SinkError], *, read_only: bool
) -> duckdb.DuckDBPyConnection:
    for seconds in (*RETRY_SECONDS, None):
        try:
            return within_room(duckdb.connect(str(path), read_only=read_only))
        except duckdb.ConnectionException as error:
            # this very process has the file open, the other way round
            if not read_only or "different configuration" not in str(error):
                raise _failed(path, failure, error) from None
            return within_room(duckdb.connect(str(path)))
        except duckdb.Error as error:
            if seconds is None or "lock" not in str(error):
                raise _failed(path, failure, error) from None
            time.sleep(seconds)
    raise AssertionError("the last try returns or raises")


@contextmanager
def translated(path: Path, failure: type[SourceError | SinkError]) -> Iterator[None]:
    """Turn what DuckDB says into an error of the house."""
    try:
        yield
    except duckdb.Error as error:
        raise _failed(path, failure, error) from None


def _failed(
    path: Path, failure: type[SourceError | SinkError], error: duckdb.Error
) -> DataError | SourceError | SinkError:
    said = str(error).partition("\n")[0]
    if "Could not set lock" in said:
        holder = re.search(r"PID (\d+)", said)
        by = f" by process {holder.group(1)}" if holder else ""
        return failure(f"'{path}' is locked{by}; close it there and run again")
    if "different configuration" in said:
        return failure(f"'{path}' is open for reading in this process; close it and run again")
    if "not a valid DuckDB database" in said or "orrupt" in said:
        return DataError(f"'{path}' is no DuckDB database, or a damaged one: {said}")
    if isinstance(error, duckdb.ConversionException):
        # DuckDB quotes the value, which may be a customer's
        return DataError(f"'{path}': a value does not fit the type of its column")
    return failure(f"'{path}': {said}")
