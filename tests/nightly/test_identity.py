"""Which cluster continues which segment: the best matching, new ids, and what became of all."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.change import EarlierPlaces
from gpuseg.nightly.identity import (
    Means,
    events,
    given_ids,
    match,
    means_of_earlier,
    overlaps,
    warm_starts,
)
from gpuseg.records import FeatureMatrix


def shared_rows(most: int = 5):
    """Overlaps of a few earlier segments with a few clusters, many of them none."""
    size = st.integers(1, most)
    count = st.one_of(st.just(0), st.integers(0, 12))
    return st.tuples(size, size).flatmap(
        lambda shape: st.lists(
            st.lists(count, min_size=shape[1], max_size=shape[1]),
            min_size=shape[0],
            max_size=shape[0],
        ).map(lambda rows: np.array(rows, dtype=np.int64))
    )


def goes_on(shared, before, today) -> bool:
    """Whether the rows in common are a third of the rows that either has."""
    common = int(shared[before, today])
    either = int(shared[before].sum() + shared[:, today].sum()) - common
    return common > 0 and Fraction(common, either) >= Fraction(1, 3)


def best_by_hand(shared) -> int:
    """Try every matching; return the most rows that one keeps."""
    n_before, n_today = shared.shape
    best = 0
    for size in range(1, min(shared.shape) + 1):
        for some in combinations(range(n_before), size):
            for others in permutations(range(n_today), size):
                pairs = [p for p in zip(some, others, strict=True) if goes_on(shared, *p)]
                best = max(best, sum(int(shared[pair]) for pair in pairs))
    return best


@given(shared_rows(4))
def test_no_matching_keeps_more_rows(shared):
    pairs = match(shared, np.zeros(shared.shape))
    assert len(set(pairs.values())) == len(pairs)
    assert all(goes_on(shared, before, today) for today, before in pairs.items())
    assert sum(int(shared[before, today]) for today, before in pairs.items()) == (
        best_by_hand(shared)
    )


@given(shared_rows(), st.randoms(use_true_random=False))
def test_how_clusters_are_numbered_does_not_matter(shared, random):
    rng = np.random.default_rng(random.randrange(2**32))
    distances = rng.random(shared.shape)  # no two matchings are equal
    rows, columns = (rng.permutation(n) for n in shared.shape)
    pairs = match(shared, distances)
    moved = match(shared[rows][:, columns], distances[rows][:, columns])
    assert {int(columns[today]): int(rows[before]) for today, before in moved.items()} == pairs


@pytest.mark.parametrize("nearer", [0, 1])
def test_of_equal_matchings_the_nearer_one_wins(nearer):
    distances = np.ones((1, 2))
    distances[0, nearer] = 0.5
    assert match(np.array([[5, 5]]), distances) == {nearer: 0}
    assert match(np.array([[6, 5]]), distances) == {0: 0}  # a row is worth more than any distance


def test_a_third_is_enough_and_less_is_not():
    thirds = np.array([[10, 10, 10]])
    assert len(match(thirds, np.ones((1, 3)))) == 1
    assert match(np.array([[10, 11, 10]]) - [[1, 1, 0]], np.ones((1, 3))) == {1: 0}
    quarters = np.array([[10, 10, 10, 10]])
    assert match(quarters, np.ones((1, 4))) == {}
    # all of a small segment within a large cluster is not the same segment
    assert match(np.array([[5], [400]]), np.ones((2, 1))) == {0: 1}


@given(shared_rows(), st.data())
def test_ids_are_unique_and_never_used_twice(shared, data):
    n_before, n_today = shared.shape
    earlier = sorted(data.draw(st.sets(st.integers(0, 30), min_size=n_before, max_size=n_before)))
    first = data.draw(st.integers(earlier[-1] + 1, 40))
    pairs = match(shared, np.ones(shared.shape))
    ids = given_ids(pairs, earlier, n_today, first)
    assert len(set(ids)) == n_today
    new = [number for number in ids if number not in earlier]
    assert new == list(range(first, first + len(new)))  # the largest cluster is named first


@given(shared_rows())
@example(np.array([[60, 40, 0], [0, 0, 50]]))
@example(np.zeros((2, 3), dtype=np.int64))
def test_every_segment_is_accounted_for(shared):
    n_before, n_today = shared.shape
    earlier = [2 * p for p in range(n_before)]
    ids = given_ids(match(shared, np.ones(shared.shape)), earlier, n_today, 100)
    found = list(events(shared, earlier, ids))
    by_event = {
        name: [event for event in found if event.event == name]
        for name in ("kept", "split", "merged", "born", "retired")
    }
    assert sum(map(len, by_event.values())) == len(found)
    kept = [event.cluster_id for event in by_event["kept"]]
    assert [event.previous_cluster_id for event in by_event["kept"]] == kept
    assert sorted(kept + [event.cluster_id for event in by_event["born"]]) == sorted(ids)
    retired = [event.previous_cluster_id for event in by_event["retired"]]
    assert sorted(kept + retired) == earlier
    for event in found:
        if event.cluster_id is None or event.previous_cluster_id is None:
            assert (event.n_shared, event.share_of_previous, event.share_of_current) == (0, 0, 0)
            continue
        p, c = earlier.index(event.previous_cluster_id), ids.index(event.cluster_id)
        assert event.n_shared == shared[p, c] > 0
        assert event.share_of_previous == shared[p, c] / shared[p].sum()
        assert event.share_of_current == shared[p, c] / shared[:, c].sum()
        if event.event in ("split", "merged"):
            assert event.share_of_previous >= 0.25
            assert event.cluster_id != event.previous_cluster_id
        if event.event == "born":
            assert event.share_of_current > 0.5
        if event.event == "retired":
            assert event.share_of_previous > 0.5


def told(shared, earlier, first_new=10):
    shared = np.array(shared)
    ids = given_ids(match(shared, np.ones(shared.shape)), earlier, shared.shape[1], first_new)
    return ids, [(e.event, e.cluster_id, e.previous_cluster_id) for e in events(
        shared, earlier, ids)]  # fmt: skip


def test_a_split_a_merger_a_birth_and_an_end():
    # 0 goes on and loses a part; the new part is of 0 alone
    assert told([[60, 40]], [0]) == (
        [0, 10],
        [("kept", 0, 0), ("split", 10, 0), ("born", 10, 0)],
    )
    # 1 is taken in by 0
    assert told([[60], [40]], [0, 1]) == (
        [0],
        [("kept", 0, 0), ("merged", 0, 1), ("retired", 0, 1)],
    )
    # nobody of today's second cluster was there before; nobody of segment 3 is left
    assert told([[50, 0], [0, 0]], [1, 3]) == (
        [1, 10],
        [("kept", 1, 1), ("born", 10, None), ("retired", None, 3)],
    )
    # a cluster of bits from everywhere is born of none in particular
    ids, found = told([[80, 0, 0, 20], [0, 80, 0, 20], [0, 0, 80, 20]], [0, 1, 2])
    assert ids == [0, 1, 2, 10]
    assert found[-1] == ("born", 10, None)


def places(cluster_ids) -> EarlierPlaces:
    return EarlierPlaces("run", "", "rowid", np.array(cluster_ids, np.int32), None, {})


def test_overlaps_are_counted_by_hand():
    before = places([7, 7, 2, -1, 2, 7])
    labels = np.array([0, 1, 1, 1, 1, 0])
    assert overlaps(labels, 2, before, (2, 5, 7)).tolist() == [[0, 2], [0, 0], [2, 1]]
    assert overlaps(labels, 2, None, (2, 5, 7)).tolist() == [[0, 0], [0, 0], [0, 0]]


def features_of(X, order):
    """Return rows as a feature matrix whose row i is row ``order[i]`` of the table."""
    X = np.asarray(X, np.float32)[order]
    nothing = ((), (), np.empty(0, np.int32), ())
    return FeatureMatrix(X, X, *nothing, order=np.asarray(order), encoder=None)


def test_means_are_of_todays_rows_by_where_they_were(monkeypatch):
    monkeypatch.setattr("gpuseg.nightly.identity._BLOCK", 2)
    rows = features_of([[0.0, 0], [2, 4], [10, 10], [99, 99]], [2, 0, 3, 1])
    means = means_of_earlier(rows, NumPyBackend(), places([4, 4, 1, -1]))
    assert means.cluster_ids == (1, 4)
    assert means.centres.tolist() == [[10, 10], [1, 2]]
    (start,) = warm_starts(means)[2]
    assert start.dtype == np.float32
    assert start.tolist() == means.centres.tolist()


def test_nothing_known_is_no_start():
    rows = features_of([[0.0], [1]], [0, 1])
    nothing = means_of_earlier(rows, NumPyBackend(), places([-1, -1]))
    assert nothing == Means((), nothing.centres)
    assert warm_starts(nothing) == warm_starts(None) == {}
    assert warm_starts(Means((3,), np.zeros((1, 1)))) == {}  # one cluster is no segmentation
