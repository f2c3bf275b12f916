"""One or two short rules for every segment, in words and in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.errors import ShapeError
from gpuseg.explain.cells import Cells, cut_columns
from gpuseg.explain.conditions import (
    Condition,
    InRange,
    Mask,
    RuleColumn,
    all_of,
    rule_sql,
    rule_text,
)
from gpuseg.explain.rule_search import Target, best_conjunction
from gpuseg.explain.sampling import sample_rows, take
from gpuseg.records import Progress, no_progress

__all__ = ["RULES_SCHEMA", "RuleColumn", "find_rules"]

RULES_SCHEMA = pa.schema(
    [
        ("cluster_id", pa.int32()),
        ("rule", pa.string()),
        ("sql", pa.string()),
        ("coverage", pa.float64()),
        ("precision", pa.float64()),
    ]
)

#: A second rule must reach this share of the segment beyond the first one, …
SECOND_COVERAGE = 0.1
#: … be right this often, and is searched with an F-score that asks for precision.
SECOND_PRECISION = 0.7
SECOND_BETA = 0.5

Labels = npt.NDArray[np.int32]


class Rule(NamedTuple):
    """A rule and the rows that meet it."""

    conditions: tuple[Condition, ...]
    rows: Mask  # (n,)


def find_rules(
    columns: Sequence[RuleColumn],
    labels: Labels,
    n_clusters: int,
    *,
    random_state: int = 0,
    max_rows: int = 200_000,
    progress: Progress = no_progress,
) -> pa.Table:
    """Describe every segment by one or two rules of at most three conditions.

    Parameters
    ----------
    labels : array of shape (n,), int32
        Segment of each row, in table order.
    max_rows
        Rows that are searched: a sample, stratified by segment, that does not depend on
        the order of the rows. Coverage and precision are counted on all rows.

    Returns
    -------
    rules
        The contract's table. `coverage` is the share of the segment's rows that meet the
        rule, `precision` the share of the rows meeting it that are in the segment. The
        first rule of a segment has the best F-score found; a second one covers at least
        `SECOND_COVERAGE` more of the segment. A segment without rows has no rule.

    Raises
    ------
    ShapeError
        If a column has another length than `labels`.
    """
    for column in columns:
        if len(column.values) != len(labels):
            raise ShapeError(
                f"column '{column.name}' has {len(column.values):,} values, but there are "
                f"{len(labels):,} labels; pass both in the order of the table"
            )
    rows = sample_rows(columns, labels, max_rows, random_state)
    searched = cut_columns(columns if rows is None else [take(c, rows) for c in columns])
    sampled = labels if rows is None else labels[rows]
    whole = {column.name: column for column in columns}
    found: list[dict[str, object]] = []
    for cluster in range(n_clusters):
        members = labels == cluster
        if members.any():
            rules = _rules_of(searched, sampled == cluster, whole, members)
            found += [_row(cluster, rule, members) for rule in rules]
        progress((cluster + 1) / n_clusters)
    return pa.Table.from_pylist(found, schema=RULES_SCHEMA)


def _rules_of(
    searched: Sequence[Cells], wanted: Mask, whole: dict[str, RuleColumn], members: Mask
) -> list[Rule]:
    everywhere = np.ones(len(wanted), dtype=bool)
    conditions = best_conjunction(searched, Target(wanted, everywhere, beta=1.0))
    first = _on_all_rows(conditions, whole, len(members))
    rest = ~all_of(conditions, len(wanted))
    conditions = best_conjunction(searched, Target(wanted, rest, SECOND_BETA))
    if not conditions:
        return [first]
    second = _on_all_rows(conditions, whole, len(members))
    added = np.count_nonzero(second.rows & ~first.rows & members) / np.count_nonzero(members)
    is_good = added >= SECOND_COVERAGE and _precision(second, members) >= SECOND_PRECISION
    return [first, second] if is_good else [first]


def _on_all_rows(
    conditions: Sequence[Condition], whole: dict[str, RuleColumn], n_rows: int
) -> Rule:
    """Carry conditions that were found on a sample over to the whole columns."""
    order = list(whole)
    carried = [_settled(replace(c, column=whole[c.column.name])) for c in conditions]
    carried.sort(key=lambda condition: order.index(condition.column.name))
    return Rule(tuple(carried), all_of(carried, n_rows))


def _settled(condition: Condition) -> Condition:
    """Say ``children is 0`` instead of ``children <= 0`` where no row holds anything else."""
    if not isinstance(condition, InRange) or condition.column.kind != "numeric":
        return condition
    values = condition.column.values[replace(condition, or_missing=False).mask()]
    if not len(values) or values.min() < values.max():
        return condition
    return replace(condition, low=float(values[0]), high=float(values[0]))


def _row(cluster: int, rule: Rule, members: Mask) -> dict[str, object]:
    return {
        "cluster_id": cluster,
        "rule": rule_text(rule.conditions),
        "sql": rule_sql(rule.conditions),
        "coverage": np.count_nonzero(rule.rows & members) / np.count_nonzero(members),
        "precision": _precision(rule, members),
    }


def _precision(rule: Rule, members: Mask) -> float:
    n_rows = np.count_nonzero(rule.rows)
    return np.count_nonzero(rule.rows & members) / n_rows if n_rows else 0.0
