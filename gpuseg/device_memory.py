"""Where a run would keep its rows, and how much memory of a GPU each stage takes at its peak.

The plan's side: sizes come from the functions that the run itself asks, so both agree; what
is added here is which arrays are alive when. Sizes of the libraries' own workspaces are
estimates, marked as such.
"""

from __future__ import annotations

import inspect
from typing import NamedTuple

from gpuseg.backends.cuda_driver import Driver
from gpuseg.backends.cuda_pair_plan import PART_BYTES
from gpuseg.backends.gpu import memory
from gpuseg.clustering.kmeans import LEVELS, N_FINALISTS
from gpuseg.explain.explain import explain

#: cuML's forest keeps drawn row numbers for each stream, 4 of them (an estimate).
CUML_FOREST_ROW_BYTES = 16


class DeviceWork(NamedTuple):
    """What decides how much a run needs."""

    n_rows: int
    n_encoded: int  # features before a projection
    n_features: int  # and after it
    n_columns: int
    k_values: tuple[int, ...]
    n_scored: int  # rows whose silhouette is computed

    @property
    def n_clusters(self) -> int:
        """The most clusters that may have to be explained."""
        return max(self.k_values)

    @property
    def matrix_bytes(self) -> int:
        """The rows as features: what stays from the preparation to the end."""
        projected = 0 if self.n_features == self.n_encoded else self.n_encoded
        return 4 * self.n_rows * (self.n_features + projected)

    @property
    def labels_bytes(self) -> int:
        """Labels of every k."""
        return 4 * self.n_rows * len(self.k_values)


class DevicePlan(NamedTuple):
    """What a run would take of a GPU."""

    obstacle: str | None  # why rows would be kept in host memory; None: on the device
    stages: dict[str, int]  # bytes at the peak


def device_plan(work: DeviceWork, free_bytes: int) -> DevicePlan:
    """Say where rows would be kept on a device with so much free memory, and each stage's peak.

    The more is free the larger are some blocks, so the peaks depend on it.
    """
    needed = memory.resident_bytes(work.n_rows, work.n_encoded)
    resident = _resident(work, free_bytes)
    largest = max(needed, *resident.values())
    if largest <= free_bytes:
        return DevicePlan(None, resident)
    obstacle = memory.does_not_fit(work.n_rows, work.n_encoded, largest, free_bytes)
    return DevicePlan(obstacle, _streamed(work, free_bytes))


def free_device_bytes() -> int:
    """Return how much memory of the first GPU is free now."""
    driver = Driver()
    driver.start()
    return driver.memory(0)[0]


def _resident(work: DeviceWork, free_bytes: int) -> dict[str, int]:
    """Return the peak of each stage with everything on the device."""
    matrix, labels = work.matrix_bytes, work.labels_bytes
    kmeans = N_FINALISTS * labels + _kmeans_bytes(work, free_bytes - matrix - labels)
    # the labels once more, in one array
    scoring = 2 * labels + _silhouette_bytes(work, free_bytes - matrix - 2 * labels)
    sums = 8 * work.n_scored * sum(work.k_values)
    return {
        "read": 0,
        "prepare": _prepare_bytes(work, free_bytes),
        "sweep": matrix + max(kmeans, scoring + sums),
        "explain": matrix + labels + _explain_bytes(work, free_bytes - matrix - labels),
        "publish": matrix + labels,
    }


def _streamed(work: DeviceWork, free_bytes: int) -> dict[str, int]:
    """Return the peak of each stage with everything in host memory but blocks of rows."""
    assigning = _block_bytes(work, 4 * work.n_features + memory.ASSIGNMENT_BYTES, free_bytes)
    preparing = 0
    if work.n_features < work.n_encoded:
        row_bytes = max(
            4 * (work.n_encoded + work.n_features), memory.covariance_row_bytes(work.n_encoded)
        )
        preparing = _block_bytes(work, row_bytes, free_bytes)
    return {
        "read": 0,
        "prepare": preparing,
        "sweep": max(
            assigning, _streamed_kmeans_bytes(work, free_bytes), _silhouette_bytes(work, free_bytes)
        ),
        "explain": _explain_bytes(work, free_bytes),
        "publish": assigning,
    }


