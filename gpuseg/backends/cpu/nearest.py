"""The compiled half of Lloyd's iterations: which centroid is nearest to each row.

Rows travel in tiles of 128, turned so that one register holds the same feature of several
rows. A distance is the sum of ``(x - c)**2`` over the features in their order, by fused
multiply-add in float32. Every row goes through the same operations wherever it stands, so
its label depends on nothing but the row and the centroids; and differences, unlike
``|c|**2 - 2 x.c``, keep their digits when the data lie far from the origin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from gpuseg.backends.cpu.compile import jit

#: Rows in a tile: with 50 features it still fits the first-level cache.
TILE = 128

#: Features are padded with zeros to a multiple of this; so many are added per pass.
STRIDE = 4


def _type_fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Multiply and add with one rounding; written out, so no compiler decides about it."""

    def generate(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return a(a, b, c), generate


_fma: Any = intrinsic(_type_fma)


@jit()
def _load_tile(X, start, tile):  # type: ignore[no-untyped-def]
    """Turn rows from `start` on into `tile` (n_features padded, TILE); return how many.

    Lanes beyond the last row keep what they had; nobody reads their results.
    """
    n_rows = min(TILE, X.shape[0] - start)
    n_features = X.shape[1]
    for t in range(n_rows):
        for j in range(n_features):
            tile[j, t] = X[start + t, j]
    return n_rows


@jit()
def _pair_distances(tile, centroids, c, even, odd):  # type: ignore[no-untyped-def]
    """Squared distances of the tile's rows to centroids `c` and `c + 1`."""
    even[:] = 0.0
    odd[:] = 0.0
    for j in range(0, tile.shape[0], STRIDE):
        a0, b0 = centroids[c, j], centroids[c + 1, j]
        a1, b1 = centroids[c, j + 1], centroids[c + 1, j + 1]
        a2, b2 = centroids[c, j + 2], centroids[c + 1, j + 2]
        a3, b3 = centroids[c, j + 3], centroids[c + 1, j + 3]
        for t in range(TILE):
            x0, x1, x2, x3 = tile[j, t], tile[j + 1, t], tile[j + 2, t], tile[j + 3, t]
            u0, u1, u2, u3 = x0 - a0, x1 - a1, x2 - a2, x3 - a3
            v0, v1, v2, v3 = x0 - b0, x1 - b1, x2 - b2, x3 - b3
            even[t] = _fma(u3, u3, _fma(u2, u2, _fma(u1, u1, _fma(u0, u0, even[t]))))
            odd[t] = _fma(v3, v3, _fma(v2, v2, _fma(v1, v1, _fma(v0, v0, odd[t]))))


@jit()
def _keep_nearest(even, odd, c, old, old_label, new, new_label):  # type: ignore[no-untyped-def]
    """Fold two centroids into the nearest so far, ties to the smaller index.

    Reads one buffer and writes another: an update in place becomes a masked store, which
    costs more than the distances on AMD processors.
    """
    even_label = np.int32(c)
    odd_label = np.int32(c + 1)
    for t in range(TILE):
        odd_wins = odd[t] < even[t]
        nearest = odd[t] if odd_wins else even[t]
        label = odd_label if odd_wins else even_label
        wins = nearest < old[t]
        new[t] = nearest if wins else old[t]
        new_label[t] = label if wins else old_label[t]


@jit()
def _keep_two_nearest(sq, c, near, label, second, second_label):  # type: ignore[no-untyped-def]
    """Fold one centroid into the two nearest so far, ties to the smaller index."""
    for t in range(sq.shape[0]):
        if c == 0 or sq[t] < near[t]:
            second[t], second_label[t] = near[t], label[t]
            near[t], label[t] = sq[t], c
        elif sq[t] < second[t]:
            second[t], second_label[t] = sq[t], c


@jit()
def _tile_sum(values, n_rows, scratch):  # type: ignore[no-untyped-def]
    """Add up the first `n_rows` values in float64, pairwise: always in the same order."""
    for t in range(TILE):
        scratch[t] = values[t] if t < n_rows else 0.0
    width = TILE // 2
    while width:
        for t in range(width):
            scratch[t] += scratch[t + width]
        width //= 2
    return scratch[0]


@jit()
def step_block(X, start, stop, centroids, first, runs, labels, sums, counts, changed, inertia):  # type: ignore[no-untyped-def]
    """Assign the rows of a block for every run, and book the rows that changed cluster.

    Run r owns the centroids ``first[r]:first[r + 1]`` and the row ``runs[r]`` of `labels`.
    """
    n_features = X.shape[1]
    tile = np.zeros((centroids.shape[1], TILE), np.float32)
    even, odd = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    near, spare = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    label, spare_label = np.empty(TILE, np.int32), np.empty(TILE, np.int32)
    scratch = np.empty(TILE, np.float64)
    for row in range(start, stop, TILE):
        n_rows = _load_tile(X, row, tile)
        for r in range(runs.shape[0]):
            near[:] = np.inf
            label[:] = 0
            n_centroids = first[r + 1] - first[r]
            for c in range(0, n_centroids, 2):
                _pair_distances(tile, centroids, first[r] + c, even, odd)
                _keep_nearest(even, odd, c, near, label, spare, spare_label)
                near, spare = spare, near
                label, spare_label = spare_label, label
            inertia[r] += _tile_sum(near, n_rows, scratch)
            known = labels[runs[r]]
            for t in range(n_rows):
                i = row + t
                if known[i] == label[t]:
                    continue
                changed[r] += 1
                gains, loses = first[r] + label[t], first[r] + known[i]
                counts[gains] += 1
                for j in range(n_features):
                    sums[gains, j] += X[i, j]
                if known[i] < n_centroids:
                    counts[loses] -= 1
                    for j in range(n_features):
                        sums[loses, j] -= X[i, j]
                known[i] = label[t]


@jit()
def assign_block(X, start, stop, centroids, n_clusters, labels, sq, second_labels, second_sq):  # type: ignore[no-untyped-def]
    """Find the two nearest centroids of the rows of a block."""
    tile = np.zeros((centroids.shape[1], TILE), np.float32)
    even, odd = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for row in range(start, stop, TILE):
        n_rows = _load_tile(X, row, tile)
        end = row + n_rows
        near, label = sq[row:end], labels[row:end]
        second, second_label = second_sq[row:end], second_labels[row:end]
        for c in range(0, n_clusters, 2):
            _pair_distances(tile, centroids, c, even, odd)
            _keep_two_nearest(even[:n_rows], c, near, label, second, second_label)
            if c + 1 < n_clusters:
                _keep_two_nearest(odd[:n_rows], c + 1, near, label, second, second_label)


@jit()
def moments_block(X, start, stop, origin):  # type: ignore[no-untyped-def]
    """Sum ``x - origin`` and its square over the rows of a block, per feature."""
    total = np.zeros(X.shape[1])
    square = np.zeros(X.shape[1])
    for i in range(start, stop):
        for j in range(X.shape[1]):
            difference = np.float64(X[i, j]) - origin[j]
            total[j] += difference
            square[j] += difference * difference
    return total, square
