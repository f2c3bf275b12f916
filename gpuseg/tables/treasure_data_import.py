"""A bulk import of Treasure Data: msgpack parts, a job that reads them, a commit."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgpack
import pyarrow as pa
import pytd
import tdclient.errors as td_errors

from gpuseg.errors import SinkError
from gpuseg.tables.treasure_data_client import NO_ANSWER, ask, not_done, settle

#: Rows that are packed and sent at a time.
PART_ROWS = 50_000
#: Seconds that an import may take on the other side.
PERFORM_SECONDS = 6 * 3600.0
COMMIT_SECONDS = 3600.0
#: Between two looks; it doubles up to the second.
POLL_SECONDS = (0.2, 15.0)
#: Age at which what a dead process left behind is removed.
LEFTOVER_SECONDS = 2 * 86_400

_LEFTOVER = re.compile(r"gpuseg_side_(\d{10})_[0-9a-f]{8}")


def new_name() -> str:
    """Return a name for a side table or an import, which says when it was made."""
    return f"gpuseg_side_{int(time.time()):010}_{uuid.uuid4().hex[:8]}"


def remove_leftovers(client: pytd.Client, database: str) -> None:
    """Remove side tables of processes that died two days ago or earlier."""
    api = client.api_client.api
    for name in ask(lambda: api.list_tables(database)):
        made = _LEFTOVER.fullmatch(name)
        if made and time.time() - int(made[1]) > LEFTOVER_SECONDS:
            with contextlib.suppress(*NO_ANSWER):  # somebody else removes it just now
                api.delete_table(database, name)


class Import:
    """Rows on their way into a table; nobody sees them before `commit`."""

    def __init__(self, client: pytd.Client, database: str, table: str) -> None:
        self._api = client.api_client.api
        self._name = new_name()
        self._table = f"{database}.{table}"
        self.place, self.n_rows = (database, table), 0
        settle(
            lambda: self._api.create_bulk_import(self._name, database, table),
            lambda: self._exists(),
        )

    def stage(self, rows: pa.Table) -> None:
        """Send the rows, let them be read, and count them.

        Parameters
        ----------
        rows
            As `treasure_data_types.prepared` makes them.

        Raises
        ------
        SinkError
            If the job failed, or not all rows are valid.
        """
        for number, start in enumerate(range(0, rows.num_rows, PART_ROWS)):
            part = packed(rows.slice(start, PART_ROWS))
            name = f"part-{number}"
            settle(
                # a part of the same name replaces it, so sending twice does no harm
                lambda part=part, name=name: self._api.bulk_import_upload_part(  # type: ignore[misc]
                    self._name, name, part, len(part)
                ),
                not_done,
            )
        settle(lambda: self._api.freeze_bulk_import(self._name), lambda: self._frozen())
        settle(lambda: self._api.perform_bulk_import(self._name), lambda: bool(self._job_id()))
        self._wait_for_job()
        seen = self._seen()
        n_valid, n_wrong = int(seen["valid_records"] or 0), int(seen["error_records"] or 0)
        if n_valid != rows.num_rows or n_wrong:
            raise SinkError(
                f"Treasure Data took {n_valid:,} of {rows.num_rows:,} rows for "
                f"'{self._table}' and found {n_wrong:,} wrong; the previous table stands"
            )
        self.n_rows = n_valid

    def commit(self) -> None:
        """Let the rows appear.

        Raises
        ------
        SinkError
            If they have not appeared in an hour.
        """
        settle(
            lambda: self._api.commit_bulk_import(self._name),
            lambda: self._status() in ("committing", "committed"),
        )
        self._wait(lambda: self._status() == "committed", COMMIT_SECONDS, "commit")

    def discard(self) -> None:
        """Remove the import; one that stays behind expires by itself."""
        with contextlib.suppress(*NO_ANSWER):
            self._api.delete_bulk_import(self._name)

    def _wait_for_job(self) -> None:
        job_id = self._job_id()
        status = ""

        def is_over() -> bool:
            nonlocal status
            status = ask(lambda: self._api.job_status(job_id))
            return status in ("success", "error", "killed")

        self._wait(is_over, PERFORM_SECONDS, f"job {job_id}")
        if status != "success":
            raise SinkError(
                f"Treasure Data's import job {job_id} for '{self._table}' ended as '{status}'; "
                "its log is in the console; the previous table stands"
            )

    def _wait(self, is_over: Callable[[], bool], limit_seconds: float, what: str) -> None:
        end = time.monotonic() + limit_seconds
        seconds, longest = POLL_SECONDS
        while not is_over():
            if time.monotonic() > end:
                raise SinkError(
                    f"Treasure Data has not finished ({what}) after {limit_seconds / 3600:g} "
                    f"hours; the previous '{self._table}' stands"
                )
            time.sleep(seconds)
            seconds = min(seconds * 2, longest)

    def _seen(self) -> dict[str, Any]:
        return ask(lambda: self._api.show_bulk_import(self._name))

    def _exists(self) -> bool:
        try:
            return bool(self._seen())
        except td_errors.NotFoundError:
            return False

    def _frozen(self) -> bool:
        return bool(self._seen()["upload_frozen"])

    def _job_id(self) -> str:
        return str(self._seen().get("job_id") or "")

    def _status(self) -> str:
        return str(self._seen()["status"])


def packed(rows: pa.Table) -> bytes:
    """Return rows as gzipped msgpack maps, one after another."""
    packer = msgpack.Packer()
    names = rows.column_names
    columns = [column.to_pylist() for column in rows.columns]
    buffer = io.BytesIO()
    # level 1: the network is rarely slower than a higher level
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as stream:
        for values in zip(*columns, strict=True):
            stream.write(packer.pack(dict(zip(names, values, strict=True))))
    return buffer.getvalue()
