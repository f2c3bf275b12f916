"""Distance sums and silhouettes from their formulas, in float64, slowly."""

from __future__ import annotations

import numpy as np


def distance_sums(X, labels, n_clusters, rows=None):
    """Every distance, then one sum for every cluster of every segmentation."""
    X = np.asarray(X, dtype=np.float64)
    rows = np.arange(len(X)) if rows is None else rows
    sums = []
    for i in rows:
        distances = np.sqrt(((X - X[i]) ** 2).sum(axis=1))
        sums.append(
            [
                distances[of_k == c].sum()
                for of_k, k in zip(labels, n_clusters, strict=True)
                for c in range(k)
            ]
        )
    return np.array(sums).reshape(len(rows), sum(n_clusters))


def silhouettes(sums, labels):
    """One segmentation's silhouette of each row from its distance sums; 0 for singletons."""
    counts = np.bincount(labels, minlength=sums.shape[1])
    own = np.zeros_like(sums, dtype=bool)
    own[np.arange(len(labels)), labels] = True
    scores = np.zeros(len(labels))
    for i, label in enumerate(labels):
        if counts[label] < 2:
            continue
        a = sums[i, label] / (counts[label] - 1)
        b = min(sums[i, c] / counts[c] for c in range(len(counts)) if c != label and counts[c])
        scores[i] = (b - a) / max(a, b) if max(a, b) > 0 else 0.0
    return scores
