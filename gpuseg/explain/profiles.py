"""What a typical member of each cluster looks like, in the table's own units."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from gpuseg.explain.naming import strongest
from gpuseg.records import FeatureMatrix, Progress, Table, Trait, no_progress

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


class _Clusters(NamedTuple):
    """Which row is whose."""

    labels: Labels  # in content order
    sizes: npt.NDArray[np.int64]  # (n_clusters,)


def profiles(
    features: FeatureMatrix,
    table: Table,
    labels: Labels,
    n_clusters: int,
    *,
    progress: Progress = no_progress,
) -> Profiles:
    """Describe every cluster by every original column that carries features.

    Parameters
    ----------
    labels : host array of shape (n_samples,), int32, in the order of ``features.X``

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
    clusters = _Clusters(labels, np.bincount(labels, minlength=n_clusters))
    order = np.asarray(features.order)
    columns = []
    for number, name in enumerate(features.columns, start=1):
        kind, values = features.encoder.clean(table, name)
        measures = (
            _categorical(values.take(pa.array(order)), clusters)
            if kind == "categorical"
            else _numeric(np.asarray(values)[order], clusters, is_date=kind == "datetime")
        )
        columns.append({"feature": [name] * n_clusters, "kind": [kind] * n_clusters, **measures})
        progress(number / len(features.columns))
    known = {
        "cluster_id": list(range(n_clusters)),
        "share": (clusters.sizes / len(labels)).tolist(),
    }
    table_of_all = _by_cluster([known | column for column in columns], n_clusters)
    booleans = {d.column for d in features.decisions if d.role == "boolean"}
    traits = (
        strongest(t for column in columns if (t := _trait(column, cluster, booleans)))
        for cluster in range(n_clusters)
    )
    return Profiles(table_of_all, tuple(traits))


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


def _numeric(values: Floats, clusters: _Clusters, *, is_date: bool) -> Measures:
    present = ~np.isnan(values)
    labels, values = clusters.labels[present], values[present]
    n_clusters = len(clusters.sizes)
    counts = np.bincount(labels, minlength=n_clusters)
    # Sums in content order: neither the order of the source nor threads change their bits.
    sums = np.bincount(labels, weights=values, minlength=n_clusters)
    means = [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
    overall = float(values.mean()) if len(values) else None
    deviation = float(values.std()) if len(values) else 0.0
    quantiles = _quantiles(labels, values, n_clusters)
    return {
        "mean": means,
        **quantiles,
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


def _quantiles(labels: Labels, values: Floats, n_clusters: int) -> Measures:
    value = pl.col("value")
    found = (
        pl.DataFrame({"cluster": labels, "value": values})
        .group_by("cluster")
        .agg(
            median=value.quantile(0.5, "linear"),
            p10=value.quantile(0.1, "linear"),
            p90=value.quantile(0.9, "linear"),
        )
    )
    rows = {row["cluster"]: row for row in found.iter_rows(named=True)}
    return {
        name: [rows[c][name] if c in rows else None for c in range(n_clusters)]
        for name in ("median", "p10", "p90")
    }


def _categorical(values: pa.Array, clusters: _Clusters) -> Measures:
    n_clusters = len(clusters.sizes)
    counted = (
        pl.DataFrame({"cluster": clusters.labels, "value": pl.Series(pl.from_arrow(values))})
        .drop_nulls()
        .group_by("cluster", "value")
        .len()
        .sort("value")
    )
    names = counted["value"].unique().sort()
    counts = np.zeros((n_clusters, len(names)))
    if len(names):
        places = names.search_sorted(counted["value"]).to_numpy()
        counts[counted["cluster"].to_numpy(), places] = counted["len"].to_numpy()
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
            (names[t.value], t.share, float(overall[t.value])) if t else None for t in telling
        ],
        "missing_share": (1 - counts.sum(axis=1) / np.maximum(clusters.sizes, 1)).tolist(),
    }


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


def _top_values(names: pl.Series, shares: Floats, telling: int) -> str:
    """List the most telling value, then the most common; ties in the order of their names."""
    common = [value for value in np.argsort(-shares, kind="stable") if shares[value] > 0]
    top = [telling, *(value for value in common if value != telling)][:N_TOP_VALUES]
    return ", ".join(f"{names[int(value)]} {_percent(shares[value])}" for value in top)


def _percent(share: float) -> str:
    return "<1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")
