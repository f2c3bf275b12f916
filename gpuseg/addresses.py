"""Addresses of servers: refused where one cannot tell what in them is the password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote

from gpuseg.errors import SettingsError
from gpuseg.redaction import SECRET_NAME

#: A shorter password occurs in words that it is no part of.
_LEAST_SECRET = 3

_HOSTS = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:,]*)(?::\d*)?(?:,|$)")

#: What no address holds unescaped, with how to say it.
_NOWHERE = {
    r"[\s\x00-\x1f\x7f]": "it holds a blank",
    r"%(?![0-9A-Fa-f]{2})": "it holds a % that no two hex digits follow",
    r"%00": "it holds a null character",
}


def check_address(address: str) -> None:
    """Refuse an address whose password cannot be told from the rest of it.

    No driver may see such an address: it would take a part of the password for the host or the
    port, and say so. Nor can it be written down, because what is to be hidden is not known.

    Raises
    ------
    SettingsError
        Without any part of the address.

    Examples
    --------
    >>> check_address("postgresql://ann:p%40ss@host/db")
    """
    for text in _readable_parts(address):
        if problem := _problem(text):
            raise SettingsError(
                f"the address of the warehouse cannot be read: {problem}; percent-encode "
                "@ / : ? # % and blanks in user and password (@ is %40), or leave the password "
                "out of the address and put it into PGPASSWORD"
            )


def secrets_of(address: str) -> tuple[str, ...]:
    """Return the passwords in an address, as written and as meant; long ones first.

    Examples
    --------
    >>> secrets_of("postgresql://ann:p%40ss@host/db?sslpassword=other")
    ('p%40ss', 'other', 'p@ss')
    """
    found = {word for raw in _passwords(address) for word in (raw, unquote(raw))}
    return tuple(sorted((w for w in found if len(w) >= _LEAST_SECRET), key=lambda w: (-len(w), w)))


def _readable_parts(address: str) -> Iterator[str]:
    """Give what must follow the rules of a URL: the address, or the one inside its options."""
    if not address.startswith("adbc:"):
        if "://" in address or ("@" in address and not address.startswith("duckdb:")):
            yield address
        return
    for _name, value in parse_qsl(address.partition("?")[2]):
        # other drivers have rules of their own
        if re.match(r"\s*postgres(ql)?:", value):
            yield value


def _problem(address: str) -> str:
    """Say what is wrong with a URL, or nothing."""
    _scheme, sign, rest = address.partition("://")
    if not sign:
        return "its beginning is not SYSTEM://"
    for pattern, problem in _NOWHERE.items():
        if re.search(pattern, rest):
            return problem
    user, at, after = rest.rpartition("@")
    if "@" in user:
        return "it holds more than one @"
    if "/" in user:
        return "an @ comes after the first /"
    if "?" in user or "#" in user:
        return "a ? or a # comes before the @"
    # without an @, what stands for the port is perhaps a password
    if not at and not _are_hosts(re.split(r"[/?]", after, maxsplit=1)[0]):
        return "there is no @, and its port is no number"
    if not all("=" in word for word in after.partition("?")[2].split("&") if word):
        return "what follows the ? is not NAME=VALUE pairs joined by &"
    return ""


def _are_hosts(text: str) -> bool:
    position = 0
    while position < len(text):
        found = _HOSTS.match(text, position)
        if found is None:
            return False
        position = found.end()
    return True


def _passwords(address: str) -> Iterator[str]:
    if address.startswith("adbc:"):
        for name, value in parse_qsl(address.partition("?")[2]):
            if SECRET_NAME.search(name):
                yield value
            elif name == "uri":
                yield from _passwords(value)
        return
    rest = address.partition("://")[2] or address
    user, _, after = rest.rpartition("@")
    yield user.partition(":")[2]
    for word in after.partition("?")[2].split("&"):
        name, _, value = word.partition("=")
        if SECRET_NAME.search(name):
            yield value
