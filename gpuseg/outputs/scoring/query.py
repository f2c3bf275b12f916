"""A stored model as one query: the whole preparation, and the nearest centroid.

The query has the rounding points of gpuseg's engines: features and principal components
are rounded to float32, distances are added up in double precision. What that means for rows
on the border between two segments is in ``docs/decisions/scoring-in-sql.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseg.errors import SettingsError, did_you_mean
from gpuseg.features import Encoder
from gpuseg.features.categories import CategoricalEncoder
from gpuseg.outputs.models import StoredModel
from gpuseg.outputs.results import CLUSTER_COLUMN
from gpuseg.outputs.reuse import encoder_of
from gpuseg.outputs.scoring.columns import Feature, Levels, levels, numeric_features
from gpuseg.outputs.scoring.dialects import DIALECTS, SqlDialect, identifier, number
from gpuseg.outputs.scoring.steps import Steps, one_line
from gpuseg.tables import locate

#: What a column contributes: a feature of numbers, or constants for each category.
Part = Feature | Levels


def scoring_query(model: StoredModel, dialect: str, input_table: str | None = None) -> str:
    """Return one SELECT that gives each row of a table its ``cluster_id``.

    Parameters
    ----------
    dialect
        ``trino``, ``duckdb`` or ``postgres``.
    input_table
        ``db.table``; by default the table that the model was fitted on. Its columns have the
        types that they had there.

    Returns
    -------
    query : str
        All columns of the table, and ``cluster_id``.

    Raises
    ------
    SettingsError
        If there is no such dialect, or the table is none of a warehouse.
    ModelError
        If the model is damaged, or uses a column of a type that SQL cannot read.
    """
    if dialect not in DIALECTS:
        raise SettingsError(
            f"dialect is '{dialect}'; expected one of {', '.join(DIALECTS)}"
            f"{did_you_mean(dialect, DIALECTS)}"
        )
    table = _table(model, input_table)
    steps, words = Steps(), DIALECTS[dialect]
    encoder = encoder_of(model)
    parts = _parts(steps, words, encoder)
    if encoder.projection is not None:
        parts = _projected(steps, words, encoder, parts)
    _nearest(steps, parts, model)
    return (
        f"{_heading(model, words)}\n"
        f"SELECT source.*, nearest.{CLUSTER_COLUMN}\nFROM {table} AS source\n"
        f"{steps.written(words.fence)}\n"
    )


def _table(model: StoredModel, input_table: str | None) -> str:
    name = input_table or model.input_name
    try:
        place = locate(name)
    except SettingsError:
        place = None
    if place is None or not place.in_warehouse:
        asked = "input_table is" if input_table else "the model was fitted on"
        raise SettingsError(
            f"{asked} '{name}', which is no table of a warehouse; give --input-table db.table"
        )
    return f"{identifier(place.schema)}.{identifier(place.table)}"


def _heading(model: StoredModel, dialect: SqlDialect) -> str:
    lines = (
        f"Segments of the gpuseg model '{model.name}' (run {model.run_id}), for {dialect.name}.",
        f"{model.n_clusters} clusters, fitted on {model.n_rows:,} rows of {model.input_name}.",
        "The columns must have the types that they had there.",
    )
    return "\n".join(f"-- {one_line(line)}" for line in lines)


def _parts(steps: Steps, dialect: SqlDialect, encoder: Encoder) -> list[Part]:
    parts: list[Part] = []
    first = 0
    for position, column in enumerate(encoder.columns, start=1):
        alias = f"c{position}"
        if isinstance(column, CategoricalEncoder):
            parts.append(levels(steps, dialect, column, alias, first))
        else:
            parts += numeric_features(steps, dialect, column, alias, first)
        first += len(column.names)
    return parts


def _projected(
    steps: Steps, dialect: SqlDialect, encoder: Encoder, parts: list[Part]
) -> list[Part]:
    assert encoder.projection is not None
    mean, components = encoder.projection
    projected: list[Part] = []
    for place, weights in enumerate(components):
        terms = [_loading(part, mean, weights) for part in parts]
        total = steps.add("components", f"p{place + 1}", _sum(terms))
        single = steps.add("rounded", f"p{place + 1}", dialect.single.format(x=total))
        projected.append(Feature(single, place))
    return projected


def _loading(part: Part, mean: Any, weights: Any) -> str:
    """Return what a column adds to a principal component."""
    if isinstance(part, Feature):
        place = part.place
        return f"({part.reference} - {number(mean[place])}) * {number(weights[place])}"
    features = slice(part.first, part.first + part.values.shape[1])
    values = (part.values.astype(np.float64) - mean[features]) @ weights[features]
    return _by_level(part, values)


def _nearest(steps: Steps, parts: list[Part], model: StoredModel) -> None:
    found, ids = [], model.cluster_ids
    for cluster, centroid in zip(ids, model.centroids.astype(np.float64), strict=True):
        terms = [_sq_distance(part, centroid) for part in parts]
        found.append(steps.add("distances", f"d{cluster}", _sum(terms), f"to cluster {cluster}"))
    cases = []
    for place, distance in enumerate(found[:-1]):
        rest = found[place + 1 :]
        others = rest[0] if len(rest) == 1 else f"LEAST({', '.join(rest)})"
        cases.append(f"WHEN {distance} <= {others} THEN {ids[place]}")
    chosen = f"CASE {' '.join(cases)} ELSE {ids[-1]} END" if cases else str(ids[-1])
    steps.add("nearest", CLUSTER_COLUMN, chosen)


def _sq_distance(part: Part, centroid: Any) -> str:
    """Return what a column adds to the squared distance from a centroid."""
    if isinstance(part, Feature):
        return f"power({part.reference} - {number(centroid[part.place])}, 2)"
    features = slice(part.first, part.first + part.values.shape[1])
    return _by_level(part, ((part.values.astype(np.float64) - centroid[features]) ** 2).sum(axis=1))


def _by_level(part: Levels, values: Any) -> str:
    *named, missing = values
    whens = " ".join(f"WHEN {i} THEN {number(value)}" for i, value in enumerate(named))
    return f"CASE {part.reference} {whens} ELSE {number(missing)} END"


def _sum(terms: list[str]) -> str:
    return "\n      + ".join(terms)
