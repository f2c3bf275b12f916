"""What each column is, and whether it is used: decided from its values, with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuseg.backends.base import Backend
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.errors import SettingsError
from gpuseg.features.arrow import Texts, family, plain, texts
from gpuseg.features.categories import MOST_CATEGORIES, SMALLEST_SHARE, fit_categories
from gpuseg.features.columns import Columns, ascending
from gpuseg.features.names import may_name_a_key, names_a_key
from gpuseg.features.reading import Cleaned, Reading
from gpuseg.features.settings import FeatureSettings
from gpuseg.features.text import date_style, number_shares, number_style
from gpuseg.records import Array, ColumnDecision, Progress, Table, no_progress

#: Texts that are this nearly all different tell rows apart and group nothing.
NEARLY_UNIQUE = 0.9

#: Whole numbers must be even more nearly all different to be taken for keys.
NEARLY_UNIQUE_NUMBERS = 0.99

#: In smaller tables, "all different" and "1, 2, 3, …" happen by chance.
ENOUGH_TEXTS = 10
ENOUGH_COUNTING = 50

#: Mean length, in characters, from which mostly different texts are prose.
LENGTH_OF_PROSE = 60

#: A pattern of equal values says that two columns are one-to-one only if, on average, each
#: value comes this often.
REPETITIONS = 10


class ColumnPlan(NamedTuple):
    """What a column is and what becomes of it.

    Parameters
    ----------
    reading
        How to read it; None when it is dropped.
    fingerprint
        Equal for columns with the same values, row for row.
    pattern
        Equal for columns whose values correspond one to one; empty if that says nothing.
    interchangeable
        Whether any one-to-one column says the same: true of categories and of numbers with
        two values, not of numbers with a scale.
    """

    column: str
    role: str
    reason: str
    reading: Reading | None = None
    fingerprint: bytes = b""
    pattern: bytes = b""
    interchangeable: bool = False

    @property
    def decision(self) -> ColumnDecision:
        """The row of the ``columns`` table."""
        decision = "dropped" if self.reading is None else "kept"
        return ColumnDecision(self.column, self.role, decision, self.reason)


class Plan(NamedTuple):
    """One plan for every column of the table, in its order."""

    columns: tuple[ColumnPlan, ...]
    warnings: tuple[str, ...]


def decide(
    table: Table,
    settings: FeatureSettings,
    *,
    columns: Columns | None = None,
    progress: Progress = no_progress,
) -> Plan:
    """Decide what each column is and whether it is used.

    Nothing is encoded, so a sample of the rows gives a quick preview.

    Parameters
    ----------
    columns
        The table's columns where numbers are to be looked at; by default on the host.

    Raises
    ------
    SettingsError
        If a setting names a column that is not there or cannot be read as asked.
    """
    names = table.arrow.column_names
    warnings = settings.check(table.name, names)
    columns = columns or Columns(NumPyBackend(), table)
    plans = []
    for name in names:
        plans.append(decide_column(name, columns, settings))
        progress(len(plans) / len(names))
    plan = plan_of(plans, settings)
    return Plan(plan.columns, warnings + plan.warnings)


def plan_of(columns: Sequence[ColumnPlan], settings: FeatureSettings) -> Plan:
    """Put together what was decided on each column for itself, in the table's order."""
    plans = _drop_repetitions(list(columns), settings)
    warnings = tuple(
        f"column '{plan.column}' was asked for but is not used: {plan.reason}"
        for plan in plans
        if plan.reading is None and settings.uses(plan.column) and plan.role != "ignored"
    )
    return Plan(tuple(plans), warnings)


def numeric_names(table: Table, settings: FeatureSettings) -> list[str]:
    """Return the columns whose numbers `decide` looks at."""
    return [
        field.name
        for field, column in zip(table.arrow.schema, table.arrow.columns, strict=True)
        if family(field.type) == "number"
        and column.null_count < len(column)
        and field.name not in settings.categorical_columns
        and left_out(field.name, settings) is None
    ]


def left_out(name: str, settings: FeatureSettings) -> ColumnPlan | None:
    """Return the plan of a column that the user does not want looked at."""
    if name == settings.rowid_column:
        return ColumnPlan(name, "id", "named as rowid_column")
    if settings.columns is not None and name not in settings.columns:
        return ColumnPlan(name, "ignored", "not among the columns that were asked for")
    if name in settings.ignore_columns and not settings.uses(name):
        return ColumnPlan(name, "ignored", "named in ignore_columns")
    return None


def decide_column(name: str, columns: Columns, settings: FeatureSettings) -> ColumnPlan:
    """Decide what a column is, whatever the others are."""
    unseen = left_out(name, settings)
    if unseen is not None:
        return unseen
    column = columns.table.arrow.column(name)
    found = family(column.type)
    if found == "other":
        return ColumnPlan(name, "nested", f"type {column.type} is neither number, text nor date")
    if found == "empty" or column.null_count == len(column):
        return ColumnPlan(name, "empty", f"no value in {len(column):,} rows")
    reading = Reading(name, "categorical", str(column.type))
    if name in settings.categorical_columns or (
        found == "boolean" and name not in settings.numeric_columns
    ):
        return _decide_categories(
            reading, texts(plain(column)), columns, settings, role=_category_role(found)
        )
    if found == "text":
        return _decide_text(reading, column, columns, settings)
    kind = "datetime" if found == "date" else "numeric"
    return _decide_numbers(replace(reading, kind=kind), column, columns, settings, "")


