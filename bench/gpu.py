"""The GPU engine against cuML called once for each k, and against the NumPy engine.

    python bench/gpu.py --quick
    python bench/gpu.py --out bench/results/gpu.json

Every case runs in a process of its own, and its answers are compared before anything is
timed. cuML's silhouette takes minutes for large tables: there one k is measured and
multiplied by the number of k, and marked. Kernels are timed by device events, whole runs by
the wall clock. Ends with exit code 2 where there is no GPU, 1 if a case failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import gpu_machine as machine

K_VALUES = range(2, 10)

#: Our silhouette against float64 by hand; cuML's, which adds floats atomically, against ours.
TOLERANCE, CUML_TOLERANCE = 1e-5, 1e-3
CHECKED_ROWS = 50

#: Up to here cuML scores every k; for more rows one stands for all.
CUML_ALL_K_ROWS = 100_000

#: Our inertia of each k may exceed the better of both by this factor.
QUALITY = 1.001

N_CLUSTERS, N_TREES, MAX_DEPTH = 5, 100, 8

CASES: dict[str, list[dict[str, int]]] = {
    "silhouette": [
        {"n_rows": n, "n_features": d} for n in (100_000, 1_000_000, 4_000_000) for d in (8, 20, 50)
    ],
    "kmeans": [{"n_rows": n, "n_features": 20} for n in (100_000, 1_000_000, 4_000_000)],
    "shap": [{"n_rows": n, "n_features": 20} for n in (100_000, 1_000_000)],
    "whole_run": [{"n_rows": 1_000_000, "with_numpy": 1}, {"n_rows": 10_000_000, "with_numpy": 0}],
}
QUICK: dict[str, list[dict[str, int]]] = {
    "silhouette": [{"n_rows": 20_000, "n_features": d} for d in (8, 50)],
    "kmeans": [{"n_rows": 20_000, "n_features": 20}],
    "shap": [{"n_rows": 20_000, "n_features": 20}],
    "whole_run": [{"n_rows": 20_000, "with_numpy": 1}],
}


# -- cases, each in a process of its own ---------------------------------------------


def measure_silhouette(n_rows: int, n_features: int) -> dict[str, Any]:
    """Score k = 2..9 in one pass, against cuML's function called for each k."""
    from cuml.metrics.cluster import silhouette_score
    from silhouette import overlapping_blobs

    from gpuseg.backends.select import select_backend
    from gpuseg.clustering.silhouette import score_sweep

    backend = select_backend("gpu").backend
    X, labels = overlapping_blobs(n_rows, n_features, K_VALUES)
    here = backend.from_host(X)
    there = {k: backend.from_host(of_k.astype(np.int32)) for k, of_k in labels.items()}

    def sweep() -> Any:
        return score_sweep(backend, here, there)

    found = sweep()
    rows = np.linspace(0, n_rows - 1, CHECKED_ROWS).astype(np.int64)
    row = {"max_difference": _check_samples(X, labels, rows, found.samples)}
    silhouette_score(here[:10_000], there[2][:10_000])  # compiles at its first call
    some = list(K_VALUES) if n_rows <= CUML_ALL_K_ROWS else [5]
    scores = {k: float(silhouette_score(here, there[k])) for k in some}
    difference = max(abs(scores[k] - found.scores[k]) for k in some)
    row["cuml_difference"] = machine.agree("cuML's scores and ours", difference, CUML_TOLERANCE)
    ours = machine.timed(sweep)
    cuml = machine.timed(
        lambda: [silhouette_score(here, there[k]) for k in some], repeats=1, warm=True
    )
    floor = machine.silhouette_floor_seconds(n_rows, n_features, machine.device())
    return row | compared(ours, cuml, measured=len(some), of=len(K_VALUES)) | {
        "floor_seconds": floor,
        "share_of_floor": floor / ours["device_seconds"],
    }  # fmt: skip


def _check_samples(X: Any, labels: Any, rows: Any, samples: Any) -> float:
    """Compare the silhouettes of some rows with float64 by hand; return the largest gap."""
    gaps = [
        float(np.abs(silhouettes_by_hand(X, of_k, rows) - samples[k][rows]).max())
        for k, of_k in labels.items()
    ]
    return machine.agree("silhouettes", float(np.max(gaps)), TOLERANCE)


def silhouettes_by_hand(X: Any, labels: Any, rows: Any) -> Any:
    """Return the silhouettes of some rows, from the definition, in float64."""
    found = []
    counts = np.bincount(labels)
    for i in rows:
        distances = np.sqrt(((X - X[i]).astype(np.float64) ** 2).sum(axis=1))
        sums = np.bincount(labels, weights=distances, minlength=len(counts))
        own = labels[i]
        if counts[own] == 1:
            found.append(0.0)
            continue
        a = sums[own] / (counts[own] - 1)
        b = np.delete(sums / counts, own).min()
        found.append((b - a) / max(a, b))
    return np.array(found)


