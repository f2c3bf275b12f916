"""Who went where since the run before: by segment, and row by row."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.change import EarlierPlaces
from gpuseg.outputs.change_facts import MIGRATION_SCHEMA
from gpuseg.outputs.results import CLUSTER_COLUMN

#: What `movements_table` adds to the row's id; UTC, in whole seconds.
MOVED = pa.timestamp("s", tz="UTC")

Ids = npt.NDArray[np.int32]


def migration_table(places: EarlierPlaces, cluster_ids: Ids) -> pa.Table:
    """Count the rows that went from each earlier segment to each of today's.

    Parameters
    ----------
    cluster_ids : host array of shape (n_rows,), int32, in the table's order
        Today's public ids.

    Returns
    -------
    pa.Table
        As `MIGRATION_SCHEMA`, without pairs that no row took.

        - ``previous_cluster_id``: null for entrants, rows that were not there before.
        - ``cluster_id``: null for leavers, rows that are not in today's table.
        - ``share_of_previous``: of the earlier segment's rows that are still there; null for
          leavers.
        - ``share_of_current``: of today's segment's rows that were there before; null for
          entrants. Both are what the lineage table calls so.
    """
    before = np.asarray(places.cluster_ids, dtype=np.int64)
    pairs, counts = np.unique(
        np.column_stack([before, np.asarray(cluster_ids, dtype=np.int64)]),
        axis=0,
        return_counts=True,
    )
    taken = [
        (None if was < 0 else was, now, n)
        for (was, now), n in zip(pairs.tolist(), counts.tolist(), strict=True)
    ]
    taken += [(was, None, n) for was, n in sorted(places.gone.items()) if n]
    known = [pair for pair in taken if None not in pair]
    then, today = _totals(known, 0), _totals(known, 1)
    rows = [
        {
            "previous_cluster_id": was,
            "cluster_id": now,
            "n_rows": n,
            "share_of_previous": None if None in (was, now) else n / then[was],
            "share_of_current": None if None in (was, now) else n / today[now],
        }
        for was, now, n in sorted(taken, key=_nulls_last)
    ]
    return pa.Table.from_pylist(rows, schema=MIGRATION_SCHEMA)


def churn(places: EarlierPlaces, cluster_ids: Ids) -> float:
    """Return the share of the rows known before whose segment is another one now, 0 to 1.

    NaN when no row was known before: then nobody can tell.
    """
    before = np.asarray(places.cluster_ids)
    known = before >= 0
    n_known = int(np.count_nonzero(known))
    if not n_known:
        return math.nan
    return float(np.count_nonzero(known & (before != np.asarray(cluster_ids))) / n_known)


def movements_schema(rowid: pa.Field) -> pa.Schema:
    """Return the columns of `movements_table`, given the column that identifies a row."""
    own = [(CLUSTER_COLUMN, pa.int32()), ("previous_cluster_id", pa.int32()), ("changed", MOVED)]
    return pa.schema([pa.field(rowid.name, rowid.type), *(pa.field(n, t) for n, t in own)])


def movements_table(
    table: pa.Table,
    rowid_column: str,
    cluster_ids: Ids,
    places: EarlierPlaces | None,
    moment: datetime,
) -> pa.Table:
    """Say of each row where it is, where it was, and since when it is where it is.

    Parameters
    ----------
    places
        None in the first run of a model.
    moment
        When this run happened, UTC.

    Returns
    -------
    pa.Table
        In the table's order: the column `rowid_column`, ``cluster_id``;
        ``previous_cluster_id``, the row's segment in the run before, null when it was not
        there; ``changed``, the run in which it came to its present segment, null when that
        was before anyone took note.
    """
    now = np.datetime64(moment.replace(tzinfo=None), "s")
    ids = np.asarray(cluster_ids, dtype=np.int32)
    changed = np.full(len(ids), now)
    was_there = np.zeros(len(ids), dtype=bool)
    before = np.full(len(ids), -1, dtype=np.int32)
    if places is not None:
        before = np.asarray(places.cluster_ids, dtype=np.int32)
        was_there = before >= 0
        stayed = was_there & (before == ids)
        unknown = np.datetime64("NaT", "s")
        changed[stayed] = unknown if places.since is None else np.asarray(places.since)[stayed]
    schema = movements_schema(table.schema.field(rowid_column))
    columns = [
        table.column(rowid_column),
        pa.array(ids),
        pa.array(before, mask=~was_there),
        pa.array(changed, type=pa.timestamp("s")).cast(MOVED),
    ]
    return pa.table(columns, schema=schema)


def _totals(taken: list[tuple[int | None, int | None, int]], side: int) -> dict[Any, int]:
    totals: dict[Any, int] = {}
    for pair in taken:
        totals[pair[side]] = totals.get(pair[side], 0) + pair[2]
    return totals


def _nulls_last(pair: tuple[int | None, int | None, int]) -> tuple[Any, ...]:
    was, now, _n = pair
    return (was is None, was or 0, now is None, now or 0)
