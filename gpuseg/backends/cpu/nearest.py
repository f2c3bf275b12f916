"""The compiled half of Lloyd's iterations: loops over tiles of rows, and what they book.

Arrays that the kernels share (the distances themselves are in ``nearest_lines.py``):

- ``panels`` (flat) float32: the rows of `X` in panels, whole tiles, zeros after the last.
- ``centroids`` (n_slots, n_features) float32: those of all runs one after another, for each
  run whole batches; run r owns ``first[r]:first[r + 1]``, what is over being inf.
- ``sums`` (n_slots, n_features) float64 and ``counts`` (n_slots,) int64: what is in them.
- ``labels`` (n_runs, n_tiles * TILE) uint8 or int32: the largest number means none yet.
"""

from __future__ import annotations

import numpy as np

from gpuseg.backends.cpu.compile import jit
from gpuseg.backends.cpu.nearest_lines import (
    BATCH,
    LANES,
    TILE,
    add_row,
    count_bits,
    lowest_bit,
    step_tile,
    subtract_row,
    two_nearest,
)


@jit()
def turn(X, panels, first_line, last_line):  # type: ignore[no-untyped-def]
    """Write rows into panels; zeros where there is no row."""
    n_samples, n_features = X.shape
    for line in range(first_line, last_line):
        panel = line * n_features * LANES
        for lane in range(LANES):
            row = line * LANES + lane
            for j in range(n_features):
                panels[panel + j * LANES + lane] = X[row, j] if row < n_samples else 0


@jit()
def step_tiles(  # type: ignore[no-untyped-def]
    X, panels, first_tile, last_tile, runs, centroids, first, labels, sums, counts,
    changed, inertia,
):  # fmt: skip
    """Assign the rows of these tiles in each of the runs, and book what changed cluster.

    Parameters
    ----------
    runs : array of int64
        Numbers of the runs that go on.
    changed : array of shape (len(runs),), int64
        Gets how many rows changed cluster.
    inertia : array of shape (len(runs), LANES), float64
        Gets sums of the squared distances, to be added up.
    """
    n_samples, n_features = X.shape
    n_places = labels.shape[1]
    found = np.empty(TILE, np.int32)
    for tile in range(first_tile, last_tile):
        row = tile * TILE
        n_rows = n_samples - row
        exists = -1 if n_rows >= TILE else (1 << n_rows) - 1
        if n_rows >= TILE and TILE < 64:
            exists = (1 << TILE) - 1
        for position in range(len(runs)):
            run = runs[position]
            bits = step_tile(
                panels, row * n_features, n_features, centroids, first[run] * n_features,
                (first[run + 1] - first[run]) // BATCH, exists, labels, run * n_places + row,
                found, inertia, position * LANES,
            )  # fmt: skip
            changed[position] += count_bits(bits)
            while bits:
                t = lowest_bit(bits)
                bits &= bits - 1
                gains, loses = first[run] + found[t], first[run] + labels[run, row + t]
                start = (row + t) * n_features
                add_row(X, start, sums, gains * n_features, n_features)
                counts[gains] += 1
                if loses < first[run + 1]:
                    subtract_row(X, start, sums, loses * n_features, n_features)
                    counts[loses] -= 1
                labels[run, row + t] = found[t]


@jit()
def advance(run, n_changed, centroids, first, sums, counts, n_iter, last, max_iter, small_shift):  # type: ignore[no-untyped-def]
    """Tell whether a run is finished; if not, move its centroids to the means of their rows.

    Clusters without rows keep their centroid.
    """
    if last[run] or n_changed == 0:
        return True
    shift = 0.0
    for slot in range(first[run], first[run + 1]):
        if counts[slot] == 0:
            continue
        for j in range(centroids.shape[1]):
            mean = np.float32(sums[slot, j] / counts[slot])
            shift += (np.float64(mean) - np.float64(centroids[slot, j])) ** 2
            centroids[slot, j] = mean
    n_iter[run] += 1
    last[run] = shift <= small_shift or n_iter[run] >= max_iter
    return False


@jit()
def run_alone(  # type: ignore[no-untyped-def]
    X, panels, runs, n_clusters, centroids, first, labels, sums, counts,
    n_iter, last, max_iter, small_shift, changed, inertia,
):  # fmt: skip
    """Bring each of the runs to its end, or to where a cluster is empty.

    `changed` and `inertia` are of the runs' last step.
    """
    n_tiles = labels.shape[1] // TILE
    for position in range(len(runs)):
        run, one = runs[position], slice(position, position + 1)
        finished = False
        while not finished:
            changed[position] = 0
            inertia[position] = 0
            step_tiles(
                X, panels, 0, n_tiles, runs[one], centroids, first, labels, sums, counts,
                changed[one], inertia[one],
            )  # fmt: skip
            if (counts[first[run] : first[run] + n_clusters[run]] == 0).any():
                break
            finished = advance(
                run, changed[position], centroids, first, sums, counts,
                n_iter, last, max_iter, small_shift,
            )  # fmt: skip


@jit()
def assign_tiles(X, first_tile, last_tile, centroids, sq, labels, second_sq, second_labels):  # type: ignore[no-untyped-def]
    """Find the two nearest centroids of the rows of these tiles.

    The centroids are whole batches; the other arrays are of shape (n_samples,).
    """
    n_samples, n_features = X.shape
    panels = np.empty(TILE * n_features, np.float32)
    near, far = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    near_label, far_label = np.empty(TILE, np.int32), np.empty(TILE, np.int32)
    for tile in range(first_tile, last_tile):
        row = tile * TILE
        end = min(row + TILE, n_samples)
        turn(X[row:end], panels, 0, TILE // LANES)
        two_nearest(
            panels, 0, n_features, centroids, 0, len(centroids) // BATCH,
            near, near_label, far, far_label,
        )  # fmt: skip
        sq[row:end] = near[: end - row]
        labels[row:end] = near_label[: end - row]
        second_sq[row:end] = far[: end - row]
        second_labels[row:end] = far_label[: end - row]


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
