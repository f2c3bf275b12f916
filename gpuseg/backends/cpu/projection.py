"""Project rows onto principal components, each row for itself."""

from __future__ import annotations

import numpy as np

from gpuseg.backends.cpu.compile import jit


@jit()
def project_rows(X, mean, components, out):  # type: ignore[no-untyped-def]
    """Write ``(X - mean) @ components`` into `out`, adding up in the order of the features.

    A matrix product of a library is faster, but the last bits of a row may then depend on
    how many rows there are and where among them it stands.

    Parameters
    ----------
    X : array of shape (n, d), float32
    mean : array of shape (d,), float64
    components : array of shape (d, p), float64, C order
    out : array of shape (n, p), float32
    """
    n_features, n_components = components.shape
    total = np.empty(n_components)
    for i in range(X.shape[0]):
        total[:] = 0.0
        for j in range(n_features):
            centred = X[i, j] - mean[j]
            if centred != 0.0:
                for c in range(n_components):
                    total[c] += centred * components[j, c]
        for c in range(n_components):
            out[i, c] = total[c]
