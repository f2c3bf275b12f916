"""Columns of numbers straight from a table's files onto the device, with cuDF.

The door has read the rows already and decided on names and types. cuDF reads again only
what it reads to the same bits, and a column whose numbers differ from the door's in a
sample of rows is taken from the door.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.columns import numbers
from gpuseg.backends.gpu.libraries import Libraries
from gpuseg.backends.gpu.memory import (
    MOST_READ_ROWS,
    MOST_READING_ATTEMPTS,
    columns_that_stay,
    csv_range_bytes,
    read_row_bytes,
    rows_per_block,
)
from gpuseg.records import Array, ByteRange, RowGroup, Source, Table

log = logging.getLogger("gpuseg")

#: Arrow's name of a type -> cuDF's. Decimals, durations, times, dictionaries and half floats
#: come from the door's rows: cuDF holds them otherwise or not at all.
PARQUET_TYPES: Mapping[str, str] = {
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float": "float32",
    "double": "float64",
}

#: cuDF adds up the digits of a decimal fraction one by one, each rounded: 0.3 becomes
#: 0.30000000000000004. Only whole numbers come out as the door reads them.
CSV_TYPES: Mapping[str, str] = {"int64": "int64"}

#: Rows in which both readings are compared.
N_COMPARED = 1024

#: fsspec, through which cuDF opens files, takes paths with these for patterns or chains.
_PATTERN_SIGNS = ("*", "?", "[", "::")

#: Reads a part of a file as a frame.
_Read = Callable[[], Any]


class _NotReadError(Exception):
    """What cuDF read is not what the door read, or cannot be; the message says why."""


def read_columns(
    device: Device, libraries: Libraries, table: Table, names: Sequence[str]
) -> dict[str, Array]:
    """Read columns of numbers with cuDF; see ``Backend.read_columns``."""
    if table.source is None or table.n_rows == 0:
        return {}
    left: dict[str, list[str]] = {}  # by reason
    kinds = _kinds(device, table, names, left)
    held = _held(device, libraries, table, kinds, left)
    log.info("%s: cuDF read %d of %d columns of numbers", table.name, len(held), len(names))
    for reason, columns in left.items():
        log.info("%s: not read with cuDF: %s: %s", table.name, ", ".join(columns), reason)
    return held


def _kinds(
    device: Device, table: Table, names: Sequence[str], left: dict[str, list[str]]
) -> dict[str, str]:
    """Return cuDF's type of each column that it can read, and put the reason to the others."""
    assert table.source is not None
    known = CSV_TYPES if table.source.format == "csv" else PARQUET_TYPES
    most = columns_that_stay(table.n_rows, device.free_bytes())
    kinds: dict[str, str] = {}
    for name in names:
        kind = str(table.arrow.schema.field(name).type)
        if kind not in known:
            where = "CSV" if table.source.format == "csv" else "Parquet"
            reason = f"cuDF does not read {kind} of {where} as the door does"
        elif "." in name:
            reason = "cuDF takes a name with a dot for a path"
        elif len(kinds) == most:
            reason = "the device's memory holds no more columns"
        else:
            kinds[name] = known[kind]
            continue
        left.setdefault(reason, []).append(name)
    return kinds


def _held(
    device: Device,
    libraries: Libraries,
    table: Table,
    kinds: Mapping[str, str],
    left: dict[str, list[str]],
) -> dict[str, Array]:
    """Read the columns of `kinds`; put the reason to those that are not the door's."""
    if not kinds:
        return {}
    try:
        held = _read_within_memory(device, libraries, table, kinds)
    except (_NotReadError, RuntimeError) as error:  # libcudf's errors are RuntimeErrors
        left.setdefault(str(error).partition("\n")[0], []).extend(kinds)
        return {}
    agreed = {name: values for name, values in held.items() if _agrees(device, table, name, values)}
    differing = [name for name in held if name not in agreed]
    if differing:
        left["its numbers are not those that the door read"] = differing
    return agreed


def _read_within_memory(
    device: Device, libraries: Libraries, table: Table, kinds: Mapping[str, str]
) -> dict[str, Array]:
    device.release()  # cuDF cannot use what the array library keeps
    free_bytes = device.free_bytes()
    for _attempt in range(MOST_READING_ATTEMPTS):
        held = _read_if_it_fits(device, libraries, table, kinds, free_bytes)
        if held is not None:
            return held
        # only here, with the failed attempt's frames and arrays gone, is there anything to free
        device.release()
        free_bytes //= 2
        log.warning("reading: the device's memory ran out; going on with half as much at a time")
    raise _NotReadError("the device's memory ran out")


