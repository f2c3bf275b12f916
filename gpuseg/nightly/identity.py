"""Which of today's clusters continues which segment of the run before.

What counts as going on, and why, is in ``docs/decisions/identity.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from gpuseg.backends.base import Backend
from gpuseg.change import EarlierPlaces, Lineage, LineageEvent
from gpuseg.clustering.placing import place
from gpuseg.outputs.models import EarlierModel, StoredModel
from gpuseg.records import Array, Choice, FeatureMatrix

#: A segment goes on in a cluster when the rows that both have are at least this share of the
#: rows that either has (the Jaccard index). Of equal sizes, that is half of each.
LEAST_JACCARD = (1, 3)  # a fraction: compared in whole numbers, so that equal thirds are enough

#: A part of an earlier segment that is worth an event: this share of its rows, as a fraction.
PART = (1, 4)

#: Rows whose features are added up at a time.
_BLOCK = 65_536

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Means(NamedTuple):
    """Today's rows by the segment in which they were."""

    cluster_ids: tuple[int, ...]  # of the earlier segments that have rows today, ascending
    centres: Floats  # (n_segments, n_features), in today's features


def means_of_earlier(features: FeatureMatrix, backend: Backend, places: EarlierPlaces) -> Means:
    """Return the middle of each earlier segment's rows in today's feature space."""
    ids = features.in_matrix_order(np.asarray(places.cluster_ids))
    known = tuple(int(number) for number in np.unique(ids) if number >= 0)
    sums = _sums(features.X, backend, ids, known)
    sizes = np.array([np.count_nonzero(ids == number) for number in known])
    return Means(known, sums / sizes[:, None] if known else sums)


def _sums(X: Array, backend: Backend, ids: Any, known: Sequence[int]) -> Floats:
    """Add up the rows of each earlier segment, (n_segments, n_features)."""
    if hasattr(X, "group_sums"):  # rows that lie elsewhere are added up there
        return np.asarray(X.group_sums(ids, known))
    sums = np.zeros((len(known), int(X.shape[1])))
    for start in range(0, len(ids), _BLOCK):
        block, of_block = X[start : start + _BLOCK], ids[start : start + _BLOCK]
        for place_of, number in enumerate(known):
            rows = np.flatnonzero(of_block == number)
            if len(rows):
                own = block.take(backend.from_host(rows), axis=0)
                sums[place_of] += backend.to_host(own.sum(axis=0, dtype=np.float64))
    return sums


def warm_starts(means: Means | None) -> Mapping[int, Sequence[Any]]:
    """Return the start that continues the earlier segments, for the k that it has."""
    if means is None or len(means.cluster_ids) < 2:
        return {}
    return {len(means.cluster_ids): [means.centres.astype(np.float32)]}


def continued(
    backend: Backend,
    features: FeatureMatrix,
    choice: Choice,
    earlier: EarlierModel,
    places: EarlierPlaces | None,
    means: Means | None,
) -> tuple[Choice, Lineage | None]:
    """Give the chosen clusters the ids of the segments that they continue.

    Parameters
    ----------
    places, means
        None when it is not known where any row was.

    Returns
    -------
    choice
        Its clusters are in the order of their ids.
    lineage
        None when there is no earlier model.
    """
    first = earlier.next_cluster_id
    if earlier.model is None:
        return replace(choice, cluster_ids=tuple(range(first, first + choice.n_clusters))), None
    labels = features.in_table_order(backend.to_host(choice.fit.labels))
    shared = overlaps(labels, choice.n_clusters, places, earlier.model.cluster_ids)
    centres = np.asarray(backend.to_host(choice.fit.centroids), dtype=np.float64)
    pairs = match(shared, _distances(means, centres, earlier.model))
    ids = given_ids(pairs, earlier.model.cluster_ids, choice.n_clusters, first)
    order = np.argsort(ids)
    cluster_ids = tuple(ids[position] for position in order)
    lineage = Lineage(
        earlier_run_id=earlier.model.run_id,
        matched_by=places.matched_by if places else "nothing",
        cluster_ids=cluster_ids,
        next_cluster_id=max(first, cluster_ids[-1] + 1),
        events=tuple(events(shared[:, order], earlier.model.cluster_ids, cluster_ids)),
    )
    return _in_order(backend, features.X, choice, order, cluster_ids), lineage


def _in_order(
    backend: Backend, X: Array, choice: Choice, order: Any, cluster_ids: tuple[int, ...]
) -> Choice:
    """Put clusters in this order; rows between two centroids go to the smaller number again."""
    if not np.array_equal(order, np.arange(choice.n_clusters)):
        centroids = np.asarray(backend.to_host(choice.fit.centroids))[order]
        fit = place(backend, X, np.ascontiguousarray(centroids))
        fit = choice.fit._replace(centroids=fit.centroids, labels=fit.labels)
        choice = replace(choice, fit=fit)
    return replace(choice, cluster_ids=cluster_ids)


