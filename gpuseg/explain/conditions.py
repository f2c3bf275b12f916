"""Conditions on original columns: which rows meet them, in words, and in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
#: A float, or a ``np.datetime64`` for a column of dates.
Threshold = Any

#: Numbers with at most this many digits are read alike as decimals and as floats.
_EXACT_DIGITS = 15


@dataclass(frozen=True)
class RuleColumn:
    """A column of the input table as rules see it.

    Parameters
    ----------
    name
        As in the input table.
    kind
        ``numeric``, ``datetime`` or ``categorical``.
    values
        One for each row, in table order. Numeric: float64, NaN where missing. Datetime:
        datetime64, NaT where missing, years 1 to 9999. Categorical: int32 index into
        `categories`, -1 where missing.
    sql
        Numeric and datetime: an expression that yields exactly `values` from the original
        table, and NULL for a missing one (a float column may only hold finite values then).
        Categorical: an expression that yields what `spellings` lists.
    categories
        The different texts, sorted, so that nothing depends on the order of the rows.
    spellings
        For each category, as SQL literals, every original value that was cleaned to it.
    missing_spellings
        Original values that count as missing, besides NULL.
    """

    name: str
    kind: str
    values: npt.NDArray[Any]
    sql: str
    categories: tuple[str, ...] = ()
    spellings: tuple[tuple[str, ...], ...] = ()
    missing_spellings: tuple[str, ...] = ()

    @property
    def is_ordered(self) -> bool:
        """Whether its values can be compared with a threshold."""
        return self.kind != "categorical"

    @cached_property
    def missing(self) -> Mask:
        """Rows without a value, (n,) bool."""
        if self.kind == "categorical":
            return np.asarray(self.values < 0)
        return np.asarray(
            np.isnat(self.values) if self.kind == "datetime" else np.isnan(self.values)
        )

    @cached_property
    def has_missing(self) -> bool:
        """Whether any row lacks a value."""
        return bool(self.missing.any())


@dataclass(frozen=True)
class InRange:
    """A number or date within bounds; without bounds, any value at all.

    Parameters
    ----------
    low
        Rows below it fail; None for no bound.
    high
        Numbers above it fail, and dates from it on; None for no bound.
    or_missing
        Whether rows without a value pass.
    """

    column: RuleColumn
    low: Threshold | None = None
    high: Threshold | None = None
    or_missing: bool = False

    def mask(self) -> Mask:
        """Return which rows pass, (n,) bool."""
        values, passing = self.column.values, ~self.column.missing
        with np.errstate(invalid="ignore"):
            if self.low is not None:
                passing &= values >= self.low
            if self.high is not None:
                is_date = self.column.kind == "datetime"
                passing &= values < self.high if is_date else values <= self.high
        return passing | self.column.missing if self.or_missing else passing

    def text(self) -> str:
        """Return the condition in words."""
        name = visible(self.column.name)
        low, high = (None if t is None else threshold_text(t) for t in (self.low, self.high))
        if low is None and high is None:
            return f"{name} is known"
        if self.column.kind == "datetime":
            words = [f"from {low}"] if low else []
            words += [f"before {high}"] if high else []
            body = " and ".join(words)
        elif low == high:
            body = f"is {low}"
        elif low is not None and high is not None:
            body = f"from {low} to {high}"
        else:
            body = f">= {low}" if low is not None else f"<= {high}"
        return f"{name} {body}{' (or missing)' if self.or_missing else ''}"

    def sql(self) -> str:
        """Return the condition as an SQL expression."""
        expression = self.column.sql
        low, high = (None if t is None else threshold_sql(t) for t in (self.low, self.high))
        if low is None and high is None:
            return f"{expression} IS NOT NULL"
        if low is not None and low == high:
            body = f"{expression} = {low}"
        elif self.column.kind == "datetime":
            bounds = [f"{expression} >= {low}"] if low else []
            bounds += [f"{expression} < {high}"] if high else []
            body = " AND ".join(bounds)
        elif low is not None and high is not None:
            body = f"{expression} BETWEEN {low} AND {high}"
        else:
            body = f"{expression} >= {low}" if low is not None else f"{expression} <= {high}"
        return f"({body} OR {expression} IS NULL)" if self.or_missing else body


@dataclass(frozen=True)
class OneOf:
    """A category among some, or (`negated`) any other one.

    Parameters
    ----------
    codes
        Categories, ascending; may be empty when `or_missing` says it all.
    or_missing
        Whether rows without a value pass.
    """

    column: RuleColumn
    codes: tuple[int, ...]
    negated: bool = False
    or_missing: bool = False

    def mask(self) -> Mask:
        """Return which rows pass, (n,) bool."""
        named = np.isin(self.column.values, self.codes)
        passing = ~named & ~self.column.missing if self.negated else named
        return passing | self.column.missing if self.or_missing else passing

    def text(self) -> str:
        """Return the condition in words."""
        name = visible(self.column.name)
        texts = [_category_text(self.column.categories[code]) for code in self.codes]
        if not self.negated:
            texts += ["missing"] if self.or_missing else []
            return f"{name} is {_listing(texts, 'one of', '')}"
        excludes_missing = self.column.has_missing and not self.or_missing
        if not texts:
            return f"{name} is known"
        texts += ["missing"] if excludes_missing else []
        return f"{name} is {_listing(texts, 'none of', 'not ')}"

    def sql(self) -> str:
        """Return the condition as an SQL expression."""
        column = self.column
        literals = [s for code in self.codes for s in column.spellings[code]]
        # a missing value is either among the listed ones or NULL, which fails every comparison
        if self.negated != self.or_missing:
            literals += column.missing_spellings
        parts = [_membership(column.sql, literals, self.negated)] if literals else []
        if self.or_missing:
            parts.append(f"{column.sql} IS NULL")
        elif not parts:
            return f"{column.sql} IS NOT NULL"
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"


@dataclass(frozen=True)
class Missing:
    """A number or date that is not there."""

    column: RuleColumn

    def mask(self) -> Mask:
        """Return which rows pass, (n,) bool."""
        return self.column.missing

    def text(self) -> str:
        """Return the condition in words."""
        return f"{visible(self.column.name)} is missing"

    def sql(self) -> str:
        """Return the condition as an SQL expression."""
        return f"{self.column.sql} IS NULL"


Condition = InRange | OneOf | Missing


def all_of(conditions: Sequence[Condition], n_rows: int) -> Mask:
    """Return the rows that meet every condition, (n,) bool."""
    passing = np.ones(n_rows, dtype=bool)
    for condition in conditions:
        passing &= condition.mask()
    return passing


def rule_text(conditions: Sequence[Condition]) -> str:
    """Return a rule in words."""
    return " and ".join(condition.text() for condition in conditions) or "every row"


def rule_sql(conditions: Sequence[Condition]) -> str:
    """Return a rule as a WHERE expression."""
    return " AND ".join(condition.sql() for condition in conditions) or "TRUE"


def visible(text: str) -> str:
    """Return a text on one line: control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _category_text(category: str) -> str:
    shown = visible(category)
    # else a comma or a word of our own could be read as part of the rule
    is_plain = shown == shown.strip() and shown != "missing" and not set(shown) & set(',"()')
    is_plain = is_plain and not any(word in f" {shown} " for word in (" and ", " or ", " is "))
    return shown if is_plain and shown else '"' + shown.replace('"', '""') + '"'


