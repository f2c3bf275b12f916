"""cuDF's reading of files: to the bit what the door read, or not at all, with the reason."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import os
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doubles import cudf_on_host, cuml_on_host
from doubles.device_arrays import DeviceArray
from doubles.gpu_on_host import StrictDevice

from gpuseg.backends.gpu import GpuBackend, memory, reading
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.features import FeatureSettings, prepare
from gpuseg.records import Table
from gpuseg.tables import CsvOptions, locate, read_table


@pytest.fixture(autouse=True)
def boundless(monkeypatch):
    monkeypatch.setattr(cudf_on_host, "READ", [])
    monkeypatch.setattr(cudf_on_host.LIMITS, "rows", None)
    monkeypatch.setattr(cudf_on_host.LIMITS, "text_bytes", None)


@pytest.fixture
def read(caplog):
    """Return what a device with so much free memory reads of a file, and its log."""

    def run(path, names=None, free=2**33, **options):
        table = read_table(locate(str(path)), **options)
        engine = GpuBackend(StrictDevice(free=free), cuml_on_host.libraries())
        with caplog.at_level(logging.INFO, "gpuseg"):
            found = engine.read_columns(table, names or table.arrow.column_names)
        for name, values in found.items():
            expected = NumPyBackend().numbers(table.arrow[name])
            assert isinstance(values, DeviceArray)
            assert values.dtype == np.float64
            np.testing.assert_array_equal(values.get(), expected)
        return found

    return run


def let_columns_stay(monkeypatch):
    """Let a small device, whose parts are to be small, keep every column."""
    monkeypatch.setattr(memory, "COLUMNS_SHARE", 2.0**30)
    monkeypatch.setattr(memory, "FIT_ARRAYS", 0)


def numbers(n_rows):
    rng = np.random.default_rng(0)
    floats = rng.normal(size=n_rows)
    gaps = rng.random(n_rows) < 0.2
    return pa.table(
        {
            "double": pa.array(floats, mask=gaps),
            "float": pa.array(floats.astype(np.float32)),
            "nan": pa.array(np.where(gaps, np.nan, floats)),
            "long": pa.array(rng.integers(-(2**62), 2**62, n_rows), mask=gaps),
            "big": pa.array(rng.integers(2**63, 2**64, n_rows, np.uint64)),
            "byte": pa.array(rng.integers(-128, 128, n_rows).astype(np.int8)),
            "null": pa.nulls(n_rows, pa.int32()),
        }
    )


@pytest.mark.parametrize("row_group_size", [1, 7, 100, 1000])
def test_parquet_of_many_row_groups(tmp_path, read, row_group_size):
    pq.write_table(numbers(300), tmp_path / "t.parquet", row_group_size=row_group_size)
    assert list(read(tmp_path / "t.parquet")) == numbers(1).column_names


def test_a_folder_with_an_empty_part(tmp_path, read):
    for i, n_rows in enumerate((40, 0, 3)):
        pq.write_table(numbers(n_rows), tmp_path / f"p{i}.parquet", row_group_size=9)
    assert len(read(tmp_path)) == 7
    assert sorted(cudf_on_host.READ) == [0, 3, 40]  # one call for each file that fits


def test_a_small_budget_reads_a_few_row_groups_at_a_time(tmp_path, read, monkeypatch):
    monkeypatch.setattr(memory, "FEWEST_ROWS", 4)
    pq.write_table(numbers(60), tmp_path / "t.parquet", row_group_size=4)
    free = 2 * 10 * memory.read_row_bytes(1)
    let_columns_stay(monkeypatch)
    assert list(read(tmp_path / "t.parquet", ["long"], free=free)) == ["long"]
    assert cudf_on_host.READ == [8] * 7 + [4]


def test_a_row_group_is_never_cut(tmp_path, read, monkeypatch):
    let_columns_stay(monkeypatch)
    pq.write_table(numbers(900), tmp_path / "t.parquet", row_group_size=400)
    assert len(read(tmp_path / "t.parquet", ["long"], free=8000)) == 1
    assert cudf_on_host.READ == [400, 400, 100]


def test_running_out_of_memory_halves_what_is_read(tmp_path, read, monkeypatch, caplog):
    monkeypatch.setattr(cudf_on_host.LIMITS, "rows", 300)
    pq.write_table(numbers(3000), tmp_path / "t.parquet", row_group_size=100)
    free = 2 * 1024 * memory.read_row_bytes(7)
    let_columns_stay(monkeypatch)
    assert len(read(tmp_path / "t.parquet", free=free)) == 7
    assert cudf_on_host.READ[:2] == [1000, 500]
    assert sum(cudf_on_host.READ[2:]) == 3000
    assert len([m for m in caplog.messages if "half as much" in m]) == 2


def test_what_never_fits_comes_from_the_door(tmp_path, read, monkeypatch, caplog):
    monkeypatch.setattr(cudf_on_host.LIMITS, "rows", 50)
    pq.write_table(numbers(100), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == {}
    assert len(cudf_on_host.READ) == memory.MOST_READING_ATTEMPTS
    assert "the device's memory ran out" in caplog.messages[-1]


def test_only_so_many_columns_stay(tmp_path, read, caplog):
    pq.write_table(numbers(1000), tmp_path / "t.parquet")
    assert list(read(tmp_path / "t.parquet", free=8000 * memory.FIT_ARRAYS + 3 * 32_000)) == [
        "double",
        "float",
        "nan",
    ]
    assert caplog.messages[-1].endswith("memory holds no more columns")


def test_what_cudf_holds_otherwise_comes_from_the_door(tmp_path, read, caplog):
    table = pa.table(
        {
            "price": [decimal.Decimal("1.10")] * 2,
            "took": pa.array([1, 2], pa.duration("s")),
            "at": [dt.time(1), dt.time(2)],
            "half": np.array([1, 2], np.float16),
            "a.b": [1, 2],
            "n": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    names = ["price", "took", "at", "half", "a.b", "n"]
    assert list(read(tmp_path / "t.parquet", names)) == ["n"]
    assert any("decimal128" in m and "price" in m for m in caplog.messages)
    assert any(m.endswith("a.b: cuDF takes a name with a dot for a path") for m in caplog.messages)


@pytest.mark.parametrize("name", ["t*.parquet", "t[1].parquet", "a::b.parquet"])
def test_a_name_that_is_a_pattern_is_not_given_to_cudf(tmp_path, read, caplog, name):
    pq.write_table(numbers(5), tmp_path / name)
    assert read(tmp_path / name) == {}
    assert caplog.messages[-1].endswith("cuDF takes the file's name for a pattern")


# -- CSV -----------------------------------------------------------------------------------

ROWS = [
    ("id", "n", "x", "text"),
    (1, 2**53 + 1, 0.3, "plain"),
    (2, "", 0.1, "a, b"),
    (-3, -(2**62), 2.5, "long " * 400),  # longer than cuDF looks beyond a range
    (4, 0, 1.0, 'he said "no"'),
    (5, 7, "", ""),
]
CSV = "".join(",".join(f'"{v}"' if "," in str(v) else str(v) for v in row) + "\n" for row in ROWS)


@pytest.mark.parametrize("free", [1, 100, 1000, 3000, 2**30])
@pytest.mark.parametrize("text", [CSV, CSV[:-1], CSV.replace("\n", "\r\n")])
def test_whole_numbers_of_csv(tmp_path, read, free, text, monkeypatch):
    let_columns_stay(monkeypatch)
    (tmp_path / "t.csv").write_bytes(text.encode())
    assert list(read(tmp_path / "t.csv", ["id", "n", "x"], free=free)) == ["id", "n"]
    assert sum(cudf_on_host.READ) == 5
    assert len(cudf_on_host.READ) > 1 or free > 3000


def test_decimal_fractions_of_csv_come_from_the_door(tmp_path, read, caplog):
    (tmp_path / "t.csv").write_text(CSV)
    read(tmp_path / "t.csv", ["n", "x"])
    assert caplog.messages[-1].endswith("x: cuDF does not read double of CSV as the door does")
    # and why: the stand-in adds digits up as cuDF does
    assert cudf_on_host.parsed("0.3", "float64", set()) != 0.3


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("1;2,5\n3;4,5\n", CsvOptions()),
        ("a;b\n1;-\n3;4\n", CsvOptions(null_values=("-",))),
        ("a\n1\n\n3\n", CsvOptions()),
        ("a|b\n1|'2'\n3|'4'\n", CsvOptions(quote="'")),
        ("a.b\n1.2\n3.4\n", CsvOptions(separator=".", decimal=",")),
    ],
)
def test_other_dialects(tmp_path, read, text, options):
    (tmp_path / "t.csv").write_text(text)
    assert len(read(tmp_path / "t.csv", csv=options)) >= 1


def test_running_out_of_memory_halves_the_range(tmp_path, read, monkeypatch):
    let_columns_stay(monkeypatch)
    monkeypatch.setattr(cudf_on_host.LIMITS, "text_bytes", 4000)
    (tmp_path / "t.csv").write_text("n\n" + "".join(f"{i}\n" for i in range(2000)))
    assert len(read(tmp_path / "t.csv", free=100_000)) == 1
    assert sum(cudf_on_host.READ) == 2000


def test_a_line_end_in_a_value_leaves_the_file_to_the_door(tmp_path, read, caplog):
    (tmp_path / "t.csv").write_text('n,t\n1,"a\nb"\n2,c\n')
    assert read(tmp_path / "t.csv", ["n"]) == {}
    assert caplog.messages[-1].endswith("n: some of its values hold line ends")


# -- two readings that disagree ------------------------------------------------------------


def disagreeing(tmp_path, read, monkeypatch, change):
    """Read a file of which cuDF sees something else."""
    pq.write_table(numbers(50), tmp_path / "t.parquet")
    honest = cudf_on_host.read_parquet

    def changed(*args, **options):
        return change(honest(*args, **options))

    monkeypatch.setattr(cudf_on_host.CUDF, "read_parquet", changed)
    return read(tmp_path / "t.parquet", ["byte", "double"])


def with_column(frame, name, array):
    return cudf_on_host.DataFrame({**frame._columns, name: array}, len(frame))


def test_other_numbers_are_left_out_for_that_column(tmp_path, read, monkeypatch, caplog):
    def change(frame):
        values = frame._columns["byte"].to_pylist()
        return with_column(frame, "byte", pa.array([*values[:-1], values[-1] ^ 1], pa.int8()))

    assert list(disagreeing(tmp_path, read, monkeypatch, change)) == ["double"]
    assert caplog.messages[-1].endswith("byte: its numbers are not those that the door read")


def test_other_types_leave_everything_to_the_door(tmp_path, read, monkeypatch, caplog):
    def change(frame):
        return with_column(frame, "byte", frame._columns["byte"].cast(pa.int64()))

    assert disagreeing(tmp_path, read, monkeypatch, change) == {}
    assert caplog.messages[-1].endswith("'byte' is int64 to cuDF, not int8")


def test_other_rows_leave_everything_to_the_door(tmp_path, read, monkeypatch, caplog):
    def change(frame):
        fewer = {name: array.slice(1) for name, array in frame._columns.items()}
        return cudf_on_host.DataFrame(fewer, len(frame) - 1)

    assert disagreeing(tmp_path, read, monkeypatch, change) == {}
    assert caplog.messages[-1].endswith("cuDF finds 49 rows where 50 stand")


def test_csv_rows_that_do_not_add_up_leave_everything_to_the_door(
    tmp_path, read, monkeypatch, caplog
):
    (tmp_path / "t.csv").write_text("n\n1\n2\n3\n")
    honest = cudf_on_host.lines_in_range
    for change, message in ((lambda r: r[1:], "2 rows, not 3"), (lambda r: r * 2, "than 3 rows")):
        monkeypatch.setattr(
            cudf_on_host, "lines_in_range", lambda *a, change=change: change(honest(*a))
        )
        assert read(tmp_path / "t.csv") == {}
        assert caplog.messages[-1].endswith(message)


def test_an_error_of_cudf_leaves_everything_to_the_door(tmp_path, read, monkeypatch, caplog):
    def change(_frame):
        raise RuntimeError("CUDF failure at: reader.cpp:1: Unsupported compression\nmore")

    assert disagreeing(tmp_path, read, monkeypatch, change) == {}
    assert caplog.messages[-1].endswith("Unsupported compression")


def test_files_that_changed_leave_everything_to_the_door(tmp_path, read, monkeypatch, caplog):
    def change(frame):
        os.utime(tmp_path / "t.parquet", ns=(1, 1))
        return frame

    assert disagreeing(tmp_path, read, monkeypatch, change) == {}
    assert caplog.messages[-1].endswith("the files have changed since")


def test_the_first_and_the_last_row_are_compared():
    device = StrictDevice()
    column = pa.array(range(5000))
    table = Table("t", pa.table({"a": column}))
    for row in (0, 4999):
        values = device.xp.asarray(column.to_numpy().astype(np.float64))
        assert reading._agrees(device, table, "a", values)
        values[row] = np.nan
        assert not reading._agrees(device, table, "a", values)


# -- from the file to the matrix -----------------------------------------------------------


def prepared(tmp_path, engine):
    pq.write_table(numbers(300), tmp_path / "t.parquet", row_group_size=70)
    return prepare(engine, read_table(locate(str(tmp_path / "t.parquet"))), FeatureSettings())


def test_what_was_read_is_gone_before_the_matrix_is_made(tmp_path):
    read, alive = [], []

    class Watched(GpuBackend):
        def read_columns(self, table, names):
            found = super().read_columns(table, names)
            read.extend(map(weakref.ref, found.values()))
            return found

        def matrix(self, features, order=None):
            alive.extend(array for array in (ref() for ref in read) if array is not None)
            return super().matrix(features, order)

    prepared(tmp_path, Watched(StrictDevice(), cuml_on_host.libraries()))
    assert len(read) == 6
    assert alive == []


def test_nothing_but_the_order_of_the_rows_comes_back_to_the_host(tmp_path, monkeypatch):
    fetched = []
    honest = DeviceArray.get
    monkeypatch.setattr(DeviceArray, "get", lambda self: fetched.append(self) or honest(self))
    features = prepared(tmp_path, GpuBackend(StrictDevice(), cuml_on_host.libraries()))
    assert isinstance(features.X, DeviceArray)
    assert [(array.dtype, array.shape) for array in fetched] == [(np.int64, (300,))]
