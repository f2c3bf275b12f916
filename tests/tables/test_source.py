"""What the door tells of its files is true of them: row groups, plain lines, changes."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuseg.records import RowGroup
from gpuseg.tables import CsvOptions, locate, read_table


def source_of(path, **options):
    table = read_table(locate(str(path)), **options)
    return table, table.source


def test_row_groups_come_in_the_order_of_the_rows(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for i, n_rows in enumerate((5, 0, 3)):
        table = pa.table({"a": list(range(n_rows))}, pa.schema([("a", pa.int64())]))
        pq.write_table(table, folder / f"p{i}.parquet", row_group_size=2)
    _table, source = source_of(folder)
    sizes = [(group.path[-10:], group.n_rows) for group in source.row_groups() if group.n_rows]
    assert sizes == [("p0.parquet", n) for n in (2, 2, 1)] + [("p2.parquet", n) for n in (2, 1)]
    assert source.row_groups()[1] == RowGroup(str((folder / "p0.parquet").resolve()), 1, 2)


def cut(source, form, n_bytes):
    """Return the rows of each range, as a reader of such ranges sees them."""
    data = Path(form.path).read_bytes()
    found = []
    for begin, size in source.lines(form, n_bytes):
        text = data[begin : begin + size]
        found.append(text[1:] if begin else text)
    return found


CSV = b"a,b\n1,x\n22,a much longer line than the others\n\n3,z\n"


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 5, 8, 20, 49, 50, 51, 1000])
@pytest.mark.parametrize("text", [CSV, CSV[:-1], b"\n\n" + CSV, CSV.replace(b"\n", b"\r\n")])
def test_ranges_are_whole_lines_and_all_of_them(tmp_path, text, n_bytes):
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    table, source = source_of(path)
    form = source.csv_form(table.arrow)
    assert form.names == ("a", "b")
    ranges = cut(source, form, n_bytes)
    rows = text.lstrip(b"\n").split(b"\n", 1)[1]
    assert b"\n".join(ranges).removesuffix(b"\n") == rows.removesuffix(b"\n")
    assert len(ranges) > 1 or n_bytes > 8


def test_without_a_header_the_first_line_is_a_row(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"1,2\n3,4\n5,6\n")
    table, source = source_of(path)
    form = source.csv_form(table.arrow)
    assert cut(source, form, 2) == [b"1,2", b"3,4", b"5,6"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (gzip.compress(CSV), "the file is compressed"),
        (b"\xef\xbb\xbf" + CSV, "the file is UTF-8 with byte order mark"),
        (CSV.decode().encode("utf-16"), "the file is UTF-16"),
        (CSV.replace(b"\n", b"\r"), "its lines end in carriage returns"),
        (b'a,b\n1,"x\ny"\n2,z\n', "some of its values hold line ends"),
        (b'a,"b\nc"\n1,x\n2,z\n', "some of its values hold line ends"),
    ],
)
def test_what_is_no_plain_csv_is_told(tmp_path, text, reason):
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    table, source = source_of(path)
    assert source.csv_form(table.arrow) == reason


def test_the_form_is_the_dialect(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a;a\n'1';-\n2;x\n3;'y'\n")
    table, source = source_of(path, csv=CsvOptions(quote="'", null_values=("-",)))
    form = source.csv_form(table.arrow)
    assert form[1:] == (("a", "a_2"), True, ";", "'", ("", "-"))


def test_a_change_is_noticed(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    _table, source = source_of(path)
    assert source.is_unchanged()
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert not source.is_unchanged()
    path.unlink()
    assert not source.is_unchanged()


def test_other_tables_have_no_files_to_tell_of(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n')
    assert source_of(path)[1] is None
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "t.parquet")
    assert source_of(tmp_path / "t.parquet", columns=["b"])[1] is None