def _listing(texts: Sequence[str], several: str, one: str) -> str:
    return f"{one}{texts[0]}" if len(texts) == 1 else f"{several} {', '.join(texts)}"


def _membership(expression: str, literals: Sequence[str], negated: bool) -> str:
    if len(literals) == 1:
        return f"{expression} {'<>' if negated else '='} {literals[0]}"
    return f"{expression} {'NOT IN' if negated else 'IN'} ({', '.join(literals)})"


def threshold_text(value: Threshold) -> str:
    """Return a threshold in words."""
    if isinstance(value, np.datetime64):
        return _moment(value)
    return f"{value:.0f}" if _is_short_integer(value) else repr(float(value))


def threshold_sql(value: Threshold) -> str:
    """Return a threshold as an SQL literal."""
    if isinstance(value, np.datetime64):
        moment = _moment(value)
        return f"{'DATE' if len(moment) == len('2013-05-01') else 'TIMESTAMP'} '{moment}'"
    if _is_short_integer(value):
        return f"{value:.0f}"
    written = repr(float(value))
    n_digits = sum(c.isdigit() for c in written.partition("e")[0])
    # an exponent makes it a DOUBLE; DuckDB 1.4 rounds longer decimals twice
    return written if "e" in written or n_digits <= _EXACT_DIGITS else f"{written}e0"


def _is_short_integer(value: float) -> bool:
    return float(value).is_integer() and abs(value) < 10**_EXACT_DIGITS


def _moment(value: np.datetime64) -> str:
    if value == value.astype("datetime64[D]"):
        return str(value.astype("datetime64[D]"))
    to_the_minute = value == value.astype("datetime64[m]")
    return np.datetime_as_string(value, unit="m" if to_the_minute else "us").replace("T", " ")