def overlaps(
    labels: Any, n_clusters: int, places: EarlierPlaces | None, earlier_ids: Sequence[int]
) -> Counts:
    """Count the rows that earlier segments (down) and today's clusters (across) share.

    Parameters
    ----------
    labels : host array of shape (n_rows,), int
        Today's clusters by position, in the table's order.
    earlier_ids
        Ascending.
    """
    shape = (len(earlier_ids), n_clusters)
    if places is None:
        return np.zeros(shape, dtype=np.int64)
    before = np.asarray(places.cluster_ids)
    rows = np.flatnonzero(before >= 0)
    cells = np.searchsorted(np.asarray(earlier_ids), before[rows]) * n_clusters + labels[rows]
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def _distances(means: Means | None, centres: Floats, earlier: StoredModel) -> Floats:
    """Return how far clusters (across) are from earlier segments (down); inf where unknown."""
    found = np.full((earlier.n_clusters, len(centres)), np.inf)
    for number, centre in zip(*(means or ((), ())), strict=True):
        found[earlier.cluster_ids.index(number)] = np.linalg.norm(centres - centre, axis=1)
    return found


def match(shared: Counts, distances: Floats) -> dict[int, int]:
    """Find the pairs that keep the most rows in their segment.

    Parameters
    ----------
    shared : array of shape (n_earlier, n_today), int64
        Rows in common.
    distances : array of shape (n_earlier, n_today), float64
        Between centres: of matchings that keep equally many rows, the one of near pairs wins.

    Returns
    -------
    pairs
        Today's cluster -> the earlier segment that it continues, both by position.

    References
    ----------
    Crouse, D. F. (2016). On implementing 2D rectangular assignment algorithms. IEEE
    Transactions on Aerospace and Electronic Systems 52.
    """
    share, of = LEAST_JACCARD
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    goes_on = (shared > 0) & (of * shared >= share * union)
    near = np.where(goes_on, 1.0 / (1.0 + distances), 0.0)
    # all nearness together weighs less than one row, so it only decides between equals
    gain = np.where(goes_on, shared + near / (2.0 * min(shared.shape)), 0.0)
    before, today = linear_sum_assignment(gain, maximize=True)
    return {int(t): int(b) for b, t in zip(before, today, strict=True) if goes_on[b, t]}


def given_ids(
    pairs: Mapping[int, int], earlier_ids: Sequence[int], n_clusters: int, first_new: int
) -> list[int]:
    """Return the id of each of today's clusters; new ones get the next ids, the largest first."""
    fresh = iter(range(first_new, first_new + n_clusters))
    return [earlier_ids[pairs[c]] if c in pairs else next(fresh) for c in range(n_clusters)]


def events(
    shared: Counts, earlier_ids: Sequence[int], cluster_ids: Sequence[int]
) -> Iterator[LineageEvent]:
    """Tell what became of every earlier segment, and where every one of today's is from.

    Parameters
    ----------
    shared : array of shape (n_earlier, n_today), int64

    Yields
    ------
    LineageEvent
        Each of today's ids is ``kept`` or ``born``, each earlier one ``kept`` or ``retired``,
        once. Besides, ``split`` and ``merged`` name large parts of earlier segments that are in
        another segment now: of one that is in several large parts, and of one that went
        into another one whole.
    """
    heirs = {number: c for c, number in enumerate(cluster_ids)}
    kept = [(p, heirs[number]) for p, number in enumerate(earlier_ids) if number in heirs]
    share, of = PART
    still_there = shared.sum(axis=1)
    large = (shared > 0) & (of * shared >= share * still_there[:, None])
    moved = [
        (int(p), int(c))
        for p, c in zip(*np.nonzero(large), strict=True)
        if earlier_ids[p] != cluster_ids[c]
    ]
    tell = _Teller(shared, earlier_ids, cluster_ids)
    for p, c in kept:
        yield tell.pair("kept", p, c)
    for event, is_split in (("split", True), ("merged", False)):
        for p, c in moved:
            if (np.count_nonzero(large[p]) > 1) == is_split:
                yield tell.pair(event, p, c)
    for c in range(len(cluster_ids)):
        if cluster_ids[c] not in earlier_ids:
            yield tell.pair("born", _majority(shared[:, c]), c)
    for p in range(len(earlier_ids)):
        if earlier_ids[p] not in heirs:
            yield tell.pair("retired", p, _majority(shared[p]))


class _Teller(NamedTuple):
    """Turns positions into events."""

    shared: Counts
    earlier_ids: Sequence[int]
    cluster_ids: Sequence[int]

    def pair(self, event: str, p: int | None, c: int | None) -> LineageEvent:
        """Return the event of an earlier segment and one of today's; None is none of them."""
        n_shared = 0 if p is None or c is None else int(self.shared[p, c])
        of_previous = 0 if p is None else int(self.shared[p].sum())
        of_current = 0 if c is None else int(self.shared[:, c].sum())
        return LineageEvent(
            event=event,
            cluster_id=None if c is None else self.cluster_ids[c],
            previous_cluster_id=None if p is None else self.earlier_ids[p],
            n_shared=n_shared,
            share_of_previous=n_shared / max(of_previous, 1),
            share_of_current=n_shared / max(of_current, 1),
        )


def _majority(counts: Counts) -> int | None:
    """Return the position that has more than half of the rows, if there is one."""
    largest = int(counts.argmax())
    return largest if 2 * counts[largest] > counts.sum() else None
