"""What the name of a column says about it."""

from __future__ import annotations

import re

#: Last words of names whose numbers name something and count nothing.
_KEY_WORDS = {"id", "ids", "uuid", "guid", "key", "pk", "fk", "rowid", "ssn"} | {
    "zip",
    "zipcode",
    "postcode",
    "plz",
    "phone",
    "msisdn",
}

#: Last words of names that may be keys; only believed when the values are all different.
_MAYBE_KEY_WORDS = {"no", "nr", "num", "number", "code", "index", "idx", "ref", "record", "row"}

#: Keys that are written in one word: customerid, userkey.
_GLUED_KEY = re.compile(
    "(account|client|cookie|customer|device|employee|household|member|order|passenger|person|"
    "product|session|store|subscriber|transaction|user|visitor)(id|key|uuid)$"
)

#: The words of customerID, CUST_ID, "Customer Id" and HTTPKey.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def names_a_key(column: str) -> bool:
    """Whether the name says that the values are keys.

    Examples
    --------
    >>> [names_a_key(name) for name in ("CUST_ID", "customerID", "userid", "id_store", "paid")]
    [True, True, True, True, False]
    """
    words = _words(column)
    if not words:
        return False
    glued = _GLUED_KEY.search("".join(words))
    return words[-1] in _KEY_WORDS or words[0] == "id" or glued is not None


def may_name_a_key(column: str) -> bool:
    """Whether the name would suit a key, if all values are different."""
    words = _words(column)
    return names_a_key(column) or (bool(words) and words[-1] in _MAYBE_KEY_WORDS)


def _words(column: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(column)]
