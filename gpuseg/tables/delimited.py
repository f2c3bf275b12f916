"""Reading of CSV and its relatives: find the dialect, read text, type it exactly."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from gpuseg.backends.cpu.threads import in_threads
from gpuseg.errors import DataError
from gpuseg.memory import room
from gpuseg.records import GUESSED, Progress, no_progress, part
from gpuseg.tables import exact_types
from gpuseg.tables.dialect import (
    SAMPLE_BYTES,
    SAMPLE_ROWS,
    CsvOptions,
    Dialect,
    first_rows,
    not_text,
    parse,
    parse_in_blocks,
    read_sample,
    sniff,
)
from gpuseg.tables.encodings import find_encoding, open_bytes
from gpuseg.tables.spool import BATCH_ROWS, collected, told

BLOCK_BYTES = 1 << 23

#: Texts in memory take up to this much more than in the file: each value has an offset.
LARGER_IN_MEMORY = 2


def read_delimited(
    path: Path, options: CsvOptions, *, progress: Progress = no_progress
) -> tuple[pa.Table, tuple[str, ...]]:
    """Read a CSV file with every value as it stands there.

    Returns
    -------
    table : pa.Table
    notes : tuple of str
        What was detected, one sentence each.

    Raises
    ------
    DataError
        If the file is empty, a row has too many or too few values, or its bytes are not
        text in the encoding.
    """
    dialect, texts = _read_texts(path, options, part(progress, 0.0, 0.5))
    progress(0.5)
    if not room().holds_table(2 * texts.nbytes):
        return _finish_in_blocks(texts, dialect, options, progress)
    return _finish(texts, dialect, options, progress)


def sample_delimited(path: Path, options: CsvOptions) -> tuple[pa.Table, int]:
    """Return the first rows of a CSV file and the number of bytes that they take."""
    encoding = find_encoding(path, options.encoding, SAMPLE_BYTES)
    sample = read_sample(path, encoding)
    dialect = sniff(path, sample, encoding, options)
    texts = first_rows(sample, dialect)
    table, _notes = _finish(texts, dialect, options, no_progress)
    return table, len(sample)


def _read_texts(path: Path, options: CsvOptions, progress: Progress) -> tuple[Dialect, pa.Table]:
    encoding = find_encoding(path, options.encoding, SAMPLE_BYTES)
    for last_try in (False, True):
        sample = read_sample(path, encoding)
        dialect = sniff(path, sample, encoding, options)
        try:
            texts = _parse_file(path, dialect, progress)
            _check_last_quote(path, dialect, texts)
            return dialect, texts
        except (UnicodeDecodeError, pa.ArrowInvalid) as error:
            if isinstance(error, pa.ArrowInvalid) and "invalid UTF8" not in str(error):
                raise _unreadable(path, dialect, error) from None
            if options.encoding or last_try or not encoding.is_utf8:
                raise not_text(path, encoding) from None
        # a foreign letter beyond the sample: look at the whole file
        encoding = find_encoding(path, None, sys.maxsize)
    raise AssertionError("the second try returns or raises")


def _parse_file(path: Path, dialect: Dialect, progress: Progress) -> pa.Table:
    block_bytes = BLOCK_BYTES
    in_blocks = not room().holds_table(LARGER_IN_MEMORY * path.stat().st_size)
    while True:
        try:
            with open_bytes(path) as stream:
                if in_blocks:
                    reader = parse_in_blocks(stream, dialect, block_bytes)
                    # of a compressed file this is a guess
                    size = LARGER_IN_MEMORY * path.stat().st_size
                    by_size = told(reader, progress, expected=size, of=attrgetter("nbytes"))
                    return collected(by_size, reader.schema)
                return parse(
                    stream,
                    dialect.separator,
                    dialect.quote,
                    dialect.width,
                    null_values=dialect.null_values,
                    encoding=dialect.encoding.codec,
                    block_bytes=block_bytes,
                )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):  # one line without an end
                sample = read_sample(path, dialect.encoding)
                return first_rows(sample, dialect)
            if "block size" not in str(error) or block_bytes > 1 << 30:
                raise
        block_bytes *= 8  # one row is longer than a block


# -- what is wrong with a file -----------------------------------------------------------


def _unreadable(path: Path, dialect: Dialect, error: pa.ArrowInvalid) -> DataError:
    """Find the line that has too many or too few values. Slow, as nothing else is left to do."""
    text = _whole_text(path, dialect)
    for line, values, lines in _ragged(text, dialect):
        unclosed = "; is a quote not closed there?" if lines > 1 else ""
        return DataError(
            f"'{path}', line {line} has {values} of {dialect.width} values (separator: "
            f"{dialect.separator_name}){unclosed}; mend the line, or give --csv-separator or "
            "--csv-quote"
        )
    # Arrow's own words may hold a customer's row
    return DataError(f"'{path}' is not readable as CSV: {str(error).partition(':')[0]}")


def _check_last_quote(path: Path, dialect: Dialect, texts: pa.Table) -> None:
    """Refuse a file whose last quote is not closed: its last value swallowed other rows."""
    last = texts.column(texts.num_columns - 1)[-1].as_py() or ""
    if "\n" not in last and "\r" not in last:
        return
    text = _whole_text(path, dialect).rstrip("\r\n")
    if not text.endswith(dialect.quote):
        line = text.count("\n") + 1 - last.rstrip("\r\n").count("\n")
        raise DataError(
            f"'{path}': a quote ({dialect.quote}) that opens in line {line} is never closed; "
            "mend the line, or give --csv-quote"
        )


def _whole_text(path: Path, dialect: Dialect) -> str:
    with open_bytes(path) as stream:
        return dialect.encoding.decode(stream.read())


def _ragged(text: str, dialect: Dialect) -> Iterator[tuple[int, int, int]]:
    """Yield line number, number of values and number of lines of each row of another width."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        reader = csv.reader(
            text.splitlines(keepends=True), delimiter=dialect.separator, quotechar=dialect.quote
        )
        before = 0
        for row in reader:
            if len(row) != dialect.width and row:
                yield before + 1, len(row), reader.line_num - before
            before = reader.line_num
    finally:
        csv.field_size_limit(limit)


