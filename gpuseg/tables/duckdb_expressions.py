"""SQL expressions that DuckDB evaluates on a column in memory."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpuseg.tables.duckdb_types import quoted


class Calculator:
    """A DuckDB without a file. Use it in a ``with`` statement."""

    def __init__(self) -> None:
        self._connection = duckdb.connect()

    def __enter__(self) -> Calculator:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def values(self, column: pa.Table, expression: str) -> Any:
        """Return the expression's value for each row of a table of one column.

        Returns
        -------
        values : masked array of shape (n,)
            Masked where the value is NULL. None if DuckDB cannot evaluate the expression.
        """
        try:
            self._connection.register("original", column)
            found = self._connection.execute(f"SELECT {expression} AS result FROM original")
            return np.ma.asarray(found.fetchnumpy()["result"])
        except duckdb.Error:
            return None

    def spellings(
        self, column: pa.Table, codes: npt.NDArray[np.int32]
    ) -> list[tuple[str, int]] | None:
        """Return each different value of a column, as text, with the code of its rows."""
        name = quoted(column.column_names[0])
        try:
            self._connection.register("original", column)
            self._connection.register("coded", pa.table({"code": codes}))
            return self._connection.execute(
                f"SELECT DISTINCT CAST(o.{name} AS VARCHAR) AS spelling, c.code "
                "FROM original AS o POSITIONAL JOIN coded AS c WHERE spelling IS NOT NULL"
            ).fetchall()
        except duckdb.Error:
            return None
