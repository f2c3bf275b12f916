"""Distance sums of a whole sweep of segmentations, in one pass over the pairs of rows.

The rows are centred and scaled, sorted by joint cell (see `joint_cells`) and laid out in
panels (see `simd`). With all rows wanted, each unordered pair is met once and counts for
both of its rows; with chosen rows, each is met with all rows.

Rounding: coordinates are float32, measured from the mean of all rows, so a distance is off
by up to 2**-24 of the two rows' distances from that mean. That is nothing, unless clusters
lie close together far away from the mean. Such rows are found by comparing their sums with
their distance from the mean, and are computed again in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from gpuseg.backends.cpu.joint_cells import Pass, plan_passes
from gpuseg.backends.cpu.pair_kernels import (
    BLOCK_ROW_LINES,
    add_chosen_lines,
    add_strip_pairs,
    far_rows,
    pack,
    unpack,
)
from gpuseg.backends.cpu.simd import LINE_BYTES, ROWS
from gpuseg.backends.cpu.threads import in_threads, thread_count
from gpuseg.backends.sample import count_labels
from gpuseg.errors import DataError, ShapeError
from gpuseg.records import Progress, no_progress
from gpuseg.records import part as piece

#: A silhouette is off by at most 2**-24 * 4 * r / max(a, b), r being the row's distance
#: from the mean: 4e-6 at this ratio, and rarely a tenth of it. Beyond it, float64.
FAR = 16.0

#: Fewer lines than this are one strip: its pairs are done before threads have started.
FEW_LINES = 256

#: Rows that chosen rows meet at a time: what is made for them (their order, their panels) then
#: stays small. Part of the result, because sums are added chunk by chunk.
CHUNK_ROWS = 1 << 20

#: Rows of X that are copied to float64 at a time.
MEAN_ROWS = 4096


class _Centred(NamedTuple):
    """Rows in the units of the kernels: ``X * scale - mean``, of magnitude 1 at most 2."""

    X: np.ndarray
    mean: np.ndarray
    scale: float  # a power of two, so that scaling changes no digit


def distance_sums(
    X: np.ndarray,
    labels: np.ndarray,
    n_clusters: Sequence[int],
    *,
    rows: np.ndarray | None = None,
    progress: Progress = no_progress,
) -> np.ndarray:
    """Sum each row's Euclidean distances to every cluster of every k, in one pass.

    Parameters
    ----------
    X : array of shape (n_samples, n_features), float32 or float64, finite
    labels : array of shape (m, n_samples), int32 or a shorter whole number
        Labels of m segmentations, each in ``[0, n_clusters[i])``.
    n_clusters
        Length m.
    rows : array of shape (r,), int64, or None for all rows
        Rows whose sums are wanted; the sums still run over all rows.

    Returns
    -------
    sums : array of shape (r, sum(n_clusters)), float64
        The columns of segmentation i follow those of i - 1. The same bits whatever the
        number of threads.

    Raises
    ------
    ShapeError
        If the arrays disagree, or a label or row is out of range.
    DataError
        If a coordinate is NaN or infinite.
    """
    _check(X, labels, n_clusters, rows)
    centred = _centre(X)
    if rows is None:
        wanted, sums = np.arange(len(X)), np.empty((len(X), sum(n_clusters)))
        passes = plan_passes(labels, n_clusters, X.shape[1])
        for number, of in enumerate(passes):

            def report(fraction: float, number: int = number) -> None:
                progress((number + fraction) / len(passes))

            _sum_all_pairs(centred, of, sums, report)
    else:
        wanted = np.asarray(rows, dtype=np.int64)
        sums = _of_chosen_rows(centred, labels, n_clusters, wanted, np.float32, progress)
    far = _lost_in_float32(centred, wanted, labels, n_clusters, sums)
    if len(far):
        sums[far] = _of_chosen_rows(
            centred, labels, n_clusters, wanted[far], np.float64, no_progress
        )
    return sums


def _of_chosen_rows(
    centred: _Centred,
    labels: np.ndarray,
    n_clusters: Sequence[int],
    rows: np.ndarray,
    dtype: DTypeLike,
    progress: Progress,
) -> np.ndarray:
    """Return the sums of chosen rows, which meet all rows chunk by chunk."""
    sums = np.zeros((len(rows), sum(n_clusters)))
    parts = [slice(a, a + CHUNK_ROWS) for a in range(0, len(centred.X), CHUNK_ROWS)]
    for number, part in enumerate(parts):
        others = centred._replace(X=centred.X[part])
        passes = plan_passes(labels[:, part].astype(np.int32), n_clusters, centred.X.shape[1])
        found = np.empty_like(sums)
        for place, of in enumerate(passes):
            begin, share = number + place / len(passes), 1 / len(passes)
            report = piece(progress, begin / len(parts), (begin + share) / len(parts))
            _sum_chosen_rows(centred, others, of, rows, dtype, found, report)
        sums += found
    return sums


def _check(
    X: np.ndarray, labels: np.ndarray, n_clusters: Sequence[int], rows: np.ndarray | None
) -> None:
    if X.ndim != 2 or 0 in X.shape or X.dtype not in (np.float32, np.float64):
        raise ShapeError(
            f"X has shape {X.shape} and type {X.dtype}; expected (n_samples, n_features), "
            "neither of them 0, float32 or float64"
        )
    if labels.shape != (len(n_clusters), len(X)) or not len(labels):
        raise ShapeError(
            f"labels have shape {labels.shape}; expected ({len(n_clusters)}, {len(X)}): "
            "one row for each number of clusters, one column for each row of X"
        )
    if labels.min() < 0 or (labels.max(axis=1) >= np.asarray(n_clusters)).any():
        raise ShapeError("a label is negative or not below its number of clusters")
    if rows is not None and len(rows) and (rows.min() < 0 or rows.max() >= len(X)):
        raise ShapeError(f"a chosen row is outside of the {len(X)} rows of X")


def _centre(X: np.ndarray) -> _Centred:
    X = np.ascontiguousarray(X)
    largest = max(float(X.max()), -float(X.min()))
    if not np.isfinite(largest):
        raise DataError("X has NaN or infinite values; fill or drop them first")
    exponent = np.clip(np.frexp(largest)[1], -1000, 1000)
    scale = float(np.ldexp(1.0, -exponent))
    mean = np.zeros(X.shape[1])
    for start in range(0, len(X), MEAN_ROWS):  # in blocks: a float64 copy of X is too much
        mean += (X[start : start + MEAN_ROWS] * np.float64(scale)).sum(axis=0)
    return _Centred(X, mean / len(X), scale)


def _sum_all_pairs(centred: _Centred, of: Pass, result: np.ndarray, progress: Progress) -> None:
    """Meet every unordered pair of rows once."""
    panels = _pack(centred, of.order, np.float32)
    lanes = _lanes(np.float32)
    n_lines = len(of.order) // lanes
    sums = np.zeros((n_lines, of.n_columns, lanes))
    line_cell = _cell_of_lines(of.group_cell, lanes)
    edges = _strips(n_lines)

    def add(pairs: np.ndarray) -> None:
        n_features = centred.X.shape[1]
        add_strip_pairs(
            panels, n_features, of.group_cell, line_cell, of.cell_columns, edges, pairs, sums
        )

    rounds = list(_rounds(len(edges) - 1))
    n_threads = thread_count()
    with ThreadPoolExecutor(n_threads) as pool:  # one for all rounds, which may be short
        for number, pairs in enumerate(rounds):
            for _done in pool.map(add, np.array_split(pairs, min(len(pairs), 2 * n_threads))):
                pass
            progress((number + 1) / len(rounds))

    def write(lines: tuple[int, int]) -> None:
        unpack(sums, of.order, 1 / centred.scale, result, of.first_column, *lines)

    for _done in in_threads(write, _parts(n_lines)):
        pass


def _sum_chosen_rows(
    centred: _Centred,
    others: _Centred,
    of: Pass,
    rows: np.ndarray,
    dtype: DTypeLike,
    result: np.ndarray,
    progress: Progress,
) -> None:
    """Meet each chosen row with all rows of `others`, a chunk of them."""
    lanes = _lanes(dtype)
    n_features = centred.X.shape[1]
    panels = _pack(others, of.order, dtype)
    places = np.full(-(-len(rows) // lanes) * lanes, -1)
    places[: len(rows)] = rows
    chosen = _pack(centred, places, dtype)
    position = np.full_like(places, -1)
    position[: len(rows)] = np.arange(len(rows))

    def add(first_line: int) -> None:
        last_line = min(first_line + BLOCK_ROW_LINES, len(places) // lanes)
        sums = np.zeros((last_line - first_line, of.n_columns, lanes))
        here = slice(first_line * lanes, last_line * lanes)
        add_chosen_lines(
            panels,
            n_features,
            of.group_cell,
            of.cell_columns,
            chosen[here.start * n_features : here.stop * n_features],
            0,
            last_line - first_line,
            sums,
        )
        unpack(
            sums,
            position[here],
            1 / centred.scale,
            result,
            of.first_column,
            0,
            last_line - first_line,
        )

    starts = range(0, len(places) // lanes, BLOCK_ROW_LINES)
    for number, _done in enumerate(in_threads(add, starts)):
        progress((number + 1) / len(starts))


def _lost_in_float32(
    centred: _Centred,
    rows: np.ndarray,
    labels: np.ndarray,
    n_clusters: Sequence[int],
    sums: np.ndarray,
) -> np.ndarray:
    """Return the positions in `rows` of those whose sums need float64."""
    sizes = np.concatenate([count_labels(of, k) for of, k in zip(labels, n_clusters, strict=True)])
    edges = np.concatenate([[0], np.cumsum(n_clusters)])
    # a column without rows is no cluster; sums are in the units of X again
    factors = np.where(sizes > 0, FAR * centred.scale / np.maximum(sizes, 1), np.inf)

    def mark(part: tuple[int, int]) -> np.ndarray:
        here = slice(*part)
        found: np.ndarray = far_rows(*centred, rows[here], sums[here], factors, edges)
        return found

    return np.flatnonzero(np.concatenate(list(in_threads(mark, _parts(len(rows))))))


def _lanes(dtype: DTypeLike) -> int:
    return LINE_BYTES // np.dtype(dtype).itemsize


def _pack(centred: _Centred, order: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Return the rows in panels, at an address that is a multiple of a line."""
    n_bytes = len(order) * centred.X.shape[1] * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + LINE_BYTES, dtype=np.uint8)
    start = -memory.ctypes.data % LINE_BYTES
    panels: np.ndarray = memory[start : start + n_bytes].view(dtype)
    lanes = _lanes(dtype)

    def fill(lines: tuple[int, int]) -> None:
        pack(*centred, order, panels, lanes, *lines)

    for _done in in_threads(fill, _parts(len(order) // lanes)):
        pass
    return panels


def _cell_of_lines(group_cell: np.ndarray, lanes: int) -> np.ndarray:
    groups = group_cell.reshape(-1, lanes // ROWS)
    same = (groups == groups[:, :1]).all(axis=1)
    return np.where(same, groups[:, 0], -1)


def _parts(length: int) -> list[tuple[int, int]]:
    """Cut a short piece of work for the threads; each item is done alone, wherever it falls."""
    edges = np.linspace(0, length, thread_count() + 1).astype(int)
    return list(itertools.pairwise(edges.tolist()))


def _strips(n_lines: int) -> np.ndarray:
    """Cut lines into strips of about equal length, their number a multiple of 8, or 1.

    About as many strips as each has lines: a pair of strips outweighs a call, and a round
    of pairs keeps many cores busy.
    """
    n_strips = 1 if n_lines < FEW_LINES else math.isqrt(n_lines) // 8 * 8
    return np.linspace(0, n_lines, n_strips + 1).astype(np.int64)


def _rounds(n_strips: int) -> Iterator[np.ndarray]:
    """Pair each strip with itself, then each two strips once; no strip twice in a round.

    A round-robin tournament by the circle method: one strip stays, the others move on.
    """
    yield np.repeat(np.arange(n_strips)[:, None], 2, axis=1)
    if n_strips == 1:
        return
    circle = n_strips - 1
    step = np.arange(1, n_strips // 2)
    for turn in range(circle):
        left = np.append((turn + step) % circle, circle)
        right = np.append((turn - step) % circle, turn)
        yield np.sort(np.stack([left, right], axis=1), axis=1)
