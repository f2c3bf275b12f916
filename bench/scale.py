"""Runs from 100 thousand to 50 million rows: rows per second, and memory against its prediction.

    python bench/scale.py --quick
    python bench/scale.py --rows 100000,1000000 --threads 1,2 --out bench/results/scale.json

Each size is a run of the command in a process of its own, on a Parquet file made in blocks,
with a memory limit. Its resident memory is watched, and what ``gpuseg plan`` said before is
kept beside. Growth exponents are slopes of log against log:
1 is linear in the rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from child import watched
from machine import facts
from scale_table import write_table

LIBRARIES = ("gpuseg", "numpy", "numba", "pyarrow", "duckdb", "polars", "scikit-learn")
N_COLUMNS = 20


def gpuseg(command: str, source: Path, folder: Path, memory: str) -> list[str]:
    """Return the command line of a run or a plan."""
    return [
        *(sys.executable, "-m", "gpuseg", command, "--input-table", str(source)),
        *("--output-table", str(folder / "out.parquet"), "--runs-dir", str(folder / "runs")),
        *("--memory", memory, "--backend", "numpy", "--json"),
    ]


def measure(
    source: Path, n_rows: int, threads: int, memory: str, folder: Path, keep: Path | None
) -> dict[str, Any]:
    """Plan a run, make it, and put both side by side; keep its log and report if asked to."""
    log = folder / "progress.log"
    limit = {"GPUSEG_THREADS": str(threads)}
    plan = json.loads(watched(gpuseg("plan", source, folder, memory), log, **limit)["output"])
    ran = watched(gpuseg("run", source, folder, memory), log, **limit)
    result = json.loads(ran.pop("output"))
    manifest = json.loads((Path(result["run_dir"]) / "manifest.json").read_text())
    predicted = max(stage["memory_bytes"] for stage in plan["stages"]) / 2**20
    (folder / "out.parquet").unlink()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        for path in (log, Path(result["report"]), Path(result["run_dir"]) / "manifest.json"):
            shutil.copy(path, keep)
    return {
        "n_rows": n_rows,
        "threads": threads,
        "memory": memory,
        **ran,
        "rows_per_second": n_rows / ran["seconds"],
        "predicted_mib": predicted,
        "predicted_over_measured": predicted / ran["peak_mib"],
        "predicted_stages": {s["name"]: s["memory_bytes"] / 2**20 for s in plan["stages"]},
        "peak_after_stage": {n: c["peak_bytes"] / 2**20 for n, c in manifest["stages"].items()},
        "stages": {name: cost["seconds"] for name, cost in manifest["stages"].items()},
        "n_clusters": result["n_clusters"],
        "silhouette": result["silhouette"],
        "method": result["k_scores"][0]["method"],
        "n_features": result["n_features"],
    }


def exponents(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return how fast seconds and peak grow: over all sizes, and from each to the next."""
    runs = sorted(runs, key=lambda run: int(run["n_rows"]))
    spans = [runs, *([one, next_] for one, next_ in pairwise(runs))] if len(runs) > 2 else [runs]
    return {
        f"{span[0]['n_rows']:,} to {span[-1]['n_rows']:,} rows": slopes(span)
        for span in spans
        if span[0]["n_rows"] < span[-1]["n_rows"]
    }


def slopes(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the slope of log seconds, of each stage too, and of log peak, over log rows."""
    rows = np.log([run["n_rows"] for run in runs])
    found = {
        name: float(np.polyfit(rows, np.log([run[name] for run in runs]), 1)[0])
        for name in ("seconds", "peak_mib")
    }
    for stage in runs[0]["stages"]:
        seconds = np.log([max(run["stages"][stage], 1e-3) for run in runs])
        found[stage] = float(np.polyfit(rows, seconds, 1)[0])
    return found


def show(run: dict[str, Any]) -> None:
    print(
        f"{run['n_rows']:>12,} rows {run['threads']} threads {run['seconds']:>8.1f} s "
        f"{run['rows_per_second']:>10,.0f} rows/s {run['peak_mib']:>8,.0f} MiB, predicted "
        f"{run['predicted_mib']:>8,.0f}  k = {run['n_clusters']}, {run['method']}; "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in run["stages"].items()),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 and 100,000 rows only")
    parser.add_argument("--rows", default="100000,1000000,10000000")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("--note", default="", help="kept with the results")
    parser.add_argument("--tables", type=Path, help="folder of t<rows>.parquet made before")
    parser.add_argument("--add", type=Path, help="JSON file of an earlier call, added to --out")
    parser.add_argument("--keep", type=Path, help="folder for the last run's log and report")
    parser.add_argument("--out", type=Path, help="JSON file; other runs in it stay")
    options = parser.parse_args()
    sizes = [20_000, 100_000] if options.quick else [int(n) for n in options.rows.split(",")]
    runs = json.loads(options.add.read_text())["runs"] if options.add else []
    sizes = [] if options.add else sizes
    for n_rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            source = (options.tables or Path(folder)) / f"t{n_rows}.parquet"
            if not source.exists():
                write_table(source, n_rows)
            for threads in map(int, options.threads.split(",")):
                work = Path(folder) / f"threads{threads}"  # none finds a model of the other
                work.mkdir()
                run = measure(source, n_rows, threads, options.memory, work, options.keep)
                shutil.rmtree(work)
                runs.append(run | {"note": options.note})
                show(run)
    if options.out:
        save(options.out, runs)


def save(path: Path, runs: list[dict[str, Any]]) -> None:
    """Add runs to those of a file, in the place of earlier ones of the same kind."""
    kind = ("n_rows", "threads", "memory")
    new = {tuple(run[name] for name in kind) for run in runs}
    there = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = [run for run in there if tuple(run[name] for name in kind) not in new] + runs
    runs.sort(key=lambda run: tuple(run[name] for name in kind))
    by_threads = {
        str(n): exponents([run for run in runs if run["threads"] == n])
        for n in sorted({run["threads"] for run in runs})
    }
    for n, spans in by_threads.items():
        for span, found in spans.items():
            shown = ", ".join(f"{name} {slope:.2f}" for name, slope in found.items())
            print(f"growth exponents, {n} threads, {span}: {shown}")
    path.write_text(json.dumps(facts(LIBRARIES) | {"exponents": by_threads, "runs": runs}) + "\n")


if __name__ == "__main__":
    main()
