"""Sums over rows in float64, block by block: matrix products, hence no float atomics.

cuBLAS gives the same bits in every run on the same device, and blocks are added in their
order. A kernel of our own would save the float64 copy of a block and little else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseg.backends.cuda_device import Device
from gpuseg.backends.gpu.memory import (
    MOST_SUMMED_ROWS,
    covariance_row_bytes,
    in_blocks,
    rows_per_block,
    sum_row_bytes,
)
from gpuseg.backends.gpu.rows import on_device
from gpuseg.records import Array


def one_hot(device: Device, labels: Array, n_clusters: int) -> Array:
    """Return an array of shape (n_samples, n_clusters), float64, with a 1 for each label."""
    numbers = device.xp.arange(n_clusters, dtype=labels.dtype)
    return (labels[:, None] == numbers).astype(np.float64)


def cluster_sums(device: Device, X: Array, labels: Array, n_clusters: int) -> Any:
    """Add up the rows of each cluster.

    Returns
    -------
    sums : host array of shape (n_clusters, n_features), float64
    """
    xp, (n_samples, n_features) = device.xp, X.shape
    total = xp.zeros((n_clusters, n_features), dtype=np.float64)

    def add(rows: slice) -> None:
        there = on_device(device, X, rows).astype(np.float64)
        part = one_hot(device, on_device(device, labels, rows), n_clusters).T @ there
        total[...] += part

    row_bytes = sum_row_bytes(n_features, n_clusters)
    block = rows_per_block(row_bytes, device.free_bytes(), at_most=MOST_SUMMED_ROWS)
    in_blocks(device, n_samples, block, add, operation="k-means")
    return xp.asnumpy(total)


def covariance(device: Device, X: Array) -> tuple[Any, Any]:
    """Return mean (d,) and population covariance (d, d), float64, on the host."""
    xp, (n_samples, n_features) = device.xp, X.shape
    row_bytes = covariance_row_bytes(n_features)
    block = rows_per_block(row_bytes, device.free_bytes(), at_most=MOST_SUMMED_ROWS)
    mean = xp.zeros(n_features, dtype=np.float64)
    total = xp.zeros((n_features, n_features), dtype=np.float64)

    def add_rows(rows: slice) -> None:
        mean[...] += on_device(device, X, rows).sum(axis=0, dtype=np.float64) / n_samples

    def add_products(rows: slice) -> None:
        centred = on_device(device, X, rows).astype(np.float64) - mean
        total[...] += centred.T @ centred

    in_blocks(device, n_samples, block, add_rows, operation="covariance")
    in_blocks(device, n_samples, block, add_products, operation="covariance")
    return xp.asnumpy(mean), xp.asnumpy(total) / n_samples


def mean_variance(device: Device, X: Array) -> float:
    """Return the population variance of the features, averaged over them."""
    xp, (n_samples, n_features) = device.xp, X.shape
    origin = on_device(device, X, slice(1)).astype(np.float64)[0]
    total, squares = xp.zeros((2, n_features), dtype=np.float64)

    def add(rows: slice) -> None:
        difference = on_device(device, X, rows).astype(np.float64) - origin
        part, squared = difference.sum(axis=0), (difference * difference).sum(axis=0)
        total[...] += part
        squares[...] += squared

    row_bytes = covariance_row_bytes(n_features)
    block = rows_per_block(row_bytes, device.free_bytes(), at_most=MOST_SUMMED_ROWS)
    in_blocks(device, n_samples, block, add, operation="k-means")
    return float((squares / n_samples - (total / n_samples) ** 2).mean())
