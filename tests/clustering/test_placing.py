"""Rows placed with stored centroids: scored like any others, whatever clusters they miss."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.placing import place, score_placed

BACKEND = NumPyBackend()
CENTROIDS = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=np.float32)


def around(*clusters: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    parts = [CENTROIDS[c] + rng.normal(size=(40, 2)) for c in clusters]
    return np.concatenate(parts).astype(np.float32)


def test_rows_go_to_the_nearest_centroid_and_keep_its_number():
    fit = place(BACKEND, around(2, 0), CENTROIDS)
    assert fit.labels.tolist() == [2] * 40 + [0] * 40
    distances = np.linalg.norm(around(2, 0) - CENTROIDS[fit.labels], axis=1)
    assert fit.inertia == pytest.approx((distances.astype(np.float64) ** 2).sum(), rel=1e-6)


def test_a_cluster_without_rows_does_not_disturb_the_score():
    X = around(2, 0)
    swept, choice = score_placed(BACKEND, X, CENTROIDS, None)
    expected = silhouette_score(X, choice.fit.labels)
    assert swept.scores[3].silhouette == pytest.approx(expected, abs=1e-6)
    assert swept.scores[3].min_cluster_share == 0.0
    assert np.isfinite(swept.scores[3].davies_bouldin)


def test_rows_that_all_fall_into_one_cluster_have_silhouette_0():
    swept, choice = score_placed(BACKEND, around(1), CENTROIDS, None)
    assert swept.scores[3].silhouette == 0.0
    assert "nothing was fitted" in choice.reason
