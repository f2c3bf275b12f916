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
    n_samples = features[0].shape[1] if features else 0
    hashes = xp.zeros(n_samples, dtype=np.uint64)
    for block in features:
        for feature in block:
            hashes += feature.view(np.uint32)
            hashes *= GOLDEN
            hashes ^= hashes >> np.uint64(32)
    by_hash = xp.argsort(hashes, kind="stable")
    ordered = hashes[by_hash]
    is_first = xp.ones(n_samples, dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    # the r-th repetition of a row gets a hash of its own, or repetitions would clump
    starts = xp.flatnonzero(is_first)[xp.cumsum(is_first) - 1]
    repetition = xp.arange(n_samples) - starts
    spread = mix(ordered + repetition.astype(np.uint64) * GOLDEN)
    return by_hash[xp.argsort(spread, kind="stable")]


def mix(keys: Array) -> Array:
    """Scramble 64-bit keys: the finisher of SplitMix64 (Steele, Lea and Flood, 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
