"""Where a run's results go: decided and checked before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gpuseg.errors import SettingsError
from gpuseg.outputs.change_facts import change_tables
from gpuseg.outputs.manifest import Output as Written
from gpuseg.outputs.model_names import check_model_name
from gpuseg.outputs.results import (
    CLUSTER_COLUMN,
    check_names_are_free,
    output_schema,
    without_own_columns,
)
from gpuseg.outputs.run_folder import ROWS
from gpuseg.outputs.segments import segments_table
from gpuseg.records import Progress, Segmentation, Table
from gpuseg.settings import Settings
from gpuseg.tables import Location, Output, check_output, locate, publish

#: Result table -> the parameter that asks for it.
EXPORTS: Mapping[str, str] = {
    "feature_importance": "export_feature_importance",
    "shap_values": "export_shap_values",
    "profiles": "export_profiles",
    "k_scores": "export_k_scores",
    "rules": "export_rules",
    "lineage": "export_lineage",
    "migration": "export_migration",
    "movements": "export_movements",
    "drift": "export_drift",
}


@dataclass(frozen=True)
class Destinations:
    """The places that the settings name.

    Parameters
    ----------
    source
        The input, when it is named rather than queried or in memory.
    rows
        Where the rows plus ``cluster_id`` go; None when they are not asked for.
    exports
        Result table -> place.
    """

    settings: Settings
    source: Location | None
    rows: Location | None
    exports: Mapping[str, Location]

    @classmethod
    def of(cls, settings: Settings) -> Destinations:
        """Locate everything that the settings name.

        Raises
        ------
        SettingsError
            If a place or the model's name is malformed, two results would go to one place, or
            one would overwrite the input (only the rows may, in place).
        """
        if settings.model_name is not None:
            check_model_name(settings.model_name)
        source = _located(settings, settings.input_table)
        rows = _located(settings, settings.output_table)
        owner = rows or source
        exports = {
            table: _located(settings, getattr(settings, parameter), owner.schema if owner else "")
            for table, parameter in EXPORTS.items()
        }
        found = {table: place for table, place in exports.items() if place is not None}
        places = {"output_table": rows} | {EXPORTS[t]: p for t, p in found.items()}
        _refuse_collisions(places)
        refuse_to_overwrite_input(places, source, settings)
        return cls(settings=settings, source=source, rows=rows, exports=found)

    def accept(self, table: Table) -> Table:
        """Make sure that the output can carry the input's columns beside its own.

        A table that is segmented in place loses the columns of the earlier run first.

        Raises
        ------
        DataError
            If a column of the input has the name of one that the output adds, or the rows
            cannot be appended to the table that is there.
        SettingsError, SinkError
            If a place cannot be written to.
        """
        if self.rows and self.source and self.rows.place == self.source.place:
            table = without_own_columns(table)
        check_names_are_free(table, row_scores=self.settings.row_scores)
        if self.rows:
            schema = output_schema(table, row_scores=self.settings.row_scores)
            check_output(self.rows, schema, append=self.settings.appends)
        for place in self.exports.values():
            # any column does: our own tables fit, the question is whether the place is open
            check_output(place, pa.schema([(CLUSTER_COLUMN, pa.int32())]))
        return table

    def outputs(self, result: Segmentation) -> dict[str, Output]:
        """Return every result that was asked for, by its name, and its place."""
        tables = result_tables(result)
        found = {name: Output(place, tables[name]) for name, place in self.exports.items()}
        if self.rows is not None:
            found[ROWS] = Output(self.rows, result.table, append=self.settings.appends)
        return found

    def publish(self, result: Segmentation, progress: Progress) -> None:
        """Write every result that was asked for to its place; all of them, or none.

        Raises
        ------
        SettingsError, DataError, SinkError
            As `tables.publish`; the previous tables stand.
        """
        publish(list(self.outputs(result).values()), progress=progress)

    def written(self, result: Segmentation) -> list[Written]:
        """Return what `publish` writes, for the manifest."""
        tables = result_tables(result)
        found = [
            Written(name, place.display, tables[name].num_rows)
            for name, place in self.exports.items()
        ]
        if self.rows is not None:
            found.append(Written(ROWS, self.rows.display, result.table.num_rows))
        return found

    @property
    def summary(self) -> str:
        """Where things go, in a few words."""
        places = [self.rows, *self.exports.values()]
        return ", ".join(place.display for place in places if place is not None) or "run folder"


def result_tables(result: Segmentation) -> dict[str, pa.Table]:
    """Return the tables that explain a result, by the names of the contract."""
    tables = {"k_scores": result.k_scores, "columns": result.columns}
    if result.explanation is not None:
        tables |= {
            "feature_importance": result.explanation.feature_importance,
            "shap_values": result.explanation.shap_values,
            "profiles": result.explanation.profiles,
        }
    if result.rules is not None:
        tables["rules"] = result.rules
    if result.tree is not None:
        tables["tree"] = result.tree.leaves
    if result.segments:
        tables["segments"] = segments_table(result.segments, result.cluster_sizes)
    if result.footprint is not None:
        tables |= change_tables(result.change)
        if result.footprint.movements is not None:
            tables["movements"] = result.footprint.movements
    return tables


def _located(settings: Settings, place: str | None, default_schema: str = "") -> Location | None:
    """Locate a place that the settings name; a bare table is one of `default_schema`."""
    if place is None:
        return None
    return locate(place, warehouse=settings.warehouse, default_schema=default_schema or None)


def _refuse_collisions(located: Mapping[str, Location | None]) -> None:
    taken: dict[tuple[Any, ...], str] = {}
    for parameter, place in located.items():
        if place is None:
            continue
        if place.place in taken:
            raise SettingsError(
                f"{taken[place.place]} and {parameter} both name '{place.display}'; give each "
                "result a place of its own"
            )
        taken[place.place] = parameter


def refuse_to_overwrite_input(
    places: Mapping[str, Location | None], source: Location | None, settings: Settings
) -> None:
    """Refuse every output that would destroy what is read.

    The rows may replace the very table they were read from, because they carry all of its
    columns; an export never may, and nothing may go into a folder that is read.
    """
    for parameter, place in places.items():
        if place is None:
            continue
        in_place = source is not None and place.place == source.place
        if source is not None and not (in_place and parameter == "output_table"):
            endangered = place.overlaps(source)
        else:
            endangered = settings.input_query is not None and _is_named_in(
                settings.input_query, place
            )
            # rows that are added to a table do not harm it
            endangered = endangered and not (parameter == "output_table" and settings.appends)
        if endangered:
            read = source.display if source is not None else "what the query reads"
            raise SettingsError(
                f"{parameter} '{place.display}' would overwrite the input ({read}); give it "
                "another place"
            )


def _is_named_in(query: str, place: Location) -> bool:
    """Whether a query seems to read a place; rather too often than once too seldom."""
    if not place.in_warehouse:
        return place.path.name.casefold() in query.casefold()
    unnamed = place.schema.casefold() in ("main", "public")  # a query need not name these
    words = [place.table] if unnamed else [place.schema, place.table]
    return all(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", query, re.IGNORECASE) for word in words
    )
