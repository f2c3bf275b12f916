"""Features on workers: a task for each column fits its encoder, and all partitions are encoded.

A column is fitted by the code, and from the values, of a run on one machine, so it gets the
very same encoder. That takes a worker which can hold one whole column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from gpuseg.distributed import steps
from gpuseg.distributed.backend import DaskBackend
from gpuseg.distributed.cluster import Cluster
from gpuseg.distributed.facts import backend_of
from gpuseg.distributed.matrix import Matrix, ordered_keys
from gpuseg.distributed.table import PartitionedTable
from gpuseg.errors import DataError
from gpuseg.features import Encoder, FeatureSettings
from gpuseg.features.columns import Columns
from gpuseg.features.encoder import ColumnEncoder
from gpuseg.features.gaps import (
    MOST_COMPARED,
    GapFact,
    GapSums,
    gap_fact,
    gap_sums,
    judge,
    names_to_judge,
)
from gpuseg.features.numeric import NumericEncoder
from gpuseg.features.prepare import (
    FittedColumn,
    decision_of,
    decisions_again,
    feature_matrix,
    fit_column,
    marks_gaps,
    nothing_to_use,
    with_gap,
)
from gpuseg.features.reduction import fit_projection
from gpuseg.features.roles import ColumnPlan, decide_column, left_out, numeric_names, plan_of
from gpuseg.records import FeatureMatrix, Progress, Table, no_progress, part


@dataclass(frozen=True)
class FeaturesOnWorkers(FeatureMatrix):
    """Features whose rows are in the order of the table; `order` is not known."""

    def in_table_order(self, values: Any) -> Any:
        """Return host values of all rows in the table's order, in which they come."""
        return values

    def in_matrix_order(self, values: Any) -> Any:
        """Return host values of all rows in the order of `X`, which is the table's."""
        return values

    def fair_column(self, table: Table, name: str, n_rows: int) -> Table:
        """Bring a column here: all of it, or of a large table `n_rows` fair rows."""
        assert isinstance(table, PartitionedTable)
        if len(self.X) <= n_rows:
            return Table(table.name, table.select([name]))
        return table.bring_rows(self.X.first_rows(n_rows), [name])


class ColumnLook(NamedTuple):
    """What a task found out about a column."""

    plan: ColumnPlan
    fitted: FittedColumn | None  # without its features
    gaps: GapFact | None
    warnings: tuple[str, ...]


def prepare(
    backend: DaskBackend,
    table: PartitionedTable,
    settings: FeatureSettings,
    *,
    progress: Progress = no_progress,
) -> FeatureMatrix:
    """Decide on the columns, fit their encoder, and encode the table; see `features.prepare`."""
    cluster, names = table.cluster, table.arrow.column_names
    warnings = list(settings.check(table.name, names))
    looks = _look(cluster, table, settings, part(progress, 0.0, 0.5))
    plans = plan_of([looks[name].plan for name in names], settings)
    warnings += plans.warnings
    kept = [looks[plan.column] for plan in plans.columns if plan.reading is not None]
    warnings += [warning for look in kept for warning in look.warnings]
    fitted = {look.plan.column: look.fitted for look in kept if look.fitted is not None}
    if marks_gaps(settings):
        fitted = _with_gaps(table, fitted, {name: looks[name].gaps for name in fitted})
    decisions = tuple(decision_of(plan, fitted.get(plan.column)) for plan in plans.columns)
    if not fitted:
        raise DataError(nothing_to_use(table, decisions))
    encoder = Encoder(tuple(column.encoder for column in fitted.values()))
    encoded, _said = _encoded(table, encoder, part(progress, 0.6, 0.9))
    if len(encoder.feature_names) > settings.dimension_reduction_threshold:
        projected = fit_projection(backend, encoded, settings.dimension_reduction_threshold)
        encoder = Encoder(encoder.columns, projected.projection)
        warnings += projected.notes
    return feature_matrix(
        backend, encoder, encoded, None, decisions, warnings, kind=FeaturesOnWorkers
    )


def prepare_again(
    backend: DaskBackend,
    encoder: Encoder,
    table: PartitionedTable,
    *,
    progress: Progress = no_progress,
) -> FeatureMatrix:
    """Encode a table with a fitted encoder; see `features.prepare_again`."""
    encoder.features(backend, Table(table.name, table.arrow))  # refuses what does not fit
    encoded, said = _encoded(table, encoder, progress)
    decisions = decisions_again(encoder, table)
    return feature_matrix(backend, encoder, encoded, None, decisions, said, kind=FeaturesOnWorkers)


# -- columns -------------------------------------------------------------------------------


def _look(
    cluster: Cluster, table: PartitionedTable, settings: FeatureSettings, progress: Progress
) -> dict[str, ColumnLook]:
    """Let a task look at each column that the user has not left out."""
    looks = {}
    for name in table.arrow.column_names:
        plan = left_out(name, settings)
        if plan is not None:
            looks[name] = ColumnLook(plan, None, None, ())
    names = [name for name in table.arrow.column_names if name not in looks]
    common = {"whole": table.whole, "settings": settings, "on": cluster.engine}
    found = cluster.results(cluster.each("statistics", look_at, names, **common), progress)
    return looks | dict(zip(names, found, strict=True))


