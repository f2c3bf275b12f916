"""The HTTP client of Treasure Data's audience API (CDP)."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from typing import Any, TypeVar

from gpuseg.errors import SettingsError, SinkError
from gpuseg.tables.treasure_data_site import Site

TIMEOUT_SECONDS = 60.0
#: Seconds before each new try. The vendor's own tools wait as long; no rate is published.
WAITS_SECONDS = (2.0, 4.0, 8.0, 16.0, 32.0)
#: The longest that a server may ask us to wait.
MAX_RETRY_AFTER_SECONDS = 120.0
TOO_MANY = 429
PASSING = (500, 502, 503, 504)

Found = TypeVar("Found")


class RefusedError(SinkError):
    """The service understood and said no."""

    def __init__(self, message: str, status: int, said: str) -> None:
        super().__init__(message)
        self.status = status
        self.said = said

    @property
    def is_name_taken(self) -> bool:
        """Whether something of that name is there already; v4 and v5 say so differently."""
        texts = ("has already been taken", "VIOLATES_UNIQUENESS_CONSTRAINT")
        return self.status == 400 and any(text in self.said for text in texts)


class UnansweredError(SinkError):
    """Nobody knows whether it was done."""


class Cdp:
    """Calls to one region, with retries where they do no harm."""

    def __init__(self, site: Site) -> None:
        if not site.cdp:
            raise SettingsError(
                f"TD_API_SERVER is {site.rest}, from which the audience API's host cannot be "
                "told; set TD_CDP_API too"
            )
        self._site = site
        self._opener = urllib.request.build_opener(_NoRedirect)

    def get(self, path: str) -> Any:
        """Read; asked again when no answer comes."""
        return self._patiently(lambda: self._once("GET", path, None), (UnansweredError,))

    def change(self, method: str, path: str, body: Any) -> Any:
        """PUT, PATCH or DELETE; may be done twice, so it is repeated when no answer comes."""
        return self._patiently(lambda: self._once(method, path, body), (UnansweredError,))

    def post(self, path: str, body: Any) -> Any:
        """POST; never repeated when no answer came, because it would be done twice.

        Raises
        ------
        UnansweredError
            Whoever calls must look whether it was done.
        """
        return self._patiently(lambda: self._once("POST", path, body), ())

    def _patiently(self, call: Callable[[], Found], repeated: tuple[type[SinkError], ...]) -> Found:
        for seconds in WAITS_SECONDS:
            try:
                return call()
            except _LaterError as error:
                time.sleep(min(error.seconds or seconds, MAX_RETRY_AFTER_SECONDS))
            except repeated:
                time.sleep(seconds)
        return call()

    def _once(self, method: str, path: str, body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the address is checked by Site
            self._site.cdp + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=self._headers(path),
        )
        what = f"{method} {path} at {self._site.cdp.partition('://')[2]}"
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise self._refusal(what, error) from None
        except OSError as error:
            raise UnansweredError(
                f"Treasure Data's audience API did not answer {what} "
                f"({type(error).__name__}); running again is safe"
            ) from None
        try:
            return json.loads(text, object_hook=lambda f: _Facts(what, f)) if text.strip() else None
        except ValueError:
            raise UnansweredError(
                f"Treasure Data's audience API answered {what} without JSON"
            ) from None

    def _headers(self, path: str) -> dict[str, str]:
        is_v5 = path.startswith("/entities/")
        return {
            "Authorization": f"TD1 {self._site.api_key}",
            "Content-Type": "application/json",
            "Accept": "application/vnd.treasuredata.v1+json" if is_v5 else "application/json",
            "User-Agent": "gpuseg",
        }

    def _refusal(self, what: str, error: urllib.error.HTTPError) -> SinkError:
        said = self._site.masked(error.read(2000).decode("utf-8", "replace"))
        if error.code in PASSING:
            return UnansweredError(
                f"Treasure Data's audience API failed at {what} (HTTP {error.code}); running "
                "again is safe"
            )
        message = f"Treasure Data's audience API refused {what} (HTTP {error.code}): "
        if error.code == TOO_MANY:
            return _LaterError(
                message + "too many requests; run again later", _seconds(error.headers)
            )
        return RefusedError(message + _reason(error.code, said), error.code, said)


class _LaterError(RefusedError):
    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, TOO_MANY, "")
        self.seconds = seconds


class _Facts(dict[str, Any]):
    """An object of an answer; asking for what is not in it says which answer that was."""

    def __init__(self, what: str, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self._what = what

    def __missing__(self, name: str) -> Any:
        raise RefusedError(
            f"Treasure Data's audience API answered {self._what} without '{name}'; nothing "
            "more was changed: see the console",
            200,
            "",
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def _seconds(headers: Message) -> float:
    try:
        return float(headers.get("Retry-After", "0"))
    except ValueError:  # a date; our own waiting times do
        return 0.0


def _reason(status: int, said: str) -> str:
    reasons = {
        401: "the key in TD_API_KEY is not accepted; it must be a master key of this region",
        403: "the key's user may not do this; ask for the right to edit the master segment",
        404: "it is not there",
        409: "it is in use or being changed; see the console and run again",
    }
    if status in reasons:
        return reasons[status]
    return " ".join(said.split())[:300] or "no reason was given"
