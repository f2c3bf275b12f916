"""What a typical member of each cluster looks like, in the table's own units."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gpuseg.backends.sample import BLOCK_ROWS, count_labels
from gpuseg.explain.naming import strongest
from gpuseg.explained import Trait
from gpuseg.records import FeatureMatrix, Progress, Table, no_progress

PROFILE_SCHEMA = pa.schema(
    [
        ("cluster_id", pa.int32()),
        ("feature", pa.string()),
        ("kind", pa.string()),
        ("share", pa.float64()),
        ("mean", pa.float64()),
        ("median", pa.float64()),
        ("p10", pa.float64()),
        ("p90", pa.float64()),
        ("overall_mean", pa.float64()),
        ("lift", pa.float64()),
        ("z", pa.float64()),
        ("top_values", pa.string()),
        ("missing_share", pa.float64()),
    ]
)

_QUANTILES = ("p10", "median", "p90")

#: Values named in `top_values`.
N_TOP_VALUES = 3

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

#: The columns of a profile besides cluster_id, feature, kind and share, and the most telling
#: value with its shares; one for a cluster.
Measures = dict[str, list[Any]]


class Profiles(NamedTuple):
    """The contract's table, and for each cluster what sets it apart, strongest first."""

    table: pa.Table
    traits: tuple[tuple[Trait, ...], ...]
    notes: tuple[str, ...] = ()


class _Clusters(NamedTuple):
    """Which row is whose."""

    labels: Labels  # in the table's order
    sizes: npt.NDArray[np.int64]  # (n_clusters,)


def profiles(
    features: FeatureMatrix,
    table: Table,
    labels: Labels,
    n_clusters: int,
    *,
    most_rows: int | None = None,
    progress: Progress = no_progress,
) -> Profiles:
    """Describe every cluster by every original column that carries features.

    Parameters
    ----------
    labels : host array of shape (n_samples,), int32, in the order of ``features.X``
    most_rows
        Of more rows a fair sample of so many is described; None for all, however many.

    Returns
    -------
    table : pa.Table
        One row for each cluster and feature, in this order, with

        - ``kind``: ``numeric``, ``categorical`` or ``datetime``.
        - ``share``: the cluster's share of all rows.
        - ``mean, median, p10, p90``: of the cluster's rows that have a value (quantiles
          interpolate linearly); dates as days since 1970-01-01 UTC; null for categories.
        - ``overall_mean``: the mean of all rows that have a value.
        - ``lift``: numeric: mean / overall_mean, null where that says nothing (overall mean 0,
          or the two have different signs) and for dates. Categorical: share / overall share
          of the cluster's most telling value.
        - ``z``: numeric and dates: (mean - overall_mean) / standard deviation of all rows.
          Categorical: (share - overall share) / sqrt(overall share * (1 - overall share)) of
          the most telling value, which is the one where this is largest.
        - ``top_values``: categorical: the most telling value, then the most common ones, at
          most three, with their shares of the cluster's rows that have a value.
        - ``missing_share``: share of the cluster's rows without a value.

        A cluster without any value of a feature has nulls.
    traits
        See `gpuseg.explain.naming.strongest`.
    """
    sizes = count_labels(labels, n_clusters)
    notes: tuple[str, ...] = ()
    if most_rows is None or len(labels) <= most_rows:
        clusters = _Clusters(features.in_table_order(labels), sizes)
    else:
        in_table, in_matrix = features.fair_sample(most_rows)
        table, sampled = table.take(in_table), labels[in_matrix]
        clusters = _Clusters(sampled, count_labels(sampled, n_clusters))
        notes = (f"profiles describe a fair sample of {most_rows:,} of {len(labels):,} rows",)
    columns = _measured(features, table, clusters, progress)
    known = {"cluster_id": list(range(n_clusters)), "share": (sizes / len(labels)).tolist()}
    table_of_all = _by_cluster([known | column for column in columns], n_clusters)
    booleans = {d.column for d in features.decisions if d.role == "boolean"}
    traits = (
        strongest(t for column in columns if (t := _trait(column, cluster, booleans)))
        for cluster in range(n_clusters)
    )
    return Profiles(table_of_all, tuple(traits), notes)


def _measured(
    features: FeatureMatrix, table: Table, clusters: _Clusters, progress: Progress
) -> list[Measures]:
    """Describe the clusters by one column after another."""
    columns, n_clusters = [], len(clusters.sizes)
    for number, name in enumerate(features.columns, start=1):
        kind, values, _warnings = features.encoder.read(table, name)
        measures = (
            _categorical(values.codes, values.values, clusters)
            if kind == "categorical"
            else _numeric(values, clusters, is_date=kind == "datetime")
        )
        columns.append({"feature": [name] * n_clusters, "kind": [kind] * n_clusters, **measures})
        progress(number / len(features.columns))
    return columns


def _trait(column: Measures, cluster: int, booleans: Collection[str]) -> Trait | None:
    feature, kind, z = (column[name][cluster] for name in ("feature", "kind", "z"))
    if z is None:
        return None
    if kind == "categorical":
        value, own, overall = column["telling"][cluster]
        return Trait(feature, kind, z, own, overall, value)
    kind = "boolean" if kind == "numeric" and feature in booleans else kind
    return Trait(feature, kind, z, column["mean"][cluster], column["overall_mean"][cluster])


