"""The input of a run, as the settings name it."""

from __future__ import annotations

from dataclasses import replace

from gpuseg.errors import SettingsError
from gpuseg.records import Progress, Table, no_progress
from gpuseg.settings import Settings
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.location import Location, locate, locate_warehouse
from gpuseg.tables.reading import TableSummary, peek, read_table


def read_input(settings: Settings, progress: Progress = no_progress) -> Table:
    """Read the table, or the rows of the query, that the settings name.

    Raises
    ------
    SettingsError
        If they name neither a table nor a query, or both.
    GpusegError
        As `read_table`.
    """
    location = _sparing(settings, input_location(settings))
    return read_table(
        location, query=settings.input_query, csv=csv_options(settings), progress=progress
    )


def peek_input(settings: Settings) -> TableSummary:
    """Look at the input without reading all of it."""
    location = _sparing(settings, input_location(settings))
    return peek(location, query=settings.input_query, csv=csv_options(settings))


def input_location(settings: Settings) -> Location:
    """Return where the input is; the warehouse as a whole for a query.

    Raises
    ------
    SettingsError
        If the settings name neither a table nor a query, or both.
    """
    if settings.input_table is not None and settings.input_query is not None:
        raise SettingsError("input_table and input_query are both given; give one of them")
    if settings.input_query is not None:
        return locate_warehouse(settings.warehouse)
    if settings.input_table is None:
        raise SettingsError(
            "no input: give --input-table (db.table, a file or a folder) or --input-query"
        )
    return locate(settings.input_table, warehouse=settings.warehouse)


def _sparing(settings: Settings, location: Location) -> Location:
    """Leave ignored columns in Treasure Data: they may be wide, and the way is long.

    A table that is replaced by its own rows would lose them, so there all are fetched.
    """
    if location.kind != "td" or not location.table:
        return location
    from gpuseg.tables.treasure_data import column_names

    output = settings.output_table
    if output and locate(output, warehouse=settings.warehouse).place == location.place:
        return location
    wanted = {settings.rowid_column, *(settings.columns or ())}
    wanted |= {*settings.categorical_columns, *settings.numeric_columns}
    ignored = set(settings.ignore_columns) - wanted
    return replace(location, leave_out=tuple(n for n in column_names(location) if n in ignored))


def csv_options(settings: Settings) -> CsvOptions:
    """Return what the settings say about CSV files."""
    return CsvOptions(
        separator=settings.csv_separator,
        quote=settings.csv_quote,
        decimal=settings.csv_decimal,
        encoding=settings.csv_encoding,
        header=settings.csv_header,
    )
