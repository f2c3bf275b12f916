"""SHAP means of a whole table against shap's TreeExplainer, on the same forest.

    python bench/shap_means.py --quick
    python bench/shap_means.py --out bench/results/shap_means.json

Every case runs in a process of its own: answers are compared before anything is timed. shap
is timed on as many rows as fit into a few seconds, and its time for all rows is that time
per row multiplied up, because at full size it takes minutes to hours. shap uses one core
(more threads do not make it faster); gpuseg is shown with one thread and with all. The
woodelf package, the fastest other way that we found, explains one class of a forest at a
time: it is timed on all rows for one class, and its time multiplied by the classes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

sys.path.insert(0, str(Path(__file__).parent))

from machine_peak import machine_facts

from gpuseg.backends.cpu.forest import fit_forest
from gpuseg.backends.cpu.threads import thread_count
from gpuseg.backends.cpu.treeshap import shap_means
from gpuseg.explained import Forest, ShapMeans
from gpuseg.records import no_progress

LIBRARIES = ("numpy", "numba", "scikit-learn", "shap")
N_CLUSTERS = 5
N_TREES = 100
TOLERANCE = 1e-6

#: Rows on which the answers are compared, and which a case fits its forest on.
CHECKED_ROWS = 20
FITTED_ROWS = 20_000

#: Each of ours is repeated until both are reached; shap explains rows for so long.
MIN_REPEATS, MIN_SECONDS = 7, 1.0
SHAP_SECONDS = 4.0

#: The one depth at which woodelf is timed: it prepares for many seconds in each case.
WOODELF_DEPTH = 8

SIZES, WIDTHS, DEPTHS = (5_000, 20_000, 100_000), (8, 20, 50), (6, 8, 10)
QUICK = [(2_000, 20, 6), (20_000, 20, 8)]


def overlapping_blobs(n_rows: int, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Make normal clouds around random centres, labelled by the nearest centre."""
    rng = np.random.default_rng(0)
    centres = 0.9 * rng.normal(size=(N_CLUSTERS, n_features))
    X = centres[rng.integers(0, N_CLUSTERS, n_rows)] + rng.normal(size=(n_rows, n_features))
    sq_distances = np.stack([((X - centre) ** 2).sum(axis=1) for centre in centres], axis=1)
    return X.astype(np.float32), sq_distances.argmin(axis=1).astype(np.int32)


def measure_case(n_rows: int, n_features: int, max_depth: int) -> dict[str, Any]:
    """Compare, then time, one size; to be run in a fresh process."""
    X, labels = overlapping_blobs(n_rows, n_features)
    fitted = slice(0, FITTED_ROWS)
    forest = fit_forest(
        X[fitted],
        labels[fitted],
        N_CLUSTERS,
        n_trees=N_TREES,
        max_depth=max_depth,
        max_rows=n_rows,
        random_state=0,
        progress=no_progress,
    )
    model = RandomForestClassifier(N_TREES, max_depth=max_depth, random_state=0, n_jobs=-1)
    shap_values = _explainer(model.fit(X[fitted], labels[fitted]))
    error = _check(forest, X[:CHECKED_ROWS], labels[:CHECKED_ROWS], shap_values)
    before = _peak_mib()
    seconds = {}
    for n_threads in dict.fromkeys([thread_count(), 1]):
        os.environ["GPUSEG_THREADS"] = str(n_threads)
        seconds[n_threads] = _repeat(lambda: _ours(forest, X, labels))
        peak = _peak_mib()
    shap_per_row = _time_shap(shap_values, X)
    woodelf_seconds = None
    if max_depth == WOODELF_DEPTH and find_spec("woodelf"):
        woodelf_seconds = _time_woodelf(model, X, shap_values)
    times = {str(n): statistics.median(values) for n, values in seconds.items()}
    fastest = min(times.values())
    return {
        "n_rows": n_rows,
        "n_features": n_features,
        "max_depth": max_depth,
        "n_leaves": int((forest.trees.left < 0).sum()),
        "max_difference": error,
        "gpuseg_seconds": times,
        "gpuseg_spread": {str(n): [min(v), max(v)] for n, v in seconds.items()},
        "gpuseg_extra_mib": peak - before,
        "shap_seconds_per_row": shap_per_row["seconds_per_row"],
        "shap_timed_rows": shap_per_row["rows"],
        "woodelf_seconds": woodelf_seconds,
        "times_faster_than_woodelf": woodelf_seconds and woodelf_seconds / fastest,
        "times_faster": shap_per_row["seconds_per_row"] * n_rows / fastest,
        "times_faster_one_thread": shap_per_row["seconds_per_row"] * n_rows / times["1"],
        "ns_per_row_and_leaf": fastest / n_rows / int((forest.trees.left < 0).sum()) * 1e9,
    }


def _explainer(model: RandomForestClassifier) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap
    explainer = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    return lambda X: explainer.shap_values(X, check_additivity=False)


def _ours(forest: Forest, X: np.ndarray, labels: np.ndarray) -> ShapMeans:
    n_features = X.shape[1]
    column_of = np.arange(n_features, dtype=np.int32)
    return shap_means(forest, X, labels, column_of, n_features, progress=no_progress)


