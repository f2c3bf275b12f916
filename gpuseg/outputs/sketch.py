"""What the report shows of the rows themselves: small summaries, made while rows are at hand.

A sketch is JSON-able, so that the report can be drawn again from the run folder. Of a large
table it looks at a fair sample of rows, and says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.backends.base import Backend
from gpuseg.outputs.histograms import bin_counts, bin_edges, category_counts
from gpuseg.records import FeatureMatrix, KMeansFit, SweepResult, Table

Sketch = dict[str, Any]

#: Rows looked at: enough for every picture, few enough for any table.
SKETCH_ROWS = 200_000
#: Rows drawn on the map of the first two principal axes.
MAP_ROWS = 2_000
#: Points of a cluster's outline in the silhouette plot.
_OUTLINE = 101
#: Columns whose distribution is kept; wider tables have it for the first ones.
_MOST_COLUMNS = 200

#: Of columns that name rows or hold prose, the values say nothing about groups.
_UNTOLD_ROLES = frozenset({"id", "text", "empty"})

Labels = npt.NDArray[np.int32]


class _Sample(NamedTuple):
    """Rows that are looked at, and whose they are."""

    table: Table
    labels: Labels
    n_clusters: int


def sketch(
    backend: Backend,
    table: Table,
    features: FeatureMatrix,
    fit: KMeansFit,
    swept: SweepResult,
) -> Sketch:
    """Summarise the rows of a run for its report.

    Returns
    -------
    dict
        ``n_rows_seen``; ``columns``: one entry for each input column, with its type, missing
        share and distribution per cluster; ``map``: rows on the first two principal axes;
        ``silhouettes``: the outline of each cluster in the silhouette plot.
    """
    labels = np.asarray(backend.to_host(fit.labels), dtype=np.int32)
    sample = _sample(table, features, labels, len(fit.centroids))
    return {
        "n_rows_seen": sample.table.n_rows,
        "columns": [
            _column(sample, features, place) for place in range(table.arrow.num_columns)
        ],
        "map": _principal_map(backend, features, labels),
        "silhouettes": _outlines(
            np.asarray(swept.samples[sample.n_clusters], dtype=np.float64),
            labels[swept.scored_rows],
            sample.n_clusters,
        ),
    }  # fmt: skip


def _sample(table: Table, features: FeatureMatrix, labels: Labels, n_clusters: int) -> _Sample:
    """Take the first rows of the order that depends on content alone: a fair sample."""
    order = np.asarray(features.order)
    if len(order) <= SKETCH_ROWS:
        return _Sample(table, features.in_table_order(labels), n_clusters)
    in_table, in_matrix = features.fair_sample(SKETCH_ROWS)
    return _Sample(table.take(in_table), labels[in_matrix], n_clusters)


def _column(sample: _Sample, features: FeatureMatrix, place: int) -> dict[str, Any]:
    decision = features.decisions[place]
    stored = sample.table.arrow.column(place)
    about: dict[str, Any] = {"name": decision.column, "type": type_words(stored.type)}
    if decision.decision == "kept":
        kind, values = features.encoder.clean(sample.table, decision.column)
    else:
        kind, values = _raw(stored)
    is_number = kind in ("numeric", "datetime")
    missing = int(np.isnan(values).sum()) if is_number else values.null_count
    about |= {"kind": kind, "missing_share": missing / max(len(stored), 1)}
    if place >= _MOST_COLUMNS or kind == "other" or decision.role in _UNTOLD_ROLES:
        return about
    if kind == "categorical":
        return about | category_counts(values, sample.labels, sample.n_clusters)
    return about | _numbers(values, sample)


def _raw(stored: pa.ChunkedArray) -> tuple[str, Any]:
    """Return the values of a column that is not used, as far as they can be counted."""
    kind = stored.type
    if pa.types.is_dictionary(kind):
        return _raw(stored.cast(kind.value_type))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numeric", stored.cast(pa.float64(), safe=False).to_numpy()
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        moments = stored.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        # beyond the years 1684 to 2255 a microsecond more or less is lost
        return "datetime", moments.cast(pa.float64(), safe=False).to_numpy() / 86_400e6
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "categorical", stored.cast(pa.string()).combine_chunks()
    return "other", stored


def _numbers(values: npt.NDArray[np.float64], sample: _Sample) -> dict[str, Any]:
    present = np.isfinite(values)
    known = values[present]
    if not len(known):
        return {"n_distinct": 0}
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95]).tolist()
    edges = bin_edges(known)
    return {
        "n_distinct": len(np.unique(known)),
        "mean": float(known.mean()),
        "std": float(known.std()),
        "low": low,
        "median": middle,
        "high": high,
        "edges": edges.tolist(),
        "counts": bin_counts(known, sample.labels[present], edges, sample.n_clusters),
    }


def type_words(kind: pa.DataType) -> str:
    """Say what a column is stored as, in plain words.

    Examples
    --------
    >>> type_words(pa.int64()), type_words(pa.timestamp("us")), type_words(pa.large_string())
    ('whole number', 'date and time', 'text')
    """
    if pa.types.is_dictionary(kind):
        return type_words(kind.value_type)
    for is_kind, words in _TYPES:
        if is_kind(kind):
            return words
    return str(kind)[:40]


_TYPES = (
    (pa.types.is_boolean, "true or false"),
    (pa.types.is_integer, "whole number"),
    (pa.types.is_floating, "number"),
    (pa.types.is_decimal, "decimal number"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "date and time"),
    (pa.types.is_time, "time of day"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_string_view, "text"),
    (pa.types.is_null, "nothing"),
)


def _principal_map(backend: Backend, features: FeatureMatrix, labels: Labels) -> dict[str, Any]:
    """Place a fair sample of rows on the first two principal axes."""
    X = np.asarray(backend.to_host(features.X[:MAP_ROWS]), dtype=np.float64)
    centred = X - X.mean(axis=0)
    _u, spread, axes = np.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    shares = (spread[:2] ** 2 / max(float((spread**2).sum()), 1e-300)).tolist()
    if points.shape[1] < 2:  # one feature: draw it along a line
        points = np.column_stack([points, np.zeros(len(points))])
    return {
        "points": np.round(points, 3).tolist(),
        "labels": labels[:MAP_ROWS].tolist(),
        "variance_shares": [*shares, 0.0][:2],
    }


def _outlines(
    silhouettes: npt.NDArray[np.float64], labels: Labels, n_clusters: int
) -> list[dict[str, Any]]:
    """Return each cluster's mean silhouette and its quantiles from the best row down."""
    found = []
    for cluster in range(n_clusters):
        own = silhouettes[labels == cluster]
        places = np.linspace(1, 0, min(_OUTLINE, max(len(own), 2)))
        found.append(
            {
                "n_rows": len(own),
                "mean": float(own.mean()) if len(own) else None,
                "below_zero": float((own < 0).mean()) if len(own) else None,
                "outline": np.round(np.quantile(own, places), 4).tolist() if len(own) else [],
            }
        )
    return found