def look_at(
    name: str, *, whole: steps.WholeTable, settings: FeatureSettings, on: str
) -> ColumnLook:
    """Decide on a column and fit its encoder, from all of its values; runs on a worker."""
    backend, table = backend_of(on).in_host_memory(), whole.columns([name])
    columns = Columns(backend, table, numeric_names(table, settings))
    plan = decide_column(name, columns, settings)
    if plan.reading is None:
        return ColumnLook(plan, None, None, ())
    warnings: list[str] = []
    fitted = fit_column(columns, plan, settings, warnings.append)
    if fitted is None:
        return ColumnLook(plan, None, None, tuple(warnings))
    gaps = None if fitted.missing is None else gap_fact(backend, fitted.missing)
    small = fitted._replace(features=None, missing=None)
    return ColumnLook(plan, small, gaps, tuple(warnings))


def _with_gaps(
    table: PartitionedTable,
    fitted: Mapping[str, FittedColumn],
    facts: Mapping[str, GapFact | None],
) -> dict[str, FittedColumn]:
    """Give the columns whose gaps say something an "is missing" feature."""
    numeric = {n: c.encoder for n, c in fitted.items() if isinstance(c.encoder, NumericEncoder)}
    with_gaps = {n: fact for n in numeric if (fact := facts[n]) is not None}
    judged = names_to_judge(with_gaps)
    if not judged:
        return dict(fitted)
    compared = list(numeric)[:MOST_COMPARED]
    names = [name for name in numeric if name in judged or name in compared]
    common = {
        "encoders": {name: numeric[name] for name in names},
        "judged": judged,
        "compared": compared,
        "on": table.cluster.engine,
    }
    parts = table.cluster.each("statistics", sums_of_gaps, table.read(names), **common)
    sums = table.cluster.total("statistics", parts, add_gap_sums)
    gaps = judge(sums, {name: with_gaps[name] for name in judged})
    return {n: with_gap(c, gaps[n]) if n in gaps else c for n, c in fitted.items()}


def sums_of_gaps(
    rows: pa.Table,
    *,
    encoders: Mapping[str, ColumnEncoder],
    judged: Sequence[str],
    compared: Sequence[str],
    on: str,
) -> dict[str, GapSums]:
    """Sum features over the gaps of a partition, in whole numbers; runs on a worker."""
    backend = backend_of(on).in_host_memory()
    columns = Columns(backend, Table("", rows))
    cleaned = {name: encoder.reading.read(columns) for name, encoder in encoders.items()}
    xp = backend.xp
    gaps = {name: xp.isnan(cleaned[name].values) for name in judged}
    return {
        name: gap_sums(backend, encoders[name].encode(cleaned[name], xp)[0], gaps)
        for name in compared
    }


def add_gap_sums(one: dict[str, GapSums], other: dict[str, GapSums]) -> dict[str, GapSums]:
    """Add the sums of two partitions."""
    return {name: sums.plus(other[name]) for name, sums in one.items()}


# -- rows ----------------------------------------------------------------------------------


def _encoded(
    table: PartitionedTable, encoder: Encoder, progress: Progress
) -> tuple[Matrix, list[str]]:
    """Encode all partitions; return the matrix, and what was said on the way."""
    cluster = table.cluster
    plain = Encoder(encoder.columns)
    common = {"encoder": plain, "on": cluster.engine, "name": table.name}
    encoded = cluster.each("encode", steps.encode, table.read(list(encoder.column_names)), **common)
    blocks = cluster.each("encode", steps.block_of, encoded)
    said = cluster.results(cluster.each("encode", steps.warnings_of, encoded), progress)
    keys = ordered_keys(cluster, blocks, table.n_rows)
    width = len(plain.feature_names)
    return Matrix(cluster, blocks, table.sizes, width, keys), _together(said)


_COUNTED = re.compile(r"^(column '.*': )([\d,]+) values?( .*)$", re.DOTALL)


def _together(parts: Sequence[Sequence[str]]) -> list[str]:
    """Add up the counts in what partitions said of their values.

    Examples
    --------
    >>> _together([["column 'a': 1 value cut"], ["column 'a': 1,000 values cut"]])
    ["column 'a': 1,001 values cut"]
    """
    counts: dict[tuple[str, str], int] = {}
    others: dict[str, None] = {}
    for sentence in (sentence for said in parts for sentence in said):
        found = _COUNTED.match(sentence)
        if found is None:
            others[sentence] = None
        else:
            of = (found[1], found[3])
            counts[of] = counts.get(of, 0) + int(found[2].replace(",", ""))
    return [
        f"{begin}{count:,} value{'s' if count != 1 else ''}{end}"
        for (begin, end), count in counts.items()
    ] + list(others)
