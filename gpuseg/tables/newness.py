"""Which rows are not in a table yet: the words for it, in SQL and in memory.

The same question is asked twice: when rows are fetched, and once more in the step that adds
them, while nobody else can add any. The first one saves work, the second one is the promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from gpuseg.errors import DataError, SettingsError
from gpuseg.tables.location import Location


class Newness(NamedTuple):
    """What tells that a row is new.

    Parameters
    ----------
    rowid
        Column that identifies a row: it is new when its value is not there.
    watermark
        Column that grows from row to row. With `rowid` only rows from the highest value on
        that is there are looked at, and those without a value; alone, rows above it are new.
    """

    rowid: str | None
    watermark: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are looked at."""
        return tuple(name for name in (self.rowid, self.watermark) if name is not None)

    def check(self, names: Sequence[str], place: str) -> None:
        """Refuse a table that lacks one of the columns.

        Raises
        ------
        SettingsError
        """
        for parameter, column in zip(("rowid_column", "watermark_column"), self, strict=True):
            if column is not None and column not in names:
                raise SettingsError(
                    f"{parameter} is '{column}', which is no column of '{place}'; it has: "
                    f"{', '.join(names[:10])}{', …' if len(names) > 10 else ''}"
                )


class Rows(NamedTuple):
    """Which rows of a table to read: all that is set must hold.

    Where the watermark or, for `absent_from`, the row id is missing, a row is read.

    Parameters
    ----------
    new
        The columns that the rest speaks of.
    low
        Highest watermark that is there already, as text; None when there is none.
    absent_from
        A table of the same database in which the row id must not occur; it may not be there.
    among
        Row ids, as texts; when empty, the rows that have none.
    """

    new: Newness
    low: str | None = None
    absent_from: Location | None = None
    among: tuple[str, ...] | None = None

    def sql(self, there: str) -> str:
        """Return the condition on the rows of a table that is called ``gpuseg_in``.

        Parameters
        ----------
        there
            Quoted name of the table `absent_from`, or nothing.
        """
        conditions = []
        rowid, watermark = self.new
        if watermark is not None and self.low is not None:
            mark = f"gpuseg_in.{quoted(watermark)}"
            # a text without a type of its own: the database reads it as the column's type
            above = f"{mark} {'>' if rowid is None else '>='} {literal(self.low)}"
            conditions.append(f"({above} OR {mark} IS NULL)")
        if rowid is not None and there:
            conditions.append(f"({without(rowid, there)} OR gpuseg_in.{quoted(rowid)} IS NULL)")
        if rowid is not None and self.among is not None:
            among = ", ".join(map(literal, self.among))
            conditions.append(
                f"gpuseg_in.{quoted(rowid)} {f'IN ({among})' if among else 'IS NULL'}"
            )
        return " AND ".join(conditions) or "1 = 1"


def without(rowid: str, there: str) -> str:
    """Return SQL that is true for rows of ``gpuseg_in`` whose id is not in a table."""
    own = quoted(rowid)
    return (
        f"NOT EXISTS (SELECT 1 FROM {there} AS gpuseg_out WHERE gpuseg_out.{own} = gpuseg_in.{own})"
    )


def not_there_sql(new: Newness, there: str) -> str:
    """Return SQL that is true for rows of ``gpuseg_in`` that are new to a table."""
    if new.rowid is not None:
        return without(new.rowid, there)
    assert new.watermark is not None
    mark = quoted(new.watermark)
    top = f"SELECT max({mark}) FROM {there}"
    return f"(gpuseg_in.{mark} > ({top}) OR ({top}) IS NULL)"


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


class Newcomers(NamedTuple):
    """Rows that are not there yet, and what was left out of them."""

    rows: pa.Table
    n_untold: int = 0  # without a row id, or without a watermark where that is all there is
    n_repeated: int = 0  # rows whose id another one of them has too


def newcomers(rows: pa.Table, new: Newness) -> Newcomers:
    """Leave out what cannot be told from others: one row for each id, and none without one.

    Of several rows with one id the one with the highest watermark stays; without a watermark,
    the first.
    """
    key = new.rowid or new.watermark
    assert key is not None
    told = rows.filter(pc.is_valid(rows[key]))
    n_untold = rows.num_rows - told.num_rows
    if new.rowid is None:
        return Newcomers(told, n_untold)
    place = pa.array(range(told.num_rows), pa.int64())
    keys = pa.table({"key": _plain(told[new.rowid]), "place": place})
    if new.watermark is not None:
        keys = keys.append_column("mark", _plain(told[new.watermark]))
        best_first = [("mark", "descending"), ("place", "ascending")]
        keys = keys.sort_by(best_first)  # rows without a mark come last
    firsts = keys.group_by("key", use_threads=False).aggregate([("place", "first")])["place_first"]
    kept = told.take(firsts.combine_chunks().sort())
    return Newcomers(kept, n_untold, told.num_rows - kept.num_rows)


def not_there(rows: pa.Table, there: pa.Table, new: Newness) -> pa.Table:
    """Return the rows that are new to a table of which the columns of `new` are given."""
    if new.rowid is not None:
        return rows.filter(absent(rows[new.rowid], there[new.rowid]))
    assert new.watermark is not None
    return rows.filter(from_low(rows, new, highest(there[new.watermark])))


def absent(ids: pa.ChunkedArray, there: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say of each id whether it does not occur in `there`; a missing one does not."""
    ids, there = _plain(ids), _plain(there)
    try:
        there = there.cast(ids.type)
    except pa.ArrowException:  # the two places do not agree on the type
        ids, there = ids.cast(pa.string()), there.cast(pa.string())
    return pc.invert(pc.is_in(ids, value_set=there.drop_null()))


def from_low(rows: pa.Table, new: Newness, low: str | None) -> Any:
    """Say of each row whether it is above the watermark (with a row id also on it), or has none.

    Raises
    ------
    DataError
        If the watermark of one table cannot be compared with that of the other.
    """
    if new.watermark is None or low is None:
        return pa.repeat(True, rows.num_rows)
    marks = _plain(rows[new.watermark])
    compare = pc.greater if new.rowid is None else pc.greater_equal
    try:
        above = compare(marks, pa.scalar(low).cast(marks.type))
    except pa.ArrowException:
        raise DataError(
            f"watermark_column '{new.watermark}' is of the Arrow type {marks.type} in the input "
            "and of another kind in the output; the two must be comparable"
        ) from None
    return pc.fill_null(above, True)


def highest(marks: pa.ChunkedArray) -> str | None:
    """Return the highest watermark as text; None when there is none."""
    top = pc.max(_plain(marks))
    return None if not top.is_valid else str(top.cast(pa.string()).as_py())


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column
