"""Where Treasure Data is, and the key to it: from the environment and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from gpuseg.errors import SettingsError
from gpuseg.redaction import HIDDEN

DEFAULT_SERVER = "https://api.treasuredata.com"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Site:
    """A region of Treasure Data.

    Parameters
    ----------
    api_key
        From ``TD_API_KEY``; never shown.
    rest
        Base address of the REST API, from ``TD_API_SERVER``.
    cdp
        Base address of the audience API: ``TD_CDP_API``, or the REST host with ``api-cdp``
        for ``api``. Empty where it cannot be told.
    """

    api_key: str = field(repr=False)
    rest: str
    cdp: str

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] | None = None) -> Site:
        """Read and check the variables.

        Raises
        ------
        SettingsError
            If there is no key, or an address is malformed or would send the key in clear.
        """
        environ = os.environ if environ is None else environ
        key = environ.get("TD_API_KEY", "").strip()
        if not key:
            raise SettingsError(
                "TD_API_KEY is not set; Treasure Data needs a master API key in that variable"
            )
        if not key.isascii() or not key.isprintable():
            raise SettingsError("TD_API_KEY holds signs that no API key has; copy it anew")
        rest = _base("TD_API_SERVER", environ.get("TD_API_SERVER") or DEFAULT_SERVER)
        _check_presto(environ.get("TD_PRESTO_API"), rest)
        cdp = environ.get("TD_CDP_API")
        return cls(key, rest, _base("TD_CDP_API", cdp) if cdp else _cdp_of(rest))

    @property
    def host(self) -> str:
        """Name of the server, for messages."""
        return urlsplit(self.rest).netloc

    def masked(self, text: str) -> str:
        """Return `text` without the key, should a server or a library repeat it."""
        secret = self.api_key.partition("/")[2]
        text = text.replace(self.api_key, HIDDEN)
        return text.replace(secret, HIDDEN) if len(secret) > 4 else text


def _base(variable: str, text: str) -> str:
    address = text if "://" in text else f"https://{text}"
    parts = urlsplit(address)
    if not parts.hostname or parts.username or parts.query or parts.path.strip("/"):
        # not repeated: a user's name in an address may come with a password
        raise SettingsError(
            f"{variable} is no address of a server; write for example {DEFAULT_SERVER}"
        )
    if not _is_safe(parts):
        raise SettingsError(
            f"{variable} must begin with https://, or the API key would travel in clear"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_safe(parts: SplitResult) -> bool:
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _check_presto(presto: str | None, rest: str) -> None:
    """Refuse what pytd would turn into a host that is not there."""
    if presto is None:
        if not re.match(r"https?://[^/]*api", rest):
            raise SettingsError(
                f"TD_API_SERVER is {rest}, from which the host for queries cannot be told; set "
                "TD_PRESTO_API too"
            )
        return
    if "://" not in presto:
        if not re.fullmatch(r"[\w.-]+", presto):
            raise SettingsError("TD_PRESTO_API must be a host's name, or https://HOST:PORT")
    elif presto.endswith("/") or not _is_safe(urlsplit(presto)):
        raise SettingsError("TD_PRESTO_API must be https://HOST:PORT without a / at its end")


def _cdp_of(rest: str) -> str:
    parts = urlsplit(rest)
    first, dot, others = parts.netloc.partition(".")
    return f"{parts.scheme}://api-cdp{dot}{others}" if first == "api" else ""
