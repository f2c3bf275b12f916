"""Parquet files that are asked again and again which of their rows are new.

A folder that receives a part for every few rows soon has many of them; the columns that are
looked at are kept for small parts, as long as the file is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpuseg.tables import files
from gpuseg.tables.agreement import check_known
from gpuseg.tables.location import Location
from gpuseg.tables.source import Stamp

#: Parts that are kept, and how large each may be: some megabytes together.
KEPT_PARTS = 4096
MOST_KEPT_BYTES = 1 << 17


class _Part(NamedTuple):
    """What is looked at of a file."""

    path: Path
    schema: pa.Schema
    looked_at: pa.Table
    group_sizes: tuple[int, ...]


def read_narrow(location: Location, columns: Sequence[str]) -> pa.Table:
    """Read a few columns of a Parquet file, or of all parts of a folder.

    Raises
    ------
    DataError
        If a column is not there, or a part has another schema than the first.
    """
    return _together(_parts(location, columns))


def read_chosen(
    location: Location, columns: Sequence[str], choose: Callable[[pa.Table], Any]
) -> pa.Table:
    """Read chosen rows, and of the row groups those only that hold some.

    Parameters
    ----------
    choose
        Gets these columns of all rows and returns a truth value for each.

    Raises
    ------
    DataError
        As `read_narrow`.
    """
    parts = _parts(location, columns)
    chosen = np.asarray(choose(_together(parts)))
    tables = [parts[0].schema.empty_table()]
    begin = 0
    for part in parts:
        end = begin + part.looked_at.num_rows
        if chosen[begin:end].any():
            tables.append(_rows(part, chosen[begin:end]).cast(parts[0].schema))
        begin = end
    return pa.concat_tables(tables)


def _rows(part: _Part, chosen: np.ndarray) -> pa.Table:
    by_group = np.split(chosen, np.cumsum(part.group_sizes)[:-1])
    groups = [number for number, some in enumerate(by_group) if some.any()]
    with pq.ParquetFile(part.path) as file:
        rows = file.read_row_groups(groups)
    return rows.filter(np.concatenate([by_group[number] for number in groups]))


def _together(parts: Sequence[_Part]) -> pa.Table:
    first = parts[0].looked_at.schema
    return pa.concat_tables(part.looked_at.cast(first) for part in parts)


def _parts(location: Location, columns: Sequence[str]) -> list[_Part]:
    paths = files.parts(location.path) if location.kind == "folder" else [location.path]
    found: list[_Part] = []
    for path in paths:
        status = path.stat()
        stamp = Stamp(path.absolute(), status.st_size, status.st_mtime_ns)
        read = _kept if stamp.n_bytes <= MOST_KEPT_BYTES else _read
        found.append(read(stamp, tuple(columns), location.display))
        files.check_part(path, found[-1].schema, found[0].schema)
    return found


def _read(stamp: Stamp, columns: tuple[str, ...], display: str) -> _Part:
    with pq.ParquetFile(stamp.path) as file:
        check_known(columns, file.schema_arrow.names, display)
        looked_at = file.read(columns=list(columns)).select(list(columns))
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        return _Part(stamp.path, file.schema_arrow, looked_at, tuple(groups))


_kept = lru_cache(maxsize=KEPT_PARTS)(_read)
