"""The files behind a table, for an engine that reads columns itself, past the host's memory.

The door stays the one that decides: names, types and rows are those of its Arrow table.
What is told here is only where the same rows stand in the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gpuseg.records import ByteRange, CsvForm, RowGroup
from gpuseg.tables import files
from gpuseg.tables.dialect import SAMPLE_BYTES, CsvOptions, read_sample, sniff
from gpuseg.tables.encodings import find_encoding
from gpuseg.tables.location import Location

_GZIP_MARK = b"\x1f\x8b"


class Stamp(NamedTuple):
    """A file as it was at some time."""

    path: Path
    n_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Look at a file now."""
        path = path.resolve()
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class FileSource:
    """Parquet files, or a CSV file; see `gpuseg.records.Source`.

    Parameters
    ----------
    stamps
        The files before they were read, in the order of the rows.
    csv
        What the user knew about a CSV file.
    """

    format: str
    stamps: tuple[Stamp, ...]
    csv: CsvOptions

    @classmethod
    def of(cls, location: Location, csv: CsvOptions) -> FileSource | None:
        """Look at the files of a location; None where it holds neither Parquet nor CSV."""
        if location.format not in ("parquet", "csv"):
            return None
        paths = [location.path] if location.kind == "file" else files.parts(location.path)
        return cls(location.format, tuple(map(Stamp.of, paths)), csv)

    def is_unchanged(self) -> bool:
        """Whether the files are those that the table was read from."""
        try:
            return all(Stamp.of(stamp.path) == stamp for stamp in self.stamps)
        except OSError:
            return False

    def row_groups(self) -> Sequence[RowGroup]:
        """Return all row groups of Parquet files, in the order of the table's rows."""
        found = []
        for stamp in self.stamps:
            metadata = pq.read_metadata(stamp.path)
            for number in range(metadata.num_row_groups):
                n_rows = metadata.row_group(number).num_rows
                found.append(RowGroup(str(stamp.path), number, n_rows))
        return found

    def csv_form(self, rows: pa.Table) -> CsvForm | str:
        """Return the form of a CSV file, or why others than the door cannot read it.

        Parameters
        ----------
        rows
            What the door read from it.
        """
        path = self.stamps[0].path
        with path.open("rb") as file:
            if file.read(2) == _GZIP_MARK:
                return "the file is compressed"
        encoding = find_encoding(path, self.csv.encoding, SAMPLE_BYTES)
        if encoding.name.endswith("mark") or not encoding.is_utf8:
            return f"the file is {encoding.name}"
        sample = read_sample(path, encoding)
        if sample.count(b"\r") != sample.count(b"\r\n"):
            return "its lines end in carriage returns"
        if _holds_line_ends(rows):
            return "some of its values hold line ends"
        dialect = sniff(path, sample, encoding, self.csv)
        names = tuple(rows.column_names)
        return CsvForm(
            path=str(path),
            names=names,
            has_header=dialect.header,
            separator=dialect.separator,
            quote=dialect.quote,
            null_values=dialect.null_values,
        )

    def lines(self, form: CsvForm, n_bytes: int) -> Iterator[ByteRange]:
        """Cut the rows of a plain CSV file into ranges of about so many bytes.

        A range begins with the line end before its first row and stops before the one that
        ends its last row, so no row is cut, whatever its length.
        """
        path, size, _modified = self.stamps[0]
        with path.open("rb") as file:
            begin = 0
            while form.has_header and begin == 0:
                if file.readline().strip(b"\r\n"):
                    begin = file.tell() - 1
            while begin < size - 1:
                file.seek(begin + n_bytes)
                at_end = not file.readline().endswith(b"\n")
                end = size if at_end else file.tell() - 1
                yield ByteRange(begin, end - begin)
                begin = end


def _holds_line_ends(rows: pa.Table) -> bool:
    if any("\n" in name or "\r" in name for name in rows.column_names):
        return True
    texts = (column for column in rows.columns if pa.types.is_string(column.type))
    return any(
        pc.any(pc.match_substring(column, sign), min_count=0).as_py()
        for column in texts
        for sign in "\n\r"
    )
