"""The k-means sweep k = 2..9 against scikit-learn and faiss.

Every measurement runs in a process of its own, so that its peak memory is its own. The
inertia of every k is compared with the best of all competitors before any time is shown.
CPU seconds stand beside wall seconds: on a machine with other work, trust the former. The
distances that gpuseg computes are counted in a run of their own, so that its rate can be
held against the machine's peaks; those of the others cannot be seen.

    python bench/kmeans.py [--quick] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from machine_peak import fma_peak, machine_facts, memory_peak

KS = range(2, 10)
N_BLOBS = 6
QUICK_SIZES = [(20_000, 8), (20_000, 20)]
SIZES = [(n, d) for n in (20_000, 200_000, 1_000_000) for d in (8, 20, 50)]

#: Inertia of gpuseg may exceed scikit-learn's n_init=10 by this factor at no k.
QUALITY = 1.0002


def table(n_samples: int, n_features: int) -> np.ndarray:
    """Overlapping blobs, standardised, float32."""
    rng = np.random.default_rng(n_features)
    centres = rng.uniform(-10, 10, size=(N_BLOBS, n_features))
    X = centres[rng.integers(N_BLOBS, size=n_samples)] + rng.normal(
        scale=5, size=(n_samples, n_features)
    )
    return np.ascontiguousarray((X - X.mean(axis=0)) / X.std(axis=0), np.float32)


def gpuseg_sweep(X: np.ndarray) -> dict[int, float]:
    from gpuseg.backends.numpy import NumPyBackend
    from gpuseg.clustering.kmeans import sweep_kmeans

    return {k: entry.fit.inertia for k, entry in sweep_kmeans(NumPyBackend(), X, KS).items()}


def count_distances(X: np.ndarray) -> dict[str, float]:
    """Count distances and bytes of rows that a sweep looks at; each step reads all rows."""
    from gpuseg.backends.numpy import NumPyBackend
    from gpuseg.clustering.kmeans import sweep_kmeans

    found = {"distances": 0.0, "bytes": 0.0}

    class Counting(NumPyBackend):
        def lloyd(self, X: Any, starts: Any, **options: Any) -> Any:
            fits = super().lloyd(X, starts, **options)
            for fit in fits:
                found["distances"] += float(len(X)) * len(fit.centroids) * (fit.n_iter + 1)
            found["bytes"] += X.nbytes * max((fit.n_iter + 1 for fit in fits), default=0)
            return fits

    sweep_kmeans(Counting(), X, KS)
    return found


def scikit_learn(X: np.ndarray, n_init: int | str) -> dict[int, float]:
    from sklearn.cluster import KMeans

    return {k: KMeans(k, n_init=n_init, random_state=0).fit(X).inertia_ for k in KS}


def faiss_sweep(X: np.ndarray, nredo: int) -> dict[int, float]:
    import faiss

    inertia = {}
    for k in KS:
        model = faiss.Kmeans(
            X.shape[1], k, niter=25, nredo=nredo, seed=0, max_points_per_centroid=len(X)
        )
        model.train(X)
        inertia[k] = float(model.index.search(X, 1)[0].sum(dtype=np.float64))
    return inertia


TOOLS = {
    "gpuseg": gpuseg_sweep,
    "scikit-learn n_init=10": lambda X: scikit_learn(X, 10),
    "scikit-learn n_init=auto": lambda X: scikit_learn(X, "auto"),
    "faiss nredo=10": lambda X: faiss_sweep(X, 10),
    "faiss nredo=1": lambda X: faiss_sweep(X, 1),
}


def measure(tool: str, source: str, repeats: int) -> dict:
    """Run in a child: warm up, then time; memory above what the table itself takes."""
    X = np.load(source)
    TOOLS[tool](X[:3000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        inertia = TOOLS[tool](X)
        seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rates = {}
    if tool == "gpuseg":
        seen, median = count_distances(X), statistics.median(seconds)
        rates = {
            "distances_per_second": seen["distances"] / median,
            "fma_fraction": seen["distances"] * X.shape[1] / median / fma_peak(),
            "memory_fraction": seen["bytes"] / median / memory_peak(),
        }
    return rates | {
        "tool": tool,
        "n_samples": X.shape[0],
        "n_features": X.shape[1],
        "seconds": statistics.median(seconds),
        "fastest_seconds": min(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
        "repeats": repeats,
        "extra_peak_mib": (after - before) / 1024,
        "inertia": inertia,
        "load_average": os.getloadavg()[0],
    }


def in_child(tool: str, source: Path, n_samples: int) -> dict:
    repeats = 3 if tool == "gpuseg" or n_samples <= 20_000 else 1
    command = [sys.executable, __file__, "--child", tool, str(source), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def available(n_samples: int) -> list[str]:
    """Return the tools that are installed; with very many rows faiss restarts once only."""
    try:
        version("faiss-cpu")
    except PackageNotFoundError:
        return [tool for tool in TOOLS if not tool.startswith("faiss")]
    left_out = "faiss nredo=10" if n_samples > 200_000 else "faiss nredo=1"
    return [tool for tool in TOOLS if tool != left_out]


def compare(n_samples: int, n_features: int) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "table.npy"
        np.save(source, table(n_samples, n_features))
        rows = [in_child(tool, source, n_samples) for tool in available(n_samples)]
    ours, reference = rows[0], rows[1]
    best = {str(k): min(row["inertia"][str(k)] for row in rows) for k in KS}
    for row in rows:
        row["worst_inertia_ratio"] = max(row["inertia"][k] / best[k] for k in best)
        row["gpuseg_times_faster"] = row["seconds"] / ours["seconds"]
        row["gpuseg_times_less_cpu"] = row["cpu_seconds"] / ours["cpu_seconds"]
    ours["ratio_to_scikit_learn"] = {k: ours["inertia"][k] / reference["inertia"][k] for k in best}
    ours["good_enough"] = max(ours["ratio_to_scikit_learn"].values()) <= QUALITY
    return rows


def growth(rows: list[dict]) -> dict[str, float]:
    """Exponents of gpuseg's time with rows, at 20 features, and with features."""
    seconds = {
        (row["n_samples"], row["n_features"]): row["seconds"]
        for row in rows
        if row["tool"] == "gpuseg"
    }
    steps = {"with_rows": ((200_000, 20), (1_000_000, 20), 5.0)}
    steps["with_features"] = ((200_000, 8), (200_000, 50), 50 / 8)
    return {
        name: float(np.log(seconds[high] / seconds[low]) / np.log(ratio))
        for name, (low, high, ratio) in steps.items()
        if low in seconds and high in seconds
    }


