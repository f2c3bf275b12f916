"""What the GPU benchmark computes itself, on a machine without one: floor, checks, table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import silhouette_samples

BENCH = Path(__file__).parents[2] / "bench"

sys.path.insert(0, str(BENCH))
try:
    import gpu
    import gpu_machine
finally:
    sys.path.remove(str(BENCH))

H200 = gpu_machine.Device("H200", (9, 0), 132, 1.98e9)
A100 = gpu_machine.Device("A100", (8, 0), 108, 1.41e9)


@pytest.mark.parametrize(
    ("device", "n_features", "seconds"),
    [
        # 24 and 54 instructions for 1e12 pairs at 132 x 128 x 1.98e9 a second
        (H200, 20, 24e12 / 33.45408e12),
        (H200, 50, 54e12 / 33.45408e12),
        # 64 lanes only
        (A100, 20, 24e12 / 9.74592e12),
        # roots: 16 a clock and multiprocessor
        (H200._replace(n_multiprocessors=1), 3, 1e12 / (16 * 1.98e9)),
    ],
)
def test_the_floor_is_that_of_the_limiting_unit(device, n_features, seconds):
    found = gpu_machine.silhouette_floor_seconds(1_000_000, n_features, device)
    assert found == pytest.approx(seconds, rel=1e-12)


def test_the_floor_grows_with_the_square_of_the_rows():
    floor = gpu_machine.silhouette_floor_seconds
    assert floor(40_000, 8, H200) == pytest.approx(16 * floor(10_000, 8, H200))


def test_a_difference_that_is_too_large_is_not_timed():
    assert gpu_machine.agree("scores", -1e-6, 1e-5) == 1e-6
    for difference in (2e-5, -2e-5, float("nan"), float("inf")):
        with pytest.raises(SystemExit, match="not timed: scores differ by"):
            gpu_machine.agree("scores", difference, 1e-5)


def test_silhouettes_by_hand_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)).astype(np.float32)
    labels = np.arange(60) % 4
    labels[labels == 3] = 0
    labels[7] = 3  # alone
    rows = np.array([0, 7, 20, 59])
    expected = silhouette_samples(X.astype(np.float64), labels)[rows]
    np.testing.assert_allclose(gpu.silhouettes_by_hand(X, labels, rows), expected, rtol=1e-6)


def test_one_k_of_eight_is_multiplied_and_marked():
    ours = {"seconds": 0.5, "device_seconds": 0.4, "spread": [0.4, 0.6], "repeats": 3}
    row = gpu.compared(ours, {"seconds": 2.0}, measured=1, of=8)
    assert (row["other_seconds"], row["times_faster"]) == (16.0, 32.0)
    shown = gpu.line({"suite": "silhouette", "n_rows": 1_000_000, "n_features": 20, **row})
    assert "16.00s*" in shown
    assert shown.split() == [
        "silhouette", "1,000,000", "20", "0.500s", "0.400s", "16.00s*", "32.0x", "cuML",
    ]  # fmt: skip
    row = gpu.compared(ours, {"seconds": 2.0}, measured=8, of=8)
    assert row["times_faster"] == 4
    assert "*" not in gpu.line({"suite": "kmeans", "n_rows": 9, "n_features": 2, **row})


def test_a_run_alone_and_a_failed_case_are_rows_too():
    alone = gpu.line({"suite": "whole_run", "n_rows": 10_000_000, "seconds": 12.0})
    assert alone.split() == ["whole_run", "10,000,000", "12.000s"]
    failed = gpu.line({"suite": "shap", "n_rows": 5, "n_features": 2, "error": "out of memory"})
    assert failed.endswith("failed: out of memory")


def runs(folder: Path, name: str, clusters: list[int], chosen: int, column: str = "a") -> Path:
    out = folder / name
    out.mkdir()
    table = pl.DataFrame({column: range(len(clusters)), "cluster_id": clusters})
    table.write_parquet(out / "rows.parquet")
    k = pl.DataFrame({"n_clusters": [2, 3], "chosen": [chosen == 2, chosen == 3]})
    k.write_parquet(out / "k.parquet")
    return out


def test_two_runs_are_compared_before_they_are_timed(tmp_path):
    one = runs(tmp_path, "one", [0, 0, 1, 1, 0], 2)
    assert gpu.check_runs(one, runs(tmp_path, "renamed", [1, 1, 0, 0, 1], 2)) == 1.0
    for name, other, message in (
        ("segments", runs(tmp_path, "segments", [0, 1, 0, 1, 0], 2), "segments differ"),
        ("k", runs(tmp_path, "k", [0, 0, 1, 1, 0], 3), "numbers of clusters"),
        ("schema", runs(tmp_path, "schema", [0, 0, 1, 1, 0], 2, "b"), "tables differ"),
    ):
        with pytest.raises(SystemExit, match=message):
            gpu.check_runs(one, other)
        assert other.name == name


def test_facts_that_need_no_gpu():
    revision = gpu_machine.revision()
    assert set(revision) == {"revision", "dirty"}
    assert {"numpy", "gpuseg"} <= set(gpu_machine.versions())
    assert json.dumps(revision)


def test_without_a_gpu_it_is_one_line_and_exit_code_2(tmp_path):
    empty = os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCH / "gpu.py"), "--quick", "--out", str(out)]
    environment = empty | {"PYTHONPATH": str(BENCH.parent)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("no GPU to measure on: ")
    assert ran.stderr.count("\n") == 1
    assert not out.exists()