def _block_bytes(work: DeviceWork, row_bytes: int, free_bytes: int) -> int:
    return min(work.n_rows, memory.streamed_rows(row_bytes, free_bytes)) * row_bytes


def _prepare_bytes(work: DeviceWork, free_bytes: int) -> int:
    """Features, the matrix made of them, and the matrix in its new order; or the order.

    Before that, the columns that cuDF read, beside the features made of them.
    """
    encoded = 4 * work.n_rows * work.n_encoded
    fitting = encoded + memory.fitting_bytes(work.n_rows, work.n_columns, free_bytes)
    ordering = encoded + 8 * memory.ORDER_ARRAYS * work.n_rows
    return max(memory.MATRIX_COPIES * encoded, ordering, fitting, encoded + work.matrix_bytes)


def _kmeans_bytes(work: DeviceWork, free_bytes: int) -> int:
    row_bytes = memory.sum_row_bytes(work.n_features, work.n_clusters)
    block = memory.rows_per_block(row_bytes, free_bytes, at_most=memory.MOST_SUMMED_ROWS)
    assignments = 2 * memory.ASSIGNMENT_BYTES * work.n_rows
    cuml = memory.CUML_KMEANS_ROW_BYTES * work.n_rows
    return assignments + max(min(block, work.n_rows) * row_bytes, cuml)


def _streamed_kmeans_bytes(work: DeviceWork, free_bytes: int) -> int:
    """The largest sample, or all rows, that cuML is given; else the block of a pass."""
    row_bytes = memory.pass_row_bytes(work.n_features, work.n_clusters)
    block = memory.rows_per_block(row_bytes, free_bytes, at_most=memory.MOST_SUMMED_ROWS)
    brought = (
        min(n_rows, work.n_rows) * (4 * work.n_features + memory.kmeans_row_bytes())
        for n_rows in (*LEVELS, work.n_rows)
    )
    fitting = (n_bytes for n_bytes in brought if memory.fits(n_bytes, free_bytes))
    return max(min(block, work.n_rows) * row_bytes, *fitting, 0)


def _silhouette_bytes(work: DeviceWork, free_bytes: int) -> int:
    """A block of columns, with their cells, and one launch's sums."""
    row_bytes = memory.pair_row_bytes(work.n_features, len(work.k_values))
    block = memory.rows_per_block(row_bytes, free_bytes, at_most=work.n_rows)
    most = min(PART_BYTES, int(memory.BLOCK_SHARE * max(0, free_bytes)) // 8)
    return block * row_bytes + min(most, 8 * work.n_scored * sum(work.k_values))


def _explain_bytes(work: DeviceWork, free_bytes: int) -> int:
    growth = {name: p.default for name, p in inspect.signature(explain).parameters.items()}
    n_fitted = min(work.n_rows, growth["max_forest_rows"])
    fitting: int = n_fitted * (4 * work.n_encoded + CUML_FOREST_ROW_BYTES)
    n_leaves = growth["n_trees"] * min(n_fitted, 2 ** growth["max_depth"])
    paths = memory.shap_path_bytes(n_leaves, growth["max_depth"], work.n_clusters)
    row_bytes = memory.shap_row_bytes(
        work.n_encoded, work.n_columns, work.n_clusters, work.n_clusters
    )
    at_most = memory.MOST_SHAP_VALUES // (work.n_clusters * (work.n_encoded + 1))
    block = memory.rows_per_block(row_bytes, max(0, free_bytes - paths), at_most=at_most)
    explaining: int = paths + min(block, work.n_rows) * row_bytes
    return max(fitting, explaining)