def seconds_by_number_of_k(n_samples: int = 20_000) -> dict[int, float]:
    """Time sweeps of k = 2 to 3, 5, 9 and 17."""
    from gpuseg.backends.numpy import NumPyBackend
    from gpuseg.clustering.kmeans import sweep_kmeans

    X, seconds = table(n_samples, 20), {}
    for largest in (3, 5, 9, 17):
        for _warm in range(2):
            begin = time.perf_counter()
            sweep_kmeans(NumPyBackend(), X, range(2, largest + 1))
            seconds[largest - 1] = time.perf_counter() - begin
    return seconds


def show(rows: list[dict]) -> None:
    if not rows[0]["good_enough"]:
        print(f"  inertia is more than {QUALITY} times scikit-learn's; times compare unequal work")
    for row in rows:
        print(
            f"{row['n_samples']:>9,} x {row['n_features']:<3} {row['tool']:<25}"
            f"{row['seconds']:>9.2f} s {row['cpu_seconds']:>9.2f} cpu s"
            f"{row['gpuseg_times_faster']:>8.1f} x {row['gpuseg_times_less_cpu']:>8.1f} x cpu"
            f"{row['extra_peak_mib']:>8.0f} MiB  inertia {row['worst_inertia_ratio']:.5f}"
            + (f"  {row['fma_fraction']:.0%} of FMA peak" if "fma_fraction" in row else ""),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sizes", help="e.g. 20000x20,200000x8")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        tool, source, repeats = arguments.child
        print(json.dumps(measure(tool, source, int(repeats))))
        return
    sizes = QUICK_SIZES if arguments.quick else SIZES
    if arguments.sizes:
        sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes.split(",")]
    rows = []
    for size in sizes:
        compared = compare(*size)
        show(compared)
        rows += compared
    exponents, by_k = growth(rows), seconds_by_number_of_k()
    print("growth exponents:", {name: round(value, 2) for name, value in exponents.items()})
    print("seconds by number of k:", {k: round(value, 3) for k, value in by_k.items()})
    if arguments.out:
        report = machine_facts(("gpuseg", "numpy", "numba", "scikit-learn"))
        report |= {"k_values": list(KS), "rows": rows, "growth": exponents, "by_number_of_k": by_k}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
