"""The silhouette of a whole sweep, k = 2..9, against scikit-learn, one call for each k.

    python bench/silhouette.py --quick
    python bench/silhouette.py --out bench/results/silhouette.json

Every case runs in a process of its own. Answers are compared with scikit-learn's before
anything is timed: all scores where scikit-learn is quick, one of them where it is not; it
is then timed on that one call, and the time for the sweep, eight times that, is marked. The
well-written NumPy version is ours: one pass, norms and matrix products in blocks, sums by
``reduceat`` over rows sorted by all their labels. The kmedoids package (Rust) scores a matrix
of all distances, which is computed once for all k; it is shown while that matrix fits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances, silhouette_score

sys.path.insert(0, str(Path(__file__).parent))

from machine_peak import fma_peak, machine_facts

from gpuseg.backends.cpu.threads import thread_count
from gpuseg.clustering.silhouette import silhouette_sweep

LIBRARIES = ("numpy", "numba", "scikit-learn")
K_VALUES = range(2, 10)
TOLERANCE = 1e-5

#: What eight calls of scikit-learn may take; above, one call stands for all.
SCIKIT_LEARN_SECONDS, QUICK_SECONDS = 60.0, 10.0

#: Seconds that scikit-learn was seen to need for a pair of rows and a k, for that choice.
SECONDS_PER_PAIR = 9e-9

#: NumPy in blocks is left out where it would take minutes.
NUMPY_ROWS = 60_000

#: The matrix of all distances is left out where it would take more than about 2 GB.
MATRIX_ROWS = 20_000

#: Square root and sums, in multiply-adds of the same length: ../docs/decisions/silhouette.md.
PAIR_EXTRA = 3

MIN_REPEATS, MIN_SECONDS = 3, 1.0

SIZES, WIDTHS = (5_000, 20_000, 50_000), (8, 20, 50)
LARGE = (200_000, 20)
QUICK = [(5_000, 8), (5_000, 50), (20_000, 20)]


def overlapping_blobs(n_rows: int, n_features: int, k_values: range) -> tuple[np.ndarray, dict]:
    """Make normal clouds; label them by k-means fitted on some of the rows."""
    rng = np.random.default_rng(0)
    centres = 1.2 * rng.normal(size=(12, n_features))
    X = centres[rng.integers(0, 12, n_rows)] + rng.normal(size=(n_rows, n_features))
    X = X.astype(np.float32)
    labels = {}
    for k in k_values:
        labels[k] = KMeans(k, n_init=1, random_state=0).fit(X[:5_000]).predict(X)
    return X, labels


def numpy_sweep(X: np.ndarray, labels: dict[int, np.ndarray]) -> dict[int, float]:
    """Score every k in one pass over blocks of a distance matrix, with NumPy alone."""
    joint = np.unique(np.stack(list(labels.values())), axis=1, return_inverse=True)[1]
    order = np.argsort(joint, kind="stable")
    starts = np.flatnonzero(np.diff(joint[order], prepend=-1))
    X = (X - X.mean(axis=0, dtype=np.float64)).astype(np.float32)[order]
    sq_norms = np.einsum("ij,ij->i", X, X)
    cell_sums = np.empty((len(X), len(starts)))
    for row in range(0, len(X), 256):
        block = slice(row, row + 256)
        distances = X[block] @ X.T
        distances *= -2
        distances += sq_norms
        distances += sq_norms[block, None]
        np.maximum(distances, 0, out=distances)
        np.sqrt(distances, out=distances)
        own = np.arange(len(distances))
        distances[own, row + own] = 0
        cell_sums[block] = np.add.reduceat(distances, starts, axis=1, dtype=np.float64)
    scores = {}
    for k, of_k in labels.items():
        own, sizes = of_k[order], np.bincount(of_k, minlength=k)
        sums = cell_sums @ np.eye(k)[own[starts]]
        rows = np.arange(len(X))
        a = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
        means = sums / sizes
        means[rows, own] = np.inf
        b = means.min(axis=1)
        scores[k] = float(np.where(sizes[own] > 1, (b - a) / np.maximum(a, b), 0).mean())
    return scores


def kmedoids_sweep(X: np.ndarray, labels: dict[int, np.ndarray]) -> dict[int, float]:
    """Score every k with the kmedoids package, on one matrix of distances."""
    import kmedoids

    matrix = pairwise_distances(X)
    return {
        k: float(kmedoids.silhouette(matrix, of_k, n_cpu=thread_count())[0])
        for k, of_k in labels.items()
    }


def measure_case(n_rows: int, n_features: int, patience: float) -> dict[str, Any]:
    """Compare, then time, one size; to be run in a fresh process.

    `patience` is what scikit-learn may take for all k; with 0 it is not run at all.
    """
    X, labels = overlapping_blobs(n_rows, n_features, K_VALUES)
    silhouette_sweep(X[:100], {2: np.arange(100) % 2})  # compiles, or loads
    extra_mib, sweep = _extra_mib(lambda: silhouette_sweep(X, labels))
    row: dict[str, Any] = {"n_rows": n_rows, "n_features": n_features, "extra_mib": extra_mib}
    if patience > 0:
        row |= _scikit_learn(X, labels, sweep.scores, patience)
    if n_rows <= NUMPY_ROWS:
        begin = time.perf_counter()
        _compare(numpy_sweep(X, labels), sweep.scores)
        row["numpy_seconds"] = time.perf_counter() - begin
    if n_rows <= MATRIX_ROWS and find_spec("kmedoids"):
        begin = time.perf_counter()
        _compare(kmedoids_sweep(X, labels), sweep.scores)
        row["kmedoids_seconds"] = time.perf_counter() - begin
    seconds = _repeat(lambda: silhouette_sweep(X, labels))
    peak = fma_peak()
    row["seconds"] = statistics.median(seconds)
    row["spread"] = [min(seconds), max(seconds)]
    row["pairs_per_second"] = n_rows * (n_rows - 1) / 2 / row["seconds"]
    row["fma_peak"] = peak
    row["fma_fraction"] = row["pairs_per_second"] * n_features / peak
    row["fma_fraction_with_root"] = row["pairs_per_second"] * (n_features + PAIR_EXTRA) / peak
    for other in ("scikit_learn", "numpy", "kmedoids"):
        if f"{other}_seconds" in row:
            row[f"times_faster_than_{other}"] = row[f"{other}_seconds"] / row["seconds"]
    return row


def _scikit_learn(
    X: np.ndarray, labels: dict, scores: dict[int, float], patience: float
) -> dict[str, Any]:
    expected = len(K_VALUES) * len(X) ** 2 * SECONDS_PER_PAIR
    timed = list(K_VALUES) if expected <= patience else [5]
    begin = time.perf_counter()
    found = {k: float(silhouette_score(X, labels[k])) for k in timed}
    seconds = time.perf_counter() - begin
    return {
        "max_difference": _compare(found, scores),
        "scikit_learn_seconds": seconds * len(K_VALUES) / len(timed),
        "scikit_learn_calls": len(timed),
    }


def _compare(found: dict[int, float], scores: dict[int, float]) -> float:
    """Return the largest difference of a score; stop if it is too large."""
    largest = max(abs(found[k] - scores[k]) for k in found)
    if not largest <= TOLERANCE:
        sys.exit(f"scores differ by {largest:.1e}")
    return largest


def _repeat(run: Callable[[], Any]) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < MIN_REPEATS or sum(seconds) < MIN_SECONDS:
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return seconds


def _extra_mib(run: Callable[[], Any]) -> tuple[float | None, Any]:
    """Return how far memory rose above what it was before, where Linux tells."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return None, run()

    def kib(name: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1])

    reset.write_text("5")  # the peak becomes what is used now
    before = kib("VmRSS")
    result = run()
    return (kib("VmHWM") - before) / 1024, result


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Exponents of time between the two largest sizes and between the outer widths."""
    seconds = {(row["n_rows"], row["n_features"]): row["seconds"] for row in rows}
    small, large, narrow, wide = (20_000, 20), (50_000, 20), (50_000, 8), (50_000, 50)

    def exponent(low: tuple[int, int], high: tuple[int, int], ratio: float) -> float:
        return float(np.log(seconds[high] / seconds[low]) / np.log(ratio))

    exponents = {}
    if small in seconds and large in seconds:
        exponents["with_rows"] = exponent(small, large, 50 / 20)
    if narrow in seconds and wide in seconds:
        exponents["with_features"] = exponent(narrow, wide, 50 / 8)
    return exponents


def growth_with_k(n_rows: int) -> dict[str, Any]:
    """Time sweeps of 1, 2, 4, 8 and 16 numbers of clusters over the same 20 columns."""
    X, labels = overlapping_blobs(n_rows, 20, range(2, 18))
    seconds = {}
    for count in (1, 2, 4, 8, 16):
        some = {k: labels[k] for k in range(2, 2 + count)}
        silhouette_sweep(X, some)
        seconds[count] = statistics.median(_repeat(lambda some=some: silhouette_sweep(X, some)))
    exponent = float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])
    return {"n_rows": n_rows, "seconds": seconds, "exponent": exponent}


def in_fresh_process(*case: object) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{case} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def print_row(row: dict[str, Any]) -> None:
    def other(name: str) -> str:
        if f"{name}_seconds" not in row:
            return f"{'':>10} {'':>8}"
        mark = "*" if row.get(f"{name}_calls", 8) < len(K_VALUES) else " "
        return f"{row[f'{name}_seconds']:>8.1f}s{mark} {row[f'times_faster_than_{name}']:>7,.0f}x"

    extra = "" if row["extra_mib"] is None else f"{row['extra_mib']:.0f}"
    print(
        f"{row['n_rows']:>8,} {row['n_features']:>4} {row['seconds']:>8.3f}s {extra:>6} "
        f"{row['pairs_per_second'] / 1e9:>7.2f} {row['fma_fraction']:>6.0%} "
        f"{row['fma_fraction_with_root']:>6.0%} {other('scikit_learn')} {other('numpy')} "
        f"{other('kmedoids')} "
        f"{row.get('max_difference', float('nan')):>8.0e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case = json.loads(arguments.case)
        print(json.dumps(measure_case(*case) if len(case) == 3 else growth_with_k(*case)))
        return
    every = [(n, d) for n in SIZES for d in WIDTHS]
    print(
        f"{'rows':>8} {'cols':>4} {'gpuseg':>9} {'MiB':>6} {'Gpair/s':>7} {'FMA':>6} {'+root':>6} "
        f"{'sklearn':>10} {'ratio':>8} {'NumPy':>10} {'ratio':>8} {'kmedoids':>10} {'ratio':>8} "
        f"{'differ':>8}"
    )
    rows = []
    patience = QUICK_SECONDS if arguments.quick else SCIKIT_LEARN_SECONDS
    for case in QUICK if arguments.quick else every:
        rows.append(in_fresh_process(*case, patience))
        print_row(rows[-1])
    if not arguments.quick:
        rows.append(in_fresh_process(*LARGE, 0))
        print_row(rows[-1])
    with_k = in_fresh_process(5_000 if arguments.quick else 20_000)
    exponents = growth(rows) | {"with_number_of_k": with_k["exponent"]}
    print("* one call measured, times eight. FMA: share of the machine's multiply-add peak that")
    print("  the features alone need; +root: with three more for the square root and the sums.")
    print("growth exponents:", {name: round(value, 2) for name, value in exponents.items()})
    print("seconds by number of k:", {k: round(s, 3) for k, s in with_k["seconds"].items()})
    if arguments.out:
        about = machine_facts(LIBRARIES)
        results = {"cases": rows, "growth": exponents, "with_k": with_k}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(about | results, indent=1) + "\n")


if __name__ == "__main__":
    main()
