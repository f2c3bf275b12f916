"""Original columns as rules need them: clean values, and the SQL that yields exactly those.

Nothing is taken on trust. DuckDB evaluates each candidate expression on the original
column, and the first one whose result agrees with what was clustered is used, with
DuckDB's own result as the values. So a rule selects the same rows here and there. A
column that no candidate reproduces takes no part in rules, and the log says why.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from gpuseg.explain.conditions import RuleColumn
from gpuseg.records import FeatureMatrix, Table
from gpuseg.tables.duckdb_expressions import Calculator
from gpuseg.tables.duckdb_types import quoted

log = logging.getLogger("gpuseg")

#: Rows that rules are counted on: shares are then known to within 0.001. A fixed number, not
#: one of memory: what is said must not depend on the machine.
MAX_ROWS = 1_000_000

#: Integers up to here are floats too, so comparing either is the same.
_LARGEST_EXACT = 2**53

#: The encoder cuts numbers here, and takes dates outside of these years for placeholders.
_LARGEST = 1e150
_FIRST_DATE, _END_DATE = "1800-01-01", "2200-01-01"

_MICROSECONDS_PER_DAY = 86_400e6
#: The encoder counts dates in days, which resolves far less than a microsecond.
_DAYS_TOLERANCE = 1e-8


class ToldRows(NamedTuple):
    """The rows that rules and the tree are found and counted on.

    Parameters
    ----------
    labels : host array of shape (n,), int32
        Segment of each row, in the order of the table.
    notes
        Says so where they are not all rows.
    """

    table: Table
    labels: npt.NDArray[np.int32]
    notes: tuple[str, ...] = ()


def told_rows(features: FeatureMatrix, table: Table, labels: Any) -> ToldRows:
    """Return all rows, or of very many a fair sample.

    Parameters
    ----------
    labels : host array of shape (n_samples,), int32, in the order of ``features.X``
    """
    if len(labels) <= MAX_ROWS:
        return ToldRows(table, features.in_table_order(labels))
    in_table, in_matrix = features.fair_sample(MAX_ROWS)
    note = (
        f"rules and the tree were found and counted on a fair sample of {MAX_ROWS:,} of "
        f"{len(labels):,} rows"
    )
    return ToldRows(table.take(in_table), labels[in_matrix], (note,))


def rule_columns(features: FeatureMatrix, table: Table) -> list[RuleColumn]:
    """Return the columns that were clustered, as far as SQL can reproduce their values.

    Parameters
    ----------
    table
        The table that `features` was made from; the SQL refers to its columns.
    """
    with Calculator() as calculator:
        found = (
            sql_column(calculator, table.arrow, name, *features.encoder.clean(table, name))
            for name in features.columns
        )
        return [column for column in found if column is not None]


def sql_column(
    calculator: Calculator, table: pa.Table, name: str, kind: str, cleaned: Any
) -> RuleColumn | None:
    """Return a column with the SQL that yields its values; None if there is none.

    Parameters
    ----------
    cleaned
        The values of `kind`, as ``features.encoder.ColumnValues`` has them.
    """
    if not name or sum(n.casefold() == name.casefold() for n in table.column_names) > 1:
        _leave_out(name, "SQL cannot tell it from another column by its name")
        return None
    column = _rule_column(_Original(calculator, table.select([name])), kind, cleaned)
    if column is None:
        _leave_out(name, "no SQL expression was found that yields its values exactly")
    return column


def _leave_out(name: str, reason: str) -> None:
    log.info("column '%s' takes no part in rules: %s", name, reason)


class _Original(NamedTuple):
    """A column as it came."""

    calculator: Calculator
    column: pa.Table

    @property
    def name(self) -> str:
        return str(self.column.column_names[0])

    @property
    def type(self) -> pa.DataType:
        dtype = self.column.field(0).type
        return dtype.value_type if pat.is_dictionary(dtype) else dtype

    @property
    def is_text(self) -> bool:
        checks = (pat.is_string, pat.is_large_string, pat.is_string_view)
        return any(check(self.type) for check in checks)

    def values(self, expression: str) -> Any:
        return self.calculator.values(self.column, expression)


def _rule_column(original: _Original, kind: str, cleaned: Any) -> RuleColumn | None:
    if kind == "categorical":
        return _categorical(original, cleaned)
    candidates = _number_candidates if kind == "numeric" else _date_candidates
    agreeing = _agreeing_numbers if kind == "numeric" else _agreeing_dates
    for expression in candidates(original):
        found = original.values(expression)
        values = None if found is None else agreeing(found, cleaned)
        if values is not None:
            return RuleColumn(original.name, kind, values, expression)
    return None


# -- numbers -------------------------------------------------------------------


def _number_candidates(original: _Original) -> Iterator[str]:
    for number in _number_expressions(original):
        yield number
        yield f"CASE WHEN isfinite({number}) THEN {number} END"


def _number_expressions(original: _Original) -> Iterator[str]:
    name, dtype = quoted(original.name), original.type
    if not original.is_text:
        if pat.is_integer(dtype) or pat.is_float64(dtype):
            yield name
        yield f"CAST({name} AS DOUBLE)"
        return
    without_units = f"regexp_replace({name}, '[^0-9.eE+-]', '', 'g')"
    with_comma = f"regexp_replace({name}, '[^0-9,eE+-]', '', 'g')"
    for text in (
        name,
        f"replace({name}, ',', '.')",
        f"replace({name}, ',', '')",
        without_units,
        f"replace({with_comma}, ',', '.')",
    ):
        yield f"TRY_CAST({text} AS DOUBLE)"


def _agreeing_numbers(found: Any, cleaned: Any) -> npt.NDArray[np.float64] | None:
    if np.issubdtype(found.dtype, np.integer):
        extremes = found.compressed()
        if len(extremes) and max(int(extremes.max()), -int(extremes.min())) > _LARGEST_EXACT:
            return None
    found = found.astype(np.float64)
    if not np.isfinite(found.compressed()).all():
        return None  # DuckDB sorts NaN above all numbers, so it would pass a lower bound
    values = np.asarray(found.filled(np.nan))
    expected = np.clip(values, -_LARGEST, _LARGEST)
    agree = np.isclose(expected, cleaned, rtol=1e-12, atol=0.0, equal_nan=True).all()
    return values if agree else None


# -- dates ---------------------------------------------------------------------


def _date_candidates(original: _Original) -> Iterator[str]:
    for moment in _date_expressions(original):
        yield moment
        known = f"{moment} >= DATE '{_FIRST_DATE}' AND {moment} < DATE '{_END_DATE}'"
        yield f"CASE WHEN {known} THEN {moment} END"


def _date_expressions(original: _Original) -> Iterator[str]:
    name, dtype = quoted(original.name), original.type
    if not original.is_text:
        has_zone = pat.is_timestamp(dtype) and dtype.tz is not None
        yield f"({name} AT TIME ZONE 'UTC')" if has_zone else name
        return
    yield f"TRY_CAST({name} AS TIMESTAMP)"
    times = ("", " %H:%M", " %H:%M:%S")
    for sign in ("-", ".", "/"):
        for date in ("%Y-%m-%d", "%d-%m-%Y", "%m-%d-%Y"):
            formats = ", ".join(quote_text(date.replace("-", sign) + time) for time in times)
            yield f"try_strptime(trim({name}), [{formats}])"


def _agreeing_dates(found: Any, cleaned: Any) -> npt.NDArray[np.datetime64] | None:
    if not np.issubdtype(found.dtype, np.datetime64):
        return None
    # nanoseconds are cut off, which changes no comparison with a whole microsecond
    values = np.asarray(found.filled(np.datetime64("NaT")).astype("datetime64[us]"))
    known = ~np.isnat(values)
    if (known == np.isnan(cleaned)).any():
        return None
    days = values.astype(np.int64) / _MICROSECONDS_PER_DAY
    return values if (np.abs(days - cleaned)[known] < _DAYS_TOLERANCE).all() else None


# -- categories ----------------------------------------------------------------


def quote_text(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _categorical(original: _Original, texts: Any) -> RuleColumn | None:
    """List, for every category, the original values that were cleaned to it."""
    encoded = texts.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    categories = sorted(found)
    rank = {category: place for place, category in enumerate(categories)}
    new_code = np.array([rank[category] for category in found] + [-1], dtype=np.int32)
    codes = new_code[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    spelled = original.calculator.spellings(original.column, codes)
    if spelled is None:
        return None
    # numbers and booleans can be written as they are; other types compare as text
    bare = pat.is_boolean(original.type) or pat.is_integer(original.type)
    name = quoted(original.name)
    literals: list[set[str]] = [set() for _ in range(len(categories) + 1)]
    for spelling, code in spelled:
        literals[code].add(spelling if bare else quote_text(spelling))
    *listed, missing = (tuple(sorted(spelling)) for spelling in literals)
    return RuleColumn(
        original.name,
        "categorical",
        codes,
        name if bare or original.is_text else f"CAST({name} AS VARCHAR)",
        tuple(categories),
        tuple(listed),
        missing,
    )
