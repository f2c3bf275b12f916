"""The room: a table in, a matrix of features out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.errors import DataError
from gpuseg.features.categories import fit_categories
from gpuseg.features.columns import Columns, long_array
from gpuseg.features.encoder import ColumnEncoder, Encoder, Warn, no_warning
from gpuseg.features.gaps import Gap, telling_gaps
from gpuseg.features.numeric import NumericEncoder, fit_numeric
from gpuseg.features.reduction import fit_projection
from gpuseg.features.roles import ColumnPlan, Plan, decide, numeric_names
from gpuseg.features.settings import FeatureSettings
from gpuseg.memory import room
from gpuseg.records import Array, ColumnDecision, FeatureMatrix, Progress, Table, no_progress, part

#: Rows of the sample that columns are judged by where a whole column is too much.
JUDGED_ROWS = 4_000_000


class FittedColumn(NamedTuple):
    """A column on its way from plan to features."""

    plan: ColumnPlan
    encoder: ColumnEncoder
    features: Array  # (n_features, n_samples) float32
    missing: Array | None = None  # (n_samples,) bool; None where no number is missing
    notes: tuple[str, ...] = ()


def prepare(
    backend: Backend,
    table: Table,
    settings: FeatureSettings,
    *,
    progress: Progress = no_progress,
) -> FeatureMatrix:
    """Decide on the columns, fit their encoder, and encode the table.

    The result does not depend on the order of the table's rows: each column's statistics
    are taken from its sorted values, and the rows are then ordered by their features.

    Raises
    ------
    SettingsError
        If a setting names a column that is not there or cannot be read as asked.
    DataError
        If no column can be used.
    """
    if table.n_rows == 0:
        raise DataError(f"{table.name} has no rows; a table with rows to segment was expected")
    warnings: list[str] = []
    judged = _judged(table)
    columns = Columns(backend, judged, numeric_names(judged, settings))
    plans = decide(judged, settings, columns=columns, progress=part(progress, 0.0, 0.4))
    warnings += plans.warnings
    fitted = _fit_columns(columns, plans, settings, warnings.append, part(progress, 0.4, 0.8))
    del columns  # what the backend read makes room for the matrix
    decisions = tuple(decision_of(column, fitted.get(column.column)) for column in plans.columns)
    if not fitted:
        raise DataError(nothing_to_use(table, decisions))
    encoder = Encoder(tuple(column.encoder for column in fitted.values()))
    features = [column.features for column in fitted.values()]
    fitted.clear()
    if judged is not table:
        features.clear()
        decisions, features, words = _of_all_rows(backend, encoder, decisions, judged, table)
        warnings.append(words)
    order, encoded = _ordered(backend, features)
    progress(0.9)
    if len(encoder.feature_names) > settings.dimension_reduction_threshold:
        projected = fit_projection(backend, encoded, settings.dimension_reduction_threshold)
        encoder = Encoder(encoder.columns, projected.projection)
        warnings += projected.notes
    matrix = feature_matrix(backend, encoder, encoded, order, decisions, warnings)
    progress(1.0)
    return matrix


def encode_features(
    backend: Backend,
    encoder: Encoder,
    table: Table,
    *,
    progress: Progress = no_progress,
    warn: Warn = no_warning,
) -> tuple[Array, Array]:
    """Encode a table with a fitted encoder.

    Each row is encoded for itself: the training rows get the very bits that they had.

    - A category that was not there counts as "(other)" if there is such a level, and else
      stands in the middle of all categories.
    - A missing number counts as the median of the training table.
    - A column may come in another type as long as its values can be read.

    Parameters
    ----------
    warn
        Called with a sentence for everything that was turned into a missing value.

    Returns
    -------
    X : Array of shape (n_samples, n_features), float32
        In the table's order.
    encoded : Array of shape (n_samples, n_encoded), float32
        Before any projection; `X` itself when nothing is projected.

    Raises
    ------
    ModelError
        If a column that the encoder needs is missing or cannot be read.
    """
    features = encoder.features(backend, table, progress=progress, warn=warn)
    encoded = backend.matrix(features)
    return encoder.project(backend, encoded), encoded


def prepare_again(
    backend: Backend, encoder: Encoder, table: Table, *, progress: Progress = no_progress
) -> FeatureMatrix:
    """Encode a table with a fitted encoder, and order its rows as `prepare` does.

    Raises
    ------
    DataError
        If the table has no rows.
    ModelError
        As `encode_features`.
    """
    if table.n_rows == 0:
        raise DataError(f"{table.name} has no rows; a table with rows to place was expected")
    warnings: list[str] = []
    features = encoder.features(backend, table, progress=progress, warn=warnings.append)
    order, encoded = _ordered(backend, features)
    decisions = decisions_again(encoder, table)
    return feature_matrix(backend, encoder, encoded, order, decisions, warnings)


def decisions_again(encoder: Encoder, table: Table) -> tuple[ColumnDecision, ...]:
    """Say which columns of a table a fitted encoder uses."""
    used = set(encoder.column_names)
    return tuple(
        ColumnDecision(name, "feature", "kept", "the stored model uses it")
        if name in used
        else ColumnDecision(name, "ignored", "dropped", "the stored model does not use it")
        for name in table.arrow.column_names
    )


def _judged(table: Table) -> Table:
    """Return the rows that columns are judged by: all, unless one column is too much."""
    most_rows = room().column_rows()
    if most_rows is None or table.n_rows <= most_rows:
        return table
    n_rows = min(most_rows, JUDGED_ROWS)
    width = table.n_rows / n_rows
    # one row of each stretch, so that a table in some order is seen from end to end
    inside = np.random.default_rng(0).random(n_rows)
    rows = ((np.arange(n_rows) + inside) * width).astype(np.int64)
    return table.take(np.minimum(rows, table.n_rows - 1))


def _of_all_rows(
    backend: Backend,
    encoder: Encoder,
    decisions: tuple[ColumnDecision, ...],
    judged: Table,
    table: Table,
) -> tuple[tuple[ColumnDecision, ...], list[Array], str]:
    """Encode all rows as a sample of them showed; return also who has to know that."""
    how = f"by a fair sample of {judged.n_rows:,} rows"
    decisions = tuple(
        d if d.role in ("ignored", "nested") else d._replace(reason=f"{d.reason} ({how})")
        for d in decisions
    )
    words = (
        f"columns were judged {how} of {table.n_rows:,}, because memory does not hold one whole "
        "column with what is computed from it; more --memory looks at all"
    )
    return decisions, encoder.features(backend, table), words


def feature_matrix(
    backend: Backend,
    encoder: Encoder,
    encoded: Array,
    order: Any,
    decisions: tuple[ColumnDecision, ...],
    warnings: Sequence[str],
    *,
    kind: type[FeatureMatrix] = FeatureMatrix,
) -> FeatureMatrix:
    """Put a table's features together, projected where the encoder does that.

    Parameters
    ----------
    encoded : Array of shape (n_samples, n_encoded), float32
    order
        See `FeatureMatrix`; None where `kind` knows the order otherwise.
    """
    return kind(
        X=encoder.project(backend, encoded),
        encoded=encoded,
        encoded_names=encoder.feature_names,
        columns=encoder.column_names,
        column_of=encoder.column_of,
        decisions=decisions,
        order=order,
        encoder=encoder,
        warnings=tuple(warnings),
    )


def _fit_columns(
    columns: Columns, plan: Plan, settings: FeatureSettings, warn: Warn, progress: Progress
) -> dict[str, FittedColumn]:
    """Fit and encode the kept columns, those left out whose numbers are all the same."""
    kept = [column for column in plan.columns if column.reading is not None]
    fitted = {}
    for number, column_plan in enumerate(kept, start=1):
        column = fit_column(columns, column_plan, settings, warn)
        if column is not None:
            fitted[column_plan.column] = column
        progress(number / len(kept))
    if marks_gaps(settings):
        _mark_gaps(columns, fitted)
    return fitted


def marks_gaps(settings: FeatureSettings) -> bool:
    """Whether columns get an "is missing" feature where their gaps say something."""
    return settings.transform == "auto" and settings.scaling != "none"


def fit_column(
    columns: Columns, plan: ColumnPlan, settings: FeatureSettings, warn: Warn
) -> FittedColumn | None:
    """Fit and encode a kept column; None where its numbers are all the same."""
    assert plan.reading is not None
    cleaned, xp = plan.reading.read(columns), columns.xp
    for warning in cleaned.warnings:
        warn(warning)
    if cleaned.kind == "categorical":
        categories = fit_categories(plan.reading, cleaned, settings.scaling)
        if categories is None:
            return None
        return FittedColumn(plan, categories, categories.encode(cleaned, xp))
    numbers, notes = fit_numeric(plan.reading, cleaned, settings, xp)
    if numbers is None:
        return None
    missing = long_array(cleaned.values.shape, bool, xp)
    xp.isnan(cleaned.values, out=missing)
    gaps = missing if missing.any() else None
    return FittedColumn(plan, numbers, numbers.encode(cleaned, xp), gaps, notes)


def _mark_gaps(columns: Columns, fitted: dict[str, FittedColumn]) -> None:
    """Give the columns whose gaps say something an "is missing" feature."""
    numeric = {name: c for name, c in fitted.items() if isinstance(c.encoder, NumericEncoder)}
    gaps = telling_gaps(
        columns.backend,
        {name: column.features[0] for name, column in numeric.items()},
        {name: c.missing for name, c in numeric.items() if c.missing is not None},
    )
    for name, gap in gaps.items():
        column = with_gap(numeric[name], gap)
        features = column.encoder.encode(column.encoder.reading.read(columns), columns.xp)
        fitted[name] = column._replace(features=features)


def with_gap(column: FittedColumn, gap: Gap) -> FittedColumn:
    """Return the column with an "is missing" feature; it is to be encoded again."""
    assert isinstance(column.encoder, NumericEncoder)
    notes = (*column.notes, gap.reason)
    return column._replace(encoder=column.encoder.with_missing(gap.share), notes=notes)


def _ordered(backend: Backend, features: list[Array]) -> tuple[Any, Array]:
    """Return the order of the rows and the features in it; empties the list."""
    order = backend.row_order(features)
    encoded = backend.matrix(features, order)
    features.clear()
    return order, encoded


def decision_of(plan: ColumnPlan, fitted: FittedColumn | None) -> ColumnDecision:
    """Return the row of the ``columns`` table; a kept column may not have been fitted."""
    if plan.reading is None:
        return plan.decision
    if fitted is None:
        reason = "its values cannot be told apart as numbers"
        return ColumnDecision(plan.column, "constant", "dropped", reason)
    return plan.decision._replace(reason="; ".join((plan.reason, *fitted.notes)))


def nothing_to_use(table: Table, decisions: tuple[ColumnDecision, ...]) -> str:
    """Say why no column can be used."""
    if table.n_rows == 1:
        return f"{table.name} has 1 row; two clusters need at least three, two of them different"
    reasons = [f"'{d.column}' ({d.role}): {d.reason}" for d in decisions[:5]]
    more = f"; and {len(decisions) - 5:,} more" if len(decisions) > 5 else ""
    return (
        f"no column of {table.name} can be used: {'; '.join(reasons) or 'it has none'}{more}. "
        "Name columns in --numeric-columns or --categorical-columns to use them anyway"
    )