def _check(forest: Forest, X: np.ndarray, labels: np.ndarray, shap_values: Any) -> float:
    """Return the largest difference of any mean; stop if it is too large."""
    values = shap_values(X)
    found = _ours(forest, X, labels)
    differences = [np.abs(found.mean_abs - np.abs(values).mean(axis=0).T).max()]
    for cluster in np.unique(labels):
        signed = values[labels == cluster][:, :, cluster].mean(axis=0)
        differences.append(np.abs(found.mean_signed[cluster] - signed).max())
    largest = float(max(differences))
    if not largest <= TOLERANCE:
        sys.exit(f"the means differ from shap's by {largest:.1e}")
    return largest


def _repeat(run: Any) -> list[float]:
    run()
    seconds: list[float] = []
    while len(seconds) < MIN_REPEATS or sum(seconds) < MIN_SECONDS:
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
        if sum(seconds) > 10 * MIN_SECONDS and len(seconds) >= 3:
            break
    return seconds


def _time_shap(shap_values: Any, X: np.ndarray) -> dict[str, Any]:
    """Time shap on growing slices until one takes long enough to trust."""
    n_rows = 10
    while True:
        begin = time.perf_counter()
        shap_values(X[:n_rows])
        seconds = time.perf_counter() - begin
        if seconds > SHAP_SECONDS / 2 or n_rows == len(X):
            return {"seconds_per_row": seconds / n_rows, "rows": n_rows}
        n_rows = min(len(X), max(2 * n_rows, int(n_rows * SHAP_SECONDS / seconds)))


def _time_woodelf(model: RandomForestClassifier, X: np.ndarray, shap_values: Any) -> float:
    """Return its seconds for all rows and classes, once its values are shap's."""
    import pandas as pd
    from woodelf.core.trees.parse_models import load_decision_tree_ensemble_model
    from woodelf.explainer import WoodelfExplainer

    table = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])])
    trees = load_decision_tree_ensemble_model(model, list(table.columns), class_index=0)
    explainer = WoodelfExplainer(trees)
    few = np.asarray(explainer.shap_values(table[:CHECKED_ROWS], verbose=False))
    difference = np.abs(few - shap_values(X[:CHECKED_ROWS])[:, :, 0]).max()
    if not difference <= 1e-5:
        sys.exit(f"woodelf's values differ from shap's by {difference:.1e}")
    begin = time.perf_counter()
    explainer.shap_values(table, verbose=False)
    return (time.perf_counter() - begin) * N_CLUSTERS


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_fresh_process(case: tuple[int, int, int]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", ",".join(str(number) for number in case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def print_row(row: dict[str, Any]) -> None:
    times = row["gpuseg_seconds"]
    fastest, one = min(times.values()), times["1"]
    shap_all = row["shap_seconds_per_row"] * row["n_rows"]
    print(
        f"{row['n_rows']:>8,} {row['n_features']:>4} {row['max_depth']:>5} {row['n_leaves']:>7,} "
        f"{fastest:>8.3f}s {one:>8.3f}s {row['gpuseg_extra_mib']:>6.0f} "
        f"{row['shap_seconds_per_row'] * 1e3:>8.2f}ms {shap_all:>9,.0f}s "
        f"{row['times_faster']:>7,.0f}x {row['times_faster_one_thread']:>7,.0f}x {_woodelf(row)} "
        f"{row['max_difference']:>8.0e}",
        flush=True,
    )


def _woodelf(row: dict[str, Any]) -> str:
    seconds = row["woodelf_seconds"]
    if seconds is None:
        return f"{'':>17}"
    return f"{seconds:>8.1f}s {row['times_faster_than_woodelf']:>7,.0f}x"


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Exponents of time at depth 8: with rows at 20 columns, with columns at 20,000 rows."""
    seconds = {
        (row["n_rows"], row["n_features"]): min(row["gpuseg_seconds"].values())
        for row in rows
        if row["max_depth"] == 8
    }
    steps = {"with_rows": ((20_000, 20), (100_000, 20), 5.0)}
    steps["with_columns"] = ((20_000, 8), (20_000, 50), 50 / 8)
    return {
        name: float(np.log(seconds[high] / seconds[low]) / np.log(ratio))
        for name, (low, high, ratio) in steps.items()
        if low in seconds and high in seconds
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two cases, about half a minute")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        n_rows, n_features, max_depth = (int(number) for number in arguments.case.split(","))
        print(json.dumps(measure_case(n_rows, n_features, max_depth)))
        return
    every = [(n, d, depth) for depth in DEPTHS for d in WIDTHS for n in SIZES]
    print(
        f"{'rows':>8} {'cols':>4} {'depth':>5} {'leaves':>7} {'gpuseg':>9} {'1 thread':>9} "
        f"{'MiB':>6} {'shap/row':>10} {'shap, all*':>10} {'ratio':>8} {'1 thr.':>8} "
        f"{'woodelf*':>9} {'ratio':>8} {'differ':>8}"
    )
    rows = []
    for case in QUICK if arguments.quick else every:
        rows.append(in_fresh_process(case))
        print_row(rows[-1])
    print(
        "* shap: time per row, measured on some rows, times all rows; woodelf: one class times all;"
    )
    print(f"  {N_TREES} trees, {N_CLUSTERS} classes")
    exponents = growth(rows)
    print("growth exponents:", {name: round(value, 2) for name, value in exponents.items()})
    if arguments.out:
        about = machine_facts(LIBRARIES)
        about |= {"n_clusters": N_CLUSTERS, "n_trees": N_TREES, "growth": exponents}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(about | {"cases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
