"""An order of the rows that depends on their content alone; written once for all engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuseg.records import Array

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def content_order(features: Sequence[Array], xp: Any) -> Array:
    """Return the order of the rows; see ``Backend.row_order``.

    Parameters
    ----------
    xp
        The array library of the features. Whole numbers only, so all give the same order.
    """
    hashes = row_hashes(features, xp)
    by_hash = xp.argsort(hashes, kind="stable")
    ordered = hashes[by_hash]
    spread = spread_keys(ordered, repetitions(ordered, xp))
    return by_hash[xp.argsort(spread, kind="stable")]


def row_hashes(features: Sequence[Array], xp: Any) -> Array:
    """Return a hash of each row's bits, (n_samples,), uint64."""
    hashes = xp.zeros(features[0].shape[1] if features else 0, dtype=np.uint64)
    for block in features:
        for feature in block:
            hashes += feature.view(np.uint32)
            hashes *= GOLDEN
            hashes ^= hashes >> np.uint64(32)
    return hashes


def repetitions(ordered: Array, xp: Any) -> Array:
    """Return how many equal hashes come before each one of sorted hashes, (n,), int64."""
    is_first = xp.ones(len(ordered), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    starts = xp.flatnonzero(is_first)[xp.cumsum(is_first) - 1]
    return xp.arange(len(ordered)) - starts


def spread_keys(hashes: Array, repetition: Array) -> Array:
    """Return what the rows are sorted by, (n,), uint64.

    The r-th repetition of a row gets a key of its own, or repetitions would clump.
    """
    return mix(hashes + repetition.astype(np.uint64) * GOLDEN)


def mix(keys: Array) -> Array:
    """Scramble 64-bit keys: the finisher of SplitMix64 (Steele, Lea and Flood, 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