def measure_kmeans(n_rows: int, n_features: int) -> dict[str, Any]:
    """Fit k = 2..9 with ten restarts each, against cuML's class used for each k."""
    import cuml
    from kmeans import table

    from gpuseg.backends.select import select_backend
    from gpuseg.clustering.kmeans import sweep_kmeans
    from gpuseg.records import no_progress

    backend = select_backend("gpu").backend
    X = backend.from_host(table(n_rows, n_features))

    def one_by_one() -> dict[int, Any]:
        return {
            k: cuml.KMeans(n_clusters=k, n_init=10, random_state=0, output_type="cupy").fit(X)
            for k in K_VALUES
        }

    def inertia(centroids: Any) -> float:
        found = backend.assign(X, centroids, progress=no_progress)
        return float(found.sq_distances.sum(dtype=np.float64))

    ours = {k: entry.fit.inertia for k, entry in sweep_kmeans(backend, X, K_VALUES).items()}
    theirs = {k: inertia(model.cluster_centers_) for k, model in one_by_one().items()}
    worst = max(ours[k] / min(ours[k], theirs[k]) for k in K_VALUES)
    machine.agree("inertia and the best", worst - 1, QUALITY - 1)
    row = compared(
        machine.timed(lambda: sweep_kmeans(backend, X, K_VALUES)),
        machine.timed(one_by_one),
        measured=len(K_VALUES),
        of=len(K_VALUES),
    )
    return row | {
        "worst_inertia_ratio": worst,
        "cuml_worst_inertia_ratio": max(theirs[k] / min(ours[k], theirs[k]) for k in K_VALUES),
    }


def measure_shap(n_rows: int, n_features: int) -> dict[str, Any]:
    """Reduce SHAP values to means, against all values at once and their means."""
    import cupy
    from cuml.explainer import TreeExplainer
    from shap_means import overlapping_blobs

    from gpuseg.backends.select import select_backend
    from gpuseg.records import no_progress

    backend = select_backend("gpu").backend
    on_host, labels = overlapping_blobs(n_rows, n_features)
    X, there = backend.from_host(on_host), backend.from_host(labels)
    growth = {"n_trees": N_TREES, "max_depth": MAX_DEPTH, "max_rows": 100_000, "random_state": 0}
    forest = backend.forest(X, there, N_CLUSTERS, **growth, progress=no_progress)
    column_of = np.arange(n_features, dtype=np.int32)

    def ours() -> Any:
        return backend.shap_means(
            forest, X, there, column_of, n_features, rows=None, progress=no_progress
        )

    def plain() -> Any:
        values = TreeExplainer(model=forest.trees.model).shap_values(X)
        return cupy.abs(values).mean(axis=0, dtype=np.float64)

    difference = float(np.abs(ours().mean_abs - cupy.asnumpy(plain()).T).max())
    row = {"max_difference": machine.agree("the means", difference, TOLERANCE)}
    return row | compared(machine.timed(ours), machine.timed(plain), measured=1, of=1)


def measure_whole_run(n_rows: int, with_numpy: int) -> dict[str, Any]:
    """Run the command from a Parquet file; where asked, on the NumPy engine too."""
    from whole_run import customers, measure

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        customers(500).write_parquet(folder / "warm.parquet")
        customers(n_rows).write_parquet(folder / "rows.parquet")
        measure(run_command(folder, "warm", "gpu"))  # compiles kernels, fills the file cache
        ours = measure(run_command(folder, "rows", "gpu"))
        row: dict[str, Any] = {"seconds": ours["seconds"], "peak_mib": ours["peak_mib"]}
        row["stages"] = stage_seconds(folder / "rows-gpu")
        if with_numpy:
            other = measure(run_command(folder, "rows", "numpy"))
            row["agreement"] = check_runs(folder / "rows-gpu", folder / "rows-numpy")
            row["other_seconds"], row["other"] = other["seconds"], "gpuseg on NumPy"
            row["other_stages"] = stage_seconds(folder / "rows-numpy")
            row["times_faster"] = other["seconds"] / ours["seconds"]
    return row


def run_command(folder: Path, table: str, backend: str) -> list[str]:
    """Return a run of ``folder/table.parquet`` whose results go to ``folder/table-backend``."""
    out = folder / f"{table}-{backend}"
    out.mkdir()
    return [
        *(sys.executable, "-m", "gpuseg", "run", "--backend", backend, "--quiet"),
        *("--input-table", str(folder / f"{table}.parquet")),
        *("--output-table", str(out / "rows.parquet"), "--runs-dir", str(out / "runs")),
        *("--export-k-scores", str(out / "k.parquet")),
    ]


