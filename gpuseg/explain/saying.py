"""All that is said about the segments of a run: in numbers, in rules, and in one tree."""

from __future__ import annotations

from gpuseg.backends.base import Backend
from gpuseg.explain.explain import explain
from gpuseg.explain.rule_columns import rule_columns
from gpuseg.explain.rules import find_rules
from gpuseg.explain.surrogate import segment_tree
from gpuseg.records import Choice, Explained, FeatureMatrix, Progress, Table, no_progress, part


def say(
    backend: Backend,
    table: Table,
    features: FeatureMatrix,
    choice: Choice,
    *,
    random_state: int = 0,
    progress: Progress = no_progress,
) -> Explained:
    """Explain the chosen clusters; see `explain`, `find_rules` and `segment_tree`."""
    explanation = explain(
        backend,
        features,
        table,
        choice,
        random_state=random_state,
        progress=part(progress, 0.0, 0.9),
    )
    columns = rule_columns(features, table)
    labels = features.in_table_order(backend.to_host(choice.fit.labels))
    rules = find_rules(
        columns,
        labels,
        choice.n_clusters,
        random_state=random_state,
        progress=part(progress, 0.9, 1.0),
    )
    tree = segment_tree(columns, labels, random_state=random_state)
    return Explained(explanation, rules, tree)
