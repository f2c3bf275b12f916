"""Texts that are really numbers or dates: which notation a column uses, and how to read it.

A notation belongs to a column, never to a value: "1.234" alone says nothing, beside
"950" and "12.5" it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gpuseg.features.arrow import SECONDS_PER_DAY, Floats

#: Share of the rows with a text that must follow a notation before it is believed.
ENOUGH = 0.99

_UNITS = "$€£¥₹"
_BLANKS = " \u00a0\u202f"  # also those that spreadsheets put between thousands
_MAYBE_NUMBER = (
    rf"^[+-]?\s*[{_UNITS}]?\s*[+-]?[\d.,'{_BLANKS}]*\d[\d.,]*([eE][+-]?\d+)?\s*[{_UNITS}%]?$"
)
_MAYBE_DATE = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?$"


class NumberStyle(NamedTuple):
    """How a column writes numbers: ``NumberStyle(",", ".")`` writes 1.234,5."""

    decimal: str = "."
    thousands: str = ""


#: The first of two notations that read as many values is taken, unless `_settle` knows better.
NUMBER_STYLES = tuple(
    NumberStyle(decimal, thousands)
    for thousands in ("", ",", ".", " ", "'")
    for decimal in (".", ",")
    if decimal != thousands
)

_TIME = (
    r"(?:[T ](?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2}(?:\.\d+)?))?"
    r" ?(?P<z>Z|[+-]\d{2}:?\d{2})?)?$"
)
_DATE_PATTERNS = {
    "year-month-day": r"^(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})" + _TIME,
    "day.month.year": r"^(?P<d>\d{1,2})[-/.](?P<m>\d{1,2})[-/.](?P<y>\d{4})" + _TIME,
    "month/day/year": r"^(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4})" + _TIME,
}
DATE_STYLES = tuple(_DATE_PATTERNS)


def number_style(values: Any, counts: npt.NDArray[np.int64]) -> tuple[NumberStyle, str] | None:
    """Find out how a column of texts writes numbers.

    Parameters
    ----------
    values : pa.Array of string
        Different texts, trimmed, without placeholders.
    counts : array of the same length
        Rows that hold each of them.

    Returns
    -------
    style, reason
        Or None when the texts are not numbers: fewer than 99 % can be read, leading zeros
        say that they are codes (``00123``), or units are mixed.
    """
    if _share(_matches(values, _MAYBE_NUMBER), counts) < ENOUGH or _has_codes(values):
        return None
    if _mixes_units(values, counts):
        return None
    shares = number_shares(values, counts)
    best = max(shares.values())
    if best < ENOUGH:
        return None
    rivals = [style for style, share in shares.items() if share == best]
    return _settle(_without_units(values), rivals)


def number_shares(values: Any, counts: npt.NDArray[np.int64]) -> dict[NumberStyle, float]:
    """Return the share of the rows that each style can read."""
    bare = _without_units(values)
    return {
        style: _share(_matches(bare, _number_pattern(style)), counts) for style in NUMBER_STYLES
    }


def read_numbers(values: Any, style: NumberStyle) -> Floats:
    """Return each text as a number, NaN where it is none in that style."""
    bare = _without_units(values)
    fits = pc.match_substring_regex(bare, _number_pattern(style))
    digits = bare
    if style.thousands:
        digits = pc.replace_substring_regex(digits, _group_sign(style.thousands), "")
    digits = pc.replace_substring(digits, style.decimal, ".")
    readable = pc.if_else(fits, digits, pa.scalar(None, bare.type))
    return _floats(readable)


def date_style(values: Any, counts: npt.NDArray[np.int64]) -> tuple[str, str] | None:
    """Find out how a column of texts writes dates; see `number_style`."""
    if _share(_matches(values, _MAYBE_DATE), counts) < ENOUGH:
        return None
    shares = [_share(~np.isnan(read_dates(values, style)), counts) for style in DATE_STYLES]
    best = max(shares)
    if best < ENOUGH:
        return None
    rivals = [style for style, share in zip(DATE_STYLES, shares, strict=True) if share == best]
    if len(rivals) > 1:
        # only slashes leave it open which comes first; they are most often American
        return rivals[1], f"read as {rivals[1]}, though no value rules out {rivals[0]}"
    return rivals[0], f"text read as dates ({rivals[0]})"


def read_dates(values: Any, style: str) -> Floats:
    """Return each text as days since 1970-01-01, NaN where it is no date in that style."""
    parts = pc.extract_regex(values, _DATE_PATTERNS[style])
    found = parts.is_valid().to_numpy(zero_copy_only=False)

    def part(name: str, default: str = "0") -> Floats:
        text = parts.field(name)
        text = pc.if_else(pc.equal(text, ""), default, text)
        return _floats(text)

    year, month, day = part("y", "1970"), part("m", "1"), part("d", "1")
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    date = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    exists = (month >= 1) & (month <= 12) & (day >= 1) & (date.astype("datetime64[M]") == months)
    hour, minute, second = part("H"), part("M"), part("S")
    exists &= (hour < 24) & (minute < 60) & (second < 61)
    seconds = hour * 3600 + minute * 60 + second - _zone_seconds(parts.field("z"))
    day_number = date.astype(np.int64) + seconds / SECONDS_PER_DAY
    return np.asarray(np.where(found & exists, day_number, np.nan), dtype=np.float64)


def _floats(digits: Any) -> Floats:
    return np.asarray(digits.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _zone_seconds(zones: Any) -> Floats:
    distinct = zones.dictionary_encode()
    offsets = [_one_zone_seconds(zone or "") for zone in distinct.dictionary.to_pylist()]
    codes = distinct.indices.fill_null(len(offsets)).to_numpy(zero_copy_only=False)
    seconds: Floats = np.array([*offsets, 0.0])[codes]
    return seconds


def _one_zone_seconds(zone: str) -> float:
    if zone in ("", "Z"):
        return 0.0
    sign = -1.0 if zone[0] == "-" else 1.0
    return sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)


# -- telling notations apart -------------------------------------------------------


def _settle(bare: Any, rivals: Sequence[NumberStyle]) -> tuple[NumberStyle, str]:
    """Decide between a decimal sign and a thousands separator that look alike."""
    style = rivals[0]
    separator = style.decimal
    grouped = next((rival for rival in rivals if rival.thousands == separator), None)
    if style.thousands or grouped is None or not _any(bare, f"[{separator}]"):
        return style, _style_reason(style)
    # "950" beside "1.234", and never "1234": the sign stands where thousands end
    ungrouped_thousands = _any(bare, r"^[+-]?\d{4,}$")
    small = _any(bare, r"^[+-]?\d{1,3}$")
    if not ungrouped_thousands and (small or separator == ","):
        return grouped, (
            f"text read as numbers; '{separator}' taken as thousands separator, because three "
            "digits follow it everywhere"
        )
    return style, (
        f"text read as numbers; '{separator}' taken as decimal sign, though three digits "
        "follow it everywhere"
    )


def _style_reason(style: NumberStyle) -> str:
    notes = ["decimal comma"] if style.decimal == "," else []
    if style.thousands:
        notes.append(f"'{style.thousands}' separates thousands")
    return "text read as numbers" + (f" ({', '.join(notes)})" if notes else "")


def _number_pattern(style: NumberStyle) -> str:
    fraction = rf"(?:\{style.decimal}\d*)?"
    if not style.thousands:
        return rf"^[+-]?(?:\d+{fraction}|\{style.decimal}\d+)(?:[eE][+-]?\d{{1,3}})?$"
    group = _group_sign(style.thousands)
    return rf"^[+-]?(?:\d+|[1-9]\d{{0,2}}(?:{group}\d{{3}})+){fraction}$"


def _group_sign(thousands: str) -> str:
    return f"[{_BLANKS}]" if thousands == " " else rf"\{thousands}"


def _without_units(values: Any) -> Any:
    in_front = rf"^([+-]?)\s*[{_UNITS}]\s*"
    bare = pc.replace_substring_regex(values, in_front, r"\1")
    return pc.replace_substring_regex(bare, rf"\s*[{_UNITS}%]$", "")


def _mixes_units(values: Any, counts: npt.NDArray[np.int64]) -> bool:
    """Whether two currencies meet, or percentages and plain numbers."""
    currencies = [unit for unit in _UNITS if pc.any(pc.match_substring(values, unit)).as_py()]
    percent = _share(_matches(values, "%$"), counts)
    return len(currencies) > 1 or 0 < percent < ENOUGH or (percent > 0 and bool(currencies))


def _has_codes(values: Any) -> bool:
    return _any(values, r"^[+-]?0\d")


def _matches(values: Any, pattern: str) -> npt.NDArray[np.bool_]:
    found = pc.match_substring_regex(values, pattern).to_numpy(zero_copy_only=False)
    return np.asarray(found, dtype=bool)


def _any(values: Any, pattern: str) -> bool:
    return bool(_matches(values, pattern).any())


def _share(chosen: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64]) -> float:
    total = int(counts.sum())
    return int(counts[chosen].sum()) / total if total else 0.0
