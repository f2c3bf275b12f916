"""Original columns as rules need them: clean values, and the SQL that yields exactly those.

Nothing is taken on trust. DuckDB evaluates each candidate expression on the original
column, and the first one whose result agrees with what was clustered is used, with
DuckDB's own result as the values. So a rule selects the same rows here and there. A
column that no candidate reproduces takes no part in rules, and the log says why.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from gpuseg.explain.conditions import RuleColumn, quote_name, quote_text
from gpuseg.records import FeatureMatrix, Table

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger("gpuseg")

#: Integers up to here are floats too, so comparing either is the same.
_LARGEST_EXACT = 2**53

#: The encoder cuts numbers here, and takes dates outside of these years for placeholders.
_LARGEST = 1e150
_FIRST_DATE, _END_DATE = "1800-01-01", "2200-01-01"

_MICROSECONDS_PER_DAY = 86_400e6
#: The encoder counts dates in days, which resolves far less than a microsecond.
_DAYS_TOLERANCE = 1e-8


def rule_columns(features: FeatureMatrix, table: Table) -> list[RuleColumn]:
    """Return the columns that were clustered, as far as SQL can reproduce their values.

    Parameters
    ----------
    table
        The table that `features` was made from; the SQL refers to its columns.
    """
    import duckdb

    spelled_alike = Counter(name.casefold() for name in table.arrow.column_names)
    columns: list[RuleColumn] = []
    with duckdb.connect() as connection:
        for name in features.columns:
            if not name or spelled_alike[name.casefold()] > 1:
                _leave_out(name, "SQL cannot tell it from another column by its name")
                continue
            cleaned = features.encoder.clean(table, name)
            try:
                connection.register("original", table.arrow.select([name]))
                column = _rule_column(connection, name, cleaned, table.arrow.field(name).type)
            except duckdb.Error as error:
                _leave_out(name, f"DuckDB cannot read it: {str(error).splitlines()[0]}")
                continue
            if column is None:
                _leave_out(name, "no SQL expression was found that yields its values exactly")
            else:
                columns.append(column)
    return columns


def _leave_out(name: str, reason: str) -> None:
    log.info("column '%s' takes no part in rules: %s", name, reason)


def _rule_column(
    connection: duckdb.DuckDBPyConnection, name: str, cleaned: Any, dtype: pa.DataType
) -> RuleColumn | None:
    dtype = dtype.value_type if pat.is_dictionary(dtype) else dtype
    if cleaned.kind == "categorical":
        return _categorical(connection, name, cleaned.values, dtype)
    is_number = cleaned.kind == "numeric"
    candidates = _number_candidates if is_number else _date_candidates
    read = _read_numbers if is_number else _read_dates
    for expression in candidates(quote_name(name), dtype):
        values = read(connection, expression, cleaned.values)
        if values is not None:
            return RuleColumn(name, cleaned.kind, values, expression)
    return None


def _select(connection: duckdb.DuckDBPyConnection, expression: str) -> Any:
    """Return the expression's value for each row, a masked array."""
    result = connection.execute(f"SELECT {expression} AS result FROM original").fetchnumpy()
    return np.ma.asarray(result["result"])


# -- numbers -------------------------------------------------------------------


def _number_candidates(name: str, dtype: pa.DataType) -> Iterator[str]:
    for number in _number_expressions(name, dtype):
        yield number
        yield f"CASE WHEN isfinite({number}) THEN {number} END"


def _number_expressions(name: str, dtype: pa.DataType) -> Iterator[str]:
    if not _is_text(dtype):
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


def _read_numbers(
    connection: duckdb.DuckDBPyConnection, expression: str, cleaned: Any
) -> npt.NDArray[np.float64] | None:
    found = _select(connection, expression)
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


def _date_candidates(name: str, dtype: pa.DataType) -> Iterator[str]:
    for moment in _date_expressions(name, dtype):
        yield moment
        known = f"{moment} >= DATE '{_FIRST_DATE}' AND {moment} < DATE '{_END_DATE}'"
        yield f"CASE WHEN {known} THEN {moment} END"


def _date_expressions(name: str, dtype: pa.DataType) -> Iterator[str]:
    if not _is_text(dtype):
        has_zone = pat.is_timestamp(dtype) and dtype.tz is not None
        yield f"({name} AT TIME ZONE 'UTC')" if has_zone else name
        yield f"CAST({name} AS TIMESTAMP)"  # of nanoseconds
        return
    yield f"TRY_CAST({name} AS TIMESTAMP)"
    times = ("", " %H:%M", " %H:%M:%S")
    for sign in ("-", ".", "/"):
        for date in ("%Y-%m-%d", "%d-%m-%Y", "%m-%d-%Y"):
            formats = ", ".join(quote_text(date.replace("-", sign) + time) for time in times)
            yield f"try_strptime(trim({name}), [{formats}])"


def _read_dates(
    connection: duckdb.DuckDBPyConnection, expression: str, cleaned: Any
) -> npt.NDArray[np.datetime64] | None:
    found = _select(connection, expression)
    moments = found.filled(np.datetime64("NaT"))
    values = np.asarray(moments.astype("datetime64[us]"))
    if (np.isnat(values) != np.isnan(cleaned)).any() or (values != moments)[
        ~np.isnat(values)
    ].any():
        return None  # nanoseconds, or other rows are missing
    days = values.astype(np.int64) / _MICROSECONDS_PER_DAY
    known = ~np.isnat(values)
    return values if (np.abs(days - cleaned)[known] < _DAYS_TOLERANCE).all() else None


# -- categories ----------------------------------------------------------------


def _categorical(
    connection: duckdb.DuckDBPyConnection, name: str, texts: Any, dtype: pa.DataType
) -> RuleColumn:
    """List, for every category, the original values that were cleaned to it."""
    encoded = texts.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    categories = sorted(found)
    rank = {category: place for place, category in enumerate(categories)}
    new_code = np.array([rank[category] for category in found] + [-1], dtype=np.int32)
    codes = new_code[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    connection.register("cleaned", pa.table({"code": codes}))
    pairs = connection.execute(
        f"SELECT DISTINCT CAST(o.{quote_name(name)} AS VARCHAR) AS value, c.code "
        "FROM original AS o POSITIONAL JOIN cleaned AS c WHERE value IS NOT NULL"
    ).fetchall()
    # numbers and booleans can be written as they are; other types compare as text
    bare = pat.is_boolean(dtype) or pat.is_integer(dtype)
    sql = quote_name(name) if bare or _is_text(dtype) else f"CAST({quote_name(name)} AS VARCHAR)"
    spellings: list[set[str]] = [set() for _ in range(len(categories) + 1)]
    for value, code in pairs:
        spellings[code].add(value if bare else quote_text(value))
    listed = tuple(tuple(sorted(spelled)) for spelled in spellings)
    return RuleColumn(name, "categorical", codes, sql, tuple(categories), listed[:-1], listed[-1])


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pat.is_string(dtype) or pat.is_large_string(dtype) or pat.is_string_view(dtype))
