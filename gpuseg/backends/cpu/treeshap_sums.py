"""From SHAP values to sums, and the forest's own outputs to check them with. Compiled."""

from __future__ import annotations

from typing import Any

from gpuseg.backends.cpu.compile import jit
from gpuseg.backends.cpu.lanes import LANES, add_row
from gpuseg.backends.cpu.treeshap_kernel import Trees


@jit()
def predict_rows(trees: Trees, X: Any, predicted: Any) -> None:
    """Add the forest's outputs to `predicted`, (n_blocks, n_rows, 4), by walking the trees."""
    for tree in range(len(trees.offsets) - 1):
        for r in range(X.shape[1]):
            node = trees.offsets[tree]
            while trees.left[node] >= 0:
                below = X[trees.feature[node], r] <= trees.threshold[node]
                node = trees.left[node] if below else trees.right[node]
            for block in range(len(predicted)):
                add_row(predicted[block], r, trees.value[block], node)


@jit()
def reduce_rows(
    sums: Any, labels: Any, n_clusters: int, absolute: Any, squares: Any, signed: Any, gaps: Any
) -> None:
    """Add up the rows' SHAP values and start the additivity gaps.

    Parameters
    ----------
    sums : array of shape (n_columns, n_blocks, n_rows, 4), float64
        Classes in order; the last class is left out, because probabilities sum to 1 and
        so the SHAP values of a column sum to 0 over the classes.
    labels : array of shape (n_rows,), int32
    absolute, squares : arrays of shape (n_clusters of rows, n_clusters, n_columns), float64
    signed : array of shape (n_clusters, n_columns), float64
        Only the row's own cluster.
    gaps : array of shape (n_rows, n_clusters), float64
        The row's SHAP values, summed over columns, are added.
    """
    n_columns, _, n_rows, _ = sums.shape
    for column in range(n_columns):
        for r in range(n_rows):
            own = labels[r]
            rest = 0.0
            for c in range(n_clusters):
                if c < n_clusters - 1:
                    shap = sums[column, c // LANES, r, c % LANES]
                    rest -= shap
                else:
                    shap = rest
                absolute[own, c, column] += abs(shap)
                squares[own, c, column] += shap * shap
                gaps[r, c] += shap
                if c == own:
                    signed[own, column] += shap
