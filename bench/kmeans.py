"""The k-means sweep k = 2..9 against scikit-learn and faiss.

Every measurement runs in a process of its own, so that its peak memory is its own. The
inertia of every k is compared with the best of all competitors before any time is shown.
CPU seconds stand beside wall seconds: on a machine with other work, trust the former.

    python bench/kmeans.py [--quick] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

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


def scikit_learn(X: np.ndarray, n_init: int | str) -> dict[int, float]:
    from sklearn.cluster import KMeans

    return {k: KMeans(k, n_init=n_init, random_state=0).fit(X).inertia_ for k in KS}


def faiss_sweep(X: np.ndarray) -> dict[int, float]:
    import faiss

    inertia = {}
    for k in KS:
        model = faiss.Kmeans(
            X.shape[1], k, niter=25, nredo=10, seed=0, max_points_per_centroid=len(X)
        )
        model.train(X)
        inertia[k] = float(model.index.search(X, 1)[0].sum(dtype=np.float64))
    return inertia


TOOLS = {
    "gpuseg": gpuseg_sweep,
    "scikit-learn n_init=10": lambda X: scikit_learn(X, 10),
    "scikit-learn n_init=auto": lambda X: scikit_learn(X, "auto"),
    "faiss nredo=10": faiss_sweep,
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
    return {
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


def available() -> list[str]:
    try:
        version("faiss-cpu")
    except PackageNotFoundError:
        return [tool for tool in TOOLS if not tool.startswith("faiss")]
    return list(TOOLS)


def compare(n_samples: int, n_features: int) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "table.npy"
        np.save(source, table(n_samples, n_features))
        rows = [in_child(tool, source, n_samples) for tool in available()]
    ours, reference = rows[0], rows[1]
    best = {str(k): min(row["inertia"][str(k)] for row in rows) for k in KS}
    for row in rows:
        row["worst_inertia_ratio"] = max(row["inertia"][k] / best[k] for k in best)
        row["gpuseg_times_faster"] = row["seconds"] / ours["seconds"]
        row["gpuseg_times_less_cpu"] = row["cpu_seconds"] / ours["cpu_seconds"]
    ours["ratio_to_scikit_learn"] = {k: ours["inertia"][k] / reference["inertia"][k] for k in best}
    ours["good_enough"] = max(ours["ratio_to_scikit_learn"].values()) <= QUALITY
    return rows


def show(rows: list[dict]) -> None:
    if not rows[0]["good_enough"]:
        print(f"  inertia is more than {QUALITY} times scikit-learn's; times compare unequal work")
    for row in rows:
        print(
            f"{row['n_samples']:>9,} x {row['n_features']:<3} {row['tool']:<25}"
            f"{row['seconds']:>9.2f} s {row['cpu_seconds']:>9.2f} cpu s"
            f"{row['gpuseg_times_faster']:>8.1f} x {row['gpuseg_times_less_cpu']:>8.1f} x cpu"
            f"{row['extra_peak_mib']:>8.0f} MiB  inertia {row['worst_inertia_ratio']:.5f}",
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
    if arguments.out:
        packages = ("gpuseg", "numpy", "numba", "scikit-learn")
        report = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "versions": {name: version(name) for name in packages},
            "k_values": list(KS),
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
