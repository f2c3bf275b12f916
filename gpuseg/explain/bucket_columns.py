"""The room: a table in, buckets for its columns of numbers and dates out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.errors import DataError
from gpuseg.explain.buckets import ColumnBuckets, suggest
from gpuseg.explain.conditions import RuleColumn
from gpuseg.explain.rule_columns import sql_column
from gpuseg.features.columns import Columns
from gpuseg.features.numeric import fit_numeric
from gpuseg.features.reading import Cleaned
from gpuseg.features.roles import ColumnPlan, decide
from gpuseg.features.settings import FeatureSettings
from gpuseg.records import Progress, Table, no_progress
from gpuseg.tables.duckdb_expressions import Calculator


@dataclass(frozen=True)
class BucketReport:
    """Buckets for the columns of a table.

    Parameters
    ----------
    n_clusters
        Segments that cuts were to separate; None without a model.
    output_table, plots
        Where the table of buckets and the pictures went.
    """

    table: str
    n_rows: int
    n_clusters: int | None
    columns: tuple[ColumnBuckets, ...]
    warnings: tuple[str, ...] = ()
    output_table: str | None = None
    plots: tuple[str, ...] = ()


def suggest_buckets(
    table: Table,
    settings: FeatureSettings,
    k_values: Sequence[int],
    *,
    labels: npt.NDArray[np.int32] | None = None,
    n_clusters: int | None = None,
    progress: Progress = no_progress,
) -> BucketReport:
    """Suggest buckets for every column of numbers or dates that clustering would use.

    Parameters
    ----------
    settings
        Which columns, and with ``transform`` auto on which scale: one with a heavy tail is
        cut on a logarithmic scale.
    labels : array of shape (n,), int32, or None
        Segment of each row, in table order.

    Raises
    ------
    SettingsError
        If a setting names a column that is not there or cannot be read as asked.
    DataError
        If there is no such column.
    """
    plan = decide(table, settings, progress=lambda fraction: progress(0.3 * fraction))
    fitting = [column for column in plan.columns if _can_be_cut(column, settings)]
    if not fitting:
        raise DataError(
            f"no column of {table.name} can be cut into buckets: none holds numbers or dates with "
            "two different values that are no ids (--columns and --numeric-columns name columns)"
        )
    found = []
    for column, log_unit in _on_scales(table, fitting, settings):
        found.append(suggest(column, k_values, labels=labels, log_unit=log_unit))
        progress(0.3 + 0.7 * len(found) / len(fitting))
    not_cut = tuple(
        f"column '{column.column}' was asked for but holds categories: only numbers and dates "
        "can be cut into buckets"
        for column in plan.columns
        if column.reading is not None
        and column.reading.kind == "categorical"
        and column.column in (settings.columns or ())
    )
    return BucketReport(table.name, table.n_rows, n_clusters, tuple(found), plan.warnings + not_cut)


def _can_be_cut(column: ColumnPlan, settings: FeatureSettings) -> bool:
    if column.reading is None or column.reading.kind == "categorical":
        return False
    # two values are buckets already
    return column.role != "boolean" or settings.uses(column.column)


def _on_scales(
    table: Table, plans: Sequence[ColumnPlan], settings: FeatureSettings
) -> Iterator[tuple[RuleColumn, float | None]]:
    """Yield the columns, and where the scale of each becomes logarithmic."""
    columns = Columns(NumPyBackend(), table)  # a line is cut on the host
    with Calculator() as calculator:
        for plan in plans:
            assert plan.reading is not None
            cleaned = plan.reading.read(columns)
            encoder, _notes = fit_numeric(plan.reading, cleaned, settings, np)
            column = sql_column(
                calculator, table.arrow, plan.column, cleaned.kind, cleaned.values
            ) or _without_sql(plan.column, cleaned)
            yield column, encoder.log_unit if encoder else None


def _without_sql(name: str, cleaned: Cleaned) -> RuleColumn:
    values = cleaned.values
    if cleaned.kind == "datetime":
        days = np.full(len(values), np.datetime64("NaT", "D"))
        known = ~np.isnan(values)
        days[known] = np.floor(values[known]).astype(np.int64).astype("datetime64[D]")
        values = days
    return RuleColumn(name, cleaned.kind, values, sql="")
