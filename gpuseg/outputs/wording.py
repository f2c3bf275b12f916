"""Numbers and names as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import date, timedelta


def number(value: float | None) -> str:
    """Write a number with three significant digits, large ones with all before the point.

    Examples
    --------
    >>> number(39072.4), number(0.012345), number(-3.0), number(None)
    ('39,072', '0.0123', '-3', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 1e12:
        digits = 0 if abs(value) >= 100 or value == 0 else 2 - math.floor(math.log10(abs(value)))
        text = f"{value:,.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.2e}"


def apart(value: float, other: float) -> tuple[str, str]:
    """Write two numbers with as many digits as it takes to tell them apart.

    Examples
    --------
    >>> apart(-21.5312, -21.4979), apart(2.0, 9.0), apart(1.5, 1.5)
    (('-21.53', '-21.5'), ('2', '9'), ('1.5', '1.5'))
    """
    texts = number(value), number(other)
    digits = 4
    while texts[0] == texts[1] and value != other and digits <= 12:
        texts = f"{value:,.{digits}g}", f"{other:,.{digits}g}"
        digits += 1
    return texts


def day(days: float | None) -> str:
    """Write a date that is given as days since 1970-01-01.

    Examples
    --------
    >>> day(20780.4), day(None), day(1e9)
    ('2026-11-23', '–', '1,000,000,000 days')
    """
    if days is None or math.isnan(days):
        return "–"
    try:
        return (date(1970, 1, 1) + timedelta(days=math.floor(days))).isoformat()
    except OverflowError:  # beyond the years 1 to 9999
        return f"{days:,.0f} days"


def percent(share: float | None) -> str:
    """Write a share as a percentage, never rounding something to nothing or to everything.

    Examples
    --------
    >>> percent(0.3333), percent(0.0004), percent(0.9999), percent(1.0)
    ('33 %', '0.04 %', '99.99 %', '100 %')
    """
    if share is None or math.isnan(share):
        return "–"
    points = share * 100
    for digits in (0, 1, 2):
        text = f"{points:.{digits}f}"
        if float(text) not in (0.0, 100.0) or points in (0.0, 100.0):
            return f"{text} %"
    return "under 0.01 %" if points < 50 else "over 99.99 %"


def unbroken(text: str) -> str:
    """Keep each percentage in one line.

    Examples
    --------
    >>> unbroken("Rome 61 %") == "Rome 61\N{NO-BREAK SPACE}%"
    True
    """
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def seconds(value: float) -> str:
    """Write a duration.

    Examples
    --------
    >>> seconds(0.0123), seconds(75.2), seconds(7320)
    ('0.012 s', '1 min 15 s', '2 h 2 min')
    """
    if value < 60:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def megabytes(n_bytes: int) -> str:
    """Write a size of memory."""
    return f"{n_bytes / 1e6:,.0f} MB" if n_bytes else "–"


def shown(text: str) -> str:
    """Make a text from the data safe to look at: no control or direction characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def shown_lines(text: str) -> str:
    """Make a text of several lines safe to look at."""
    return "\n".join(shown(line) for line in text.split("\n"))


def shortened(text: str, length: int = 26) -> str:
    """Cut a text in the middle, where names of columns differ least.

    Examples
    --------
    >>> shortened("a_rather_long_name_of_a_column", 15)
    'a_rathe…_column'
    """
    text = shown(text)
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def without_values(text: str, names: Collection[str]) -> str:
    """Hide what a sentence quotes from the rows: quoted texts that are no names, and dates.

    Examples
    --------
    >>> without_values("'age' has '?' in 3 rows, the last on 2014-06-29", {"age"})
    "'age' has '…' in 3 rows, the last on …"
    """

    def hidden(match: re.Match[str]) -> str:
        quote, content = match[0][0], match[0][1:-1]
        return match[0] if content in names else f"{quote}…{quote}"

    without_quotes = re.sub(r"'[^']*'|\"[^\"]*\"", hidden, text)
    return re.sub(r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+Z?)?", "…", without_quotes)
