"""Segment a real table on fourteen nights and draw what happened to its segments.

Every night some rows come, go and change, and all of them arrive in another order. On night 8
a new kind of customer appears; on night 11 the feed is broken: a column is all zero. Each night
is one ``gpuseg run`` with a row id and limits for the gate, as a scheduler would start it.

    python examples/fourteen_nights.py --out docs/fourteen_nights

writes ``docs/fourteen_nights.json``, ``.svg`` and ``.png``. The picture is drawn from the JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
from fourteen_nights_picture import draw

ID = "customer"
HERE = Path(__file__).parent

#: Shares of the table that come, go and change in a night.
COME, GO, CHANGE = 0.015, 0.01, 0.02
#: Share of the table that is of the new kind, on the night when it appears.
NEW_KIND = 0.08


@dataclass(frozen=True)
class Plan:
    """What is simulated."""

    table: Path
    nights: int = 14
    new_kind_on: int = 8
    broken_on: int = 11
    broken_column: str = "hours-per-week"
    n_rows: int = 3000
    seed: int = 0
    arguments: tuple[str, ...] = ("--min-clusters", "6", "--max-churn", "0.3", "--max-psi", "0.25",
                                  "--min-silhouette", "0.05")  # fmt: skip


@dataclass(frozen=True)
class Night:
    """What one night brought.

    Parameters
    ----------
    exit_code
        Of ``gpuseg run``: 0 published, 3 refused by the gate.
    unchanged
        Rows that are the same as in the last published night, values and all; None on the
        first night and when nothing was published.
    stability
        Share of them that have the same segment.
    stability_by_size
        The same, had the very same segments been numbered by their size every night.
    """

    night: int
    n_rows: int
    entrants: int
    leavers: int
    changed: int
    exit_code: int
    status: str
    reasons: list[str]
    n_clusters: int
    silhouette: float
    churn: float | None
    max_psi: float | None
    max_psi_column: str | None
    events: list[dict[str, Any]]
    sizes: dict[str, int]
    unchanged: int | None = None
    stability: float | None = None
    stability_by_size: float | None = None


@dataclass
class World:
    """The customers as they are, while the nights go by.

    Parameters
    ----------
    rows
        All customers that there will ever be, in a fixed order.
    present
        Positions of those that are in the table tonight.
    waiting
        Positions of those that come later.
    """

    rows: pa.Table
    present: np.ndarray
    waiting: np.ndarray
    rng: np.random.Generator
    changed: set[int] = field(default_factory=set)


def main() -> None:
    """Simulate, write the numbers and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=HERE / "gluon_train.parquet")
    parser.add_argument("--broken-column", default=Plan.broken_column)
    parser.add_argument("--rows", type=int, default=Plan.n_rows)
    parser.add_argument("--out", type=Path, default=Path("fourteen_nights"))
    parser.add_argument("--folder", type=Path, help="where tables and runs are kept")
    parser.add_argument("more", nargs="*", help="more arguments of gpuseg run, after --")
    given = parser.parse_args()
    plan = Plan(
        given.table, broken_column=given.broken_column, n_rows=given.rows,
        arguments=(*Plan.arguments, *given.more),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        nights = simulate(plan, given.folder or Path(scratch))
    write(plan, nights, given.out)


def simulate(plan: Plan, folder: Path) -> list[Night]:
    """Run all nights in a folder, which keeps their tables and runs."""
    folder.mkdir(parents=True, exist_ok=True)
    world = first_night(plan)
    nights: list[Night] = []
    before: pl.DataFrame | None = None  # what was published last
    for number in range(1, plan.nights + 1):
        moves = {"entrants": 0, "leavers": 0, "changed": 0}
        if number > 1:
            moves = pass_a_day(world, new_kind=number == plan.new_kind_on)
        tonight = feed(world, plan.broken_column if number == plan.broken_on else None)
        pq.write_table(tonight, folder / "customers.parquet")
        code = run(folder, plan.arguments)
        night = Night(number, tonight.num_rows, **moves, exit_code=code, **newest_run(folder))
        if code == 0:
            published = pl.read_parquet(folder / "segments.parquet")
            night = with_stability(night, before, published)
            before = published
        nights.append(night)
        print(f"night {number:2}: {night.status}, {night.n_clusters} segments, "  # noqa: T201
              f"stability {night.stability}, psi {night.max_psi}")  # fmt: skip
    return nights


# -- the customers -------------------------------------------------------------------


def first_night(plan: Plan) -> World:
    """Read the table, name its rows, and let three quarters of them be there."""
    rng = np.random.default_rng(plan.seed)
    is_csv = plan.table.suffix == ".csv"
    rows = pv.read_csv(plan.table) if is_csv else pq.read_table(plan.table)
    order = rng.permutation(rows.num_rows)[: plan.n_rows]
    rows = rows.take(pa.array(order)).append_column(ID, pa.array(range(len(order))))
    here = rng.permutation(rows.num_rows)
    cut = int(0.75 * len(here))
    return World(rows, here[:cut], here[cut:], rng)


def pass_a_day(world: World, *, new_kind: bool) -> dict[str, int]:
    """Let rows come, go and change."""
    n = len(world.present)
    comers, world.waiting = np.split(world.waiting, [min(int(COME * n), len(world.waiting))])
    leaving = world.rng.choice(n, int(GO * n), replace=False)
    world.present = np.append(np.delete(world.present, leaving), comers)
    entrants = len(comers)
    if new_kind:
        entrants += let_a_new_kind_in(world, int(NEW_KIND * n))
    changing = world.rng.choice(world.present, int(CHANGE * n), replace=False)
    world.rows = changed(world.rows, changing, world.rng)
    return {"entrants": entrants, "leavers": len(leaving), "changed": len(changing)}


def numbers_of(rows: pa.Table) -> list[str]:
    """Return the columns of numbers."""
    return [
        column.name for column in rows.schema
        if column.name != ID and (pa.types.is_integer(column.type)
                                  or pa.types.is_floating(column.type))
    ]  # fmt: skip


def changed(rows: pa.Table, positions: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Give each of these rows the value of another customer in one column of numbers."""
    names = numbers_of(rows)
    which = rng.integers(0, len(names), len(positions))
    for place, name in enumerate(names):
        mine = positions[which == place]
        source = np.arange(rows.num_rows)
        source[mine] = rng.integers(0, rows.num_rows, len(mine))
        at = rows.column_names.index(name)
        rows = rows.set_column(at, rows.schema.field(at), rows.column(at).take(pa.array(source)))
    return rows


def let_a_new_kind_in(world: World, n: int) -> int:
    """Add customers who are much alike: high in every number, and unusual in every text."""
    rows, columns = world.rows, []
    for column in rows.schema:
        values = rows.column(column.name)
        if column.name == ID:
            columns.append(pa.array(range(rows.num_rows, rows.num_rows + n), column.type))
        elif column.name in numbers_of(rows):
            known = values.drop_null().to_numpy().astype(float)
            middle, spread = np.quantile(known, 0.97), 0.1 * known.std()
            drawn = np.clip(world.rng.normal(middle, spread, n), known.min(), known.max())
            whole = np.round(drawn) if pa.types.is_integer(column.type) else drawn
            columns.append(pa.array(whole).cast(column.type))
        else:
            counts = sorted(values.value_counts().to_pylist(), key=lambda c: -c["counts"])
            columns.append(pa.array([counts[min(2, len(counts) - 1)]["values"]] * n, column.type))
    world.rows = pa.concat_tables([rows, pa.table(columns, schema=rows.schema)])
    world.present = np.append(world.present, np.arange(rows.num_rows, rows.num_rows + n))
    return n


def feed(world: World, broken_column: str | None) -> pa.Table:
    """Return tonight's table, in any order; a broken column is all zero."""
    tonight = world.rows.take(pa.array(world.rng.permutation(world.present)))
    if broken_column is not None:
        at = tonight.column_names.index(broken_column)
        column = tonight.schema.field(at)
        zeros = pa.array(np.zeros(tonight.num_rows)).cast(column.type)
        tonight = tonight.set_column(at, column, zeros)
    return tonight


# -- the nights ----------------------------------------------------------------------


def run(folder: Path, arguments: tuple[str, ...]) -> int:
    """Start ``gpuseg run`` as a scheduler does, and return its exit code."""
    command = [
        sys.executable, "-m", "gpuseg", "run", "--input-table", "customers.parquet",
        "--output-table", "segments.parquet", "--model-name", "customers",
        "--rowid-column", ID, *arguments,
    ]  # fmt: skip
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 3):
        sys.exit(f"gpuseg run ended with exit code {ran.returncode}:\n{ran.stderr}")
    return ran.returncode


def newest_run(folder: Path) -> dict[str, Any]:
    """Return what the newest run says of itself, published or not."""
    runs = folder / "gpuseg_runs" / "customers"
    newest = max((path.parent for path in runs.glob("*/manifest.json")), key=lambda p: p.name)
    facts = json.loads((newest / "manifest.json").read_bytes())
    change, gate = facts["change"] or {}, facts.get("gate") or {}
    return {
        "status": facts.get("status", "published"),
        "reasons": list(gate.get("reasons", ())),
        "n_clusters": facts["n_clusters"],
        "silhouette": facts["silhouette"],
        "churn": change.get("churn"),
        "max_psi": change.get("max_psi"),
        "max_psi_column": change.get("max_psi_column"),
        "events": pq.read_table(newest / "tables" / "lineage.parquet").to_pylist(),
        "sizes": facts["cluster_sizes"],
    }


def with_stability(night: Night, before: pl.DataFrame | None, published: pl.DataFrame) -> Night:
    """Compare the segments of rows that did not change at all since the last published night."""
    if before is None:
        return night
    names = [name for name in published.columns if name != "cluster_id"]
    same = published.join(before, on=names, suffix="_before", nulls_equal=True)
    now, then = same["cluster_id"].to_list(), same["cluster_id_before"].to_list()
    today, earlier = rank(published), rank(before)
    by_size = [today[c] == earlier[d] for c, d in zip(now, then, strict=True)]
    facts = asdict(night) | {
        "unchanged": len(same),
        "stability": float(np.mean(np.equal(now, then))),
        "stability_by_size": float(np.mean(by_size)),
    }
    return Night(**facts)


def rank(rows: pl.DataFrame) -> dict[int, int]:
    """Number the segments by their size."""
    counts = rows["cluster_id"].value_counts().sort(["count", "cluster_id"], descending=True)
    return {cluster: place for place, cluster in enumerate(counts["cluster_id"].to_list())}


def write(plan: Plan, nights: list[Night], out: Path) -> None:
    """Write the numbers, and the picture of them."""
    facts = {
        "table": plan.table.name,
        "n_rows": plan.n_rows,
        "seed": plan.seed,
        "arguments": list(plan.arguments),
        "new_kind_on": plan.new_kind_on,
        "broken_on": plan.broken_on,
        "broken_column": plan.broken_column,
        "nights": [asdict(night) for night in nights],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    svg, png = draw(facts)
    out.with_suffix(".svg").write_text(svg + "\n", encoding="utf-8")
    out.with_suffix(".png").write_bytes(png)


if __name__ == "__main__":
    main()
