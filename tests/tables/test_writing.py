"""Files as they are written: their progress, and tables without rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuseg.tables import Output, files, locate, publish, read_table

ROWS = pa.table({"a": [3, 4, 5], "b": ["p", "q", "r"]})


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_progress_goes_with_the_values_that_are_written(monkeypatch):
    """Twelve values go to one place and six to the other; a Parquet file comes in groups."""
    monkeypatch.setattr(files, "GROUP_ROWS", 2)
    told = []
    outputs = [
        Output(locate("six.parquet"), pa.concat_tables([ROWS, ROWS])),
        Output(locate("s.three"), ROWS),
    ]
    publish(outputs, progress=told.append)
    assert told == pytest.approx([2 / 9, 4 / 9, 6 / 9, 6 / 9, 1.0])
    assert pq.ParquetFile("six.parquet").num_row_groups == 3
    assert pq.read_table("six.parquet").equals(outputs[0].arrow)


@pytest.mark.parametrize("place", ["t.parquet", "t.csv", "t.tsv", "t.arrow"])
def test_a_file_without_rows_keeps_its_columns(place):
    publish([Output(locate(place), ROWS.schema.empty_table())])
    found = read_table(locate(place)).arrow
    assert found.num_rows == 0
    assert found.column_names == ["a", "b"]
