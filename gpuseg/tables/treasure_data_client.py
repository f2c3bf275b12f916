"""Treasure Data's own client, with timeouts and retries set on purpose, and its errors told."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gpuseg.errors import GpusegError, SettingsError, SinkError, SourceError
from gpuseg.tables.treasure_data_site import Site

try:
    import pytd
    import tdclient.errors as td_errors
    import trino.exceptions as trino_errors
    import urllib3.exceptions
except ModuleNotFoundError as missing:
    raise SettingsError(
        f"the warehouse td needs the extra 'td' ({missing.name} is not installed): "
        "pip install 'gpuseg[td]'"
    ) from None

#: Seconds for one answer. The client's own default, said aloud.
TIMEOUT_SECONDS = 60.0
#: td-client asks again after 5, 10, 20 … seconds until it has waited this long.
MAX_RETRY_SECONDS = 60
#: Seconds before a step that changes something is tried again, if it was not done.
STEP_WAITS_SECONDS = (1.0, 5.0, 20.0)
#: Trino asks again after 0.1, 0.2, 0.4 … seconds.
TRINO_ATTEMPTS = 6

Answer = TypeVar("Answer")

#: td-client turns some broken connections into its own error and lets others through.
NO_ANSWER = (
    td_errors.APIError,
    trino_errors.Error,
    trino_errors.HttpError,
    urllib3.exceptions.HTTPError,
    OSError,
)

NOT_FOUND = td_errors.NotFoundError

#: What Trino may say about a query: other messages can quote a value of somebody's row.
_ABOUT_THE_TEXT = (
    "SYNTAX_ERROR", "TABLE_NOT_FOUND", "COLUMN_NOT_FOUND", "SCHEMA_NOT_FOUND", "TYPE_MISMATCH",
    "FUNCTION_NOT_FOUND", "AMBIGUOUS_NAME", "MISSING_COLUMN_NAME", "EXPRESSION_NOT_AGGREGATE",
)  # fmt: skip


def connect(site: Site) -> pytd.Client:
    """Make a client; nothing is asked yet.

    POST requests are never repeated blindly: `settle` looks first whether it was done.
    """
    client = pytd.Client(
        apikey=site.api_key,
        endpoint=site.rest,
        header=False,
        retry_post_requests=False,
        max_cumul_retry_delay=MAX_RETRY_SECONDS,
        timeout=TIMEOUT_SECONDS,
    )
    trino = client.default_engine.trino_connection  # type: ignore[attr-defined]
    trino.max_attempts, trino.request_timeout = TRINO_ATTEMPTS, TIMEOUT_SECONDS
    return client


@contextmanager
def connected(failure: type[SourceError | SinkError]) -> Iterator[pytd.Client]:
    """Connect for the time of a block, and say in the words of the house what goes wrong."""
    site = Site.of_environment()
    client = connect(site)
    try:
        with translated(site, failure):
            yield client
    finally:
        client.close()


def settle(action: Callable[[], Any], is_done: Callable[[], bool]) -> None:
    """Do a step that must not be done twice.

    When no answer comes, nobody knows whether it was done: so one looks, and only tries
    again if it was not.
    """
    for seconds in (*STEP_WAITS_SECONDS, None):
        try:
            action()
            return
        except (td_errors.AuthError, td_errors.ForbiddenError):
            raise
        except NO_ANSWER as error:
            if is_done():
                return
            if seconds is None or _is_final(error):
                raise
            time.sleep(seconds)


def ask(question: Callable[[], Answer]) -> Answer:
    """Read, and read again from the start when the service fails on the way."""
    for seconds in STEP_WAITS_SECONDS:
        try:
            return question()
        except NO_ANSWER as error:
            if not _may_pass(error):
                raise
            time.sleep(seconds)
    return question()


def _may_pass(error: Exception) -> bool:
    if isinstance(error, trino_errors.HttpError):
        return _status(error) >= "5"
    if isinstance(error, td_errors.APIError):
        # all else is an answer
        return str(error).startswith("Retrying stopped")
    return not isinstance(error, trino_errors.TrinoUserError)


def _status(error: Exception) -> str:
    found = re.match(r"error (\d+)", str(error))
    return found.group(1) if found else "?"


def not_done() -> bool:
    """Answer for steps that may be done twice without harm."""
    return False


def _is_final(error: Exception) -> bool:
    """Say whether the server has understood and refused; only too many requests may wait."""
    if isinstance(error, (td_errors.NotFoundError, td_errors.AlreadyExistsError)):
        return True
    said = str(error)
    return said.startswith("4") and not said.startswith("429")


@contextmanager
def translated(site: Site, failure: type[SourceError | SinkError]) -> Iterator[None]:
    """Turn the errors of the clients into ours, without the key."""
    try:
        yield
    except td_errors.AuthError:
        raise refused_key(site) from None
    except td_errors.ForbiddenError:
        raise missing_right(site) from None
    except trino_errors.HttpError as error:
        raise _http_error(site, _status(error), failure) from None
    except trino_errors.TrinoQueryError as error:
        raise _query_error(site, error, failure) from None
    except NO_ANSWER as error:
        raise failed(site, error, failure) from None


def refused_key(site: Site) -> SettingsError:
    """Return the error of a key that the server does not know."""
    return SettingsError(
        f"{site.host} does not accept the key in TD_API_KEY (401): it is mistyped, revoked, or "
        "belongs to another region; TD_API_SERVER names the region's server"
    )


def missing_right(site: Site) -> SettingsError:
    """Return the error of a key that may not do this."""
    return SettingsError(
        f"the key in TD_API_KEY may not do this at {site.host} (403): a write-only key can "
        "neither query nor change tables; use a master key of a user who may"
    )


def failed(
    site: Site, error: BaseException, failure: type[SourceError | SinkError]
) -> SourceError | SinkError:
    """Return the error of a service that did not answer, or not as it should."""
    if isinstance(error, (urllib3.exceptions.HTTPError, trino_errors.Error, OSError)):
        said = "the connection broke, also when tried again"
    elif str(error).startswith(("Retrying stopped", "Error")) or len(error.args) > 1:
        said = "it did not answer, or answered with an error of its own, also when asked again"
    else:
        # the server's words may hold part of a record
        said = re.sub(r"b'.*|\{.*", "…", site.masked(" ".join(str(error).split())[:300]))
    return failure(f"Treasure Data ({site.host}) failed: {said}; running again is safe")


def _http_error(site: Site, code: str, failure: type[SourceError | SinkError]) -> GpusegError:
    if code == "401":
        return refused_key(site)
    if code == "403":
        return missing_right(site)
    return failure(
        f"Treasure Data's query engine answered with HTTP status {code}, also when asked again; "
        "running again is safe"
    )


def _query_error(site: Site, error: Any, failure: type[SourceError | SinkError]) -> GpusegError:
    name = str(error.error_name)
    if name in _ABOUT_THE_TEXT:
        said = site.masked(" ".join(str(error.message).split())[:300])
        return SettingsError(f"the query does not run in Treasure Data ({name}): {said}")
    if error.error_type == "USER_ERROR":
        return SettingsError(f"the query does not run in Treasure Data: {name}")
    return failure(f"Treasure Data's query engine failed ({name}); running again is safe")
