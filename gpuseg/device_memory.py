"""How much memory of a GPU each stage of a run takes at its peak: the plan's side.

Sizes of blocks come from the functions that the run itself asks, so both agree; what is
added here is which arrays are alive when. Sizes of the libraries' own workspaces are
estimates, marked as such.
"""

from __future__ import annotations

import inspect
from typing import NamedTuple

from gpuseg.backends.cuda_driver import Driver
from gpuseg.backends.cuda_pair_plan import PART_BYTES
from gpuseg.explain.explain import explain

#: Arrays of 8 bytes a row that are alive while rows are put in order, and while they are
#: sorted by their labels: as measured with NumPy (a test repeats it), and two for CuPy's
#: sort (an estimate).
ORDER_ARRAYS = 9 + 2
CELL_ARRAYS = 8 + 2

#: Bytes a row of what an assignment returns; two are alive, the old one and the new.
ASSIGNMENT_BYTES = 16

#: cuML's k-means keeps a norm, a distance and a number for each row (an estimate).
CUML_KMEANS_ROW_BYTES = 24

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


def device_bytes(work: DeviceWork, free_bytes: int) -> dict[str, int]:
    """Return the peak of each stage, for a device with so much free memory at the start.

    The more is free the larger are some blocks, so the result depends on it.
    """
    kept = work.matrix_bytes + work.labels_bytes
    return {
        "read": 0,
        "prepare": _prepare_bytes(work, free_bytes),
        "sweep": kept + max(_kmeans_bytes(work, free_bytes - kept), _silhouette_bytes(work)),
        "explain": kept + _explain_bytes(work, free_bytes - kept),
        "publish": kept,
    }


def free_device_bytes() -> int:
    """Return how much memory of the first GPU is free now."""
    driver = Driver()
    driver.start()
    return driver.memory(0)[0]


def _prepare_bytes(work: DeviceWork, free_bytes: int) -> int:
    """Features, the matrix made of them, and the matrix in its new order; or the order.

    Before that, the columns that cuDF read, beside the features made of them.
    """
    from gpuseg.backends.gpu import memory

    encoded = 4 * work.n_rows * work.n_encoded
    fitting: int = encoded + memory.fitting_bytes(work.n_rows, work.n_columns, free_bytes)
    ordering = encoded + 8 * ORDER_ARRAYS * work.n_rows
    return max(3 * encoded, ordering, fitting, encoded + work.matrix_bytes)


def _kmeans_bytes(work: DeviceWork, free_bytes: int) -> int:
    from gpuseg.backends.gpu import memory

    row_bytes = memory.sum_row_bytes(work.n_features, work.n_clusters)
    block = memory.rows_per_block(row_bytes, free_bytes, at_most=memory.MOST_SUMMED_ROWS)
    summing = min(block, work.n_rows) * row_bytes
    return 2 * ASSIGNMENT_BYTES * work.n_rows + max(summing, CUML_KMEANS_ROW_BYTES * work.n_rows)


def _silhouette_bytes(work: DeviceWork) -> int:
    """The rows once more, feature by feature; the sums; one launch's parts of them."""
    columns = 4 * work.n_rows * (work.n_features + 1)
    sums = 8 * work.n_scored * sum(work.k_values)
    return columns + sums + min(PART_BYTES, sums) + 8 * CELL_ARRAYS * work.n_rows


def _explain_bytes(work: DeviceWork, free_bytes: int) -> int:
    from gpuseg.backends.gpu import memory

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
