"""The door: files and warehouses, in and out. Only this package knows systems.

Each warehouse system is a module that is imported when its address is given: ``duckdb``, and
``adbc`` for every database with an ADBC driver, with what differs between them as data.
"""

from gpuseg.tables.arriving import read_newcomers, stamp
from gpuseg.tables.dialect import CsvOptions
from gpuseg.tables.loading import load
from gpuseg.tables.location import Location, locate, locate_warehouse
from gpuseg.tables.marks import Marks, mark
from gpuseg.tables.newness import Newcomers, Newness
from gpuseg.tables.publishing import Output, check_output, here, publish
from gpuseg.tables.reading import TableSummary, peek, read_table

__all__ = [
    "CsvOptions",
    "Location",
    "Marks",
    "Newcomers",
    "Newness",
    "Output",
    "TableSummary",
    "check_output",
    "here",
    "load",
    "locate",
    "locate_warehouse",
    "mark",
    "peek",
    "publish",
    "read_newcomers",
    "read_table",
    "stamp",
]
