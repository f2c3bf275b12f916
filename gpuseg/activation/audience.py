"""What is pushed: where the attribute comes from, and what each segment is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from gpuseg.activation import master_segment as ms
from gpuseg.activation.cdp import Cdp, RefusedError
from gpuseg.activation.segments import Wish
from gpuseg.errors import DataError, SettingsError
from gpuseg.outputs.models import load_model
from gpuseg.records import Segmentation, Table
from gpuseg.settings import Settings
from gpuseg.tables import Location, locate, locate_warehouse, read_table
from gpuseg.tables.treasure_data_site import Site


@dataclass(frozen=True)
class Audience:
    """What a push needs to know.

    Parameters
    ----------
    name
        Of the master segment.
    source
        Table of the attribute, and how it joins.
    remove_stale
        Whether segments of clusters that are no more are removed, or only reported.
    backups
        Folder for the configuration as it was.
    """

    name: str
    source: ms.Source
    remove_stale: bool
    backups: Path

    @classmethod
    def of(cls, settings: Settings) -> Audience | None:
        """Take what the settings say; None when they name no audience.

        Raises
        ------
        SettingsError
            If the output is no table in Treasure Data, or rows are only added to it.
        """
        if settings.audience_name is None:
            return None
        place = _output(settings)
        if settings.appends:
            raise SettingsError(
                "an audience needs one row for each customer, and output_mode append can add a "
                "second; use overwrite"
            )
        rowid, foreign = settings.rowid_column, settings.foreign_key
        assert rowid is not None  # settings.py: all three or none
        assert foreign is not None
        return cls(
            name=settings.audience_name,
            source=ms.Source(place.schema.lower(), place.table.lower(), rowid, foreign),
            remove_stale=settings.remove_stale_segments,
            backups=Path(settings.runs_dir) / "audience_backups",
        )

    def check_service(self) -> None:
        """Find out before any work whether the push can succeed; change nothing.

        Raises
        ------
        SettingsError
            If there is no such master segment, the key may not see it, or the attribute
            belongs to somebody else.
        SinkError
            If the service does not answer.
        """
        cdp = Cdp(Site.of_environment())
        with refusals_as_settings():
            master = ms.find(cdp, self.name)
            ms.with_attribute(ms.read_config(cdp, master), self.source)

    def check_rows(self, table: Table) -> None:
        """Refuse rows whose id does not identify them: the join would multiply customers.

        Raises
        ------
        DataError
        """
        name = self.source.rowid_column
        if name not in table.arrow.column_names:
            raise DataError(f"rowid_column '{name}' is not a column of '{table.name}'")
        column = table.select([name]).column(name)
        n_different = pc.count_distinct(column, mode="only_valid").as_py()
        _check_unique(name, table.n_rows, table.n_rows - column.null_count, n_different)


def required_audience(settings: Settings) -> Audience:
    """Return the audience that the settings name.

    Raises
    ------
    SettingsError
        If they name none.
    """
    audience = Audience.of(settings)
    if audience is None:
        raise SettingsError("no audience: give --audience-name, --foreign-key and --rowid-column")
    return audience


@contextmanager
def refusals_as_settings() -> Iterator[None]:
    """Before anything is changed, a refusal is a matter of settings (exit code 2)."""
    try:
        yield
    except RefusedError as error:
        if error.status in (401, 403):
            raise SettingsError(str(error)) from None
        raise


def wishes_of(cluster_ids: Sequence[int], names: Mapping[int, str] | None = None) -> list[Wish]:
    """Name the segment of each cluster; names that two clusters share get their number."""
    given = {c: name for c, name in (names or {}).items() if name}
    texts = list(given.values())
    return [
        Wish(c, f"Segment {c}", is_named=False)
        if c not in given
        else Wish(c, given[c] if texts.count(given[c]) == 1 else f"{given[c]} ({c})")
        for c in sorted(cluster_ids)
    ]


def wishes_of_result(result: Segmentation) -> list[Wish]:
    """Name the segments of a run: by its own names, where it has any."""
    return wishes_of(result.cluster_ids, _names(result))


def _names(holder: Any) -> dict[int, str]:
    """Return the names that a result or a model has for its segments."""
    return {segment.cluster_id: segment.name for segment in getattr(holder, "segments", ())}


def wishes_of_table(settings: Settings, audience: Audience) -> list[Wish]:
    """Return the segments of a table that an earlier run wrote, and check its ids.

    Raises
    ------
    DataError
        If the table has no clusters, or its rowid_column does not identify its rows.
    ModelError
        If there is no model of the name that is to name the segments.
    """
    source, warehouse = audience.source, locate_warehouse(settings.warehouse)
    table = f'"{source.database}"."{source.table}"'
    rowid = '"' + source.rowid_column.replace('"', '""') + '"'
    counts = f"SELECT count(1) AS n, count({rowid}) AS m, count(DISTINCT {rowid}) AS d FROM {table}"
    [row] = read_table(warehouse, query=counts).arrow.to_pylist()
    _check_unique(source.rowid_column, row["n"], row["m"], row["d"])
    ids = f'SELECT DISTINCT "{ms.ATTRIBUTE}" AS c FROM {table} WHERE "{ms.ATTRIBUTE}" IS NOT NULL'
    found = read_table(warehouse, query=ids).arrow["c"].to_pylist()
    if not found:
        raise DataError(f"no row of '{settings.output_table}' has a {ms.ATTRIBUTE}")
    names = {}
    if settings.model_name is not None:
        names = _names(load_model(Path(settings.runs_dir), settings.model_name))
    return wishes_of([int(cluster) for cluster in found], names)


def _check_unique(name: str, n_rows: int, n_present: int, n_different: int) -> None:
    if n_present < n_rows:
        raise DataError(
            f"rowid_column '{name}' is missing in {n_rows - n_present:,} of {n_rows:,} rows; an "
            "audience needs it in all of them; nothing was written"
        )
    if n_different < n_rows:
        raise DataError(
            f"rowid_column '{name}' has {n_different:,} different values in {n_rows:,} rows; an "
            "audience needs one row for each customer; nothing was written"
        )


def _output(settings: Settings) -> Location:
    if settings.output_table is not None:
        place = locate(settings.output_table, warehouse=settings.warehouse)
        if place.kind == "td":
            return place
    raise SettingsError(
        "the audience's attribute is read from the output table, which must be in Treasure "
        "Data: give --warehouse td and --output-table db.table"
    )
