"""How many rows an operation takes at a time, and what happens when that was too many.

The arithmetic of the device's memory stands here alone, so that a dry run can use it too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from gpuseg.errors import DeviceMemoryError
from gpuseg.records import Progress, no_progress

log = logging.getLogger("gpuseg")

T = TypeVar("T")

#: Share of the free memory that a block may take: what the libraries allocate on the way
#: is known only roughly, and a device is often shared with a display.
BLOCK_SHARE = 0.5

#: Blocks are not made larger for sums that a library adds up: past this they only cost
#: memory, and equal blocks give equal bits whatever is free.
MOST_SUMMED_ROWS = 65_536

#: Rows of a block, at least; if these do not fit, nothing will.
FEWEST_ROWS = 256

#: Bytes of a block that comes from the host, at most: CuPy copies through a buffer of the
#: same size that is locked in host memory, and a larger block moves no faster.
STREAM_BYTES = 2**28

#: Features, the matrix made of them, and the matrix in its new order exist at once.
MATRIX_COPIES = 3

#: Arrays of 8 bytes a row that are alive while rows are put in order, and while they are
#: sorted by their labels: as measured with NumPy (a test repeats it), and two for CuPy's
#: sort (an estimate).
ORDER_ARRAYS = 9 + 2
CELL_ARRAYS = 8 + 2

#: And while they are put in their place: cell, column, and what an index makes of them.
PLACING_ARRAYS = 3 + 2

#: Bytes a row of what an assignment returns; two are alive, the old one and the new.
ASSIGNMENT_BYTES = 16

#: cuML's k-means keeps a norm, a distance and a number for each row (an estimate).
CUML_KMEANS_ROW_BYTES = 24

#: Labels that are alive at the end of a sweep: three finalists for each of eight k. A sweep
#: over more of them may turn out too large on its way, and then starts anew.
LABELS_BYTES = 4 * 3 * 8

#: cuML's SHAP counts its output in 32 bits: rows * classes * (features + 1) stay below.
MOST_SHAP_VALUES = 2**31 - 1

#: Rows, and bytes of text, that cuDF reads at a time, at most: it counts rows in 31 bits.
MOST_READ_ROWS = 1 << 26
MOST_RANGE_BYTES = 1 << 30

#: Times that reading begins anew with half as much memory before it is given up.
MOST_READING_ATTEMPTS = 6

#: Rows of a column that are sent or hashed at a time: more gains nothing.
MOST_SENT_ROWS = 1 << 22

#: What a row of them takes: the number in its own type, and whether there is none; or its
#: place, its hashes and copies of them.
NUMBER_ROW_BYTES = 8 + 1
DIGEST_ROW_BYTES = 6 * 8

#: Share that columns which cuDF read may keep, until they are features, of the free memory
#: which fitting one of them leaves.
COLUMNS_SHARE = 0.25

#: Arrays of 8 bytes a row that are alive while a column is fitted: a date's sorted values
#: and its cycles are the most, as measured with NumPy (a test repeats it); and the copy that
#: sorting makes on a device.
FIT_ARRAYS = 9

#: cuDF's own work while it decodes a value: a copy of the page, compressed and not (an
#: estimate). Of text, also the offsets of lines and fields.
DECODING_COPIES = 2
CSV_COPIES = 4

#: A path element of cuML's SHAP takes so many bytes, and three copies of all exist at once.
PATH_ELEMENT_BYTES = 88
PATH_COPIES = 3


class Memory(Protocol):
    """What a device must say of its memory; see `gpuseg.backends.cuda_device.Device`."""

    def free_bytes(self) -> int:
        """Return how much could be allocated now."""

    def release(self) -> None:
        """Hand memory that is kept for later back to the device."""


def resident_bytes(n_rows: int, n_features: int) -> int:
    """Return what a device must have free for rows to stay there through a whole run.

    Parameters
    ----------
    n_features
        Before any projection.
    """
    preparing = max(4 * MATRIX_COPIES * n_features, 4 * n_features + 8 * ORDER_ARRAYS)
    return n_rows * max(preparing, 4 * n_features + LABELS_BYTES + kmeans_row_bytes())


def kmeans_row_bytes() -> int:
    """Return what a row takes, besides itself, while cuML's k-means runs on it."""
    return 2 * ASSIGNMENT_BYTES + CUML_KMEANS_ROW_BYTES


