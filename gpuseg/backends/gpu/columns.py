"""Single columns: Arrow's numbers onto the device, and what tells equal columns there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from gpuseg.backends.content_order import GOLDEN, mix
from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.memory import (
    DIGEST_ROW_BYTES,
    MOST_SENT_ROWS,
    NUMBER_ROW_BYTES,
    in_blocks,
    rows_per_block,
)
from gpuseg.records import Array


def numbers(device: Device, column: pa.ChunkedArray) -> Array:
    """Send a column of numbers; see ``Backend.numbers``.

    Numbers travel in their own type and become float64 there, block by block.
    """
    if pat.is_decimal(column.type) or pat.is_float16(column.type):
        column = column.cast(pa.float64(), safe=False)
    values = device.xp.empty(len(column), dtype=np.float64)
    block = rows_per_block(NUMBER_ROW_BYTES, device.free_bytes(), at_most=MOST_SENT_ROWS)
    first = 0
    for chunk in column.chunks:
        _send(device, chunk, values[first : first + len(chunk)], block)
        first += len(chunk)
    return values


def _send(device: Device, chunk: pa.Array, place: Array, block: int) -> None:
    def send(rows: slice) -> None:
        piece = chunk.slice(rows.start, rows.stop - rows.start)
        there = place[rows]
        there[...] = device.xp.asarray(piece.fill_null(0).to_numpy(zero_copy_only=False))
        if piece.null_count:
            missing = piece.is_null().to_numpy(zero_copy_only=False)
            there[device.xp.asarray(missing)] = np.nan

    in_blocks(device, len(chunk), block, send, operation="columns")


def codes(device: Device, values: Array) -> Array:
    """Number different numbers by first appearance; see ``Backend.codes``."""
    xp = device.xp
    present = ~xp.isnan(values)
    _, firsts, which = xp.unique(values[present], return_index=True, return_inverse=True)
    number = xp.empty(len(firsts), dtype=np.int32)
    number[xp.argsort(firsts, kind="stable")] = xp.arange(len(firsts), dtype=np.int32)
    found = xp.full(len(values), -1, dtype=np.int32)
    found[present] = number[which]
    return found


def digest(device: Device, values: Array) -> bytes:
    """Digest an array; see ``Backend.digest``.

    Two sums of hashes of value and place. Whole numbers only, so the order in which a
    device adds them does not matter.
    """
    xp = device.xp
    words = values.view(f"u{values.itemsize}")
    sums = [0, 0]

    def add(rows: slice) -> None:
        places = xp.arange(rows.start + 1, rows.stop + 1).astype(np.uint64)
        hashes = mix(mix(places * GOLDEN) ^ words[rows].astype(np.uint64))
        parts = _total(hashes), _total(mix(hashes + GOLDEN))
        sums[:] = [(total + part) % 2**64 for total, part in zip(sums, parts, strict=True)]

    block = rows_per_block(DIGEST_ROW_BYTES, device.free_bytes(), at_most=MOST_SENT_ROWS)
    in_blocks(device, len(values), block, add, operation="columns")
    return np.array([len(values), values.itemsize, *sums], dtype=np.uint64).tobytes()


def _total(hashes: Any) -> int:
    return int(hashes.sum())