def _category_role(found: str) -> str:
    return "boolean" if found == "boolean" else "categorical"


# -- texts -------------------------------------------------------------------------


def _decide_text(
    reading: Reading, column: pa.ChunkedArray, columns: Columns, settings: FeatureSettings
) -> ColumnPlan:
    held = texts(plain(column))
    counts = held.counts()
    if not len(held.values):
        return ColumnPlan(reading.column, "empty", f"no value in {len(column):,} rows")
    as_numbers = number_style(held.values, counts)
    if as_numbers:
        numeric = replace(reading, kind="numeric", number_style=as_numbers[0])
        return _decide_numbers(numeric, column, columns, settings, as_numbers[1])
    as_dates = date_style(held.values, counts)
    if as_dates:
        dated = replace(reading, kind="datetime", date_style=as_dates[0])
        return _decide_numbers(dated, column, columns, settings, as_dates[1])
    if reading.column in settings.numeric_columns:
        return _force_numbers(reading, column, held, columns, settings)
    return _decide_free_text(reading, held, columns, settings)


def _decide_free_text(
    reading: Reading, held: Texts, columns: Columns, settings: FeatureSettings
) -> ColumnPlan:
    n_present, n_distinct = int((held.codes >= 0).sum()), len(held.values)
    counted = f"{n_distinct:,} different texts in {n_present:,} rows"
    if n_distinct > ENOUGH_TEXTS:
        mean_length = float(np.dot(pc.utf8_length(held.values), held.counts())) / n_present
        if mean_length > LENGTH_OF_PROSE and n_distinct > n_present / 2:
            reason = f"{counted}, {mean_length:.0f} characters long on average: free text"
            return ColumnPlan(reading.column, "text", reason)
        if n_distinct >= NEARLY_UNIQUE * n_present:
            return ColumnPlan(reading.column, "id", f"{counted}: looks like an id")
    return _decide_categories(reading, held, columns, settings)


def _force_numbers(
    reading: Reading,
    column: pa.ChunkedArray,
    held: Texts,
    columns: Columns,
    settings: FeatureSettings,
) -> ColumnPlan:
    shares = number_shares(held.values, held.counts())
    style = max(shares, key=lambda style: shares[style])
    if shares[style] < 0.5:
        raise SettingsError(
            f"numeric_columns names '{reading.column}', but only {shares[style]:.0%} of its texts "
            "can be read as numbers; leave it out or name it in categorical_columns"
        )
    numeric = replace(reading, kind="numeric", number_style=style)
    how = f"{shares[style]:.0%} of the texts read as numbers"
    return _decide_numbers(numeric, column, columns, settings, how)


def _decide_categories(
    reading: Reading,
    held: Texts,
    columns: Columns,
    settings: FeatureSettings,
    role: str = "categorical",
) -> ColumnPlan:
    name, n_distinct, n_rows = reading.column, len(held.values), len(held.codes)
    n_missing = int((held.codes < 0).sum())
    if n_distinct == 0:
        return ColumnPlan(name, "empty", f"no value in {n_rows:,} rows")
    encoder = fit_categories(reading, Cleaned("categorical", held), settings.scaling)
    if encoder is None and n_distinct == 1:
        return _constant(name, n_rows, n_missing)
    if encoder is None:
        reason = (
            f"{n_distinct:,} different values, none of them in {SMALLEST_SHARE:.0%} of the rows"
        )
        return ColumnPlan(name, "text", f"{reason}: too fine to group by")
    reason = f"{n_distinct:,} different values"
    if encoder.has_other:
        reason += f", the {len(encoder.categories)} most frequent told apart"
    if n_missing:
        reason += f"; {_missing(n_missing, n_rows)}"
        reason += ", a category of its own" if encoder.has_missing else ", placed in the middle"
    pattern = columns.backend.digest(columns.backend.from_host(held.codes))
    return ColumnPlan(
        name,
        role,
        reason,
        reading,
        fingerprint=pattern + _digest_of_texts(held),
        pattern=pattern if n_distinct * REPETITIONS <= n_rows else b"",
        interchangeable=True,
    )


# -- numbers and dates -------------------------------------------------------------


