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


def swept_of(X, sample=None):
    return sweep(NumPyBackend(), X, [3, 4], n_init=2, random_state=0, sample_size=sample)


def score(rows, ids, sample=None):
    X, order, _ids = rows
    features = features_of(X, order)
    return earlier_silhouette(NumPyBackend(), features, ids, swept_of(X, sample), 3)


def test_it_is_the_silhouette_of_the_earlier_segments(rows):
    X, order, ids = rows
    assert score(rows, ids) == pytest.approx(silhouette_samples(X, ids[order]).mean(), abs=1e-6)


def test_rows_that_were_not_there_are_left_out(rows):
    X, order, ids = rows
    ids[::5] = -1
    known = ids[order] >= 0
    expected = silhouette_samples(X[known], ids[order][known]).mean()
    assert score(rows, ids) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sample", [None, 30, 60])
def test_the_same_segments_get_the_very_score_of_the_sweep_also_from_a_sample(rows, sample):
    X, order, _ids = rows
    swept = swept_of(X, sample)
    ids = np.empty(len(X), dtype=np.int32)
    ids[order] = 5 - swept.fits[3].labels
    assert score(rows, ids, sample) == pytest.approx(swept.scores[3].silhouette, abs=1e-6)


def test_from_a_sample_it_is_an_estimate_that_is_near(rows):
    X, order, ids = rows
    merged = np.where(ids == 7, 3, ids)
    merged[::6] = -1
    known = merged[order] >= 0
    expected = silhouette_samples(X[known], merged[order][known]).mean()
    assert score(rows, merged, 60) == pytest.approx(expected, abs=0.05)
    assert abs(expected - swept_of(X).scores[3].silhouette) > 0.1


def test_less_than_two_segments_have_no_silhouette(rows):
    _X, _order, ids = rows
    one, alone = np.zeros_like(ids), np.arange(len(ids))
    none = np.full_like(ids, -1)
    for earlier in (one, alone, none, np.where(ids == 7, 7, -1)):
        assert score(rows, earlier) is None
