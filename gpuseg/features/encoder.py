"""The fitted encoder: everything that turns a row into features, now and in a year."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.backends.numpy import NumPyBackend
from gpuseg.errors import ModelError
from gpuseg.features.arrow import family
from gpuseg.features.categories import CategoricalEncoder
from gpuseg.features.columns import Columns, blocks_of
from gpuseg.features.numeric import NumericEncoder
from gpuseg.features.reading import Cleaned
from gpuseg.features.reduction import Projection
from gpuseg.features.stored import Stored
from gpuseg.memory import room
from gpuseg.records import Array, Progress, Table, no_progress

ColumnEncoder = NumericEncoder | CategoricalEncoder

#: Called with a sentence for people.
Warn = Callable[[str], None]


def no_warning(_sentence: str) -> None:
    """Tell nobody."""


class ColumnValues(NamedTuple):
    """The values of a column, without placeholders, for people and profiles.

    Parameters
    ----------
    kind
        ``numeric``, ``categorical`` or ``datetime``.
    values
        Categorical: ``pa.Array`` of texts with nulls. Else host array of shape (n,), float64,
        NaN where missing; dates are days since 1970-01-01 (UTC).
    """

    kind: str
    values: Any


@dataclass(frozen=True, eq=False)
class Encoder:
    """A fitted encoder of tables.

    Parameters
    ----------
    columns
        One for each kept column, in the order of the table that was fitted.
    projection
        Onto principal components; None when there were few enough features.
    """

    columns: tuple[ColumnEncoder, ...]
    projection: Projection | None = None

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns that a table must have."""
        return tuple(column.reading.column for column in self.columns)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded features."""
        return tuple(name for column in self.columns for name in column.names)

    @property
    def n_features(self) -> int:
        """Number of features that are clustered: after the projection, if there is one."""
        if self.projection is None:
            return len(self.feature_names)
        return len(self.projection.components)

    @property
    def column_of(self) -> Any:
        """Position of each feature's column, host array of shape (n_encoded,), int32."""
        widths = [len(column.names) for column in self.columns]
        return np.repeat(np.arange(len(widths), dtype=np.int32), widths)

    def read(self, table: Table, column: str) -> Cleaned:
        """Return the values of a kept column, in the table's order; texts by their codes.

        Raises
        ------
        ModelError
            If the encoder does not use the column, or the table's column does not fit.
        """
        if column not in self.column_names:
            raise ModelError(f"the model does not use column '{column}'")
        reading = self.columns[self.column_names.index(column)].reading
        return reading.read(Columns(NumPyBackend(), table))

    def clean(self, table: Table, column: str) -> ColumnValues:
        """Return the values of a kept column as they were read, in the table's order.

        Raises
        ------
        ModelError
            As `read`.
        """
        cleaned = self.read(table, column)
        if cleaned.kind == "categorical":
            return ColumnValues(cleaned.kind, cleaned.values.rows())
        return ColumnValues(cleaned.kind, cleaned.values)

    def features(
        self,
        backend: Backend,
        table: Table,
        *,
        progress: Progress = no_progress,
        warn: Warn = no_warning,
    ) -> list[Array]:
        """Encode each column, in the table's order: arrays of shape (k, n_samples), float32.

        Raises
        ------
        ModelError
            If a column is missing or cannot be read.
        """
        most_rows = room().column_rows()
        if most_rows is not None and table.n_rows > most_rows and backend.xp is np:
            return self._features_in_blocks(backend, table, progress, warn)
        found = [column.reading.find(table.arrow) for column in self.columns]
        numeric = [
            column.reading.column
            for column, values in zip(self.columns, found, strict=True)
            if column.reading.kind == "numeric" and family(values.type) == "number"
        ]
        columns = Columns(backend, table, numeric)
        features = []
        for column, values in zip(self.columns, found, strict=True):
            cleaned = column.reading.clean(values, columns)
            for warning in cleaned.warnings:
                warn(warning)
            features.append(column.encode(cleaned, backend.xp))
            progress(len(features) / len(found))
        return features

    def _features_in_blocks(
        self, backend: Backend, table: Table, progress: Progress, warn: Warn
    ) -> list[Array]:
        """Encode blocks of rows, where a column as a whole is too much."""
        n_rows = table.n_rows
        features = [room().empty((len(c.names), n_rows), np.float32) for c in self.columns]
        odd: dict[str, None] = {}
        for rows in blocks_of(n_rows):
            part = Table(table.name, table.arrow.slice(rows.start, rows.stop - rows.start))
            columns = Columns(backend, part, judges=False)
            for column, own in zip(self.columns, features, strict=True):
                cleaned = column.reading.read(columns)
                own[:, rows] = column.encode(cleaned, backend.xp)
                odd |= dict.fromkeys([column.reading.column] if cleaned.warnings else [])
            progress(rows.stop / n_rows)
        for name in odd:
            warn(f"column '{name}': some values are not readable, treated as missing or cut")
        return features

    def project(self, backend: Backend, encoded: Array) -> Array:
        """Return what is clustered; `encoded` itself when nothing is projected."""
        if self.projection is None:
            return encoded
        return backend.project(encoded, self.projection.mean, self.projection.components)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays, JSON-able."""
        return {
            "columns": [
                {"type": _TYPE_NAMES[type(column)], **column.to_dict()} for column in self.columns
            ],
            "projected": self.projection is not None,
        }

    def arrays(self) -> dict[str, Any]:
        """Return the host arrays that belong to `to_dict`."""
        return {} if self.projection is None else self.projection._asdict()

    @classmethod
    def from_dict(cls, data: Any, arrays: Mapping[str, Any]) -> Encoder:
        """Rebuild an encoder from `to_dict` and `arrays`.

        Raises
        ------
        ModelError
            If anything is missing, of the wrong type or contradicts the rest.
        """
        stored = Stored(data, "the encoder")
        columns = tuple(_column(item) for item in stored.items("columns"))
        encoder = cls(columns)
        stored.expect(len(columns) > 0, "there must be a column")
        stored.expect(len(set(encoder.column_names)) == len(columns), "no column comes twice")
        if not stored.flag("projected"):
            return encoder
        return cls(columns, Projection.checked(arrays, len(encoder.feature_names)))


_TYPES: Mapping[str, type[NumericEncoder] | type[CategoricalEncoder]] = {
    "numeric": NumericEncoder,
    "categorical": CategoricalEncoder,
}
_TYPE_NAMES = {kind: name for name, kind in _TYPES.items()}


def _column(data: Any) -> ColumnEncoder:
    kind = Stored(data, "a column").one_of("type", tuple(_TYPES))
    return _TYPES[kind].from_dict(data)
