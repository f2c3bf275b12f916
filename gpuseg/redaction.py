"""Settings and messages without their secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "***"

#: A name that holds one of these words, of a parameter or of an option, is that of a secret.
SECRET_NAME = re.compile(r"key|token|pass|pwd|secret|credential", re.IGNORECASE)

#: Parameters that hold the name of a column, whatever they are called.
_COLUMN_NAMES = frozenset({"foreign_key"})

# Up to the last @ of the word: a password may itself hold / : and @ unescaped.
_URL_PASSWORD = re.compile(r"(?P<user>://[^\s:/?#@]*):\S*@")

# Options of a database driver may hold a secret under any name, and blanks where nothing follows.
_DRIVER_OPTIONS = re.compile(r"\A(?P<alone>adbc:[\w.-]+)\?(?s:.+)|(?P<inside>\badbc:[\w.-]+)\?\S+")

# Also names that no driver knows: who errs in the name has still written a password.
_QUERY_SECRET = re.compile(
    r"(?P<name>[?&][^\s=&?]*(?:pass|pwd|secret|token|credential|api_?key|access_?key)[^\s=&?]*=)"
    r"[^\s&]*",
    re.IGNORECASE,
)

_ASSIGNED = re.compile(
    r"(?P<name>\b\w*(?:password|passwd|pwd|secret|token|api_?key|access_?key)\w*\s*=\s*)"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s&;,]+)",
    re.IGNORECASE,
)


def redact_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with secrets replaced by ``***``, at any depth.

    A value is secret when its name contains key, token, pass, pwd, secret or credential;
    texts elsewhere lose what `redact_text` finds. ``None`` and empty texts stay, so that
    one can still see that nothing was given.

    Examples
    --------
    >>> redact_settings({"td_api_key": "1/abc", "warehouse": "postgresql://ann:pw@host/db"})
    {'td_api_key': '***', 'warehouse': 'postgresql://ann:***@host/db'}
    """
    return {name: _redact(name, value) for name, value in settings.items()}


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without passwords in URLs, options of drivers, ``password=…`` assignments.

    Parameters
    ----------
    secrets
        Words that are replaced wherever they occur, in this order: a driver may tear a password
        out of its address.

    Examples
    --------
    >>> redact_text("cannot reach postgresql://ann:p@ss/word@host/db?sslpassword=x")
    'cannot reach postgresql://ann:***@host/db?sslpassword=***'
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    without_options = _DRIVER_OPTIONS.sub(rf"\g<alone>\g<inside>?{HIDDEN}", text)
    without_urls = _URL_PASSWORD.sub(rf"\g<user>:{HIDDEN}@", without_options)
    without_query = _QUERY_SECRET.sub(rf"\g<name>{HIDDEN}", without_urls)
    return _ASSIGNED.sub(rf"\g<name>{HIDDEN}", without_query)


def redact(value: Any) -> Any:
    """Return a JSON-like value whose texts have gone through `redact_text`."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def _redact(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact_settings(value)
    if value is None or value == "" or isinstance(value, bool):
        return value
    if SECRET_NAME.search(name) and name not in _COLUMN_NAMES:
        return HIDDEN
    if isinstance(value, (list, tuple)):
        return [_redact(name, item) for item in value]
    return redact(value)