def _by_cluster(columns: list[Measures], n_clusters: int) -> pa.Table:
    """Put the rows of each cluster together, features in table order."""
    return pa.table(
        {
            name: [column[name][c] for c in range(n_clusters) for column in columns]
            for name in PROFILE_SCHEMA.names
        },
        schema=PROFILE_SCHEMA,
    )


class _Members(NamedTuple):
    """The values of a cluster's rows that have one."""

    n_rows: int
    mean: float
    squares: float  # of the deviations from the mean, added up
    quantiles: tuple[float | None, ...]  # 0.1, 0.5, 0.9

    @classmethod
    def of(cls, values: Floats) -> _Members:
        """Describe values, which are sorted in their place.

        All is computed from sorted values: neither the order of the rows nor threads change
        its bits.
        """
        values.sort()
        if not len(values):
            return cls(0, 0.0, 0.0, (None,) * 3)
        mean = float(values.mean())
        quantiles = tuple(_quantile(values, q) for q in (0.1, 0.5, 0.9))
        values -= mean
        values *= values
        return cls(len(values), mean, float(values.sum()), quantiles)


def _quantile(ordered: Floats, q: float) -> float:
    """Return a quantile of sorted values, linear between neighbours."""
    place = q * (len(ordered) - 1)
    below = int(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    return low + (high - low) * (place - below)


def _numeric(values: Floats, clusters: _Clusters, *, is_date: bool) -> Measures:
    n_clusters = len(clusters.sizes)
    present = ~np.isnan(values)
    of = [_Members.of(values[present & (clusters.labels == c)]) for c in range(n_clusters)]
    n_present = sum(own.n_rows for own in of)
    overall = sum(own.n_rows * own.mean for own in of) / n_present if n_present else None
    deviation = 0.0
    if overall is not None:
        between = sum(own.n_rows * (own.mean - overall) ** 2 for own in of)
        deviation = math.sqrt((sum(own.squares for own in of) + between) / n_present)
    means = [own.mean if own.n_rows else None for own in of]
    counts = np.array([own.n_rows for own in of])
    return {
        "mean": means,
        **{name: [own.quantiles[i] for own in of] for i, name in enumerate(_QUANTILES)},
        "overall_mean": [overall] * n_clusters,
        "lift": [None if is_date else _lift(mean, overall) for mean in means],
        "z": [
            None
            if mean is None or overall is None or not deviation
            else (mean - overall) / deviation
            for mean in means
        ],
        "top_values": [None] * n_clusters,
        "missing_share": (1 - counts / np.maximum(clusters.sizes, 1)).tolist(),
    }


def _lift(mean: float | None, overall: float | None) -> float | None:
    if mean is None or not overall or mean * overall < 0:
        return None
    return mean / overall


def _categorical(codes: Labels, texts: pa.Array, clusters: _Clusters) -> Measures:
    n_clusters = len(clusters.sizes)
    by_name = pc.sort_indices(texts).to_numpy()
    names = texts.take(pa.array(by_name))
    counts = _counts(codes, len(texts), clusters)[:, by_name]
    overall = counts.sum(axis=0) / max(1.0, counts.sum())
    telling = list(_telling(counts, overall))
    nothing = [None] * n_clusters
    return {
        "mean": nothing,
        "median": nothing,
        "p10": nothing,
        "p90": nothing,
        "overall_mean": nothing,
        "lift": [t.lift if t else None for t in telling],
        "z": [t.z if t else None for t in telling],
        "top_values": [
            _top_values(names, row / row.sum(), t.value) if t else None
            for row, t in zip(counts, telling, strict=True)
        ],
        "telling": [
            (names[t.value].as_py(), t.share, float(overall[t.value])) if t else None
            for t in telling
        ],
        "missing_share": (1 - counts.sum(axis=1) / np.maximum(clusters.sizes, 1)).tolist(),
    }


def _counts(codes: Labels, n_values: int, clusters: _Clusters) -> Floats:
    """Count the rows of each cluster and value, (n_clusters, n_values)."""
    n_cells = len(clusters.sizes) * (n_values + 1)
    counts = np.zeros(n_cells)
    for start in range(0, len(codes), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        # code -1, nothing, counts in a column of its own
        cells = clusters.labels[rows].astype(np.int64) * (n_values + 1) + codes[rows] + 1
        counts += np.bincount(cells, minlength=n_cells)
    return counts.reshape(len(clusters.sizes), n_values + 1)[:, 1:]


class _Telling(NamedTuple):
    """The value that sets a cluster apart the most."""

    value: int
    share: float
    lift: float
    z: float | None  # None where every row has the one value


def _telling(counts: Floats, overall: Floats) -> Iterator[_Telling | None]:
    spread = np.sqrt(overall * (1 - overall))
    for row in counts:
        if not row.sum():
            yield None
            continue
        shares = row / row.sum()
        z = np.divide(shares - overall, spread, out=np.zeros(len(row)), where=spread > 0)
        value = int(z.argmax())
        yield _Telling(
            value,
            float(shares[value]),
            float(shares[value] / overall[value]),
            float(z[value]) if spread[value] > 0 else None,
        )


def _top_values(names: pa.Array, shares: Floats, telling: int) -> str:
    """List the most telling value, then the most common; ties in the order of their names."""
    common = [value for value in np.argsort(-shares, kind="stable") if shares[value] > 0]
    top = [telling, *(value for value in common if value != telling)][:N_TOP_VALUES]
    return ", ".join(f"{names[int(value)].as_py()} {_percent(shares[value])}" for value in top)


def _percent(share: float) -> str:
    return "<1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")