def pass_row_bytes(n_features: int, n_clusters: int) -> int:
    """Return what a row takes in a pass of k-means: it, its assignment and its sums."""
    return 4 * n_features + ASSIGNMENT_BYTES + sum_row_bytes(n_features, n_clusters)


def pair_row_bytes(n_features: int, n_segmentations: int) -> int:
    """Return what a row takes as a column of pairs.

    Its labels; besides, first its cells are found, then its values and norm are put in their
    place, with the labels once more.
    """
    labels = 4 * n_segmentations
    placing = 4 * (n_features + 1) + labels + 8 * PLACING_ARRAYS
    return labels + max(8 * CELL_ARRAYS, placing)


def sum_row_bytes(n_values: int, n_groups: int) -> int:
    """Return what a row takes while rows of `n_values` are summed by group in float64."""
    return 8 * (2 * n_values + n_groups) + n_groups


def covariance_row_bytes(n_features: int) -> int:
    """Return what a row takes while its products are summed: it and its centred copy."""
    return 8 * 2 * n_features


def shap_row_bytes(n_features: int, n_columns: int, n_classes: int, n_clusters: int) -> int:
    """Return what a row takes while it is explained.

    cuML's float64 sums and its float32 result of (features + 1) x classes; ours by column,
    with the absolute values or squares and the product's copy; the row itself.
    """
    library = (8 + 4) * n_classes * (n_features + 1)
    return library + 8 * 3 * n_columns * n_classes + 9 * n_clusters + 4 * n_features


def shap_path_bytes(n_leaves: int, max_depth: int, n_classes: int) -> int:
    """Return what the forest's paths take during a call: one for each leaf and class."""
    return PATH_COPIES * PATH_ELEMENT_BYTES * n_leaves * n_classes * (max_depth + 1)


def read_row_bytes(n_columns: int) -> int:
    """Return what a row takes while cuDF reads it: each number, its float64, cuDF's work."""
    return n_columns * (8 * (1 + DECODING_COPIES) + 8 + 1)


def columns_that_stay(n_rows: int, free_bytes: int) -> int:
    """Return how many columns of float64 may stay on the device beside what is made of them."""
    spare = free_bytes - 8 * FIT_ARRAYS * n_rows
    return max(0, int(COLUMNS_SHARE * spare)) // (8 * max(n_rows, 1))


def fitting_bytes(n_rows: int, n_columns: int, free_bytes: int) -> int:
    """Return what fitting columns takes, besides the features: what stays, and one's work."""
    stay = min(n_columns, columns_that_stay(n_rows, free_bytes))
    return 8 * n_rows * (stay + FIT_ARRAYS)


