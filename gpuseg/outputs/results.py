"""The result of a run as tables: rows with their segment, scores, column decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa

from gpuseg.backends.base import Backend
from gpuseg.change import LineageEvent
from gpuseg.errors import DataError
from gpuseg.memory import room
from gpuseg.outputs.public_ids import public_ids
from gpuseg.records import (
    ColumnDecision,
    FeatureMatrix,
    KMeansFit,
    KScore,
    SweepResult,
    Table,
    no_progress,
)

CLUSTER_COLUMN = "cluster_id"

#: Rows whose scores are computed at a time.
_BLOCK_ROWS = 1 << 20

#: What ``--row-scores`` adds, in this order.
ROW_SCORE_COLUMNS = ("cluster_distance", "second_cluster_id", "cluster_margin", "silhouette")


def check_names_are_free(table: Table, *, row_scores: bool) -> None:
    """Refuse a table that already has a column of a name that the output adds.

    Raises
    ------
    DataError
        Names are compared without regard to case, as warehouses do.
    """
    added = {CLUSTER_COLUMN, *(ROW_SCORE_COLUMNS if row_scores else ())}
    taken = [name for name in table.arrow.column_names if name.casefold() in added]
    if taken:
        raise DataError(
            f"'{table.name}' already has a column '{taken[0]}', which the output adds; leave it "
            "out or rename it (for example with --input-query), or segment the original table"
        )


def without_own_columns(table: Table) -> Table:
    """Leave out the columns of an earlier run: for a table that is segmented in place."""
    own = {CLUSTER_COLUMN, *ROW_SCORE_COLUMNS}
    dropped = [name for name in table.arrow.column_names if name.casefold() in own]
    if CLUSTER_COLUMN not in (name.casefold() for name in dropped):
        return table  # never segmented before: columns of these names are the user's
    note = f"columns of the earlier run are replaced: {', '.join(dropped)}"
    notes = (*table.notes, note)
    return replace(table, arrow=table.arrow.drop_columns(dropped), notes=notes, source=None)


def output_schema(table: Table, *, row_scores: bool) -> pa.Schema:
    """Return the columns and types that `output_table` will have."""
    no_rows = table.arrow.schema.empty_table()
    types = (pa.float64(), pa.int32(), pa.float64(), pa.float64()) if row_scores else ()
    scores = {
        name: pa.array([], type=kind)
        for name, kind in zip(ROW_SCORE_COLUMNS, types, strict=bool(types))
    }
    return output_table(Table(table.name, no_rows), np.empty(0, np.int32), scores).schema


def output_table(table: Table, labels: np.ndarray, scores: Mapping[str, pa.Array]) -> pa.Table:
    """Append ``cluster_id`` and the row scores to the unchanged input."""
    return table.with_columns({CLUSTER_COLUMN: pa.array(labels, type=pa.int32()), **scores})


def row_score_columns(
    backend: Backend,
    features: FeatureMatrix,
    fit: KMeansFit,
    swept: SweepResult | None,
    cluster_ids: Sequence[int],
) -> dict[str, pa.Array]:
    """Compute what ``--row-scores`` adds.

    Returns
    -------
    columns
        ``cluster_distance`` to the own centroid and ``second_cluster_id``, the next
        nearest one, in the scaled feature space; ``cluster_margin`` is
        1 - distance / second distance: 0 on the border, 1 at the centroid (the simplified
        silhouette); ``silhouette`` is null for rows that were not scored.
    """
    found = backend.assign(features.X, fit.centroids, progress=no_progress)
    n_rows = len(found.labels)
    own, margin, silhouette = (room().empty(n_rows, np.float64) for _ in range(3))
    for start in range(0, n_rows, _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        own[rows] = np.sqrt(backend.to_host(found.sq_distances[rows]).astype(np.float64))
        second = np.sqrt(backend.to_host(found.second_sq_distances[rows]).astype(np.float64))
        margin[rows] = 0.0
        np.divide(second - own[rows], second, out=margin[rows], where=second > 0)
    silhouette[:] = np.nan
    if swept is not None:
        silhouette[swept.scored_rows] = swept.samples[len(fit.centroids)]

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(features.in_table_order(values), from_pandas=True)

    second_ids = public_ids(backend.to_host(found.second_labels), cluster_ids)
    values = (column(own), column(second_ids), column(margin), column(silhouette))
    return dict(zip(ROW_SCORE_COLUMNS, values, strict=True))


def k_scores_table(scores: Iterable[KScore], chosen: int) -> pa.Table:
    """Return the ``k scores`` table of the contract, ascending in k."""
    rows = [
        asdict(score) | {"chosen": score.n_clusters == chosen}
        for score in sorted(scores, key=lambda score: score.n_clusters)
    ]
    return pa.Table.from_pylist(rows, schema=K_SCORES_SCHEMA)


K_SCORES_SCHEMA = pa.schema(
    [
        ("n_clusters", pa.int32()),
        ("silhouette", pa.float64()),
        ("silhouette_stderr", pa.float64()),
        ("method", pa.string()),
        ("inertia", pa.float64()),
        ("calinski_harabasz", pa.float64()),
        ("davies_bouldin", pa.float64()),
        ("min_cluster_share", pa.float64()),
        ("stability", pa.float64()),
        ("chosen", pa.bool_()),
        ("silhouette_low", pa.float64()),
        ("silhouette_high", pa.float64()),
    ]
)


def columns_table(decisions: Iterable[ColumnDecision]) -> pa.Table:
    """Return the ``columns`` table of the contract, in the order of the input."""
    names = ColumnDecision._fields
    schema = pa.schema([(name, pa.string()) for name in names])
    return pa.Table.from_pylist([decision._asdict() for decision in decisions], schema=schema)


LINEAGE_SCHEMA = pa.schema(
    [
        ("event", pa.string()),
        ("cluster_id", pa.int32()),
        ("previous_cluster_id", pa.int32()),
        ("n_shared", pa.int64()),
        ("share_of_previous", pa.float64()),
        ("share_of_current", pa.float64()),
    ]
)


def lineage_table(events: Iterable[LineageEvent]) -> pa.Table:
    """Return the ``lineage`` table: how segments continue those of the run before."""
    return pa.Table.from_pylist([event._asdict() for event in events], schema=LINEAGE_SCHEMA)
