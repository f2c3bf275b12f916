"""The Sankey diagram of rows between the segments of two runs: who stands where on it.

Both drawings, the still one and the one that answers, take places from here, so that they
agree: all of them are shares of the height, from the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gpuseg.outputs.palette import cluster_names
from gpuseg.outputs.wording import percent

#: Share of the height between two segments; with very many of them, all gaps take a third.
_GAP = 0.035
_GAPS = 1 / 3

Row = Mapping[str, Any]


class Node(NamedTuple):
    """A segment on one side, or the rows that come from nowhere or go there."""

    side: int  # 0 left, then; 1 right, now
    id: int | None
    n_rows: int
    top: float
    bottom: float

    @property
    def name(self) -> str:
        """How it is called beside it."""
        return _name(self.side, self.id)


def flow_chart(migration: Sequence[Row], cluster_ids: Sequence[int]) -> dict[str, Any]:
    """Return the facts of the chart, from the rows of the migration table.

    Parameters
    ----------
    cluster_ids
        Of today's segments, which keep their colours here.
    """
    pairs = {(r["previous_cluster_id"], r["cluster_id"]): r["n_rows"] for r in migration}
    left, right = _nodes(pairs, 0), _nodes(pairs, 1)
    names = cluster_names(cluster_ids, [was for was in left if was is not None])
    colors: dict[int | None, str] = {None: "muted"}
    colors.update(names.items())
    moved = sum(n for (was, now), n in pairs.items() if was != now)
    return {
        "name": "migration",
        "kind": "flow",
        "title": "Where rows went",
        "note": "Left the segments of the run before, right those of today; a band is as high as "
        "the number of rows that took this way. Grey bands are rows that are new or gone.",
        "alt": f"Sankey diagram of {sum(pairs.values()):,} rows between {len(left)} places before "
        f"and {len(right)} now; {moved:,} rows are not where they were. The numbers are in "
        "the table.",
        "x": "Left: the run before. Right: this run",
        "y": "Rows, by segment",
        "data": {
            "nodes": [
                {"side": n.side, "name": n.name, "short": _short(n), "n": n.n_rows, "top": n.top,
                 "bottom": n.bottom, "color": colors[n.id]}
                for n in (*left.values(), *right.values())
            ],
            "flows": _flows(pairs, left, right, migration, colors),
        },
        "head": ("from", "to", "rows", "share of the earlier rows still there",
                 "share of today's rows there before"),
        "rows": [
            (_name(0, r["previous_cluster_id"]), _name(1, r["cluster_id"]), f"{r['n_rows']:,}",
             percent(r["share_of_previous"]), percent(r["share_of_current"]))
            for r in migration
        ],
    }  # fmt: skip


def _name(side: int, cluster: int | None) -> str:
    return ("new rows", "gone rows")[side] if cluster is None else f"segment {cluster}"


def _short(node: Node) -> str:
    return ("new", "gone")[node.side] if node.id is None else str(node.id)


def _nodes(pairs: Mapping[tuple[int | None, int | None], int], side: int) -> dict[Any, Node]:
    """Stack the nodes of one side, by id, those of no segment last."""
    totals: dict[int | None, int] = {}
    for pair, n in pairs.items():
        totals[pair[side]] = totals.get(pair[side], 0) + n
    most = max(len({pair[s] for pair in pairs}) for s in (0, 1))
    gap = min(_GAP, _GAPS / max(most - 1, 1))
    scale = (1 - gap * (most - 1)) / sum(totals.values())
    top, nodes = 0.0, {}
    for cluster in sorted(totals, key=lambda c: (c is None, c or 0)):
        bottom = top + totals[cluster] * scale
        nodes[cluster] = Node(side, cluster, totals[cluster], round(top, 5), round(bottom, 5))
        top = bottom + gap
    return nodes


def _flows(
    pairs: Mapping[tuple[int | None, int | None], int],
    left: Mapping[Any, Node],
    right: Mapping[Any, Node],
    migration: Sequence[Row],
    colors: Mapping[int | None, str],
) -> list[dict[str, Any]]:
    """Return the bands, the widest first, so that narrow ones are drawn over them."""
    shares = {(r["previous_cluster_id"], r["cluster_id"]): r for r in migration}
    begins = {cluster: node.top for cluster, node in left.items()}
    ends = {cluster: node.top for cluster, node in right.items()}
    flows = []
    for was in left:
        for now in right:  # in their order on the other side, so that bands cross least
            n = pairs.get((was, now), 0)
            if not n:
                continue
            thick = (left[was].bottom - left[was].top) * n / left[was].n_rows
            flows.append(
                {
                    "n": n,
                    "from": [round(begins[was], 5), round(begins[was] + thick, 5)],
                    "to": [round(ends[now], 5), round(ends[now] + thick, 5)],
                    "color": colors[was if now is not None else None],
                    "stays": was == now,
                    "words": _words(shares[was, now]),
                }
            )
            begins[was] += thick
            ends[now] += thick
    return sorted(flows, key=lambda flow: -flow["n"])


def _words(row: Row) -> str:
    was, now = row["previous_cluster_id"], row["cluster_id"]
    words = [f"{_name(0, was)} → {_name(1, now)}", f"{row['n_rows']:,} rows"]
    if was is not None and now is not None:
        before, today = percent(row["share_of_previous"]), percent(row["share_of_current"])
        words.append(f"{before} of the rows of segment {was} that are still there")
        words.append(f"{today} of the rows of segment {now} that were there before")
    return "\n".join(words)
