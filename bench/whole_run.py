"""The whole run against what a user would write instead, side by side.

    python bench/whole_run.py --quick
    python bench/whole_run.py --rows 10000,100000,1000000 --out bench/results/whole_run.json

Both read the same Parquet file in a process of their own, prepare it in the textbook way
(median, mean 0, deviation 1), sweep k = 2..9 with ten restarts, fit a forest of 100 trees
of depth 8 and explain it. Answers are compared before times are shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from child import watched
from machine import facts
from sklearn.metrics import adjusted_rand_score

LIBRARIES = ("gpuseg", "numpy", "numba", "scikit-learn", "shap", "pandas", "polars")
NAIVE = Path(__file__).with_name("naive_run.py")
N_COLUMNS = 20
N_SEGMENTS = 5


def customers(n_rows: int, seed: int = 0) -> pl.DataFrame:
    """Make overlapping groups of customers, columns of different scale, 1 % missing."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=1.6, size=(N_SEGMENTS, N_COLUMNS))
    segment = rng.choice(N_SEGMENTS, size=n_rows, p=[0.35, 0.25, 0.2, 0.12, 0.08])
    X = centres[segment] + rng.normal(size=(n_rows, N_COLUMNS))
    X = X * 10.0 ** rng.integers(-2, 4, size=N_COLUMNS) + rng.normal(size=N_COLUMNS) * 50
    X[rng.random(X.shape) < 0.01] = np.nan
    return pl.DataFrame(X, schema=[f"c{i}" for i in range(N_COLUMNS)]).fill_nan(None)


def measure(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command; return its wall time and the peak resident memory of its process."""
    ran = watched(command, folder / "errors.log")
    return {name: ran[name] for name in ("seconds", "peak_mib")}


def gpuseg_command(source: Path, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "gpuseg", "run", "--input-table", str(source)),
        *("--output-table", str(folder / "ours.parquet"), "--runs-dir", str(folder / "runs")),
        *("--transform", "none", "--scaling", "standard", "--quiet", "--backend", "numpy"),
        *("--export-k-scores", str(folder / "k.parquet")),
    ]


def compare(n_rows: int, folder: Path) -> dict[str, Any]:
    """Measure both on one table; refuse to time a wrong answer."""
    source = folder / "customers.parquet"
    customers(n_rows).write_parquet(source)
    ours = measure(gpuseg_command(source, folder), folder)
    naive = measure([sys.executable, str(NAIVE), str(source), str(folder)], folder)
    found = json.loads((folder / "naive.json").read_text())
    k_scores = pl.read_parquet(folder / "k.parquet")
    check_answer(k_scores, found, folder)
    stages = json.loads(next((folder / "runs").glob("*/*/manifest.json")).read_text())["stages"]
    return {
        "n_rows": n_rows,
        "n_columns": N_COLUMNS,
        "gpuseg": ours | {"stages": {name: cost["seconds"] for name, cost in stages.items()}},
        "naive": naive | {"stages": found["seconds"]},
        "naive_scored_rows": found["scored_rows"],
        "naive_explained_rows": found["explained_rows"],
        "gpuseg_silhouette": k_scores["method"][0],
        "times_faster": naive["seconds"] / ours["seconds"],
    }


def check_answer(k_scores: pl.DataFrame, found: dict[str, Any], folder: Path) -> None:
    """Stop unless both chose the same k, with the same rows in the segments."""
    chosen = k_scores.filter(pl.col("chosen"))
    if chosen["n_clusters"].item() != found["n_clusters"]:
        sys.exit(f"different k: {chosen['n_clusters'].item()} and {found['n_clusters']}")
    ours = pl.read_parquet(folder / "ours.parquet", columns=["cluster_id"])["cluster_id"]
    theirs = pl.read_parquet(folder / "naive.parquet", columns=["cluster_id"])["cluster_id"]
    agreement = adjusted_rand_score(theirs.to_numpy(), ours.to_numpy())
    if agreement < 0.98:
        sys.exit(f"the segments differ: adjusted Rand index {agreement:.3f}")
    for row in k_scores.iter_rows(named=True):
        if row["inertia"] > 1.001 * found["inertia"][str(row["n_clusters"])]:
            sys.exit(f"k = {row['n_clusters']}: inertia {row['inertia']} is worse")


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'rows':>10} {'gpuseg':>9} {'MiB':>7} {'by hand':>9} {'MiB':>7} {'ratio':>7}  by hand did"
    )
    for row in rows:
        ours, naive = row["gpuseg"], row["naive"]
        scored, explained = row["naive_scored_rows"], row["naive_explained_rows"]
        print(
            f"{row['n_rows']:>10,} {ours['seconds']:>8.1f}s {ours['peak_mib']:>7,.0f} "
            f"{naive['seconds']:>8.1f}s {naive['peak_mib']:>7,.0f} {row['times_faster']:>6.1f}x  "
            f"silhouette of {scored:,}, SHAP of {explained:,} rows"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 rows only")
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = [2_000] if options.quick else [int(n) for n in options.rows.split(",")]
    with tempfile.TemporaryDirectory() as warm:  # compile once, outside the measurement
        source = Path(warm) / "warm.parquet"
        customers(500).write_parquet(source)
        measure(gpuseg_command(source, Path(warm)), Path(warm))
    rows = []
    for n_rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare(n_rows, Path(folder)))
            print_rows(rows[-1:] if len(rows) > 1 else rows)
    if options.out:
        options.out.write_text(json.dumps(facts(LIBRARIES) | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
