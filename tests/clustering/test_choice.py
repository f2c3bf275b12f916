"""The choice of k: the best silhouette, ties to the smaller, doubts in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.choice import choose, number_by_size
from gpuseg.clustering.sweep import possible_k_values, silhouette_work
from gpuseg.errors import DataError
from gpuseg.records import KMeansFit, KScore, SweepResult

BACKEND = NumPyBackend()


def fit_of(X: np.ndarray, labels: np.ndarray) -> KMeansFit:
    k = labels.max() + 1
    centroids = np.stack([X[labels == c].mean(axis=0) for c in range(k)]).astype(np.float32)
    return KMeansFit(centroids, labels.astype(np.int32), 1.0, 1)


def sweep_of(silhouettes: dict[int, float], share: float = 0.2, **found):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 2)).astype(np.float32)
    fits, scores = {}, {}
    for k, silhouette in silhouettes.items():
        fits[k] = fit_of(X, np.arange(1000) % k)
        scores[k] = KScore(k, silhouette, 0.0, "exact", 1.0, 1.0, 1.0, share, 1.0)
    rows = np.arange(1000)
    return X, SweepResult(fits, scores, {k: np.zeros(1000) for k in fits}, rows, **found)


def test_the_highest_silhouette_wins_and_ties_go_to_the_smaller_k():
    X, swept = sweep_of({2: 0.4, 3: 0.6, 4: 0.6, 5: 0.5})
    choice = choose(BACKEND, X, swept, largest_tried=9)
    assert choice.n_clusters == 3
    assert "k = 3 has the highest mean silhouette, 0.6000, of k = 2 to 5" in choice.reason
    assert choice.warnings == ()


def test_a_winner_at_the_upper_bound_is_doubted():
    X, swept = sweep_of({2: 0.4, 3: 0.6})
    assert "the largest that was tried" in choose(BACKEND, X, swept, largest_tried=3).warnings[0]
    assert choose(BACKEND, X, swept, largest_tried=3, asked_for=3).warnings == ()


def test_a_weak_structure_and_a_handful_of_rows_are_doubted():
    X, swept = sweep_of({2: 0.2, 3: 0.1}, share=0.003)
    words = " ".join(choose(BACKEND, X, swept, largest_tried=9).warnings)
    assert "only 3 of 1,000 rows" in words
    assert "below 0.25" in words


def test_k_that_are_not_separable_are_all_named():
    X, swept = sweep_of({2: 0.3, 5: 0.49, 6: 0.50, 7: 0.48}, rivals={6: (5, 7), 5: (6,)})
    choice = choose(BACKEND, X, swept)
    assert choice.n_clusters == 6
    words = "k = 5, 6 or 7, not separable at this budget"
    assert choice.reason.startswith(f"{words}: k = 6 has the highest mean silhouette")
    assert f"{words} (1,000 of 1,000 rows scored): k = 6" in choice.warnings[0]
    assert choose(BACKEND, X, swept, asked_for=6).warnings == ()


def test_a_k_that_cannot_be_chosen_is_nobodys_rival():
    X, swept = sweep_of({2: 0.4, 3: 0.5}, rivals={3: (2,)})
    small = replace(swept.scores[2], min_cluster_share=0.01)
    swept = replace(swept, scores={2: small, 3: swept.scores[3]})
    assert "separable" not in choose(BACKEND, X, swept, min_cluster_share=0.05).reason


def test_what_time_did_not_suffice_for_is_said():
    X, swept = sweep_of({2: 0.4, 3: 0.5}, cut=("k-means did not reach its end for k = 3",))
    choice = choose(BACKEND, X, swept)
    assert choice.reason.endswith("(cut short by max_seconds)")
    assert choice.warnings == ("cut short by max_seconds: k-means did not reach its end for k = 3",)


def test_a_smallest_share_passes_over_k_unless_none_is_left():
    X, swept = sweep_of({2: 0.4, 3: 0.6})
    low = swept.scores[3].__class__(**{**swept.scores[3].__dict__, "min_cluster_share": 0.01})
    swept = SweepResult(swept.fits, {2: swept.scores[2], 3: low}, swept.samples, swept.scored_rows)
    assert choose(BACKEND, X, swept, min_cluster_share=0.05).n_clusters == 2
    choice = choose(BACKEND, X, swept, min_cluster_share=0.4)
    assert choice.n_clusters == 3
    assert "the limit was not applied" in choice.warnings[0]


def test_clusters_are_numbered_by_size_and_rows_go_to_the_nearest():
    X = np.repeat([[0.0], [10.0], [20.0]], [2, 5, 3], axis=0).astype(np.float32)
    fit = number_by_size(BACKEND, X, fit_of(X, np.repeat([0, 1, 2], [2, 5, 3])))
    assert fit.centroids.ravel().tolist() == [10.0, 20.0, 0.0]
    assert fit.labels.tolist() == [2, 2, 0, 0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("values", "k_values", "possible"),
    [
        ([1, 2, 3, 4], [2, 3, 4, 5], [2, 3]),  # as many clusters as rows say nothing
        ([1, 1, 2, 2, 3], [2, 3, 4], [2, 3]),
        ([1, 1, 1, 2], [5, 6], [2]),
    ],
)
def test_k_that_the_rows_cannot_fill_is_left_out_aloud(values, k_values, possible):
    X = np.array(values, dtype=np.float32)[:, None]
    found, warnings = possible_k_values(X, k_values)
    assert found == possible
    assert f"limited to {possible[-1]}" in warnings[0]


@pytest.mark.parametrize("values", [[], [1], [1, 2], [1, 1, 1]])
def test_rows_that_make_no_two_clusters_are_refused(values):
    with pytest.raises(DataError, match="two clusters need at least three rows"):
        possible_k_values(np.array(values, dtype=np.float32)[:, None], [2, 3])


def test_whether_a_score_is_exact_depends_on_the_work_alone():
    assert silhouette_work(200_000, 20, None).is_exact
    sampled = silhouette_work(1_000_000, 20, None)
    assert sampled.n_scored == 6 * 10**11 // (1_000_000 * (20 + 8))
    assert silhouette_work(1_000_000, 20, 2_000_000).n_scored == 1_000_000
    assert silhouette_work(1_000, 20, 10).n_scored == 10
    # of a few wide rows, a sample would cost more than all pairs
    assert silhouette_work(5_000, 100_000, None).is_exact


@pytest.mark.parametrize("n_samples", [250_000, 10**6, 50 * 10**6, 10**9])
def test_rounds_double_up_to_the_budget(n_samples):
    work = silhouette_work(n_samples, 20, None)
    ends = np.array(work.ends)
    assert ends[0] >= 1_000
    assert ends[-1] == work.n_scored >= 4_000
    assert len(ends) <= 4
    assert (ends[1:-1] == 2 * ends[:-2]).all()
    assert ends[-2] < ends[-1] < 3 * ends[-2]
    assert silhouette_work(n_samples, 20, 777).ends == (777,)
