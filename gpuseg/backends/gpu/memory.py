"""How many rows an operation takes at a time, and what happens when that was too many.

The arithmetic of the device's memory stands here alone, so that a dry run can use it too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from gpuseg.records import Progress, no_progress

log = logging.getLogger("gpuseg")

#: Share of the free memory that a block may take: what the libraries allocate on the way
#: is known only roughly, and a device is often shared with a display.
BLOCK_SHARE = 0.5

#: Blocks are not made larger for sums that a library adds up: past this they only cost
#: memory, and equal blocks give equal bits whatever is free.
MOST_SUMMED_ROWS = 65_536

#: Rows of a block, at least; if these do not fit, nothing will.
FEWEST_ROWS = 256

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
#: and its cycles are the most, as measured with NumPy (a test repeats it).
FIT_ARRAYS = 11

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
    fitting = int(BLOCK_SHARE * free_bytes) // row_bytes
    if fitting >= at_most:
        return max(1, at_most)
    return max(FEWEST_ROWS, 1 << max(0, fitting.bit_length() - 1))


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
    MemoryError
        If even `FEWEST_ROWS` rows do not fit. CuPy's and RMM's errors are of this kind.
    """
    start = 0
    while start < n_rows:
        stop = min(start + block_rows, n_rows)
        if _fits(work, slice(start, stop), stop - start > FEWEST_ROWS):
            start = stop
            progress(start / n_rows)
            continue
        # only here, with the failed attempt's frames and arrays gone, is there anything to free
        memory.release()
        halved = max(FEWEST_ROWS, (stop - start) // 2)
        log.warning(
            "%s: the device's memory ran out with %s rows at a time; going on with %s",
            operation,
            f"{stop - start:,}",
            f"{halved:,}",
        )
        block_rows = halved


def _fits(work: Callable[[slice], None], rows: slice, may_fail: bool) -> bool:
    try:
        work(rows)
    except MemoryError:
        if not may_fail:
            raise
        return False
    return True
