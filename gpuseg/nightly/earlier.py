"""Where today's rows were in the run before: found by their ids, else placed by its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from gpuseg.backends.base import Backend
from gpuseg.change import EarlierPlaces
from gpuseg.errors import DataError, ModelError
from gpuseg.features import prepare_again
from gpuseg.outputs.model_names import model_folder
from gpuseg.outputs.models import StoredModel
from gpuseg.outputs.public_ids import public_ids
from gpuseg.outputs.results import CLUSTER_COLUMN
from gpuseg.outputs.reuse import encoder_of
from gpuseg.outputs.run_folder import kept_schema
from gpuseg.records import FeatureMatrix, Progress, Table, no_progress, part
from gpuseg.settings import Settings

#: Tables of a run folder that say where rows were, the more telling one first.
_ROW_TABLES = ("movements", "rows")
_CHANGED = "changed"

#: By row ids at least this share of today's rows must be known from before; else the earlier
#: model, which knows all of them, says more.
LEAST_KNOWN = 0.1

#: From these numbers on, by the bits of their type, floats no longer tell whole numbers apart.
_ONE_BY_ONE = {16: 2**11, 32: 2**24, 64: 2**53}

#: Distances are float32: of rows at the very reach of a segment, all count.
ROUNDING = 1e-5


class Found(NamedTuple):
    """Where rows were, if it can be told, and sentences for people.

    Parameters
    ----------
    typical
        The same places, but -1 for rows that the earlier model had to place far from every
        segment: they may be of a new kind, and say nothing of which cluster continues which
        segment. By row ids, `places` itself.
    """

    places: EarlierPlaces | None
    typical: EarlierPlaces | None
    warnings: tuple[str, ...] = ()


class _EarlierRows(NamedTuple):
    """Rows of the run before."""

    rowids: pa.ChunkedArray
    cluster_ids: npt.NDArray[np.int32]
    since: npt.NDArray[np.datetime64] | None


def earlier_places(
    settings: Settings,
    backend: Backend,
    table: Table,
    earlier: StoredModel,
    *,
    prepare_again: Callable[..., FeatureMatrix] = prepare_again,
    progress: Progress = no_progress,
) -> Found:
    """Find out where the rows of a table were in the run of an earlier model.

    Rows are recognised by `rowid_column` in what that run kept. Ids that are missing, or that
    several rows have, recognise nobody: their rows count as unknown. Without such a column, or
    when too few rows are known, the earlier model places today's rows.

    Parameters
    ----------
    earlier
        The current model; the files of its run are looked for in `settings.runs_dir`.
    prepare_again
        `features.prepare_again`, or what does the same where the rows lie.
    """
    known = known_places(settings, table, earlier)
    if known.places is not None:
        return known
    placed = _by_model(backend, table, earlier, prepare_again, part(progress, 0.2, 1.0))
    return placed._replace(warnings=(*known.warnings, *placed.warnings))


def known_places(settings: Settings, table: Table, earlier: StoredModel) -> Found:
    """Find rows by their ids alone; None where there is no `rowid_column`, or too few are known."""
    if settings.rowid_column not in table.arrow.column_names:  # `prepare` will say so
        return Found(None, None)
    assert settings.rowid_column is not None
    found, why = _by_rowid(settings, table, settings.rowid_column, earlier)
    return Found(found, found, why)


def _by_model(
    backend: Backend,
    table: Table,
    earlier: StoredModel,
    prepare_again: Callable[..., FeatureMatrix],
    progress: Progress,
) -> Found:
    try:
        features = prepare_again(
            backend, encoder_of(earlier), table, progress=part(progress, 0.0, 0.7)
        )
    except (ModelError, DataError) as error:
        what = (
            f"the earlier model cannot place today's rows, so no segment goes on and all ids are "
            f"new: {error}"
        )
        return Found(None, None, (what,))
    found = backend.assign(features.X, earlier.centroids, progress=part(progress, 0.7, 1.0))
    labels = features.in_table_order(backend.to_host(found.labels))
    ids = public_ids(labels, earlier.cluster_ids)
    places = EarlierPlaces(earlier.run_id, earlier.created, "model", ids, None, {})
    if not earlier.reach:
        return Found(places, places)
    sq_distances = features.in_table_order(backend.to_host(found.sq_distances))
    is_near = np.sqrt(sq_distances) <= np.asarray(earlier.reach)[labels] * (1 + ROUNDING)
    return Found(places, places._replace(cluster_ids=np.where(is_near, ids, -1)))


def _by_rowid(
    settings: Settings, table: Table, rowid_column: str, earlier: StoredModel
) -> tuple[EarlierPlaces | None, tuple[str, ...]]:
    folder = model_folder(Path(settings.runs_dir), earlier.name) / earlier.run_id / "tables"
    rows, warnings = _rows_of(folder, rowid_column)
    if rows is None:
        warnings += ("rows are matched by the earlier model: its run kept no row ids",)
        return None, warnings
    known = np.isin(rows.cluster_ids, earlier.cluster_ids)
    columns = [_plain(rows.rowids), _plain(table.select([rowid_column])[rowid_column])]
    are_numbers = all(pa.types.is_integer(column.type) for column in columns)
    (before, n_ambiguous_before), (today, n_ambiguous) = (
        _identified(_keys(column, are_numbers)) for column in columns
    )
    if n_ambiguous or n_ambiguous_before:
        what = (
            f"rowid_column '{rowid_column}' does not tell all rows apart: of today's rows "
            f"{n_ambiguous:,}, of the earlier ones {n_ambiguous_before:,} have no id or share it "
            "with another row; they are matched with none"
        )
        warnings += (what,)
    source = before.filter(pl.Series(known)[before["row"].to_numpy()])
    joined = today.join(source, on="id", how="inner", suffix="_before")
    if len(joined) < LEAST_KNOWN * table.n_rows:
        what = (
            f"rows are matched by the earlier model: only {len(joined):,} of {table.n_rows:,} "
            f"values of '{rowid_column}' are known from run {earlier.run_id}"
        )
        return None, (*warnings, what)
    here, there = joined["row"].to_numpy(), joined["row_before"].to_numpy()
    cluster_ids = np.full(table.n_rows, -1, dtype=np.int32)
    cluster_ids[here] = rows.cluster_ids[there]
    since = None
    if rows.since is not None:
        since = np.full(table.n_rows, np.datetime64("NaT", "s"))
        since[here] = rows.since[there]
    gone = _gone(source.join(today, on="id", how="anti"), rows.cluster_ids)
    places = EarlierPlaces(earlier.run_id, earlier.created, "rowid", cluster_ids, since, gone)
    return places, warnings


def _rows_of(folder: Path, rowid_column: str) -> tuple[_EarlierRows | None, tuple[str, ...]]:
    """Read the row ids and segments that a run kept; None when it kept none."""
    warnings: tuple[str, ...] = ()
    for name in _ROW_TABLES:
        path = folder / f"{name}.parquet"
        try:
            if not path.exists():
                continue
            there = set(kept_schema(path).names)
            if not {rowid_column, CLUSTER_COLUMN} <= there:
                continue
            wanted = [rowid_column, CLUSTER_COLUMN, *({_CHANGED} & there)]
            read = pq.read_table(path, columns=wanted, partitioning=None)
            clusters = read[CLUSTER_COLUMN].cast(pa.int32()).fill_null(-1).to_numpy()
            since = _since(read, name)
        except (OSError, ValueError, pa.ArrowException) as error:
            warnings += (f"'{name}.parquet' of the earlier run cannot be read: {error}",)
            continue
        return _EarlierRows(read[rowid_column], clusters, since), warnings
    return None, warnings


def _since(read: pa.Table, name: str) -> npt.NDArray[np.datetime64] | None:
    if name != "movements" or _CHANGED not in read.column_names:
        return None  # a column of that name among the rows is the user's
    seconds = read[_CHANGED].cast(pa.timestamp("s"), safe=False)
    return np.asarray(seconds.to_numpy(), dtype="datetime64[s]")


def _plain(rowids: pa.ChunkedArray) -> pa.ChunkedArray:
    is_encoded = pa.types.is_dictionary(rowids.type)
    return rowids.cast(rowids.type.value_type) if is_encoded else rowids


def _keys(rowids: pa.ChunkedArray, are_numbers: bool) -> pl.Series:
    """Return row ids in a form in which equal ids of both runs are equal.

    Whole numbers of any width are compared as numbers, everything else as text: a column of
    numbers may come as text from one source and as numbers from another, or as floats, because
    an id is missing.
    """
    if are_numbers:
        return pl.Series(values=rowids).cast(pl.Int128)
    if pa.types.is_floating(rowids.type):
        return _float_keys(rowids)
    try:
        return pl.Series(values=rowids).cast(pl.String)
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError):
        # types that Polars does not know or cannot write (binary, extensions): by their text
        texts = [None if value is None else str(value) for value in rowids.to_pylist()]
        return pl.Series(values=texts, dtype=pl.String)


def _float_keys(rowids: pa.ChunkedArray) -> pl.Series:
    """Write whole floats as whole numbers are written, others as floats; NaN is no id.

    A float so large that it may stand for another whole number than itself stays a float, and
    is equal to no whole number.
    """
    wide = pl.Series(values=rowids.cast(pa.float64()))
    is_half = pa.types.is_float16(rowids.type)
    texts = pl.Series(values=rowids.cast(pa.float32()) if is_half else rowids).cast(pl.String)
    is_whole = (wide.floor() == wide) & (wide.abs() < _ONE_BY_ONE[rowids.type.bit_width])
    whole = wide.cast(pl.Int64, strict=False).cast(pl.String)
    return whole.zip_with(is_whole.fill_null(False), texts.set(wide.is_nan(), None))


def _identified(ids: pl.Series) -> tuple[pl.DataFrame, int]:
    """Return the rows whose id is their own, and how many others there are."""
    rows = pl.DataFrame({"id": ids}).with_row_index("row")
    own = rows.filter(pl.col("id").is_not_null() & pl.col("id").is_unique())
    return own, len(rows) - len(own)


def _gone(rows: pl.DataFrame, cluster_ids: npt.NDArray[np.int32]) -> Mapping[int, int]:
    found, counts = np.unique(cluster_ids[rows["row"].to_numpy()], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
