"""Types for columns of text, given only where no value changes.

A column gets a type when every one of its values survives the way there and back. The
rules, and why they are what they are, stand in ``docs/decisions/csv-typing.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

#: Any 15 digits are kept by a double.
SHORT_NUMBER = 15

_NUMBER = r"^-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
_UTC = r"(?:Z|\+00(?::?00)?)$"
_ZONES = ((None, "$"), ("UTC", _UTC))
_THOUSANDS = r"^-?[1-9][0-9]{0,2},[0-9]{3}$"
_NOT_FINITE = r"^(?:nan|NaN|-?inf)$"
_BOOLEAN = r"^(?:true|false|True|False|TRUE|FALSE)$"

#: Types a column of texts, or a piece of one; None where that would change a value.
Convert = Callable[[Any], Any]


def exact(texts: pa.ChunkedArray, *, decimal: str = ".") -> pa.ChunkedArray:
    """Return the column with the first type that keeps every value, else as it is.

    Parameters
    ----------
    texts : pa.ChunkedArray of string
    decimal
        ``.`` or ``,``: the decimal sign of this file.

    Returns
    -------
    column : pa.ChunkedArray
        int64, double, bool, date32, timestamp (us, or ns where it takes nine digits; with
        zone UTC where every value says so), or the same strings.
    """
    if texts.null_count == len(texts):
        return texts
    converters: tuple[Callable[[pa.ChunkedArray], pa.ChunkedArray | None], ...] = (
        _integers,
        _doubles if decimal == "." else _comma_doubles,
        _booleans,
        _dates,
        _timestamps,
    )
    for convert in converters:
        converted = convert(texts)
        if converted is not None:
            return converted
    return texts


def exact_in_pieces(pieces: Sequence[pa.Array], *, decimal: str = ".") -> Convert:
    """Find the type that `exact` would give to a column, looking at one piece after another.

    Returns
    -------
    convert
        Gives each piece that type.
    """
    full = [piece for piece in pieces if piece.null_count < len(piece)]
    for convert in _candidates(full, decimal) if full else ():
        if all(convert(piece) is not None for piece in full) and (
            convert not in (_some_doubles, _some_comma_doubles)
            or any(_all(pc.is_finite(convert(piece)), any_is_enough=True) for piece in full)
        ):
            return convert
    return lambda piece: piece


def _candidates(full: Sequence[pa.Array], decimal: str) -> list[Convert]:
    """Return the converters of `exact`, each for a piece of a column that it fits throughout."""
    found: list[Convert] = [_integers]
    found += [_some_doubles if decimal == "." else _some_comma_doubles, _booleans, _dates]
    first = pc.drop_null(full[0]).slice(0, 1)
    for zone, ending in _ZONES:
        if _all(pc.match_substring_regex(first, _TIMESTAMP + ending)):
            for unit in ("us", "ns"):
                found.append(
                    partial(_timestamps_of, pattern=_TIMESTAMP + ending, zone=zone, units=(unit,))
                )
            break
    return found


def decimal_sign(columns: list[pa.ChunkedArray]) -> str | None:
    """Return the decimal sign that these columns of text show, or None.

    ``1,234`` alone may be a thousand or a fraction and shows nothing; ``1,5`` does. A
    single number with a decimal point outweighs all commas.
    """
    if any(_has(column, ".") and _doubles(column) is not None for column in columns):
        return "."
    if any(is_comma_number(column) and not _all_thousands(column) for column in columns):
        return ","
    return None


def is_comma_number(texts: pa.ChunkedArray) -> bool:
    """Say whether all values are numbers and some are written with a comma."""
    return _has(texts, ",") and _comma_doubles(texts) is not None


def _integers(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    numbers = _cast(texts, pa.int64())
    return numbers if numbers is not None and _all_equal(numbers, texts) else None


def _doubles(texts: pa.ChunkedArray, *, some_finite: bool = True) -> pa.ChunkedArray | None:
    numbers = _cast(texts, pa.float64())
    if numbers is None:
        return None
    differs = pc.invert(pc.equal(pc.cast(numbers, pa.string()), texts))
    odd = pc.filter(texts, differs)
    finite = pc.is_finite(pc.filter(numbers, differs))
    if not _all(pc.or_(finite, pc.match_substring_regex(odd, _NOT_FINITE))):
        return None
    if some_finite and not _all(pc.is_finite(numbers), any_is_enough=True):
        return None
    odd = pc.filter(odd, finite)
    if not _all(pc.match_substring_regex(odd, _NUMBER)):
        return None
    is_long = pc.or_(
        pc.greater(pc.utf8_length(odd), SHORT_NUMBER), pc.match_substring_regex(odd, "[eE]")
    )
    return numbers if all(map(_survives, pc.filter(odd, is_long).to_pylist())) else None


def _survives(text: str) -> bool:
    """Say whether printing the double, in as many digits or in its own way, gives it back."""
    double = float(text)
    if f"{double:.17g}" == text:  # how C and R print them
        return True
    number = Decimal(text).normalize()
    digits = len(number.as_tuple().digits)
    return number in (Decimal(f"{double:.{digits - 1}e}"), Decimal(repr(double)))


def _comma_doubles(texts: pa.ChunkedArray, *, some_finite: bool = True) -> pa.ChunkedArray | None:
    if _has(texts, "."):
        return None
    return _doubles(pc.replace_substring(texts, ",", "."), some_finite=some_finite)


#: Of a piece of a column, which need not hold a finite number by itself.
_some_doubles: Convert = partial(_doubles, some_finite=False)
_some_comma_doubles: Convert = partial(_comma_doubles, some_finite=False)


def _booleans(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    first = pc.drop_null(texts).slice(0, 1)
    if not all(_all(pc.match_substring_regex(part, _BOOLEAN)) for part in (first, texts)):
        return None
    return pc.equal(pc.utf8_lower(texts), "true")


def _dates(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    dates = _cast(texts, pa.date32())
    return dates if dates is not None and _all_equal(dates, texts) else None


def _timestamps(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    # the first value turns most columns of text away before the pattern is tried on all
    first = pc.drop_null(texts).slice(0, 1)
    for zone, ending in _ZONES:
        if _all(pc.match_substring_regex(first, _TIMESTAMP + ending)):
            return _timestamps_of(texts, _TIMESTAMP + ending, zone)
    return None


def _timestamps_of(
    texts: pa.ChunkedArray,
    pattern: str,
    zone: str | None,
    units: tuple[str, ...] = ("us", "ns"),
) -> pa.ChunkedArray | None:
    if not _all(pc.match_substring_regex(texts, pattern)):
        return None
    if zone:
        texts = pc.replace_substring_regex(texts, _UTC, "Z")
    stamps = (_cast(texts, pa.timestamp(unit, zone)) for unit in units)
    return next((found for found in stamps if found is not None), None)


def _cast(texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    try:
        return pc.cast(texts, kind)
    except pa.ArrowInvalid:
        return None


def _all_equal(values: pa.ChunkedArray, texts: pa.ChunkedArray) -> bool:
    return _all(pc.equal(pc.cast(values, pa.string()), texts))


def _all(flags: pa.ChunkedArray, *, any_is_enough: bool = False) -> bool:
    """Say whether all flags (or one of them) are true; missing ones do not count."""
    reduce = pc.any if any_is_enough else pc.all
    return bool(reduce(flags, min_count=0).as_py())


def _has(texts: pa.ChunkedArray, sign: str) -> bool:
    return _all(pc.match_substring(texts, sign), any_is_enough=True)


def _all_thousands(texts: pa.ChunkedArray) -> bool:
    with_comma = pc.filter(texts, pc.match_substring(texts, ","))
    return _all(pc.match_substring_regex(with_comma, _THOUSANDS))
