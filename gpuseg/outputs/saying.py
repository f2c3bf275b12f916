"""All that is said about the segments of a run: in numbers, in rules, and in one tree."""

from __future__ import annotations

from dataclasses import replace

from gpuseg.backends.base import Backend
from gpuseg.explain.explain import explain
from gpuseg.explain.rule_columns import rule_columns, told_rows
from gpuseg.explain.rules import find_rules
from gpuseg.explain.surrogate import segment_tree
from gpuseg.explained import Explained
from gpuseg.outputs.public_ids import public_ids
from gpuseg.records import Choice, FeatureMatrix, Progress, Table, no_progress, part


def say(
    backend: Backend,
    table: Table,
    features: FeatureMatrix,
    choice: Choice,
    *,
    random_state: int = 0,
    progress: Progress = no_progress,
) -> Explained:
    """Explain the chosen clusters; see `explain`, `find_rules` and `segment_tree`.

    Returns
    -------
    Explained
        The tree is grown with public ids, all else calls clusters by position.
    """
    explanation = explain(
        backend,
        features,
        table,
        choice,
        random_state=random_state,
        progress=part(progress, 0.0, 0.9),
    )
    told = told_rows(features, table, backend.to_host(choice.fit.labels))
    columns, labels = rule_columns(features, told.table), told.labels
    rules = find_rules(
        columns,
        labels,
        choice.n_clusters,
        random_state=random_state,
        progress=part(progress, 0.9, 1.0),
    )
    ids = public_ids(labels, choice.cluster_ids)
    tree = segment_tree(columns, ids, random_state=random_state)
    explanation = replace(explanation, notes=explanation.notes + told.notes)
    return Explained(explanation, rules, tree)
