"""What differs between the SQL of the systems that a model can run in, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SqlDialect:
    """One system's words; templates are filled with ``str.format``.

    Parameters
    ----------
    name
        For people.
    double, text
        Names of types.
    single
        ``{x}`` rounded to float32 and back to double.
    number
        A text ``{x}`` of digits as a double; NULL beyond its range.
    not_nan
        ``{x}``, NULL where it is NaN.
    matches, extract
        Whether ``{x}`` matches ``{pattern}``, and what its ``{group}`` holds.
    substitute
        All places of ``{x}`` that match ``{pattern}``, replaced by ``{by}``.
    group
        How a replacement names the first group.
    code
        How a pattern writes a character by its number.
    days, days_utc, days_of_date
        Days since 1970 of a timestamp, of one with time zone, and of a date; fractions
        count.
    fence
        Ends a step, where the system would else put its expressions into every later use.
    """

    name: str
    double: str
    text: str
    single: str
    number: str
    not_nan: str
    matches: str
    extract: str
    substitute: str
    group: str
    code: str
    days: str
    days_utc: str
    days_of_date: str
    fence: str = ""


_SINGLE = "CAST(CAST({x} AS REAL) AS DOUBLE)"
_DUCKDB_DAYS = "CASE WHEN isfinite({x}) THEN epoch_us({x}) / 864e8 END"
_POSTGRES_DAYS = (
    "CASE WHEN isfinite({x}) THEN CAST(EXTRACT(EPOCH FROM {x}) AS DOUBLE PRECISION) / 86400 END"
)

DUCKDB = SqlDialect(
    name="DuckDB",
    double="DOUBLE",
    text="VARCHAR",
    single=_SINGLE,
    number="TRY_CAST({x} AS DOUBLE)",
    not_nan="NULLIF({x}, CAST('NaN' AS DOUBLE))",
    matches="regexp_matches({x}, {pattern})",
    extract="regexp_extract({x}, {pattern}, {group})",
    substitute="regexp_replace({x}, {pattern}, {by}, 'g')",
    group=r"\1",
    code=r"\x{{{code:04X}}}",
    days=_DUCKDB_DAYS,
    days_utc=_DUCKDB_DAYS,
    days_of_date="CASE WHEN isfinite({x}) THEN {x} - DATE '1970-01-01' END",
)

POSTGRES = SqlDialect(
    name="PostgreSQL",
    double="DOUBLE PRECISION",
    text="TEXT",
    # a number that float32 rounds to nothing is an error here
    single="CAST(CAST(CASE WHEN abs({x}) < 7.1e-46 THEN 0 ELSE {x} END AS REAL) "
    "AS DOUBLE PRECISION)",
    # so is one that is beyond the range of a double
    number="CASE WHEN abs(CAST({x} AS NUMERIC)) < 1e-307 THEN 0 WHEN abs(CAST({x} AS NUMERIC)) "
    "<= 1.7976931348623157e308 THEN CAST({x} AS DOUBLE PRECISION) END",
    not_nan="NULLIF({x}, CAST('NaN' AS DOUBLE PRECISION))",
    matches="{x} ~ {pattern}",
    extract="(regexp_match({x}, {pattern}))[{group}]",
    substitute="regexp_replace({x}, {pattern}, {by}, 'g')",
    group=r"\1",
    code=r"\u{code:04X}",
    days=_POSTGRES_DAYS,
    days_utc=_POSTGRES_DAYS,
    days_of_date="CASE WHEN isfinite({x}) THEN {x} - DATE '1970-01-01' END",
    fence="OFFSET 0",
)

TRINO = SqlDialect(
    name="Trino",
    double="DOUBLE",
    text="VARCHAR",
    single=_SINGLE,
    number="TRY_CAST({x} AS DOUBLE)",
    not_nan="CASE WHEN NOT is_nan({x}) THEN {x} END",
    matches="regexp_like({x}, {pattern})",
    extract="regexp_extract({x}, {pattern}, {group})",
    substitute="regexp_replace({x}, {pattern}, {by})",
    group="$1",
    code=r"\u{code:04X}",
    days="to_unixtime({x}) / 86400",
    days_utc="to_unixtime({x}) / 86400",
    days_of_date="date_diff('day', DATE '1970-01-01', {x})",
)

DIALECTS = {"trino": TRINO, "duckdb": DUCKDB, "postgres": POSTGRES}


def identifier(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def number(value: float) -> str:
    """Return a number with all its digits, as a double wherever a system tells them apart."""
    if not math.isfinite(value):
        raise AssertionError("a model holds finite numbers only")
    digits = repr(float(value))
    digits = digits if "e" in digits else f"{digits}e0"
    return f"({digits})" if digits.startswith("-") else digits
