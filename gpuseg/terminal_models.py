"""What `cli/` shows of the runs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from gpuseg.terminal import print_table

if TYPE_CHECKING:
    from gpuseg.outputs.comparison import RunDifference
    from gpuseg.outputs.history import RunFacts
    from gpuseg.outputs.republish import Republished


def print_republished(done: Republished, stream: TextIO) -> None:
    """Say what is current now, and what was written."""
    before = f" (before: {done.previous_run_id})" if done.previous_run_id else ""
    stream.write(f"run {done.run_id} of model '{done.model_name}' is current{before}\n")
    stream.writelines(f"wrote {place}\n" for place in done.outputs)
    stream.writelines(f"{note}\n" for note in done.notes)


def print_history(runs: Sequence[RunFacts], stream: TextIO) -> None:
    """Print one line for each run; * marks the current one. Then why some were refused."""
    rows = [
        (
            f"{run.run_id}{' *' if run.is_current else ''}",
            (run.started or "").replace("T", " ").removesuffix("Z"),
            _status(run),
            _text(run.n_clusters),
            "" if run.n_rows is None else f"{run.n_rows:,}",
            _number(run.silhouette),
            _number(run.churn),
            _number(run.max_psi) + (f" ({run.max_psi_column})" if run.max_psi_column else ""),
            "yes" if run.has_rows else "no",
        )
        for run in runs
    ]
    names = (
        "run (* current)", "began (UTC)", "status", "clusters", "rows", "silhouette", "churn",
        "max psi", "rows kept",
    )  # fmt: skip
    print_table("", names, rows, stream)
    for run in runs:
        stream.writelines(f"{run.run_id}: {reason}\n" for reason in run.reasons)


def _status(run: RunFacts) -> str:
    by_hand = [promotion for promotion in run.promoted if promotion.how != "run"]
    if not by_hand:
        return run.status
    words = {"promote": "by hand", "rollback": "rolled back to"}
    return f"{run.status}, {words.get(by_hand[-1].how, by_hand[-1].how)} {by_hand[-1].promoted}"


def print_difference(found: RunDifference, stream: TextIO) -> None:
    """Print what differs between two runs, one table for each kind of thing."""
    stream.write(f"A {found.runs[0]}\nB {found.runs[1]}\n\n")
    print_table("", ("", "A", "B"), _pairs(found.facts), stream)
    _print_pairs("Rows of each segment", "cluster_id", found.sizes, stream)
    _print_pairs("Silhouette", "k", found.silhouettes, stream)
    _print_pairs("Parameters that differ", "parameter", found.settings, stream)
    for which, names in zip("AB", found.columns, strict=True):
        if names:
            stream.write(f"\ncolumns used by {which} only: {', '.join(names)}\n")
    if found.moves:
        rows = [(m.cluster_id, f"{m.distance:.3f}", _features(m.features)) for m in found.moves]
        stream.write("\n")
        print_table("Centres", ("cluster_id", "moved", "most in"), rows, stream)
    stream.write(f"\n{_agreement(found)}\n")


def _print_pairs(title: str, key: str, pairs: Mapping[Any, Any], stream: TextIO) -> None:
    if pairs:
        stream.write("\n")
        print_table(title, (key, "A", "B"), _pairs(pairs), stream)


def _agreement(found: RunDifference) -> str:
    if found.agreement is None:
        return f"rows were not compared: {found.why_not}"
    agreed = found.agreement
    return (
        f"of {agreed.n_shared:,} rows in both (by {agreed.matched_by}), {agreed.same_id:.1%} have "
        f"the same segment id; adjusted Rand index {agreed.adjusted_rand:.4f}"
    )


def _pairs(pairs: Mapping[Any, tuple[Any, Any]]) -> list[tuple[str, str, str]]:
    return [(str(key), _text(a), _text(b)) for key, (a, b) in pairs.items()]


def _features(features: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {step:+.2f}" for name, step in features)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
