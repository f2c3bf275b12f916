"""Do the intervals of sampled silhouettes hold what they say? Against exact values.

    python bench/intervals.py --quick
    python bench/intervals.py --data FOLDER --out bench/results/intervals.json

Every table is segmented into k = 2..9 once, and all its silhouettes are computed exactly.
Then it is put into another random order 200 times, and sampled as a run samples a table in
that order: rounds, top-ups, screen and stopping rule are gpuseg's own, only the distances
are looked up instead of added up again. Counted is how often the 95 % interval of each k,
and of each difference between two k, covers the exact value.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import make_blobs

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.estimation import Estimates
from gpuseg.clustering.kmeans import sweep_kmeans
from gpuseg.clustering.rounds import Frame, Sampled, rows_of_small_clusters, score_in_rounds
from gpuseg.clustering.screen import squared_screen
from gpuseg.clustering.silhouette import Segmentations, silhouettes
from gpuseg.features import FeatureSettings, prepare
from gpuseg.records import no_progress
from gpuseg.settings import Settings
from gpuseg.tables.input import read_input

BACKEND = NumPyBackend()
K_VALUES = range(2, 10)
EXAMPLES = Path(__file__).parents[1] / "examples"

#: Rows scored in one round, and the ends of rounds that stop when the winner is clear.
SIZES = (300, 1_000, 2_000)
ROUNDS = (500, 1_000, 2_000)

#: Standard errors that the 95 % interval of a difference reaches; those of means have their own.
DIFFERENCE_REACH = 2.17


class Population(NamedTuple):
    """A table with the exact answers: arrays of shape (m, n)."""

    values: np.ndarray
    screens: np.ndarray
    labels: np.ndarray
    sizes: tuple[np.ndarray, ...]

    @property
    def truth(self) -> np.ndarray:
        return self.values.mean(axis=1)


def synthetic(rng: np.random.Generator) -> dict[str, Callable[[], np.ndarray]]:
    """Return makers of tables, each hard in its own way."""

    def blobs(spread: float) -> np.ndarray:
        return make_blobs(6_000, 8, centers=5, cluster_std=spread, random_state=0)[0]

    def unequal() -> np.ndarray:
        sizes = ((5_900, 0, 1), (60, 12, 1), (35, -15, 1), (5, 30, 3))
        return np.concatenate([rng.normal(size=(n, 6)) * s + at for n, at, s in sizes])

    def few_values() -> np.ndarray:
        rare = rng.uniform(size=(8_000, 3)) > 0.985
        return np.where(rare, rng.normal(size=(8_000, 3)) * 5, 0.0)

    return {
        "blobs": lambda: blobs(1.0),
        "blobs, overlapping": lambda: blobs(6.0),
        "clusters of 5,900, 60, 35 and 5 rows": unequal,
        "heavy tails (t, 2 degrees)": lambda: rng.standard_t(2, size=(6_000, 5)),
        "lognormal": lambda: np.exp(1.5 * rng.normal(size=(8_000, 3))),
        "no structure (uniform)": lambda: rng.uniform(size=(5_000, 2)),
        "duplicates (small counts)": lambda: rng.poisson(0.5, size=(6_000, 4)),
        "nearly all rows equal": few_values,
    }


def real(folder: Path | None) -> dict[str, Callable[[], np.ndarray]]:
    """Return readers of real tables, prepared as a run prepares them."""

    def read(path: Path) -> np.ndarray:
        settings = Settings(input_table=str(path))
        table = read_input(settings, no_progress)
        return prepare(BACKEND, table, FeatureSettings.of(settings)).X[:15_000]

    paths = [EXAMPLES / "gluon_train.parquet"]
    paths += sorted(folder.glob("*.csv")) if folder else []
    few_or_twice = ("gluon_train.csv", "Mall_Customers.csv")
    return {p.name: functools.partial(read, p) for p in paths if p.name not in few_or_twice}


def population(X: np.ndarray) -> Population:
    """Segment a table for every k and compute what will be estimated."""
    X = np.ascontiguousarray(np.random.default_rng(1).permutation(X), dtype=np.float32)
    fits = sweep_kmeans(BACKEND, X, K_VALUES)
    of = Segmentations.of(BACKEND, {k: fits[k].fit.labels for k in fits})
    rows = np.arange(len(X))
    screens = [squared_screen(BACKEND, X, fits[k].fit, rows).values for k in fits]
    return Population(silhouettes(BACKEND, X, of, None), np.stack(screens), of.labels, of.sizes)


def sampled(of: Population, order: np.ndarray, ends: tuple[int, ...]) -> Sampled:
    """Sample the table as if its rows lay in this order."""
    labels = of.labels[:, order]
    small = rows_of_small_clusters(BACKEND, Segmentations(labels, of.sizes), ends[0])
    rows = np.unique(np.concatenate([np.arange(ends[-1]), *small]))
    frame = Frame(
        rows=rows,
        clusters=labels[:, rows],
        added=np.stack([np.isin(rows, of_k) for of_k in small]),
        sizes=of.sizes,
        screens=of.screens[:, order[rows]],
        screen_means=of.screens.mean(axis=1),
    )
    return score_in_rounds(
        lambda new, _progress: of.values[:, order[new]], frame, ends, eligible=range(len(of.values))
    )


def study(of: Population, ends: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Repeat, and compare what was stated with what was true."""
    rng = np.random.default_rng(2)
    found = [sampled(of, rng.permutation(of.values.shape[1]), ends) for _ in range(repeats)]
    errors = np.stack([one.estimates.means for one in found]) - of.truth
    stated = np.stack([one.estimates.stderr for one in found])
    intervals = np.stack([one.estimates.intervals for one in found])
    # an exact mean and a mean of exact values may differ in their last bits
    inside = (intervals[:, :, 0] <= of.truth + 1e-9) & (of.truth - 1e-9 <= intervals[:, :, 1])
    differences = np.array([_differences_inside(one.estimates, of.truth) for one in found])
    best = int(of.truth.argmax())
    overlooked = [_overlooks(one, best) for one in found]
    spread = errors.std(axis=0, ddof=1)
    return {
        "ends": list(ends),
        "mean_scored_rows": float(np.mean([len(one.rows) for one in found])),
        "coverage_by_k": inside.mean(axis=0).tolist(),
        "coverage": float(inside.mean()),
        "coverage_worst_k": float(inside.mean(axis=0).min()),
        "coverage_of_differences": float(differences.mean()),
        "coverage_of_worst_difference": float(differences.mean(axis=0).min()),
        "stated_stderr": float(stated.mean()),
        "stated_over_true_stderr": float((stated.mean(axis=0) / spread).mean()),
        "largest_bias_over_true_stderr": float((np.abs(errors.mean(axis=0)) / spread).max()),
        "best_k_found_or_named": 1 - float(np.mean(overlooked)),
        "stopped_before_the_end": float(np.mean([_is_early(one, ends) for one in found])),
    }


