"""Tables in pieces: every row once, in its order, however the pieces are cut."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuseg.errors import DataError, TableNotFoundError
from gpuseg.tables import CsvOptions, locate, read_table
from gpuseg.tables.pieces import laid_down, partitioned, pieces_of, read_pieces


def table(n_rows, first=0):
    days = [dt.date(2026, 1, 1) + dt.timedelta(days=i) for i in range(first, first + n_rows)]
    return pa.table(
        {
            "number": pa.array(range(first, first + n_rows), pa.int64()),
            "text": pa.array([f"t{i % 3}" for i in range(n_rows)]).dictionary_encode(),
            "day": days,
        }
    )


@pytest.fixture
def folder(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    pq.write_table(table(10), parts / "a.parquet", row_group_size=4)
    pq.write_table(table(1, 10), parts / "b.parquet")
    pq.write_table(table(1).slice(0, 0), parts / "c.parquet")
    pq.write_table(table(7, 11), parts / "d.parquet", row_group_size=7)
    return parts


@pytest.mark.parametrize("most_rows", [1, 2, 3, 5, 8, 100])
def test_partitions_hold_every_row_once(folder, most_rows):
    found = pieces_of(locate(str(folder)))
    assert found.n_rows == 18
    parts = partitioned(found.pieces, most_rows)
    rows = [read_pieces(part, found.schema) for part in parts]
    assert max(part.num_rows for part in rows) <= most_rows
    assert pa.concat_tables(rows).equals(read_table(locate(str(folder))).arrow)


def test_some_columns_in_another_order(folder):
    found = pieces_of(locate(str(folder)))
    pieces = [piece for part in partitioned(found.pieces, 3) for piece in part]
    read = read_pieces(pieces, found.schema, ["day", "number"])
    assert read.equals(read_table(locate(str(folder))).arrow.select(["day", "number"]))


def test_row_groups_that_fit_are_read_by_one_partition(folder):
    found = pieces_of(locate(str(folder)))
    parts = partitioned(found.pieces, 5)
    groups = [{(piece.path, piece.number) for piece in part} for part in parts[:3]]
    assert not groups[0] & groups[1]


def test_what_is_laid_down_is_what_the_door_read(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,x\n2,\n,y\n")
    found = laid_down(locate(str(path)), None, CsvOptions(), tmp_path / "x.arrow")
    assert read_pieces(found.pieces, found.schema).equals(read_table(locate(str(path))).arrow)


def test_parts_of_another_form_are_refused(folder):
    pq.write_table(pa.table({"number": ["one"]}), folder / "e.parquet")
    with pytest.raises(DataError, match=r"'e\.parquet'"):
        pieces_of(locate(str(folder)))
    with pytest.raises(TableNotFoundError):
        pieces_of(locate(str(folder / "none.parquet")))
