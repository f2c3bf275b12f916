from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.features import FeatureSettings, prepare
from gpuseg.records import FeatureMatrix, Table


@pytest.fixture
def backend() -> NumPyBackend:
    return NumPyBackend()


@pytest.fixture
def make() -> Callable[..., Table]:
    """Build a table from its columns; a dict takes names that are no identifiers."""

    def build(columns: dict[str, Any] | None = None, **more: Any) -> Table:
        return Table("orders", pa.table({**(columns or {}), **more}))

    return build


@pytest.fixture
def prepared(backend: NumPyBackend, make: Callable[..., Table]) -> Callable[..., FeatureMatrix]:
    """Prepare a table given as a dict of columns."""

    def run(columns: dict[str, Any], **settings: Any) -> FeatureMatrix:
        return prepare(backend, make(columns), FeatureSettings(**settings))

    return run


@pytest.fixture
def mall() -> Table:
    path = Path(__file__).parents[1] / "data" / "Mall_Customers.csv"
    return Table("Mall_Customers", pyarrow.csv.read_csv(path))
