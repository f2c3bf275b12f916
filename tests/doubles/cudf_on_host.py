"""Stand in for cuDF: Arrow behind cuDF's signatures and habits.

The habits are those that decide what is read: which rows belong to a range of bytes, how
far beyond it is looked, how decimal fractions are added up, what is a null and what NaN.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from doubles.device_arrays import DeviceArray

#: Rows, and bytes of text, beyond which the device's memory runs out; None is boundless.
LIMITS = SimpleNamespace(rows=None, text_bytes=None)

#: What was read, call by call: number of rows.
READ: list[int] = []


class Series:
    def __init__(self, array):
        self._array = array

    @property
    def dtype(self):
        return np.dtype(self._array.type.to_pandas_dtype())

    def astype(self, dtype, copy=None, errors="raise"):
        assert dtype == "float64"
        return Series(self._array.cast(pa.float64(), safe=False))  # nulls stay nulls

    def to_cupy(self, dtype=None, copy=False, na_value=None):
        array = self._array
        if array.null_count and na_value is None:
            raise ValueError("cannot convert to an array with missing values")
        if array.null_count and isinstance(na_value, float) and array.type != pa.float64():
            raise TypeError(f"cannot fill {array.type} with {na_value}")
        filled = array.fill_null(na_value) if array.null_count else array
        return DeviceArray(filled.to_numpy(zero_copy_only=False).astype(dtype))


class DataFrame:
    def __init__(self, columns, n_rows):
        self._columns, self._n_rows = columns, n_rows
        READ.append(n_rows)
        if LIMITS.rows is not None and n_rows > LIMITS.rows:
            raise MemoryError("std::bad_alloc: out_of_memory: CUDA error")

    def __len__(self):
        return self._n_rows

    def __getitem__(self, name):
        return Series(self._columns[name])


def read_parquet(
    filepath_or_buffer,
    engine="cudf",
    columns=None,
    storage_options=None,
    filesystem=None,
    filters=None,
    row_groups=None,
    use_pandas_metadata=True,
    categorical_partitions=True,
    bytes_per_thread=None,
    dataset_kwargs=None,
    nrows=None,
    skip_rows=None,
    allow_mismatched_pq_schemas=False,
    ignore_missing_columns=True,
    case_sensitive_names=True,
):
    """Row groups come one list for each file."""
    assert isinstance(filepath_or_buffer, str)
    assert engine == "cudf"
    assert use_pandas_metadata is False, "a column may become the index"
    assert dataset_kwargs["partitioning"] is None, "folders may become columns"
    (groups,) = row_groups
    with pq.ParquetFile(filepath_or_buffer) as file:
        table = file.read_row_groups(groups, columns=columns)
    plain = {name: table[name].combine_chunks() for name in columns}
    return DataFrame(plain, table.num_rows)


def read_csv(
    filepath_or_buffer,
    sep=",",
    delimiter=None,
    header="infer",
    names=None,
    index_col=None,
    usecols=None,
    prefix=None,
    mangle_dupe_cols=True,
    dtype=None,
    true_values=None,
    false_values=None,
    skipinitialspace=False,
    skiprows=0,
    skipfooter=0,
    nrows=None,
    na_values=None,
    keep_default_na=True,
    na_filter=True,
    skip_blank_lines=True,
    parse_dates=None,
    dayfirst=False,
    compression="infer",
    thousands=None,
    decimal=".",
    lineterminator="\n",
    quotechar='"',
    quoting=0,
    doublequote=True,
    comment=None,
    byte_range=None,
    storage_options=None,
    bytes_per_thread=None,
):
    """A line end within quotes ends the row where a range begins; quotes are dropped."""
    assert sep != decimal, "decimal cannot be the same as delimiter"
    assert header is None
    assert compression is None
    lines = lines_in_range(Path(filepath_or_buffer).read_bytes(), byte_range, len(names))
    if skip_blank_lines:
        lines = [line for line in lines if line.strip("\r")]
    rows = [fields(line.removesuffix("\r"), sep, quotechar) for line in lines]
    missing = set(na_values) | ({"NA", "null", "NaN"} if keep_default_na else set())
    columns = {}
    for name in usecols:
        place = names.index(name)
        values = [parsed(row[place], dtype[name], missing) for row in rows]
        columns[name] = pa.array(values, dtype[name])
    return DataFrame(columns, len(rows))


def lines_in_range(data, byte_range, n_columns):
    """Return the lines whose preceding line end is in the range, cut where reading ends."""
    begin, size = byte_range
    if LIMITS.text_bytes is not None and size > LIMITS.text_bytes:
        raise MemoryError("std::bad_alloc: out_of_memory: CUDA error")
    whole = data[begin:]
    padding = 1024 + 64 * n_columns
    seen = whole if size == 0 else whole[: size + padding]
    last = len(whole) if size == 0 else size
    start = 0 if begin == 0 else seen.find(b"\n") + 1 or len(seen)
    lines = []
    # the line that begins right at the end of the range belongs to the next one
    while start < len(seen) and start <= last:
        end = seen.find(b"\n", start)
        end = len(seen) if end < 0 else end
        lines.append(seen[start:end].decode(errors="replace"))
        start = end + 1
    return lines


def fields(line, sep, quote):
    found, text, quoted = [], "", False
    for sign in line:
        if sign == quote:
            quoted = not quoted
        elif sign == sep and not quoted:
            found.append(text)
            text = ""
        else:
            text += sign
    return [*found, text]


def parsed(text, dtype, missing):
    if text in missing:
        return None
    if dtype == "int64":
        return int(text)
    assert dtype == "float64"
    whole, _, fraction = text.lstrip("-").partition(".")
    value, divisor = float(whole or 0), 1.0
    for digit in fraction:
        divisor /= 10
        value += int(digit) * divisor  # rounded at every digit
    return math.copysign(value, -1 if text.startswith("-") else 1)


CUDF = SimpleNamespace(read_parquet=read_parquet, read_csv=read_csv, Series=Series)
