"""Sampled silhouettes in rounds: intervals that hold, and rounds that end when they may."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from oracles import silhouette_samples as oracle
from sklearn.datasets import make_blobs

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering import sweep as sweep_module
from gpuseg.clustering.kmeans import sweep_kmeans
from gpuseg.clustering.rounds import Frame, rows_of_small_clusters, score_in_rounds
from gpuseg.clustering.screen import squared_screen
from gpuseg.clustering.silhouette import Segmentations
from gpuseg.clustering.sweep import score_fits
from gpuseg.stages import Deadline

BACKEND = NumPyBackend()
ENDS = (100, 200, 400)


def exact(X, labels):
    return np.stack([oracle(X, of_k) for of_k in labels])


def table_of(n_samples=1_500, spread=1.0):
    """Blobs, one of them tiny, in random order, with a fit for k = 2 to 5."""
    X, _ = make_blobs(n_samples - 25, 3, centers=4, cluster_std=spread, random_state=1)
    X = np.concatenate([X, make_blobs(25, 3, centers=[[40.0] * 3], random_state=2)[0]])
    X = np.random.default_rng(0).permutation(X).astype(np.float32)
    fits = sweep_kmeans(BACKEND, X, range(2, 6), n_init=3)
    return X, {k: (fits[k].fit, fits[k].stability) for k in fits}


X, FITS = table_of(spread=3.0)
LABELS = np.stack([fit.labels for fit, _ in FITS.values()])
VALUES = exact(X, LABELS)
SCREENS = np.stack(
    [squared_screen(BACKEND, X, fit, np.arange(len(X))).values for fit, _ in FITS.values()]
)
TRUTH = VALUES.mean(axis=1)


def rounds(order, ends=ENDS, use_screen=True, values=VALUES, **options):
    """Run rounds over the table in another order, silhouettes looked up."""
    of = Segmentations(LABELS[:, order], tuple(np.bincount(of_k) for of_k in LABELS))
    small = rows_of_small_clusters(BACKEND, of, options.get("trial", ends[0]))
    rows = np.unique(np.concatenate([np.arange(ends[-1]), *small]))
    screens = SCREENS if use_screen else np.zeros_like(SCREENS)
    frame = Frame(
        rows, of.labels[:, rows], np.stack([np.isin(rows, own) for own in small]), of.sizes,
        screens[:, order[rows]], screens.mean(axis=1),
    )  # fmt: skip
    options = {"eligible": range(4)} | options
    return score_in_rounds(lambda new, _: values[:, order[new]], frame, ends, **options)


def last_round(found):
    """Return the end of the last round of which all rows were scored."""
    return max(end for end in ENDS if set(range(end)) <= set(found.rows.tolist()))


@pytest.mark.parametrize("use_screen", [True, False])
@pytest.mark.parametrize("ends", [(150,), ENDS])
def test_intervals_cover_the_truth_and_are_no_wider_than_needed(ends, use_screen):
    rng = np.random.default_rng(1)
    found = [rounds(rng.permutation(len(X)), ends, use_screen).estimates for _ in range(200)]
    intervals = np.stack([one.intervals for one in found])
    inside = (intervals[:, :, 0] <= TRUTH) & (intervals[:, :, 1] >= TRUTH)
    assert inside.mean(axis=0).min() >= 0.93
    errors = np.stack([one.means for one in found]) - TRUTH
    stated = np.stack([one.stderr for one in found]).mean(axis=0)
    assert (np.abs(errors.mean(axis=0)) < 0.3 * errors.std(axis=0)).all()
    assert (stated < 1.5 * errors.std(axis=0)).all()


def test_the_screen_makes_errors_several_times_smaller():
    rng = np.random.default_rng(2)
    order = rng.permutation(len(X))
    with_it, without = (rounds(order, (300,), use).estimates.stderr for use in (True, False))
    assert (with_it < without / 3).all()


def test_a_tiny_cluster_is_scored_whole_and_weighs_what_it_weighs():
    order = np.random.default_rng(3).permutation(len(X))
    found = rounds(order, (60,))
    tiny = LABELS[-1] == np.bincount(LABELS[-1]).argmin()
    assert tiny.sum() == 25
    assert tiny[order][found.rows].sum() == 25
    # its rows were added, yet in k = 2 they belong to a large cluster and are few there
    assert abs(found.estimates.means[0] - TRUTH[0]) < 4 * found.estimates.stderr[0]


def test_rows_added_for_one_k_do_not_weigh_too_much_in_another():
    # the rows of a tiny cluster of the second segmentation are unlike others of the first
    tiny = np.arange(3_000) < 40
    values = np.stack([np.where(tiny, -1.0, 1.0)] * 2)
    labels = np.stack([np.arange(3_000) % 2, np.where(tiny, 2, np.arange(3_000) % 2)])
    rng, errors = np.random.default_rng(8), []
    for _ in range(50):
        order = rng.permutation(3_000)
        of = Segmentations(labels[:, order], tuple(np.bincount(own) for own in labels))
        small = rows_of_small_clusters(BACKEND, of, 100)
        rows = np.unique(np.concatenate([np.arange(100), *small]))
        added, nothing = np.stack([np.isin(rows, own) for own in small]), np.zeros((2, len(rows)))
        frame = Frame(rows, of.labels[:, rows], added, of.sizes, nothing, np.zeros(2))
        score = functools.partial(lambda order, new, _: values[:, order[new]], order)
        found = score_in_rounds(score, frame, (100,), eligible=[0, 1])
        errors.append(found.estimates.means - values.mean(axis=1))
    assert np.abs(np.mean(errors, axis=0)).max() < 0.02


def test_rounds_end_when_the_winner_is_clear_and_else_name_the_rivals():
    order = np.random.default_rng(4).permutation(len(X))
    clear = VALUES + np.array([[0.0], [2.0], [0.0], [0.0]])
    found = rounds(order, values=clear)
    assert last_round(found) == ENDS[0]
    assert found.rivals[1] == ()
    alike = np.stack([VALUES[0], VALUES[0][::-1], VALUES[0] - 0.9, VALUES[0] - 0.9])
    found = rounds(order, values=alike, use_screen=False)
    assert last_round(found) == ENDS[-1]
    assert found.rivals[0] == (1,)
    assert not found.is_cut


def test_only_eligible_segmentations_are_told_apart():
    order = np.random.default_rng(5).permutation(len(X))
    alike = np.stack([VALUES[0], VALUES[0][::-1], VALUES[0] - 0.9, VALUES[0] - 0.9])
    found = rounds(order, values=alike, use_screen=False, eligible=[0, 2])
    assert found.rivals[0] == ()


def test_each_row_is_scored_once_and_rounds_stop_in_time():
    order = np.random.default_rng(6).permutation(len(X))
    asked: list[int] = []

    class Values:
        def __getitem__(self, place):
            asked.extend(place[1].tolist())
            return np.stack([VALUES[0], VALUES[0][::-1], VALUES[0], VALUES[0]])[place]

    found = rounds(order, values=Values(), use_screen=False)
    assert len(asked) == len(set(asked)) == len(found.rows)
    found = rounds(order, values=Values(), use_screen=False, deadline=Deadline.after(0.0))
    assert found.is_cut
    assert last_round(found) == ENDS[0]


def test_a_trial_ends_nothing_and_changes_nothing_where_time_suffices():
    order = np.random.default_rng(4).permutation(len(X))
    expected = rounds(order)
    found = rounds(order, trial=40, deadline=Deadline.after(1e6))
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert found.rivals == expected.rivals
    found = rounds(order, trial=40, deadline=Deadline.after(0.0))
    assert set(range(40)) <= set(found.rows.tolist())
    assert len(found.rows) <= len(expected.rows)
    assert found.is_cut


# -- the whole way, distances added up ------------------------------------------------


def test_sampled_scores_are_those_of_the_table(monkeypatch):
    monkeypatch.setattr(sweep_module, "EXACT_BUDGET", 0)
    monkeypatch.setattr(sweep_module, "MIN_BUDGET_ROWS", 400)
    monkeypatch.setattr(sweep_module, "SAMPLED_BUDGET", 0)
    monkeypatch.setattr(sweep_module, "MIN_SAMPLE", 100)
    scored = score_fits(BACKEND, X, FITS)
    expected = rounds(np.arange(len(X)))
    np.testing.assert_array_equal(scored.scored_rows, expected.rows)
    for i, k in enumerate(FITS):
        score = scored.scores[k]
        np.testing.assert_allclose(scored.samples[k], VALUES[i, expected.rows], atol=1e-5)
        assert score.silhouette == pytest.approx(expected.estimates.means[i], abs=1e-5)
        assert score.silhouette_stderr == pytest.approx(expected.estimates.stderr[i], rel=1e-2)
        assert score.silhouette_low < score.silhouette < score.silhouette_high
        assert score.method == f"sampled ({len(expected.rows):,} of 1,500 rows)"


def test_exact_scores_are_their_own_interval():
    scored = score_fits(BACKEND, X, FITS)
    for i, k in enumerate(FITS):
        score = scored.scores[k]
        assert score.silhouette == pytest.approx(TRUTH[i], abs=1e-6)
        assert score.silhouette_low == score.silhouette_high == score.silhouette
        assert (score.silhouette_stderr, score.method) == (0.0, "exact")
    assert scored.rivals == {}


def test_a_screen_is_the_same_in_any_block_size(monkeypatch):
    fit = FITS[4][0]
    rows = np.array([0, 3, 700, 1_499])
    whole = squared_screen(BACKEND, X, fit, rows)
    distances = np.linalg.norm(X - fit.centroids[fit.labels], axis=1)
    sizes = np.bincount(fit.labels)
    np.testing.assert_allclose(whole.extents, np.bincount(fit.labels, distances) / sizes, rtol=1e-5)
    np.testing.assert_array_equal(whole.sizes, sizes)
    assert whole.mean == pytest.approx(SCREENS[2].mean())
    monkeypatch.setattr("gpuseg.clustering.screen.BLOCK_ROWS", 701)
    blocks = squared_screen(BACKEND, X, fit, rows)
    np.testing.assert_allclose(blocks.extents, whole.extents)
    # the spreads come from the first block: another screen, as good as the first
    assert np.abs(blocks.values - whole.values).max() < 0.05
