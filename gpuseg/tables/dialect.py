"""The dialect of CSV files: how it is told, and how text is cut into values by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from gpuseg.errors import DataError, SettingsError
from gpuseg.tables import exact_types
from gpuseg.tables.encodings import Encoding, open_bytes

SAMPLE_BYTES = 1 << 18
SAMPLE_ROWS = 10_000
#: Tried in this order, so that decimal commas between semicolons do not win.
SEPARATORS = ("\t", ";", "|", ",")
#: In no file: for text of one column that holds all the separators.
NO_SEPARATOR = "\x1f"
NAMES = {"\t": "tab", ";": "semicolon", "|": "bar", ",": "comma"}


@dataclass(frozen=True)
class CsvOptions:
    """How to read CSV; what is None (or ``auto``) is detected.

    Parameters
    ----------
    separator, quote
        One character each.
    decimal
        ``.`` or ``,``.
    encoding
        As Python calls it, e.g. ``cp1252``.
    header
        ``auto``, ``yes``, or ``none`` when the first line is a row already.
    null_values
        Unquoted texts that mean missing, besides the empty one.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    quote: str | None = None
    header: str = "auto"
    null_values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, sign in (("separator", self.separator), ("quote", self.quote)):
            if sign is not None and (len(sign.encode()) != 1 or sign in "\r\n"):
                raise SettingsError(f"the CSV {what} is {sign!r}; it must be one ASCII character")
        if self.decimal not in (None, ".", ","):
            raise SettingsError(f"the CSV decimal sign is {self.decimal!r}; it must be . or ,")
        if self.decimal is not None and self.decimal == self.separator:
            raise SettingsError(f"{self.decimal!r} cannot be both CSV separator and decimal sign")
        if self.header not in ("auto", "yes", "none"):
            raise SettingsError(f"the CSV header is {self.header!r}; it must be auto, yes or none")


@dataclass(frozen=True)
class Dialect:
    """What a file was found to be."""

    encoding: Encoding
    separator: str
    quote: str
    header: bool
    width: int
    null_values: tuple[str, ...]

    @property
    def separator_name(self) -> str:
        """The separator in words."""
        return "none" if self.width == 1 else NAMES.get(self.separator, self.separator)


def read_sample(path: Path, encoding: Encoding) -> bytes:
    """Return whole lines from the start of the file, as UTF-8."""
    with open_bytes(path) as stream:
        raw = stream.read(SAMPLE_BYTES)
        complete = len(raw) < SAMPLE_BYTES
        while not complete and not any(newline in raw for newline in (b"\n", b"\r")):
            more = stream.read(len(raw))
            complete = not more
            raw += more
    try:
        text = encoding.decode(raw, complete=complete)
    except UnicodeDecodeError:
        raise not_text(path, encoding) from None
    if not complete:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    return text.encode()


def not_text(path: Path, encoding: Encoding) -> DataError:
    """Return the error of a file that cannot be decoded."""
    return DataError(f"'{path}' is not {encoding.name} text throughout; give --csv-encoding")


def sniff(path: Path, sample: bytes, encoding: Encoding, options: CsvOptions) -> Dialect:
    """Tell the dialect from the first lines.

    Raises
    ------
    DataError
        If there is no line.
    """
    if not sample.strip(b"\r\n"):
        raise DataError(f"'{path}' is empty; expected a line of column names and rows")
    quote = options.quote or '"'
    separator = options.separator or _find_separator(path, sample, quote)
    rows, bad = _try_separator(sample, separator, quote)
    if options.quote is None and (bad or _all_in_apostrophes(rows)):
        other = options.separator or _find_separator(path, sample, "'")
        other_rows, other_bad = _try_separator(sample, other, "'")
        if other_bad < bad or not bad:
            quote, separator, rows = "'", other, other_rows
    header = _has_header(rows) if options.header == "auto" else options.header == "yes"
    return Dialect(encoding, separator, quote, header, rows.num_columns, ("", *options.null_values))


def _find_separator(path: Path, sample: bytes, quote: str) -> str:
    """Choose the separator that cuts every line of the sample into as many values."""
    if ".tsv" in path.suffixes[-2:]:
        return "\t"
    found = []
    for separator in (*SEPARATORS, NO_SEPARATOR):
        rows, bad = _try_separator(sample, separator, quote)
        share_bad = bad / (bad + rows.num_rows)
        if rows.num_columns > 1 and share_bad < 0.5:
            found.append((share_bad, separator))
    return min(found, key=lambda pair: pair[0])[1] if found else _one_column(sample, quote)


