"""What is said about segments on workers: profiles from all rows, the rest from a sample.

The sample are the first rows in the order of content, and the first of each cluster. Up to
`SKETCH_ROWS` rows it is the whole table, and what is said is what one machine says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.backends.sample import MIN_ROWS_PER_CLUSTER
from gpuseg.distributed import steps
from gpuseg.distributed.backend import DaskBackend
from gpuseg.distributed.matrix import Labels, Matrix, Rows, bring
from gpuseg.distributed.scoring import first_of_clusters
from gpuseg.distributed.table import PartitionedTable
from gpuseg.explain.naming import strongest
from gpuseg.explain.profiles import Profiles
from gpuseg.explained import Explained
from gpuseg.outputs import sketch as sketches
from gpuseg.outputs.saying import say
from gpuseg.records import (
    Choice,
    FeatureMatrix,
    KMeansFit,
    Progress,
    SweepResult,
    Table,
    no_progress,
    part,
)


class Sample(NamedTuple):
    """Some rows here, in the order of their content."""

    table: Table
    features: FeatureMatrix
    labels: Any  # (m,) int32
    numbers: Any  # (m,) int64, of the rows in the table


def explained(
    backend: DaskBackend,
    table: PartitionedTable,
    features: FeatureMatrix,
    choice: Choice,
    *,
    random_state: int = 0,
    progress: Progress = no_progress,
) -> Explained:
    """Explain the chosen clusters; see `explain.saying.say`."""
    labels: Labels = choice.fit.labels
    profiles = _profiles(backend, table, features, labels, choice.n_clusters)
    progress(0.2)
    sample = _sample(table, features, labels)
    here = choice.fit._replace(labels=sample.labels)
    said = say(
        NumPyBackend(),
        sample.table,
        sample.features,
        replace(choice, fit=here),
        random_state=random_state,
        progress=part(progress, 0.3, 1.0),
    )
    explanation = replace(said.explanation, profiles=profiles.table, traits=profiles.traits)
    if len(sample.labels) < table.n_rows:
        note = (
            f"importance, SHAP values, rules and tree were made from a sample of "
            f"{len(sample.labels):,} of {table.n_rows:,} rows, in which every cluster is "
            "represented; where they speak of all rows, all of the sample is meant"
        )
        explanation = replace(explanation, notes=(note, *explanation.notes))
    return said._replace(explanation=explanation)


def sketch(
    _backend: DaskBackend,
    table: PartitionedTable,
    features: FeatureMatrix,
    fit: KMeansFit,
    swept: SweepResult,
) -> sketches.Sketch:
    """Summarise the rows of a run for its report; see `outputs.sketch`."""
    sample = _sample(table, features, fit.labels)
    by_number = np.argsort(sample.numbers)
    places = np.searchsorted(sample.numbers[by_number], swept.scored_rows)
    places = np.minimum(places, len(by_number) - 1)
    found = sample.numbers[by_number[places]] == swept.scored_rows
    k = len(fit.centroids)
    seen = replace(
        swept,
        samples={k: np.asarray(swept.samples[k])[found]},
        scored_rows=by_number[places[found]],
    )
    here = fit._replace(labels=sample.labels)
    return sketches.sketch(NumPyBackend(), sample.table, sample.features, here, seen)


def _sample(table: PartitionedTable, features: FeatureMatrix, labels: Labels) -> Sample:
    """Bring a sample here, once for all who ask for it."""
    if labels.sample is None:
        labels.sample = _taken(table, features, labels)
    sample: Sample = labels.sample
    return sample


def _taken(table: PartitionedTable, features: FeatureMatrix, labels: Labels) -> Sample:
    X: Matrix = features.X
    rows = X.first_rows(sketches.SKETCH_ROWS)
    if len(rows) < len(X):
        [of_clusters] = first_of_clusters(X, labels.parts, MIN_ROWS_PER_CLUSTER)
        rows = rows.union(Rows.of(of_clusters))
    encoded = features.encoded.take(rows)
    here = FeatureMatrix(
        X=encoded if features.X is features.encoded else X.take(rows),
        encoded=encoded,
        encoded_names=features.encoded_names,
        columns=features.columns,
        column_of=features.column_of,
        decisions=features.decisions,
        order=np.arange(len(rows)),
        encoder=features.encoder,
        warnings=features.warnings,
    )
    of_rows = np.empty(len(rows), np.int32)
    for where, values in bring(table.cluster, steps.take_labels, labels.parts, rows):
        of_rows[where] = values[0]
    return Sample(table.bring_rows(rows), here, of_rows, X.numbers(rows))


def _profiles(
    backend: DaskBackend,
    table: PartitionedTable,
    features: FeatureMatrix,
    labels: Labels,
    n_clusters: int,
) -> Profiles:
    """Describe the clusters by all rows: a task for each column."""
    cluster = table.cluster
    del backend
    common = {
        "whole": table.whole,
        "encoder": features.encoder,
        "decisions": features.decisions,
        "n_clusters": n_clusters,
    }
    names = list(features.columns)
    shared = [labels.parts] * len(names)
    found = cluster.results(cluster.each("profiles", steps.profile, names, shared, **common))
    return Profiles(_by_cluster([of_column.table for of_column in found]), _traits(found))


def _by_cluster(tables: Sequence[pa.Table]) -> pa.Table:
    """Put the rows of each cluster together, features in table order."""
    n_clusters = tables[0].num_rows
    together = pa.concat_tables(tables)
    order = [column * n_clusters + c for c in range(n_clusters) for column in range(len(tables))]
    return together.take(pa.array(order)).combine_chunks()


def _traits(found: Sequence[Profiles]) -> tuple[Any, ...]:
    of_clusters = zip(*(of_column.traits for of_column in found), strict=True)
    return tuple(
        strongest(trait for of_column in own for trait in of_column) for own in of_clusters
    )
