"""Where rows were before, scored as today's segments are."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import silhouette_samples

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.earlier_score import earlier_silhouette
from gpuseg.clustering.sweep import sweep
from gpuseg.records import FeatureMatrix


def features_of(X, order):
    return FeatureMatrix(
        X=X, encoded=X, encoded_names=("a", "b"), columns=("a", "b"),
        column_of=np.arange(2, dtype=np.int32), decisions=(), order=order, encoder=None,
    )  # fmt: skip


@pytest.fixture
def rows():
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(c, 1, (40, 2)) for c in (0, 6, 12)]).astype(np.float32)
    order = rng.permutation(len(X))
    ids = np.empty(len(X), dtype=np.int32)
    ids[order] = np.repeat([7, 3, 11], 40)  # in the table's order, by ids that are no positions
    return X, order, ids


def test_it_is_the_silhouette_of_the_earlier_segments(rows):
    X, order, ids = rows
    found = earlier_silhouette(NumPyBackend(), features_of(X, order), ids, np.arange(len(X)))
    assert found == pytest.approx(silhouette_samples(X, ids[order]).mean(), abs=1e-6)


def test_rows_that_were_not_there_are_left_out(rows):
    X, order, ids = rows
    ids[::5] = -1
    known = ids[order] >= 0
    found = earlier_silhouette(NumPyBackend(), features_of(X, order), ids, np.arange(len(X)))
    expected = silhouette_samples(X[known], ids[order][known]).mean()
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_same_segments_get_the_very_score_of_the_sweep_also_from_a_sample(rows):
    X, order, _ids = rows
    backend = NumPyBackend()
    for sample in (None, 30):
        swept = sweep(backend, X, [3], n_init=2, random_state=0, sample_size=sample)
        ids = np.empty(len(X), dtype=np.int32)
        ids[order] = 5 - swept.fits[3].labels
        found = earlier_silhouette(backend, features_of(X, order), ids, swept.scored_rows)
        assert found == pytest.approx(swept.scores[3].silhouette, abs=1e-6)


def test_less_than_two_segments_have_no_silhouette(rows):
    X, order, ids = rows
    features, every = features_of(X, order), np.arange(len(X))
    one, alone = np.zeros_like(ids), np.arange(len(X))
    none = np.full_like(ids, -1)
    for earlier in (one, alone, none, np.where(ids == 7, 7, -1)):
        assert earlier_silhouette(NumPyBackend(), features, earlier, every) is None
    assert earlier_silhouette(NumPyBackend(), features, ids, np.array([], dtype=int)) is None