def _one_column(sample: bytes, quote: str) -> str:
    return NO_SEPARATOR if _try_separator(sample, ",", quote)[1] else ","


def _try_separator(sample: bytes, separator: str, quote: str) -> tuple[pa.Table, int]:
    """Return the rows that have as many values as the first, and how many have not."""
    bad: list[str] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        bad.append(row.text)
        return "skip"

    lines = _whole_lines(sample)
    width = lines.lstrip(b"\r\n").splitlines()[0].count(separator.encode()) + 1
    rows = parse(pa.BufferReader(lines), separator, quote, width, on_bad=skip)
    if rows.num_columns > width:  # the first row has more lines than one
        bad.clear()
        rows = parse(pa.BufferReader(lines), separator, quote, rows.num_columns, on_bad=skip)
    # the last row may have been cut inside its quotes
    cut = 1 if bad and sample.rstrip(b"\r\n").endswith(bad[-1].rstrip("\r\n").encode()) else 0
    return rows, max(len(bad) - cut, 0)


def _all_in_apostrophes(rows: pa.Table) -> bool:
    """Say whether some column's values, from the second row on, all stand in apostrophes."""
    columns = (column.slice(1).drop_null().to_pylist() for column in rows.columns)
    return any(
        len(texts) > 1 and all(len(t) > 1 and t[0] == "'" == t[-1] for t in texts)
        for texts in columns
    )


def _has_header(rows: pa.Table) -> bool:
    """Say whether the first row holds names: text above a column of numbers, or all text."""
    data_above_data = False
    for column in rows.columns:
        first, rest = column.slice(0, 1), column.slice(1, SAMPLE_ROWS)
        if first.null_count or not _is_typed(rest):
            continue
        if not _is_typed(first):
            return True
        data_above_data = True
    return not data_above_data


def _is_typed(texts: pa.ChunkedArray) -> bool:
    typed = exact_types.exact(texts)
    return not pa.types.is_string(typed.type) or exact_types.is_comma_number(texts)


# -- parsing -----------------------------------------------------------------------------


def parse_in_blocks(
    stream: pa.NativeFile, dialect: Dialect, block_bytes: int
) -> pa.csv.CSVStreamingReader:
    """Read all records as `parse` does, a block at a time."""
    options = _options(
        dialect.separator,
        dialect.quote,
        dialect.width,
        dialect.null_values,
        dialect.encoding.codec,
        block_bytes,
        None,
    )
    return pa.csv.open_csv(stream, **options)


def parse(
    stream: pa.NativeFile,
    separator: str,
    quote: str,
    width: int,
    *,
    null_values: tuple[str, ...] = ("",),
    encoding: str = "utf8",
    block_bytes: int = 1 << 26,
    on_bad: object = None,
) -> pa.Table:
    """Read all records, the first one too, as columns of text called f0, f1, …."""
    options = _options(separator, quote, width, null_values, encoding, block_bytes, on_bad)
    return pa.csv.read_csv(stream, **options)


def _options(
    separator: str,
    quote: str,
    width: int,
    null_values: tuple[str, ...],
    encoding: str,
    block_bytes: int,
    on_bad: object,
) -> dict[str, Any]:
    names = [f"f{i}" for i in range(width)]
    return {
        "read_options": pa.csv.ReadOptions(
            autogenerate_column_names=True, encoding=encoding, block_size=block_bytes
        ),
        "parse_options": pa.csv.ParseOptions(
            delimiter=separator,
            quote_char=quote,
            newlines_in_values=True,
            # an empty line is a missing value where there is one column, else nothing
            ignore_empty_lines=width != 1,
            invalid_row_handler=on_bad,
        ),
        "convert_options": pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=list(null_values),
        ),
    }


def _whole_lines(data: bytes) -> bytes:
    return data if data.endswith((b"\n", b"\r")) else data + b"\n"


def first_rows(sample: bytes, dialect: Dialect) -> pa.Table:
    """Return the rows of a sample as text, without those of another width."""
    return parse(
        pa.BufferReader(_whole_lines(sample)),
        dialect.separator,
        dialect.quote,
        dialect.width,
        null_values=dialect.null_values,
        on_bad=lambda _row: "skip",
    )
