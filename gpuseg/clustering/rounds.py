"""Score more and more rows until the best segmentation is clear, or the budget is spent.

All segmentations are scored on the same rows, so that differences between them are known
far better than the means. What a round needs is `ScoreRows` alone; where the rows lie and
who adds up the distances is the caller's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.backends.base import Backend
from gpuseg.clustering.estimation import Estimates, Floats, Sample, estimate
from gpuseg.clustering.scores import cluster_sizes
from gpuseg.clustering.silhouette import Segmentations
from gpuseg.records import Progress, no_progress, part
from gpuseg.stages import NO_DEADLINE, Deadline

#: A sampled cluster is judged on at least this many of its rows (all, if it has fewer).
MIN_ROWS_PER_CLUSTER = 30

#: Rounds also go on until the best mean is known this well: it is shown, compared with
#: other nights and held against limits.
TARGET_STDERR = 0.005

#: Positions of rows, (r,), ascending -> their silhouettes in all segmentations, (m, r).
ScoreRows = Callable[[npt.NDArray[np.int64], Progress], Floats]


class Frame(NamedTuple):
    """All rows that may be scored, and what is known of them beforehand.

    Parameters
    ----------
    rows : array of shape (r,), int64, ascending
        Positions in random order of all rows: those below any number are a fair sample.
    clusters : array of shape (m, r), int32
        Cluster of each in each of the m segmentations.
    added : array of shape (m, r), bool
        The first rows of clusters too small for the first round. Each counts for the
        segmentation it was added for, and for others only if it is below the round's end:
        it would weigh too much in the larger clusters that it is in there.
    sizes
        Length m: rows of each cluster, (k,), int64.
    screens : array of shape (m, r), float64
        Rough values, see `screen`.
    screen_means : array of shape (m,), float64
        Their means over all rows.
    """

    rows: npt.NDArray[np.int64]
    clusters: npt.NDArray[np.int32]
    added: npt.NDArray[np.bool_]
    sizes: Sequence[npt.NDArray[np.int64]]
    screens: Floats
    screen_means: Floats


class Sampled(NamedTuple):
    """What the rounds found.

    Parameters
    ----------
    rows : array of shape (s,), int64, ascending
        Positions of the rows that were scored.
    values : array of shape (m, s), float64
        Their silhouettes.
    rivals
        For each segmentation, the eligible others that may well be better.
    is_cut
        Whether more rounds were wanted, but time was up.
    """

    rows: npt.NDArray[np.int64]
    values: Floats
    estimates: Estimates
    rivals: tuple[tuple[int, ...], ...]
    is_cut: bool


def rows_of_small_clusters(
    backend: Backend, of: Segmentations, n_first: int
) -> list[npt.NDArray[np.int64]]:
    """Return, for each segmentation, the first rows of clusters that `n_first` rows leave short.

    The first rows of a cluster are a fair sample of it, because the order looks random.
    """
    xp, found = backend.xp, []
    for of_k, sizes in zip(of.labels, of.sizes, strict=True):
        counts = cluster_sizes(xp, of_k[:n_first], len(sizes))
        short = np.flatnonzero(counts < np.minimum(MIN_ROWS_PER_CLUSTER, sizes))
        members = [xp.flatnonzero(of_k == c)[:MIN_ROWS_PER_CLUSTER] for c in short.tolist()]
        parts = [np.asarray(backend.to_host(part), dtype=np.int64) for part in members]
        found.append(np.sort(np.concatenate([np.empty(0, np.int64), *parts])))
    return found


def score_in_rounds(
    score_rows: ScoreRows,
    frame: Frame,
    ends: Sequence[int],
    *,
    eligible: Sequence[int],
    trial: int | None = None,
    deadline: Deadline = NO_DEADLINE,
    progress: Progress = no_progress,
) -> Sampled:
    """Score rows up to each end in turn, until nothing remains to be told apart.

    Parameters
    ----------
    ends
        How many of the first rows are scored after each round, ascending.
    eligible
        Which segmentations may win.
    trial
        Begin with so many rows, to learn how long a round takes; what they say ends nothing.
    deadline
        No round is begun that would not end before; the first one always is.
    """
    steps = ends if trial is None or trial >= ends[0] else (trial, *ends)
    values = np.full(frame.screens.shape, np.nan)
    is_added, done = frame.added.any(axis=0), np.zeros(len(frame.rows), bool)
    pace, is_cut = 0.0, False
    for number, end in enumerate(steps):
        new = ((frame.rows < end) | is_added) & ~done
        if number and not deadline.allows(pace * int(new.sum())):
            is_cut = True
            break
        begin = time.monotonic()
        shown = part(progress, done.sum() / ends[-1], min(1.0, end / ends[-1]))
        values[:, new] = score_rows(frame.rows[new], shown)
        pace = (time.monotonic() - begin) / max(int(new.sum()), 1)
        done |= new
        estimates = estimate(_samples(frame, values, done, end))
        if end in ends and _is_clear(estimates, eligible, len(ends)):
            break
    progress(1.0)
    rivals = tuple(
        tuple(estimates.rivals(i, [j for j in eligible if j != i], looks=len(ends)))
        for i in range(len(values))
    )
    return Sampled(frame.rows[done], values[:, done], estimates, rivals, is_cut)


def _samples(frame: Frame, values: Floats, done: npt.NDArray[np.bool_], end: int) -> list[Sample]:
    is_first = frame.rows[done] < end
    return [
        Sample(
            values=values[i, done],
            clusters=frame.clusters[i, done],
            counted=is_first | frame.added[i, done],
            sizes=sizes,
            screen=frame.screens[i, done],
            screen_mean=float(frame.screen_means[i]),
        )
        for i, sizes in enumerate(frame.sizes)
    ]


def _is_clear(estimates: Estimates, eligible: Sequence[int], looks: int) -> bool:
    best = max(eligible, key=lambda i: (estimates.means[i], -i))
    others = [i for i in eligible if i != best]
    is_precise = bool(estimates.stderr[best] <= TARGET_STDERR)
    return is_precise and not estimates.rivals(best, others, looks=looks)
