"""``gpuseg load``: a file into the warehouse."""

from __future__ import annotations

from dataclasses import replace

from gpuseg.errors import SettingsError
from gpuseg.records import Progress, Table, no_progress
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.location import Location
from gpuseg.tables.publishing import Output, publish
from gpuseg.tables.reading import read_table


def load(
    file: Location,
    table: Location,
    *,
    append: bool = False,
    csv: CsvOptions | None = None,
    progress: Progress = no_progress,
) -> Table:
    """Put a file, or a folder of Parquet parts, into a table of the warehouse.

    Returns
    -------
    loaded : Table
        The rows that were put there, and what the reader decided.

    Raises
    ------
    SettingsError
        If the first is no file or the second no table.
    GpusegError
        As `read_table` and `publish`.
    """
    if file.in_warehouse:
        raise SettingsError(f"'{file.display}' is not a file; expected FILE, then db.table")
    if not table.in_warehouse:
        raise SettingsError(f"'{table.display}' is not db.table; expected FILE, then db.table")
    loaded = read_table(file, csv=csv or CsvOptions(), progress=progress)
    if table.kind == "td":
        from gpuseg.tables.treasure_data_types import with_legal_names

        arrow, renamed = with_legal_names(loaded.arrow)
        loaded = replace(loaded, arrow=arrow, notes=(*loaded.notes, *renamed))
    publish([Output(table, loaded.arrow, append)])
    return loaded
