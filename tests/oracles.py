"""Slow and obvious: what the fast code is compared with. Imports nothing from gpuseg."""

from itertools import combinations
from math import factorial

import numpy as np


def sq_distances(X, centroids):
    """Squared Euclidean distances, (n_samples, n_clusters), float64."""
    X, centroids = np.asarray(X, np.float64), np.asarray(centroids, np.float64)
    return np.array([[np.sum((x - c) ** 2) for c in centroids] for x in X])


def lloyd(X, start, *, max_iter):
    """Lloyd's iterations until no label changes: centroids, labels, inertia of each step.

    An empty cluster takes the row that is farthest from its centroid before any mean is
    taken, and then the rows are assigned anew.
    """
    X, centroids = np.asarray(X, np.float64), np.array(start, np.float64)
    labels, inertias, n_iter = None, [], 0
    while True:
        distances = sq_distances(X, centroids)
        before, labels = labels, distances.argmin(axis=1)
        nearest = distances.min(axis=1)
        empty = [c for c in range(len(centroids)) if not np.any(labels == c)]
        if empty and nearest.max() > 0:
            for c in empty:
                farthest = nearest.argmax()
                if nearest[farthest] > 0:
                    centroids[c] = X[farthest]
                    nearest = np.minimum(nearest, sq_distances(X, centroids[c : c + 1])[:, 0])
            continue
        inertias.append(nearest.sum())
        if n_iter == max_iter or (before is not None and np.array_equal(before, labels)):
            return centroids, labels, inertias
        for c in range(len(centroids)):
            if np.any(labels == c):
                centroids[c] = X[labels == c].mean(axis=0)
        n_iter += 1


def shapley_values(trees, x):
    """Path-dependent Shapley values of one row by definition: (n_features, n_classes).

    The value of a set of features is what the forest expects when only these are known:
    a split on an unknown feature averages both sides by their training rows. Every set is
    tried, so keep the number of features small.
    """
    n_features = len(x)

    def expected(node, known):
        if trees.left[node] < 0:
            return np.asarray(trees.value[node])
        below, above = trees.left[node], trees.right[node]
        if trees.feature[node] in known:
            goes_left = x[trees.feature[node]] <= trees.threshold[node]
            return expected(below if goes_left else above, known)
        parts = trees.weight[below] * expected(below, known)
        return (parts + trees.weight[above] * expected(above, known)) / trees.weight[node]

    def worth(known):
        return np.mean([expected(root, known) for root in trees.offsets[:-1]], axis=0)

    values = np.zeros((n_features, trees.value.shape[1]))
    for feature in range(n_features):
        others = [other for other in range(n_features) if other != feature]
        for size in range(n_features):
            weight = factorial(size) * factorial(n_features - size - 1) / factorial(n_features)
            for known in combinations(others, size):
                gain = worth({*known, feature}) - worth(set(known))
                values[feature] += weight * gain
    return values


def silhouette_samples(X, labels):
    """Silhouette of each row by definition, float64; 0 where a row is alone or a = b = 0.

    Distances by hypot, because squares of numbers below 1e-162 are 0.
    """
    X, labels = np.asarray(X, np.float64), np.asarray(labels)
    silhouettes = np.zeros(len(X))
    for i, own in enumerate(labels):
        distances = np.hypot.reduce(X - X[i], axis=1)
        if np.sum(labels == own) > 1:
            a = distances[labels == own].sum() / (np.sum(labels == own) - 1)
            b = min(distances[labels == other].mean() for other in set(labels) - {own})
            silhouettes[i] = (b - a) / max(a, b) if max(a, b) > 0 else 0.0
    return silhouettes


def distance_sums(X, labels, n_clusters):
    """Sum of each row's distances to every cluster of every segmentation, float64."""
    X = np.asarray(X, np.float64)
    distances = np.array([np.sqrt(((X - x) ** 2).sum(axis=1)) for x in X])
    return np.hstack(
        [
            distances[:, of_k == cluster].sum(axis=1, keepdims=True)
            for of_k, k in zip(labels, n_clusters, strict=True)
            for cluster in range(k)
        ]
    )
