"""SQL that turns one column into its features, step by step, as its encoder does."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gpuseg.errors import ModelError
from gpuseg.features.arrow import Texts
from gpuseg.features.categories import CategoricalEncoder
from gpuseg.features.numeric import PERIODS, NumericEncoder
from gpuseg.features.reading import FIRST_DAY, LARGEST, LAST_DAY, Cleaned, Reading
from gpuseg.outputs.scoring.dialects import SqlDialect, identifier, literal, number
from gpuseg.outputs.scoring.steps import Steps
from gpuseg.outputs.scoring.texts import day_of_text, number_of_text, trimmed

_LARGEST_DOUBLE = "1.7976931348623157e308"

_FAMILIES = {
    r"u?int\d+": "integer",
    r"halffloat|float|double|decimal.*": "number",
    r"bool": "boolean",
    r"(large_)?string(_view)?": "text",
    r"date\d+\[\w+\]": "date",
    r"timestamp\[\w+\]": "timestamp",
    r"timestamp\[\w+, tz=.*\]": "moment",
}


class Feature(NamedTuple):
    """A feature that is computed from numbers: how the query calls it, and its place."""

    reference: str
    place: int


class Levels(NamedTuple):
    """The features of a column of categories: their values for each number of a category.

    Parameters
    ----------
    values : array of shape (n_levels, n_features), float32
    """

    reference: str
    first: int
    values: Any


def family(reading: Reading) -> str:
    """Return what a column's type in the training table was.

    Raises
    ------
    ModelError
        If SQL has no equal of it.
    """
    kind = reading.arrow_type
    if found := re.match(r"dictionary<values=([^,]+),", kind):
        kind = found.group(1)
    for pattern, name in _FAMILIES.items():
        if re.fullmatch(pattern, kind):
            return name
    raise ModelError(
        f"column '{reading.column}' was of type {reading.arrow_type}, which gpuseg cannot read in "
        "SQL; place the rows with 'gpuseg assign', or fit the model without the column"
    )


# -- categories --------------------------------------------------------------------------


def levels(
    steps: Steps, dialect: SqlDialect, encoder: CategoricalEncoder, alias: str, first: int
) -> Levels:
    """Let steps number a column's categories; n stands for any other one, n + 1 for none."""
    n_named = len(encoder.categories)
    value, spelt = _category(steps, dialect, encoder.reading, alias)
    whens = [f"WHEN {spelt(category)} THEN {i}" for i, category in enumerate(encoder.categories)]
    cases = f"CASE {value} {' '.join(whens)} ELSE {n_named} END"
    numbered = f"CASE WHEN {value} IS NULL THEN {n_named + 1} ELSE {cases} END"
    reference = steps.add("cleaned", alias, numbered, encoder.reading.column)
    return Levels(reference, first, _level_values(encoder))


def _level_values(encoder: CategoricalEncoder) -> Any:
    """Return the features of each named category, of any other one, and of a missing one."""
    unknown = "(" + "".join(encoder.categories) + ")"
    values = pa.array([*encoder.categories, unknown], pa.string())
    codes = np.append(np.arange(len(values)), -1).astype(np.int32)
    return encoder.encode(Cleaned("categorical", Texts(codes, values)), np).T


def _category(steps: Steps, dialect: SqlDialect, reading: Reading, alias: str) -> tuple[str, Any]:
    """Return what to compare, and how a category is spelt in the comparison."""
    column, kind = f"source.{identifier(reading.column)}", family(reading)
    if kind == "text":
        return trimmed(steps, dialect, reading, alias), literal
    if kind == "boolean":
        found = f"CASE WHEN {column} THEN 'true' WHEN NOT {column} THEN 'false' END"
        return steps.add("reading", alias, found, reading.column), literal
    if kind == "integer":
        return steps.add("reading", alias, column, reading.column), str
    if kind == "number":
        double = dialect.not_nan.format(x=f"CAST({column} AS {dialect.double})")
        found = steps.add("reading", alias, double, reading.column)
        return found, lambda category: number(float(category))
    if kind == "date":
        found = f"CAST({column} AS {dialect.text})"
        return steps.add("reading", alias, found, reading.column), literal
    raise ModelError(
        f"column '{reading.column}' holds categories of type {reading.arrow_type}, which gpuseg "
        "cannot compare in SQL; place the rows with 'gpuseg assign'"
    )


