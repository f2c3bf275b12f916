"""One table on this machine alone, on one Dask worker and on two: how long, the same result.

    python bench/dask_scale.py --quick
    python bench/dask_scale.py --rows 2000000 --out bench/results/dask_scale.json

Each run is the command in a process of its own. A worker is a process with one thread; the
client and the scheduler run beside them on the same machine. Without Dask the run has as many
threads as the other has workers. Results are compared before times are shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from child import watched
from machine import facts
from scale_table import write_table

LIBRARIES = ("gpuseg", "dask", "distributed", "numpy", "numba", "pyarrow", "polars")

#: Relative difference of silhouettes that only sums in another order explain.
TOLERANCE = 1e-4

#: Of the rows, at least as many are in the same segment.
SAME_ROWS = 0.999


def measure(source: Path, n_rows: int, on_dask: bool, n: int, folder: Path) -> dict[str, Any]:
    """Run the command on so many workers, or threads; return what it took and what it found."""
    output = folder / "out.parquet"
    command = [
        *(sys.executable, "-m", "gpuseg", "run", "--input-table", str(source)),
        *("--output-table", str(output), "--runs-dir", str(folder / "runs")),
        *("--export-k-scores", str(folder / "k.parquet"), "--backend", "numpy", "--json"),
        *(("--dask", f"local:{n}") if on_dask else ()),
    ]
    ran = watched(command, folder / "log", GPUSEG_THREADS=str(1 if on_dask else n))
    result = json.loads(ran["output"])
    manifest = json.loads((Path(result["run_dir"]) / "manifest.json").read_text())
    return {
        "n_rows": n_rows,
        "where": "Dask workers" if on_dask else "threads of one process",
        "n": n,
        "seconds": ran["seconds"],
        "cpu_seconds": ran["cpu_seconds"],
        "peak_mib": ran["peak_mib"],
        "children_peak_mib": ran["children_peak_mib"],
        "stages": {name: cost["seconds"] for name, cost in manifest["stages"].items()},
        "n_clusters": result["n_clusters"],
        "silhouette": result["silhouette"],
        "cluster_sizes": result["cluster_sizes"],
        "labels": pl.read_parquet(output, columns=["cluster_id"])["cluster_id"],
    }


def check_same(run: dict[str, Any], first: dict[str, Any]) -> None:
    """Stop unless both chose the same k with the same rows in the segments."""
    same = float((run["labels"] == first["labels"]).mean() or 0.0)
    difference = abs(run["silhouette"] / first["silhouette"] - 1)
    if run["n_clusters"] != first["n_clusters"] or difference > TOLERANCE or same < SAME_ROWS:
        sys.exit(
            f"different results on {run['n']} {run['where']}: k = {run['n_clusters']} and "
            f"{first['n_clusters']}, silhouettes {run['silhouette']} and {first['silhouette']}, "
            f"{same:.2%} of the rows in the same segment"
        )
    run["same_rows"] = same


def show(run: dict[str, Any]) -> None:
    children = ", ".join(f"{peak:,.0f}" for peak in run["children_peak_mib"])
    print(
        f"{run['n_rows']:>12,} rows, {run['n']} {run['where']:<22} {run['seconds']:>7.1f} s "
        f"{run['peak_mib']:>7,.0f} MiB, children {children or 'none'}; "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in run["stages"].items()),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="50,000 rows only")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    n_rows = 50_000 if options.quick else options.rows
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.parquet"
        write_table(source, n_rows)
        for on_dask in (False, True):
            for n in map(int, options.workers.split(",")):
                work = Path(folder) / f"{on_dask}{n}"
                work.mkdir()
                runs.append(measure(source, n_rows, on_dask, n, work))
                check_same(runs[-1], runs[0])
                show(runs[-1])
    if options.out:
        kept = [{name: value for name, value in r.items() if name != "labels"} for r in runs]
        options.out.write_text(json.dumps(facts(LIBRARIES) | {"runs": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