def _decide_numbers(
    reading: Reading,
    column: pa.ChunkedArray,
    columns: Columns,
    settings: FeatureSettings,
    how: str,
) -> ColumnPlan:
    values, xp = reading.clean(column, columns).values, columns.xp
    name, n_rows = reading.column, len(values)
    present = ascending(values[~xp.isnan(values)], xp)
    n_missing = n_rows - len(present)
    if not len(present):
        return ColumnPlan(name, "empty", f"no usable value in {n_rows:,} rows")
    n_distinct = int((present[1:] != present[:-1]).sum()) + 1
    if n_distinct == 1:
        if SMALLEST_SHARE * n_rows <= n_missing:
            return _decide_categories(
                replace(reading, kind="categorical"), texts(plain(column)), columns, settings
            )
        return _constant(name, n_rows, n_missing)
    whole = bool((present == xp.floor(present)).all())
    if reading.kind == "numeric" and whole and not settings.uses(name):
        n_different = _n_different(column, n_distinct, present)
        as_key = _decide_key(reading, column, columns, settings, n_different, present)
        if as_key is not None:
            return as_key
    what = "dates" if reading.kind == "datetime" else "whole numbers" if whole else "numbers"
    reason = f"{n_distinct:,} different {what}" + (f", {how}" if how else "")
    if n_missing:
        reason += f"; {_missing(n_missing, n_rows)}, set to the median"
    binary = whole and n_distinct == 2 and reading.kind == "numeric"
    zero_one = binary and (float(present[0]), float(present[-1])) == (0.0, 1.0)
    role = "boolean" if zero_one else reading.kind
    return ColumnPlan(
        name,
        role,
        reason,
        reading,
        fingerprint=columns.backend.digest(values),
        pattern=_numeric_pattern(columns.backend, values, n_distinct),
        interchangeable=binary,
    )


def _decide_key(
    reading: Reading,
    column: pa.ChunkedArray,
    columns: Columns,
    settings: FeatureSettings,
    n_different: int,
    present: Array,
) -> ColumnPlan | None:
    """Recognise whole numbers that name something instead of counting it."""
    name, n_present = reading.column, len(present)
    counted = f"{n_different:,} different whole numbers in {n_present:,} rows"
    if n_different >= NEARLY_UNIQUE_NUMBERS * n_present:
        if may_name_a_key(name):
            return ColumnPlan(name, "id", f"{counted}, under such a name: looks like an id")
        width = float(present[-1]) - float(present[0]) + 1
        if n_different > ENOUGH_COUNTING and width == n_different:
            return ColumnPlan(name, "id", f"{counted}, without a gap: looks like a row number")
    if not names_a_key(name) or n_different <= 2:
        return None
    if n_different > MOST_CATEGORIES:
        return ColumnPlan(name, "id", f"{counted}, under the name of a key: they count nothing")
    categorical = replace(reading, kind="categorical")
    return _decide_categories(categorical, texts(plain(column)), columns, settings)


def _n_different(column: pa.ChunkedArray, n_distinct: int, present: Array) -> int:
    """Count different whole numbers also where they are too large for a float64."""
    exact = 2.0**53
    if float(present[-1]) < exact and float(present[0]) > -exact:
        return n_distinct
    return int(pc.count_distinct(plain(column)).as_py())


def _constant(name: str, n_rows: int, n_missing: int) -> ColumnPlan:
    reason = f"the same value in all {n_rows - n_missing:,} rows"
    return ColumnPlan(name, "constant", reason + (" that have one" if n_missing else ""))


def _missing(n_missing: int, n_rows: int) -> str:
    share = n_missing / n_rows
    return f"{n_missing:,} missing ({f'{share:.1%}' if share >= 0.001 else 'below 0.1%'})"


# -- columns that repeat each other ------------------------------------------------


def _drop_repetitions(plans: list[ColumnPlan], settings: FeatureSettings) -> list[ColumnPlan]:
    """Drop columns that say what another one says; numbers are kept rather than their names.

    Columns that the user asked for are never dropped here.
    """
    same_values: dict[bytes, str] = {}
    same_pattern: dict[bytes, str] = {}
    decided = list(plans)
    places = [i for i, plan in enumerate(plans) if plan.reading is not None]
    for i in sorted(places, key=lambda i: (_is_category(plans[i]), i)):
        plan = plans[i]
        twin = same_values.get(plan.fingerprint)
        partner = same_pattern.get(plan.pattern) if plan.interchangeable else None
        if (twin or partner) and not settings.uses(plan.column):
            reason = f"the same values as '{twin}'" if twin else f"one-to-one with '{partner}'"
            decided[i] = ColumnPlan(plan.column, "duplicate", reason)
            continue
        same_values.setdefault(plan.fingerprint, plan.column)
        if plan.pattern:
            same_pattern.setdefault(plan.pattern, plan.column)
    return decided


def _is_category(plan: ColumnPlan) -> bool:
    return plan.reading is not None and plan.reading.kind == "categorical"


def _numeric_pattern(backend: Backend, values: Array, n_distinct: int) -> bytes:
    if n_distinct * REPETITIONS > len(values):
        return b""
    return backend.digest(backend.codes(values))


def _digest_of_texts(held: Texts) -> bytes:
    written = "|".join(held.values.to_pylist()).encode()
    return hashlib.blake2b(written, digest_size=16).digest()
