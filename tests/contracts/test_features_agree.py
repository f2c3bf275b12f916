"""The same file gives the same features, reasons and ids on both engines."""

from __future__ import annotations

import datetime as dt
import logging

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from doubles.device_arrays import DeviceArray

from gpuseg import pipeline, places
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.backends.select import Engine
from gpuseg.clustering import kmeans
from gpuseg.features import FeatureSettings, encode_features, prepare, prepare_again
from gpuseg.settings import resolve
from gpuseg.tables import locate, read_table

N = 600


def rows():
    """Columns of every kind, with gaps that say something, twins and things to drop."""
    rng = np.random.default_rng(0)
    group = np.arange(N) % 3
    some = rng.random(N) < 0.1
    spend = np.exp(2 * group + rng.normal(0, 1, N))
    return pa.table(
        {
            "spend": pa.array(spend, mask=some),
            "ratio": pa.array((spend / 7).astype(np.float32)),
            "visits": pa.array(rng.poisson(5 + 9 * group), pa.int32(), mask=group == 0),
            "account": pa.array(2**53 + rng.integers(0, 10**6, N)),
            "odd": pa.array(np.where(some, np.inf, 1e200 * rng.normal(size=N))),
            "level": pa.array((group + 5).astype(np.int8)),
            "huge": pa.array(rng.integers(2**62, 2**64, N, np.uint64)),
            "town": [("Rome", "Oslo", "Lima")[g] for g in group],
            "flag": pa.array(rng.random(N) < 0.5, mask=some),
            "yes": pa.array((spend > 20).astype(np.int64)),
            "no": pa.array((spend <= 20).astype(np.int64)),
            "since": [dt.date(2020, 1, 1) + dt.timedelta(int(d)) for d in 400 * group + 7],
            "seen": pa.array(rng.integers(10**9, 2 * 10**9, N), pa.timestamp("s")),
            "city": [("Rome", "Oslo", None)[g] for g in group],
            "price": [f"{p:.2f} €" for p in rng.normal(20, 5, N)],
            "customer_id": pa.array(np.arange(N)),
            "nothing": pa.nulls(N, pa.float64()),
            "same": pa.array([4] * N),
            "twin": pa.array(spend, mask=some),
        }
    )


@pytest.fixture(scope="module", params=["parquet", "csv", "folder"])
def path(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    if request.param == "parquet":
        pq.write_table(rows(), folder / "rows.parquet", row_group_size=110)
        return folder / "rows.parquet"
    if request.param == "folder":
        parts = [rows().slice(0, 250), rows().slice(0, 0), rows().slice(250)]
        for i, part in enumerate(parts):
            pq.write_table(part, folder / f"part{i}.parquet", row_group_size=100)
        return folder
    pa.csv.write_csv(rows(), folder / "rows.csv")
    return folder / "rows.csv"


def on_host(gpu):
    """Whether NumPy computes what a device would, so that every bit must be the same."""
    return gpu.xp.ndarray in (DeviceArray, np.ndarray)


def same_features(gpu, found, expected):
    mine = gpu.to_host(found)
    if on_host(gpu):
        assert mine.tobytes() == np.asarray(expected).tobytes()
    else:  # a device adds up in another order, and rounds logarithms its own way
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


def same_rows(gpu, found, expected):
    """Compare matrices row by row; one bit of a feature puts a row in another place."""
    if on_host(gpu):
        np.testing.assert_array_equal(found.order, expected.order)
    mine = found.in_table_order(gpu.to_host(found.encoded))
    same_features(gpu, mine, expected.in_table_order(expected.encoded))


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"transform": "none", "numeric_columns": ("flag", "account")},
        {"scaling": "robust", "categorical_columns": ("level", "visits")},
        {"dimension_reduction_threshold": 4},
    ],
    ids=["default", "plain", "robust", "projected"],
)
def test_a_file_gives_the_same_features(gpu, path, wishes, caplog):
    settings = FeatureSettings(**wishes)
    with caplog.at_level(logging.INFO, "gpuseg"):
        found = prepare(gpu, read_table(locate(str(path))), settings)
    assert "cuDF read 0 of" not in caplog.text
    # an engine that keeps arrays in host memory has the door's rows there
    assert ("cuDF read" in caplog.text) == (gpu.xp is not np)
    expected = prepare(NumPyBackend(), read_table(locate(str(path))), settings)
    assert found.decisions == expected.decisions
    assert found.encoded_names == expected.encoded_names
    assert found.warnings == expected.warnings
    same_rows(gpu, found, expected)
    assert found.encoded.shape[1] > 8


def test_a_fitted_encoder_reads_files_alike(gpu, path):
    table = read_table(locate(str(path)))
    fitted = prepare(NumPyBackend(), table, FeatureSettings())
    X, _encoded = encode_features(gpu, fitted.encoder, table)
    expected, _ = encode_features(NumPyBackend(), fitted.encoder, table)
    same_features(gpu, X, expected)
    again = prepare_again(gpu, fitted.encoder, table)
    same_rows(gpu, again, fitted)


def test_all_kinds_of_decisions_were_compared(path):
    decisions = prepare(NumPyBackend(), read_table(locate(str(path))), FeatureSettings()).decisions
    roles = {d.column: d.role for d in decisions}
    assert roles["customer_id"] == "id"
    assert roles["nothing"] == "empty"
    assert roles["same"] == "constant"
    assert {roles[name] for name in ("twin", "town", "no")} == {"duplicate"}
    assert {"numeric", "datetime", "categorical", "boolean"} <= set(roles.values())
    assert any("'is missing' is a feature too" in d.reason for d in decisions)
    assert any("logarithmic" in d.reason for d in decisions)


def test_a_whole_run_from_a_file_gives_the_same_ids(gpu, path, monkeypatch):
    found = []
    for engine in (NumPyBackend(), gpu):
        monkeypatch.setattr(places, "select_backend", lambda _, e=engine: Engine(e, "for a test"))
        monkeypatch.setattr(kmeans, "MAX_PATIENCE", 1)
        wishes = {"input_table": str(path), "num_clusters": 3, "n_init": 1, "max_clusters": 3}
        found.append(pipeline.run(resolve(wishes), keep=False))
    host, device = found
    assert device.backend == "gpu"
    assert device.table.drop_columns("cluster_id").equals(read_table(locate(str(path))).arrow)
    assert device.columns.equals(host.columns)
    np.testing.assert_array_equal(device.labels, host.labels)