def without_contents(full: Sketch) -> Sketch:
    """Return a sketch that shows shapes but no value of a row and no text of a category.

    Numbers are counted in standard deviations from their mean, categories are numbered, and
    nothing is left that belongs to a single row.
    """
    return {
        **full,
        "map": None,
        "columns": [_discreet(column) for column in full["columns"]],
        "silhouettes": [{**own, "outline": _coarse(own)} for own in full["silhouettes"]],
    }


def _coarse(own: dict[str, Any]) -> list[float]:
    """Return deciles, or where a decile is few rows, the mean alone."""
    if own["n_rows"] < _OUTLINE:
        return [own["mean"]] * 2 if own["n_rows"] else []
    step = max(1, (len(own["outline"]) - 1) // 10)
    return list(own["outline"][::step])


def _discreet(column: dict[str, Any]) -> dict[str, Any]:
    if column.get("hidden"):
        return column
    plain = {k: v for k, v in column.items() if k not in ("mean", "std", "low", "median", "high")}
    if "edges" in column:
        spread = column["std"] or 1.0
        plain["edges"] = [round((edge - column["mean"]) / spread, 2) for edge in column["edges"]]
    if "values" in column:
        plain["values"] = [f"value {i + 1}" for i in range(len(column["values"]))]
    return {**plain, "hidden": True}
