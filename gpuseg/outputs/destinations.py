"""Where a run's results go: decided and checked before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from gpuseg.errors import SettingsError
from gpuseg.outputs.results import check_names_are_free, without_own_columns
from gpuseg.records import Segmentation, Table
from gpuseg.settings import Settings
from gpuseg.tables import Location, Output, locate

#: Result table -> the parameter that asks for it.
EXPORTS: Mapping[str, str] = {
    "feature_importance": "export_feature_importance",
    "shap_values": "export_shap_values",
    "profiles": "export_profiles",
    "k_scores": "export_k_scores",
    "rules": "export_rules",
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
            If a place is malformed, or two results would go to the same one.
        """
        places = {"output_table": settings.output_table}
        places |= {
            parameter: _with_database(getattr(settings, parameter), settings)
            for parameter in EXPORTS.values()
        }
        located = {
            parameter: locate(place, warehouse=settings.warehouse)
            for parameter, place in places.items()
            if place is not None
        }
        _refuse_collisions(located)
        source = settings.input_table
        return cls(
            settings=settings,
            source=locate(source, warehouse=settings.warehouse) if source else None,
            rows=located.get("output_table"),
            exports={
                table: located[parameter]
                for table, parameter in EXPORTS.items()
                if parameter in located
            },
        )

    def accept(self, table: Table) -> Table:
        """Make sure that the output can carry the input's columns beside its own.

        A table that is segmented in place loses the columns of the earlier run first.

        Raises
        ------
        DataError
            If a column of the input has the name of one that the output adds.
        """
        if self.rows is not None and self.rows == self.source:
            table = without_own_columns(table)
        check_names_are_free(table, row_scores=self.settings.row_scores)
        return table

    def outputs(self, result: Segmentation) -> list[Output]:
        """Pair each result that was asked for with its place."""
        tables = result_tables(result)
        found = [Output(place, tables[name]) for name, place in self.exports.items()]
        if self.rows is not None:
            found.insert(0, Output(self.rows, result.table, append=self.settings.appends))
        return found


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
    return tables


def _with_database(place: str | None, settings: Settings) -> str | None:
    """Put the output table's database before a bare table name."""
    if place is None or "." in place or os.sep in place:
        return place
    owner = settings.output_table or settings.input_table or ""
    database, dot, table = owner.partition(".")
    is_table = dot and "." not in table and os.sep not in owner
    return f"{database}.{place}" if is_table else place


def _refuse_collisions(located: Mapping[str, Location]) -> None:
    taken: dict[Location, str] = {}
    for parameter, place in located.items():
        if place in taken:
            raise SettingsError(
                f"{taken[place]} and {parameter} both name '{place.display}'; give each result "
                "a place of its own"
            )
        taken[place] = parameter