def _differences_inside(found: Estimates, truth: np.ndarray) -> list[bool]:
    return [
        abs(found.means[i] - found.means[j] - truth[i] + truth[j])
        <= DIFFERENCE_REACH * found.difference_stderr(i, j) + 1e-9
        for i in range(len(truth))
        for j in range(i)
    ]


def _overlooks(one: Sampled, best: int) -> bool:
    """Whether the best k neither won nor was named as one that may be better."""
    winner = int(one.estimates.means.argmax())
    return winner != best and best not in one.rivals[winner]


def _is_early(one: Sampled, ends: tuple[int, ...]) -> bool:
    return bool((one.rows < ends[-1]).sum() < ends[-1])


def plain_stderr(of: Population, n_rows: int) -> float:
    """Return the mean standard error that a plain sample of so many rows has."""
    unseen = 1 - n_rows / of.values.shape[1]
    return float(np.sqrt(unseen / n_rows) * of.values.std(axis=1, ddof=1).mean())


def rows_of(tables: dict[str, Any], repeats: int) -> Iterator[dict[str, Any]]:
    for name, make in tables.items():
        of = population(make())
        n_samples = of.values.shape[1]
        for ends in [*((size,) for size in SIZES if 2 * size <= n_samples), ROUNDS]:
            row = {"table": name, "n_samples": n_samples} | study(of, ends, repeats)
            if len(ends) == 1:
                row["plain_over_stated_stderr"] = plain_stderr(of, ends[0]) / row["stated_stderr"]
            print(
                f"{name[:38]:38} {'rounds' if len(ends) > 1 else ends[0]:>6} "
                f"covered {row['coverage']:.3f} worst k {row['coverage_worst_k']:.3f} "
                f"differences {row['coverage_of_differences']:.3f} "
                f"stated/true {row['stated_over_true_stderr']:.2f} "
                f"bias {row['largest_bias_over_true_stderr']:.2f} "
                f"best named {row['best_k_found_or_named']:.3f} rows {row['mean_scored_rows']:.0f}",
                flush=True,
            )
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 repetitions, synthetic tables")
    parser.add_argument("--data", type=Path, help="folder of further real tables, as CSV")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    tables = synthetic(np.random.default_rng(0))
    if not options.quick:
        tables |= real(options.data)
    begin = time.perf_counter()
    rows = list(rows_of(tables, 20 if options.quick else 200))
    if options.out:
        facts = {"seconds": time.perf_counter() - begin, "python": platform.python_version()}
        options.out.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
