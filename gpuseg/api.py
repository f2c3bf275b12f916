"""The two calls of a notebook: segment a table, and place new rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpuseg import pipeline
from gpuseg.errors import DataError
from gpuseg.records import Segmentation, Table
from gpuseg.settings import Settings, resolve

#: Parameters that ask for something on disk; without any of them nothing is written.
_KEEPING = ("model_name", "runs_dir", "output_table")


def segment(table: Any, **parameters: Any) -> Segmentation:
    """Segment a table that is in memory, or one that is named.

    Parameters
    ----------
    table
        A Polars or pandas DataFrame, an Arrow table, a NumPy array of shape
        (n_rows, n_columns), or text: a file or ``db.table`` as on the command line.
    **parameters
        The parameters of ``gpuseg run``, with underscores. Nothing is written to disk
        unless ``model_name``, ``runs_dir``, ``output_table`` or an export is given.

    Returns
    -------
    Segmentation
        ``.table`` is the input plus ``cluster_id``; ``.labels``, ``.k_scores``,
        ``.explanation``, ``.model`` and more stand beside it.

    Raises
    ------
    SettingsError, DataError, TableNotFoundError
        As ``gpuseg run``.
    GateRefusedError
        If a limit is broken and nothing was published; its ``.result`` is the segmentation.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(0, 1, (50, 2)), rng.normal(9, 1, (70, 2))])
    >>> gpuseg.segment(X, max_clusters=4).cluster_sizes
    [70, 50]
    """
    keep = any(parameters.get(n) is not None for n in (*_KEEPING, *_exports(parameters)))
    if isinstance(table, (str, Path)):
        settings = resolve(parameters | {"input_table": str(table)})
        return pipeline.run(settings, keep=keep)
    return pipeline.run(resolve(parameters), table=as_table(table), keep=keep)


def assign(table: Any, model: Any, **parameters: Any) -> Segmentation:
    """Place rows with a model that was fitted before.

    Parameters
    ----------
    table
        As for `segment`.
    model
        A `Segmentation`, its ``.model``, or the name of a stored model.
    **parameters
        ``runs_dir``, ``row_scores``, ``output_table`` and the like, as ``gpuseg assign``.

    Returns
    -------
    Segmentation
        The same ids that `segment` gave to the same rows.
    """
    stored = model.model if isinstance(model, Segmentation) else model
    if isinstance(stored, str):
        parameters, stored = parameters | {"model_name": stored}, None
    if isinstance(table, (str, Path)):
        return pipeline.assign(resolve(parameters | {"input_table": str(table)}), model=stored)
    return pipeline.assign(resolve(parameters), table=as_table(table), model=stored)


def as_table(data: Any, name: str = "table") -> Table:
    """Turn what a notebook holds into a `Table`, without copying where Arrow can.

    Raises
    ------
    DataError
        If it is no table.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, np.ndarray):
        return Table(name, _from_numpy(data))
    if isinstance(data, pa.Table):
        return Table(name, data)
    if type(data).__module__.split(".")[0] == "pandas":
        return Table(name, _from_pandas(data))
    if hasattr(data, "__arrow_c_stream__"):
        return Table(name, pa.table(data))
    raise DataError(
        f"a {type(data).__name__} is no table; expected a Polars or pandas DataFrame, an Arrow "
        "table, a NumPy array of shape (n_rows, n_columns), or the name of a table"
    )


def _from_numpy(array: np.ndarray) -> pa.Table:
    if array.dtype.names:  # a structured array has column names
        return pa.table({field: array[field] for field in array.dtype.names})
    if array.ndim != 2:
        raise DataError(
            f"the array has shape {array.shape}; expected two dimensions, rows and columns"
        )
    return pa.table({f"x{i}": pa.array(column) for i, column in enumerate(array.T)})


def _from_pandas(frame: Any) -> pa.Table:
    if any(not isinstance(column, str) for column in frame.columns):
        frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"a column mixes types that no table can hold: {error.args[0]}") from error


def _exports(parameters: dict[str, Any]) -> list[str]:
    known = {field.name for field in dataclasses.fields(Settings)}
    return [name for name in parameters if name.startswith("export_") and name in known]