# -- numbers and dates -------------------------------------------------------------------


def numeric_features(
    steps: Steps, dialect: SqlDialect, encoder: NumericEncoder, alias: str, first: int
) -> list[Feature]:
    """Let steps compute the features of a column of numbers or dates."""
    cleaned = _cleaned(steps, dialect, encoder.reading, alias)
    column = encoder.reading.column
    names = iter(encoder.names)
    expressions = [_scaled(steps, encoder, cleaned, alias)]
    if encoder.missing_share is not None:
        there, missing = (
            number(encoder.weight * (flag - encoder.missing_share)) for flag in (0, 1)
        )
        expressions.append(f"CASE WHEN {cleaned} IS NULL THEN {missing} ELSE {there} END")
    for cycle in encoder.cycles:
        turns = f"{cleaned} / {number(PERIODS[cycle.name])}"
        angle = f"{number(2 * np.pi)} * ({turns} - floor({turns}))"
        place = steps.add("angles", f"{alias}_{cycle.name}", angle, f"{column}: {cycle.name}")
        for function, mean in (("sin", cycle.sine_mean), ("cos", cycle.cosine_mean)):
            wave = _weighted(encoder, f"({function}({place}) - {number(mean)})")
            expressions.append(f"COALESCE({wave}, 0e0)")
    features = []
    for offset, expression in enumerate(expressions):
        own = f"x{first + offset + 1}"
        double = steps.add("scaled", own, expression, next(names))
        single = steps.add("features", own, dialect.single.format(x=double), encoder.names[offset])
        features.append(Feature(single, first + offset))
    return features


def _scaled(steps: Steps, encoder: NumericEncoder, cleaned: str, alias: str) -> str:
    column = encoder.reading.column
    filled = f"COALESCE({cleaned}, {number(encoder.fill)})"
    if encoder.reference is not None:
        filled = f"{number(encoder.reference)} - {filled}"
    value = steps.add("filled", alias, filled, column)
    if encoder.log_unit is not None:
        value = f"sign({value}) * ln(1 + abs({value}) / {number(encoder.log_unit)})"
    reach = number(encoder.bound * encoder.scale)
    cut = f"LEAST(GREATEST({value} - {number(encoder.center)}, -{reach}), {reach})"
    return _weighted(encoder, f"({cut} / {number(encoder.scale)})")


def _weighted(encoder: NumericEncoder, expression: str) -> str:
    return expression if encoder.weight == 1 else f"{number(encoder.weight)} * {expression}"


def _cleaned(steps: Steps, dialect: SqlDialect, reading: Reading, alias: str) -> str:
    if reading.kind == "datetime":
        value = steps.add("reading", alias, _day(steps, dialect, reading, alias), reading.column)
        inside = f"{value} >= {FIRST_DAY} AND {value} < {LAST_DAY}"
        return steps.add("cleaned", alias, f"CASE WHEN {inside} THEN {value} END", reading.column)
    value = steps.add("reading", alias, _number(steps, dialect, reading, alias), reading.column)
    if family(reading) in ("integer", "boolean"):
        return value
    largest = number(LARGEST)
    # NaN is larger than everything here, or fails every comparison
    finite = (
        f"CASE WHEN abs({value}) <= {largest} THEN {value} "
        f"WHEN abs({value}) <= {_LARGEST_DOUBLE} THEN sign({value}) * {largest} END"
    )
    return steps.add("cleaned", alias, finite, reading.column)


def _number(steps: Steps, dialect: SqlDialect, reading: Reading, alias: str) -> str:
    column, kind = f"source.{identifier(reading.column)}", family(reading)
    if kind == "text":
        return number_of_text(steps, dialect, reading, alias)
    if kind == "boolean":
        return f"CASE WHEN {column} THEN 1e0 WHEN NOT {column} THEN 0e0 END"
    return f"CAST({column} AS {dialect.double})"


def _day(steps: Steps, dialect: SqlDialect, reading: Reading, alias: str) -> str:
    column, kind = f"source.{identifier(reading.column)}", family(reading)
    if kind == "text":
        return day_of_text(steps, dialect, reading, alias)
    template = {
        "date": dialect.days_of_date,
        "timestamp": dialect.days,
        "moment": dialect.days_utc,
    }[kind]
    return f"CAST({template.format(x=column)} AS {dialect.double})"
