"""One worker against two: the same table, the same result, how long each stage takes.

``python -m bench.dask_scale --rows 1000000 --out bench/results/dask_scale.json``. Each worker is a
process with one thread; the client and the scheduler run beside them on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gpuseg.distributed.rooms import place_on

from gpuseg import pipeline
from gpuseg.clustering.choice import choose
from gpuseg.distributed.cluster import cluster_of
from gpuseg.features import FeatureSettings
from gpuseg.records import no_progress
from gpuseg.settings import resolve

GROUP_ROWS = 1 << 17


def write_customers(path: Path, n_rows: int, n_columns: int) -> None:
    """Write customers of five overlapping kinds, a row group at a time."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 2.5, (5, n_columns))
    schema = pa.schema([(f"x{i}", pa.float32()) for i in range(n_columns)])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, n_rows, GROUP_ROWS):
            size = min(GROUP_ROWS, n_rows - first)
            X = centres[rng.integers(0, 5, size)] + rng.normal(size=(size, n_columns))
            columns = [pa.array(column.astype(np.float32)) for column in X.T]
            writer.write_table(pa.table(columns, schema=schema))


def measure(path: Path, n_workers: int) -> dict[str, object]:
    """Read, prepare, sweep, choose and write on so many workers."""
    settings = resolve({"input_table": str(path), "dask": f"local:{n_workers}",
                        "backend": "numpy", "output_table": f"{path}.out/"})  # fmt: skip
    seconds, begin = {}, time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal begin
        seconds[stage] = round(time.perf_counter() - begin, 2)
        begin = time.perf_counter()

    with cluster_of(settings) as cluster:
        place = place_on(cluster)
        backend, rooms = place.engine.backend, place.rooms
        lap("start")
        table = rooms.read(settings, no_progress)
        features = rooms.prepare(backend, table, FeatureSettings.of(settings))
        backend.covariance(features.X)  # waits for the rows to be encoded
        lap("prepare")
        swept = rooms.sweep(backend, features.X, settings.k_values, n_init=10, random_state=0)
        choice = choose(backend, features.X, swept)
        lap("sweep")
        labels = backend.to_host(choice.fit.labels)
        lap("labels")
        rows = table.with_columns({"cluster_id": pa.array(labels)})
        pipeline.publish([pipeline.Output(pipeline.locate(f"{path}.out/"), rows)])
        lap("write")
        peaks = cluster.on_every_worker(_peak_bytes)
    return {
        "n_workers": n_workers,
        "n_partitions": len(table.partitions),
        "seconds": seconds,
        "peak_bytes_of_workers": sorted(peaks.values()),
        "peak_bytes_of_client": _peak_bytes(),
        "n_clusters": choice.n_clusters,
        "silhouette": swept.scores[choice.n_clusters].silhouette,
        "cluster_sizes": np.bincount(labels).tolist(),
    }


def _peak_bytes() -> int:
    from gpuseg.stages import peak_bytes

    return peak_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "customers.parquet"
        write_customers(path, asked.rows, asked.columns)
        runs = [measure(path, n_workers) for n_workers in asked.workers]
    found = {
        "n_rows": asked.rows,
        "n_columns": asked.columns,
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "runs": runs,
    }
    text = json.dumps(found, indent=1)
    if asked.out:
        asked.out.write_text(f"{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