# -- names and types ---------------------------------------------------------------------


def _finish(
    texts: pa.Table, dialect: Dialect, options: CsvOptions, progress: Progress
) -> tuple[pa.Table, tuple[str, ...]]:
    names, notes = _names(texts, dialect)
    rows = texts.slice(1) if dialect.header else texts
    decimal = options.decimal or _detected_decimal(rows)
    columns: list[pa.ChunkedArray | None] = list(rows.columns)
    n_columns = len(columns)
    del texts, rows

    def convert(i: int) -> pa.ChunkedArray:
        column, columns[i] = columns[i], None  # let go of each text as soon as it is typed
        assert column is not None
        return exact_types.exact(column, decimal=decimal)

    typed = []
    for column in in_threads(convert, range(n_columns)):
        typed.append(column)
        progress(0.5 + 0.5 * len(typed) / n_columns)
    found = _found(dialect, decimal)
    return pa.table(typed, names=names), (*found, *notes, *_unsure(typed, names, options))


def _finish_in_blocks(
    texts: pa.Table, dialect: Dialect, options: CsvOptions, progress: Progress
) -> tuple[pa.Table, tuple[str, ...]]:
    """Type the columns as `_finish` does, in blocks: first find the types, then convert."""
    names, notes = _names(texts, dialect)
    rows = texts.slice(1) if dialect.header else texts
    decimal = options.decimal or _detected_decimal(rows)
    batches = rows.to_batches(max_chunksize=BATCH_ROWS)

    def kind_of(i: int) -> exact_types.Convert:
        return exact_types.exact_in_pieces([batch.column(i) for batch in batches], decimal=decimal)

    converters = []
    for convert in in_threads(kind_of, range(rows.num_columns)):
        converters.append(convert)
        progress(0.5 + 0.3 * len(converters) / rows.num_columns)

    def typed() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches, start=1):
            pairs = zip(converters, batch.columns, strict=True)
            arrays = [convert(column) for convert, column in pairs]
            yield pa.RecordBatch.from_arrays(arrays, names=names)
            progress(0.8 + 0.2 * number / len(batches))

    first = next(typed())
    table = collected(typed(), first.schema)
    found = _found(dialect, decimal)
    return table, (*found, *notes, *_unsure(table.columns, names, options))


def _found(dialect: Dialect, decimal: str) -> tuple[str, ...]:
    encoding = dialect.encoding
    found = (
        f"CSV: separator {dialect.separator_name}, decimal sign {decimal}, encoding "
        f"{encoding.name}, quote {dialect.quote}, "
        f"{'names in the first line' if dialect.header else 'no line of names'}."
    )
    if not encoding.is_guess:
        return (found,)
    return found, f"{GUESSED} as {encoding.name}; if letters look wrong, give --csv-encoding"


def _detected_decimal(rows: pa.Table) -> str:
    texts = [column.slice(0, SAMPLE_ROWS) for column in rows.columns]
    return exact_types.decimal_sign(texts) or "."


def _unsure(columns: list[pa.ChunkedArray], names: Iterable[str], options: CsvOptions) -> list[str]:
    if options.decimal:
        return []
    unsure = [
        name
        for name, column in zip(names, columns, strict=True)
        if pa.types.is_string(column.type)
        and exact_types.is_comma_number(column.slice(0, SAMPLE_ROWS))
    ]
    if not unsure:
        return []
    return [
        "Kept as text, since a comma may part thousands or decimals (--csv-decimal decides): "
        + ", ".join(unsure)
    ]


def _names(texts: pa.Table, dialect: Dialect) -> tuple[list[str], list[str]]:
    """Return unique names that are not empty, and what had to be renamed for it."""
    if not dialect.header:
        return [f"column_{i + 1}" for i in range(texts.num_columns)], []
    given = [column[0].as_py() for column in texts.columns]
    taken = set(given)
    seen: Counter[str] = Counter()
    names, notes = [], []
    for position, name in enumerate(given, 1):
        seen[name] += 1
        if name and seen[name] == 1:
            names.append(name)
            continue
        new = _free_name(f"{name}_{seen[name]}" if name else f"column_{position}", taken)
        taken.add(new)
        names.append(new)
        why = f"'{name}' is there already" if name else "it has no name"
        notes.append(f"Column {position} is called '{new}' here: {why}.")
    return names, notes


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