def _read_if_it_fits(
    device: Device, libraries: Libraries, table: Table, kinds: Mapping[str, str], free_bytes: int
) -> dict[str, Array] | None:
    try:
        return _read(device, libraries, table, kinds, free_bytes)
    except MemoryError:
        return None


def _agrees(device: Device, table: Table, name: str, values: Array) -> bool:
    """Compare a sample of rows, the first and the last among them, bit for bit."""
    last = table.n_rows - 1
    rows = np.unique(np.linspace(0, last, min(N_COMPARED, table.n_rows)).astype(np.int64))
    expected = numbers(device, table.arrow.column(name).take(pa.array(rows)))
    found = values[device.xp.asarray(rows)]
    same = (found == expected) | (device.xp.isnan(found) & device.xp.isnan(expected))
    return bool(same.all())


def _read(
    device: Device, libraries: Libraries, table: Table, kinds: Mapping[str, str], free_bytes: int
) -> dict[str, Array]:
    """Read part after part into arrays of all rows.

    Raises
    ------
    _NotReadError
        If rows or types are not the door's, or the files are others by now.
    """
    source, n_rows = table.source, table.n_rows
    assert source is not None
    parts = _csv_parts if source.format == "csv" else _parquet_parts
    held = {name: device.xp.empty(n_rows, dtype=np.float64) for name in kinds}
    first = 0
    for read in parts(libraries, table, kinds, free_bytes):
        frame = read()
        after = first + len(frame)
        if after > n_rows:
            raise _NotReadError(f"cuDF finds more than {n_rows:,} rows")
        for name, kind in kinds.items():
            series = frame[name]
            if str(series.dtype) != kind:
                raise _NotReadError(f"'{name}' is {series.dtype} to cuDF, not {kind}")
            floats = libraries.call("series.astype", series)
            # copied, so that the frame's memory can go
            held[name][first:after] = libraries.call("series.to_cupy", floats)
        first = after
    if first != n_rows:
        raise _NotReadError(f"cuDF finds {first:,} rows, not {n_rows:,}")
    if not source.is_unchanged():
        raise _NotReadError("the files have changed since")
    return held


# -- parts of files ----------------------------------------------------------------------


def _parquet_parts(
    libraries: Libraries, table: Table, kinds: Mapping[str, str], free_bytes: int
) -> Iterator[_Read]:
    """Yield a reader for each run of row groups that fits into the memory that is free."""
    assert table.source is not None
    most = rows_per_block(read_row_bytes(len(kinds)), free_bytes, at_most=MOST_READ_ROWS)
    columns = list(kinds)

    def read(groups: Sequence[RowGroup]) -> Any:
        frame = libraries.call(
            "read_parquet",
            _plain_path(groups[0].path),
            columns=columns,
            row_groups=[[group.number for group in groups]],
        )
        expected = sum(group.n_rows for group in groups)
        if len(frame) != expected:
            raise _NotReadError(f"cuDF finds {len(frame):,} rows where {expected:,} stand")
        return frame

    for groups in _runs(table.source, most):
        yield partial(read, groups)


def _runs(source: Source, most_rows: int) -> Iterator[list[RowGroup]]:
    """Put neighbouring row groups of one file together, as long as they are so many rows.

    A row group is never cut: one that has more rows stands alone.
    """
    run: list[RowGroup] = []
    for group in source.row_groups():
        n_rows = sum(each.n_rows for each in run) + group.n_rows
        if run and (group.path != run[0].path or n_rows > most_rows):
            yield run
            run = []
        run.append(group)
    if run:
        yield run


def _csv_parts(
    libraries: Libraries, table: Table, kinds: Mapping[str, str], free_bytes: int
) -> Iterator[_Read]:
    """Yield a reader for each range of lines that fits into the memory that is free."""
    assert table.source is not None
    form = table.source.csv_form(table.arrow)
    if isinstance(form, str):
        raise _NotReadError(form)

    def read(lines: ByteRange) -> Any:
        return libraries.call(
            "read_csv",
            _plain_path(form.path),
            sep=form.separator,
            names=list(form.names),
            usecols=list(kinds),
            dtype=dict(kinds),
            na_values=list(form.null_values),
            # where there is one column, an empty line is a missing value
            skip_blank_lines=len(form.names) > 1,
            decimal="," if form.separator == "." else ".",
            quotechar=form.quote,
            byte_range=(lines.begin, lines.n_bytes),
        )

    for lines in table.source.lines(form, csv_range_bytes(free_bytes)):
        yield partial(read, lines)


def _plain_path(path: str) -> str:
    if any(sign in path for sign in _PATTERN_SIGNS):
        raise _NotReadError("cuDF takes the file's name for a pattern")
    return path
