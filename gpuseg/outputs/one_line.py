"""A run in one line: for the subject of a mail, a chat, the end of a log."""

from __future__ import annotations

from gpuseg.records import Segmentation


def one_line(result: Segmentation) -> str:
    """Say in one line what a run brought; without anything that stands in the table.

    Examples of what it says: ``people: 7 segments of 9,768 rows, silhouette 0.14, churn 3.2 %,
    published to ml_test.people (12 s)``.
    """
    seconds = sum(cost.seconds for cost in result.stages.values())
    parts = [f"{result.n_clusters:,} segments of {len(result.labels):,} rows"]
    if result.unchanged:
        parts.append(f"unchanged since run {result.run_id}")
    elif result.explanation is None:  # only placed: the silhouette is that of other rows
        parts.append("placed by the stored model")
    if result.unchanged or result.explanation is not None:
        parts.insert(1, f"silhouette {result.silhouette:.2f}")
    change = getattr(result, "change", None)
    if change is not None:
        parts.append(f"churn {100 * change.churn:.1f} %")
    if result.output_table is not None:
        where = "still in" if result.unchanged else "published to"
        parts.append(f"{where} {result.output_table}")
    return f"{result.model_name}: {', '.join(parts)} ({seconds:,.0f} s)"