def check_runs(one: Path, other: Path) -> float:
    """Return the adjusted Rand index of two runs; end if they differ in more than a few rows."""
    import polars as pl
    from sklearn.metrics import adjusted_rand_score

    tables = [pl.read_parquet(folder / "rows.parquet") for folder in (one, other)]
    if tables[0].schema != tables[1].schema:
        sys.exit(f"not timed: the tables differ: {tables[0].schema} and {tables[1].schema}")
    chosen = [
        pl.read_parquet(folder / "k.parquet").filter(pl.col("chosen"))["n_clusters"].item()
        for folder in (one, other)
    ]
    if chosen[0] != chosen[1]:
        sys.exit(f"not timed: different numbers of clusters were chosen: {chosen}")
    agreement = float(adjusted_rand_score(*(table["cluster_id"].to_numpy() for table in tables)))
    if not agreement >= 0.98:
        sys.exit(f"not timed: the segments differ, adjusted Rand index {agreement:.3f}")
    return agreement


def stage_seconds(out: Path) -> dict[str, float]:
    manifest = json.loads(next((out / "runs").glob("*/*/manifest.json")).read_text())
    return {name: cost["seconds"] for name, cost in manifest["stages"].items()}


def compared(
    ours: dict[str, Any], other: dict[str, Any], *, measured: int, of: int
) -> dict[str, Any]:
    """Put our times beside those of another way that was measured for some of all k."""
    seconds = other["seconds"] * of / measured
    return ours | {
        "other": "cuML",
        "other_seconds": seconds,
        "other_measured": f"{measured} of {of}",
        "times_faster": seconds / ours["seconds"],
    }


MEASURES = {
    "silhouette": measure_silhouette,
    "kmeans": measure_kmeans,
    "shap": measure_shap,
    "whole_run": measure_whole_run,
}


# -- running and showing them --------------------------------------------------------


def in_fresh_process(suite: str, case: dict[str, int]) -> dict[str, Any]:
    """Run a case; a failure is a result too, so that the other cases still run."""
    command = [sys.executable, __file__, "--case", json.dumps([suite, case])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    row: dict[str, Any] = {"suite": suite, **case}
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return row | {"error": last[0]}
    return row | json.loads(done.stdout.splitlines()[-1])


HEADER = (
    f"{'':<11} {'rows':>10} {'cols':>4} {'gpuseg':>9} {'device':>9} {'other':>10} "
    f"{'ratio':>7} {'floor':>8} {'of it':>6}  other is"
)


def line(row: dict[str, Any]) -> str:
    """Return a row of the table; * marks a time that was measured for one k and multiplied."""

    def number(key: str, form: str, unit: str = "") -> str:
        return f"{row[key]:{form}}{unit}" if key in row else ""

    start = f"{row['suite']:<11} {row['n_rows']:>10,} {row.get('n_features', ''):>4}"
    if "error" in row:
        return f"{start} failed: {row['error']}"
    part, _, all_of = row.get("other_measured", "").partition(" of ")
    mark = "*" if part != all_of else ""
    return (
        f"{start} {number('seconds', '.3f', 's'):>9} {number('device_seconds', '.3f', 's'):>9} "
        f"{number('other_seconds', '.2f', 's') + mark:>10} "
        f"{number('times_faster', ',.1f', 'x'):>7} "
        f"{number('floor_seconds', '.3f', 's'):>8} {number('share_of_floor', '.0%'):>6}  "
        f"{row.get('other', '')}"
    ).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small tables, a few minutes")
    parser.add_argument("--only", choices=MEASURES)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    missing = machine.obstacle()
    if missing is not None:
        sys.stderr.write(f"no GPU to measure on: {missing}\n")
        sys.exit(2)
    if arguments.case:
        suite, case = json.loads(arguments.case)
        print(json.dumps(MEASURES[suite](**case)))
        return
    facts = machine.facts()
    print(f"{facts['checks']['device']}, driver {facts['driver']}, revision {facts['revision']}")
    print(HEADER)
    rows = []
    for suite, cases in (QUICK if arguments.quick else CASES).items():
        if arguments.only in (None, suite):
            for case in cases:
                rows.append(in_fresh_process(suite, case))
                print(line(rows[-1]), flush=True)
    print("* measured for one k, times eight. device: between events on the GPU. of it: share of")
    print("  the time that the arithmetic of all pairs needs at the full rate of the device.")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        results = facts | {"quick": arguments.quick, "cases": rows}
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(1 if any("error" in row for row in rows) else 0)


if __name__ == "__main__":
    main()
