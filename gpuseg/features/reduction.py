"""Principal components, for tables with very many features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from gpuseg.backends.base import Backend
from gpuseg.errors import DataError, ModelError
from gpuseg.records import Array

#: The components keep this share of the variance, unless that takes too many of them.
KEPT_VARIANCE = 0.95


class Projection(NamedTuple):
    """A linear map onto principal components; host arrays."""

    mean: Any  # (n_encoded,) float64
    components: Any  # (n_components, n_encoded) float64, orthonormal rows

    @classmethod
    def checked(cls, arrays: Mapping[str, Any], n_encoded: int) -> Projection:
        """Take a stored projection; raises ModelError if it does not fit or is damaged."""
        mean, components = (np.asarray(arrays.get(name, ())) for name in cls._fields)
        fits = mean.shape == (n_encoded,) and components.shape[1:] == (n_encoded,)
        if not (fits and mean.dtype == components.dtype == np.float64 and len(components)):
            raise ModelError(
                f"the model's encoder is damaged: a projection of {n_encoded} features was "
                f"expected, found arrays of shapes {mean.shape} and {components.shape}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(components).all()):
            raise ModelError("the model's encoder is damaged: the projection is not finite")
        return cls(mean, components)


class ProjectionFit(NamedTuple):
    """A fitted projection, and how much of the variance it keeps, in words."""

    projection: Projection
    notes: tuple[str, ...]


def fit_projection(backend: Backend, encoded: Array, most: int) -> ProjectionFit:
    """Find the fewest principal components that keep 95 % of the variance, at most `most`.

    Raises
    ------
    DataError
        If the features do not vary at all.

    Notes
    -----
    The sign of a component is arbitrary; its largest loading is made positive. Everything
    runs in one thread, because a library's own threads may change the last bits.
    """
    mean, covariance = backend.covariance(encoded)
    n_encoded = len(mean)
    total = float(np.trace(covariance))
    if total <= 0:
        raise DataError("the encoded columns do not vary; there is nothing to segment")
    first = max(0, n_encoded - most)
    with threadpool_limits(limits=1, user_api="blas"):
        values, vectors = scipy.linalg.eigh(covariance, subset_by_index=[first, n_encoded - 1])
    shares = np.cumsum(values[::-1]) / total
    count = min(int(np.searchsorted(shares, KEPT_VARIANCE)) + 1, len(shares))
    components = np.ascontiguousarray(vectors.T[::-1][:count])
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(count), largest])[:, None]
    note = f"{n_encoded:,} features were reduced to {count} principal components"
    note += f" with {shares[count - 1]:.0%} of their variance"
    return ProjectionFit(Projection(mean, components), (note,))
