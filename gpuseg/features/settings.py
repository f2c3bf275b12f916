"""What the user can say about columns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from gpuseg.errors import SettingsError, did_you_mean

#: Column that Treasure Data adds to every table: when a row was loaded.
DEFAULT_IGNORED = ("time",)


@dataclass(frozen=True)
class FeatureSettings:
    """The parameters of this room.

    Parameters
    ----------
    ignore_columns
        Not used. Names that the table lacks are reported, except the default.
    rowid_column
        Identifies a row; not used.
    columns
        When given, only these are used.
    categorical_columns, numeric_columns
        Used as such, whatever they look like.
    transform
        ``auto`` tames heavy tails and marks telling gaps; ``none`` does neither.
    scaling
        ``standard`` (mean, population deviation), ``robust`` (median, quartiles), ``none``.
    dimension_reduction_threshold
        PCA when there are more encoded columns than this.
    """

    ignore_columns: tuple[str, ...] = DEFAULT_IGNORED
    rowid_column: str | None = None
    columns: tuple[str, ...] | None = None
    categorical_columns: tuple[str, ...] = ()
    numeric_columns: tuple[str, ...] = ()
    transform: str = "auto"
    scaling: str = "standard"
    dimension_reduction_threshold: int = 50

    @classmethod
    def of(cls, settings: Any) -> FeatureSettings:
        """Take this room's parameters out of the settings of a run."""
        return cls(**{f.name: getattr(settings, f.name) for f in fields(cls)})

    def check(self, table_name: str, known: list[str]) -> tuple[str, ...]:
        """Compare the names with the table's; return warnings.

        Raises
        ------
        SettingsError
            If a named column is not in the table, or is to be used and ignored at once.
        """
        for parameter in ("columns", "categorical_columns", "numeric_columns"):
            for name in getattr(self, parameter) or ():
                self._require(parameter, name, table_name, known)
                if name in self.ignore_columns and name not in DEFAULT_IGNORED:
                    raise SettingsError(
                        f"column '{name}' is named in {parameter} and in ignore_columns; "
                        "name it in one of them"
                    )
        self.check_rowid(table_name, known)
        return tuple(
            f"ignore_columns names '{name}', which is not a column of {table_name}"
            f"{did_you_mean(name, known)}"
            for name in self.ignore_columns
            if name not in known and name not in DEFAULT_IGNORED
        )

    def check_rowid(self, table_name: str, known: list[str]) -> None:
        """Make sure that the column that identifies rows is there.

        Raises
        ------
        SettingsError
            If it is not.
        """
        if self.rowid_column is not None:
            self._require("rowid_column", self.rowid_column, table_name, known)

    def uses(self, name: str) -> bool:
        """Whether the user asked for this very column."""
        return name in (self.columns or ()) or self.forces(name)

    def forces(self, name: str) -> bool:
        """Whether the user said how to read this column."""
        return name in self.categorical_columns or name in self.numeric_columns

    def _require(self, parameter: str, name: str, table_name: str, known: list[str]) -> None:
        if name not in known:
            shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
            raise SettingsError(
                f"{parameter} names '{name}', which is not a column of {table_name}"
                f"{did_you_mean(name, known)}; it has: {shown}"
            )
