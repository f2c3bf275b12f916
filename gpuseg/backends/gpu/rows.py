"""Rows as blocks on the device, wherever they are kept.

A matrix is kept on the device or, where it does not fit, in host memory. Operations do not
ask which: they take blocks from here and give back what they found for them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.memory import does_not_fit, in_units, resident_bytes, streamed_rows
from gpuseg.errors import DeviceMemoryError
from gpuseg.records import Array

log = logging.getLogger("gpuseg")


def check_residence(device: Device, features: Sequence[Array]) -> None:
    """Refuse features, all on the device, of rows that cannot stay there for a whole run.

    Raises
    ------
    DeviceMemoryError
        Says what is needed and what there is.
    """
    if not features:
        return
    n_rows, n_features = features[0].shape[1], sum(len(block) for block in features)
    needed = resident_bytes(n_rows, n_features)
    there = device.free_bytes() + sum(int(block.nbytes) for block in features)
    if needed > there:
        raise DeviceMemoryError(does_not_fit(n_rows, n_features, needed, there))
    log.info("rows are kept on the GPU: %s needed, %s free", in_units(needed), in_units(there))


def is_there(device: Device, array: Array) -> bool:
    """Tell whether an array is on the device; else it is in host memory."""
    return isinstance(array, device.xp.ndarray)


def library_of(device: Device, array: Array) -> Any:
    """Return the array library of the side on which an array is kept."""
    return device.xp if is_there(device, array) else np


def on_device(device: Device, array: Array, rows: slice = slice(None)) -> Array:
    """Return rows on the device: a view, or a copy of what is on the host."""
    return device.xp.asarray(array[rows])


def taken(device: Device, array: Array, rows: Array) -> Array:
    """Return the rows of these numbers, which may be on either side, on the device."""
    if is_there(device, array):
        return array.take(device.xp.asarray(rows), axis=0)
    return device.xp.asarray(array[device.xp.asnumpy(rows)])


def rows_at_once(device: Device, X: Array, row_bytes: int) -> int:
    """Return the rows of a block: all that are on the device, some that come from the host.

    Parameters
    ----------
    row_bytes
        What a row that comes from the host takes on the device, with its result.
    """
    if is_there(device, X):
        return max(1, len(X))
    return streamed_rows(row_bytes, device.free_bytes())


def to_fill(device: Device, part: Array) -> Array:
    """Return an array on the device for the values of `part`: itself, if it is there."""
    if is_there(device, part):
        return part
    return device.xp.empty(part.shape, dtype=part.dtype)


def give_back(device: Device, part: Array, filled: Array) -> None:
    """Copy what was filled on the device to where it belongs, if that is elsewhere."""
    if filled is not part:
        part[...] = filled if is_there(device, part) else device.xp.asnumpy(filled)
