"""How long one new row takes on a warm process, against what a user would do instead.

    python bench/watch.py --quick
    python bench/watch.py --calls 300 --out bench/results/watch.json

``gpuseg.assign(row, model)``, and a round of ``gpuseg watch`` that finds one new row in a table
of 30,000: asks what is new, prepares, places, adds it in a transaction. Beside them a
scikit-learn pipeline (impute, scale, one-hot, k-means) that is loaded with joblib and predicts
one row: it neither finds out what is new nor writes anything. Answers are checked first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import joblib
import numpy as np
import polars as pl
from machine import facts
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import gpuseg
from gpuseg.settings import resolve
from gpuseg.watch import Watch

CENSUS = Path(__file__).parents[1] / "examples" / "gluon_train.parquet"
LIBRARIES = ("gpuseg", "numpy", "numba", "pyarrow", "polars", "duckdb", "scikit-learn", "joblib")
TARGET_MS = 50.0
N_THERE = 30_000


def percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    return {"p50_ms": round(p50, 2), "p95_ms": round(p95, 2), "p99_ms": round(p99, 2)}


def timed(calls: int, one: Callable[[int], Any], before: Callable[[int], Any]) -> dict[str, float]:
    """Time calls after three that warm up; what `before` does is not counted."""
    seconds = []
    for i in range(calls + 3):
        before(i)
        begin = time.perf_counter()
        one(i)
        seconds.append(time.perf_counter() - begin)
    return percentiles(seconds[3:]) | {"calls": calls}


def nothing(_i: int) -> None:
    """Do nothing."""


def by_assign(rows: pl.DataFrame, found: gpuseg.Segmentation, calls: int) -> dict[str, float]:
    placed = gpuseg.assign(rows.head(500), found)
    for i in range(0, 500, 50):
        assert gpuseg.assign(rows.slice(i, 1), found).labels[0] == placed.labels[i]
    tables = [rows.slice(i, 1).to_arrow() for i in range(calls + 3)]
    return timed(calls, lambda i: gpuseg.assign(tables[i], found), nothing)


def by_watch(
    rows: pl.DataFrame, found: gpuseg.Segmentation, calls: int, place: str, folder: Path
) -> dict[str, dict[str, float]]:
    """Time rounds that find one row, and rounds that find none."""
    warehouse = f"duckdb:{folder / 'w.duckdb'}"
    source, output = "shop.rows", "shop.placed"
    if place != "duckdb":
        source, output = (
            f"{folder / 'in'}/",
            f"{folder / 'out'}/" if place == "folder" else str(folder / "o.parquet"),
        )
        (folder / "in").mkdir()

    def write(part: pl.DataFrame, number: int) -> None:
        if place == "duckdb":
            arrow = part.to_arrow()  # noqa: F841 - DuckDB finds it by its name
            with duckdb.connect(str(folder / "w.duckdb")) as connection:
                connection.execute("CREATE SCHEMA IF NOT EXISTS shop")
                connection.execute("CREATE TABLE IF NOT EXISTS shop.rows AS FROM arrow LIMIT 0")
                connection.execute("INSERT INTO shop.rows FROM arrow")
            return
        part.write_parquet(folder / "new")
        (folder / "new").rename(folder / "in" / f"part-{number:06}.parquet")

    write(rows.head(N_THERE), 0)
    runs_dir = str(Path(found.run_dir).parents[1])
    watching = Watch(
        resolve(
            {
                "input_table": source, "output_table": output, "rowid_column": "id",
                "model_name": "bench", "runs_dir": runs_dir, "warehouse": warehouse,
            }
        )
    )  # fmt: skip
    assert watching.round().n_rows == N_THERE
    assert watching.round().n_rows == 0
    placed: list[int] = []
    one = timed(
        calls,
        lambda _i: placed.append(watching.round().n_rows),
        lambda i: write(rows.slice(N_THERE + i, 1), i + 1),
    )
    assert placed == [1] * (calls + 3)
    watching.round()
    none = timed(calls, lambda _i: watching.round(), nothing)
    return {"one_new_row": one, "nothing_new": none}


def by_scikit_learn(rows: pl.DataFrame, calls: int, folder: Path) -> dict[str, dict[str, float]]:
    frame = rows.drop("id").to_pandas()
    numbers = list(frame.select_dtypes("number").columns)
    texts = [name for name in frame.columns if name not in numbers]
    pipeline = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore", max_categories=20), texts),
        ),
        KMeans(n_clusters=6, random_state=0),
    ).fit(frame)
    path = folder / "pipeline.joblib"
    joblib.dump(pipeline, path)
    parts = [frame.iloc[i : i + 1] for i in range(calls + 3)]
    return {
        "predict": timed(calls, lambda i: pipeline.predict(parts[i]), nothing),
        "load_and_predict": timed(calls, lambda i: joblib.load(path).predict(parts[i]), nothing),
    }


def measure(calls: int) -> dict[str, Any]:
    rows = pl.read_parquet(CENSUS).with_row_index("id")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = gpuseg.segment(
            rows.head(3000), model_name="bench", runs_dir=str(folder / "runs"), rowid_column="id",
            num_clusters=6, backend="numpy",
        )  # fmt: skip
        results["assign"] = by_assign(rows, found, calls)
        for place in ("duckdb", "folder", "file"):
            (folder / place).mkdir()
            results[f"watch_{place}"] = by_watch(rows, found, calls, place, folder / place)
        results["scikit_learn"] = by_scikit_learn(rows.head(3000), calls, folder)
    return results


def lines(results: dict[str, Any], name: str = "") -> list[tuple[str, dict[str, float]]]:
    if "p50_ms" in results:
        return [(name, results)]
    return [line for key, part in results.items() for line in lines(part, f"{name} {key}".strip())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 calls of each")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = measure(20 if options.quick else options.calls)
    print(f"{'one row, warm process':<28} {'p50':>9} {'p95':>9} {'p99':>9}")
    for name, found in lines(results):
        shown = "".join(f"{found[f'{p}_ms']:>7.1f} ms" for p in ("p50", "p95", "p99"))
        print(f"{name:<28}{shown}")
    if options.out:
        found = facts(LIBRARIES) | {"target_ms": TARGET_MS, "rows_there": N_THERE}
        options.out.write_text(json.dumps(found | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