def csv_range_bytes(free_bytes: int) -> int:
    """Return how many bytes of a CSV file are read at a time."""
    return max(1, min(MOST_RANGE_BYTES, int(BLOCK_SHARE * free_bytes) // (1 + CSV_COPIES)))


def rows_per_block(row_bytes: int, free_bytes: int, *, at_most: int) -> int:
    """Return how many rows fit into a share of the free memory: a power of two, or `at_most`.

    Examples
    --------
    >>> rows_per_block(1_000, 10_000_000, at_most=65_536)
    4096
    >>> rows_per_block(1_000, 10**12, at_most=65_536)
    65536
    """
    fitting = int(BLOCK_SHARE * max(0, free_bytes)) // row_bytes
    if fitting >= at_most:
        return max(1, at_most)
    return max(FEWEST_ROWS, 1 << max(0, fitting.bit_length() - 1))


def streamed_rows(row_bytes: int, free_bytes: int) -> int:
    """Return how many rows that come from the host are a block."""
    at_most = max(FEWEST_ROWS, STREAM_BYTES // row_bytes)
    return rows_per_block(row_bytes, free_bytes, at_most=at_most)


def fits(n_bytes: int, free_bytes: int) -> bool:
    """Tell whether something may be brought to the device as a whole for one operation."""
    return n_bytes <= BLOCK_SHARE * free_bytes


def in_blocks(
    memory: Memory,
    n_rows: int,
    block_rows: int,
    work: Callable[[slice], None],
    *,
    operation: str,
    progress: Progress = no_progress,
) -> None:
    """Call ``work(rows)`` for block after block; where memory runs out, with half as many.

    Parameters
    ----------
    work
        May be called again for the first rows of a block that failed, so it must keep its
        result only when it is complete.
    operation
        What is being done, for the warning.

    Raises
    ------
    DeviceMemoryError
        If even `FEWEST_ROWS` rows do not fit.
    """
    start = 0
    while start < n_rows:
        stop = min(start + block_rows, n_rows)
        if stop - start <= FEWEST_ROWS:
            with told_clearly(memory, operation, stop - start):
                work(slice(start, stop))
            failure = None
        else:
            failure = failed(work, slice(start, stop))
        if failure is None:
            start = stop
            progress(start / n_rows)
            continue
        # only here, with the failed attempt's frames and arrays gone, is there anything to free
        memory.release()
        block_rows = max(FEWEST_ROWS, (stop - start) // 2)
        log.warning(
            "%s: the device's memory ran out with %s rows at a time; going on with %s",
            operation,
            f"{stop - start:,}",
            f"{block_rows:,}",
        )


def with_fewer_rows(memory: Memory, n_rows: int, work: Callable[[int], T], *, operation: str) -> T:
    """Return ``work(n_rows)`` or, where memory keeps running out, what half as many give.

    Once it is only tried again: with all memory given back, the same rows may fit.

    Raises
    ------
    DeviceMemoryError
        If even `FEWEST_ROWS` rows do not fit.
    """
    found: list[T] = []
    n_failures = 0
    while n_rows > FEWEST_ROWS:
        failure = failed(lambda most: found.append(work(most)), n_rows)
        if failure is None:
            return found[0]
        memory.release()
        n_failures += 1
        if n_failures == 1:
            continue
        log.warning(
            "%s: the device's memory ran out with %s rows; going on with a sample of %s",
            operation,
            f"{n_rows:,}",
            f"{n_rows // 2:,}",
        )
        n_rows //= 2
    with told_clearly(memory, operation, n_rows):
        return work(n_rows)


def failed(work: Callable[..., None], *arguments: Any) -> str | None:
    """Do the work; return what was said if memory ran out: CuPy's and RMM's errors are such."""
    try:
        work(*arguments)
    except MemoryError as error:
        return str(error) or type(error).__name__
    return None


@contextmanager
def told_clearly(memory: Memory, operation: str, n_rows: int | None = None) -> Iterator[None]:
    """Turn the libraries' out-of-memory errors into one that says what to do."""
    try:
        yield
    except MemoryError as error:
        # NumPy's own are about host memory: nothing is wrong with the device
        if isinstance(error, DeviceMemoryError) or type(error).__module__.startswith("numpy"):
            raise
        failure = str(error) or type(error).__name__
        raise DeviceMemoryError(_out_of_memory(memory, operation, failure, n_rows)) from error


def _out_of_memory(memory: Memory, operation: str, failure: str, n_rows: int | None = None) -> str:
    """Say what was done, what was missing, what is free and what can be done."""
    block = "" if n_rows is None else f" with {n_rows:,} rows at a time, the fewest"
    return (
        f"{operation}: the GPU's memory ran out{block} ({failure}); "
        f"{in_units(memory.free_bytes())} are free now. Close what else uses the GPU, use fewer "
        "columns or clusters, or --backend numpy"
    )


def does_not_fit(n_rows: int, n_features: int, needed_bytes: int, free_bytes: int) -> str:
    """Say why rows cannot stay on the device."""
    return (
        f"{n_rows:,} rows x {n_features:,} features need about {in_units(needed_bytes)} of GPU "
        f"memory, {in_units(free_bytes)} are free"
    )


def in_units(n_bytes: int) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> in_units(3 * 2**30), in_units(5_000_000), in_units(700)
    ('3.0 GiB', '4.8 MiB', '0.7 KiB')
    """
    units = ((30, "GiB"), (20, "MiB"), (10, "KiB"))
    power, unit = next((u for u in units if n_bytes >= 2 ** u[0]), units[-1])
    return f"{n_bytes / 2**power:,.1f} {unit}"
