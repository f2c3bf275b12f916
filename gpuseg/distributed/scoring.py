"""Scores on workers: sums over all parts, and what must be known of single rows brought here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering.estimation import Floats
from gpuseg.clustering.rounds import MIN_ROWS_PER_CLUSTER, Frame
from gpuseg.clustering.screen import BLOCK_ROWS, SquaredScreen, spreads_of
from gpuseg.clustering.silhouette import silhouettes_of_sums
from gpuseg.distributed import looks, steps
from gpuseg.distributed.matrix import Matrix, Rows, bring, label, rows_of, sums_of
from gpuseg.records import KMeansFit, Progress, no_progress


class ScorerOnWorkers:
    """Scores rows that lie on workers; see `clustering.scorers.Scorer`.

    The rows of the frame are numbered in the order of content: the first ones are those, and
    have the numbers, of a run on one machine. Those that small clusters add come after them.
    """

    def __init__(self, X: Matrix, fits: Sequence[KMeansFit]) -> None:
        self._X, self._many = X, [np.asarray(fit.centroids) for fit in fits]
        self._parts = label(X, self._many)
        self._total = sums_of(X.cluster, self._parts)
        self.sizes = [np.asarray(sizes, dtype=np.int64) for sizes in self._total.sizes]
        self._rows: Rows | None = None  # of the frame

    def every(self, progress: Progress) -> Floats:
        """Return the silhouettes of all rows. There are few, so each task may have them all."""
        cluster, parts = self._X.cluster, self._parts
        n_parts = len(parts)
        futures = cluster.each(
            "silhouette",
            steps.sums_within,
            [self._X.parts] * n_parts,
            [parts] * n_parts,
            list(range(n_parts)),
            on=cluster.engine,
        )
        sums = np.concatenate(cluster.results(futures, progress))
        labels = cluster.each("silhouette", steps.take_labels, parts, [slice(None)] * n_parts)
        clusters = np.concatenate(cluster.results(labels), axis=1).astype(np.int32)
        return silhouettes_of_sums(NumPyBackend(), sums, clusters, self.sizes)

    def first(self, n_rows: int) -> Floats:
        """Return the silhouettes of the first rows."""
        return self._silhouettes(self._X.first_rows(n_rows), no_progress)

    def extents(self) -> list[SquaredScreen]:
        """Return what centroids say of each fit."""
        nobody = np.empty(0)
        return [
            SquaredScreen(sizes, self._extents(number), nobody, 0.0)
            for number, sizes in enumerate(self.sizes)
        ]

    def frame(self, fewest: int, most: int) -> tuple[Frame, list[SquaredScreen]]:
        """Look up all rows that may be scored."""
        first = self._X.first_rows(most)
        small = self._of_small_clusters(first.first(fewest))
        self._rows = rows = Rows.of([first]) if not small else first.union(Rows.of(small))
        nobody = np.empty(0, np.uint64)
        keys = [nobody] * len(self.sizes) if not small else [of_k.keys for of_k in small]
        screens = self._screens(rows)
        frame = Frame(
            rows=np.arange(len(rows)),
            clusters=self._clusters(rows),
            added=np.stack([np.isin(rows.keys, of_k) for of_k in keys]),
            sizes=self.sizes,
            screens=np.stack([screen.values for screen in screens]),
            screen_means=np.array([screen.mean for screen in screens]),
        )
        return frame, screens

    def some(self, rows: npt.NDArray[np.int64], progress: Progress) -> Floats:
        """Return the silhouettes of rows of the frame."""
        assert self._rows is not None
        return self._silhouettes(self._rows.at(rows), progress)

    def called(
        self, rows: npt.NDArray[np.int64], values: Floats
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return rows of the frame by their numbers in the table, ascending, and their values."""
        assert self._rows is not None
        numbers = self._X.numbers(self._rows.at(rows))
        ascending = np.argsort(numbers)
        return numbers[ascending], values[:, ascending]

    def _silhouettes(self, rows: Rows, progress: Progress) -> Floats:
        """Let rows meet all rows, part by part."""
        cluster = self._X.cluster
        common = {"rows": self._X.take(rows), "on": cluster.engine}
        parts = cluster.each("silhouette", steps.sums_to_part, self._X.parts, self._parts, **common)
        cluster.results(cluster.each("silhouette", steps.is_done, parts), progress)
        sums = cluster.total("silhouette", parts, steps.add)
        return silhouettes_of_sums(NumPyBackend(), sums, self._clusters(rows), self.sizes)

    def _clusters(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Bring the clusters of rows here, (m, r)."""
        clusters = np.empty((len(self.sizes), len(rows)), np.int32)
        for where, values in bring(self._X.cluster, steps.take_labels, self._parts, rows):
            clusters[:, where] = values
        return clusters

    def _of_small_clusters(self, first: Rows) -> list[Rows]:
        """Return, for each fit, the first rows of clusters that the first rows leave short."""
        short = []
        for own, sizes in zip(self._clusters(first), self.sizes, strict=True):
            counts = np.bincount(own, minlength=len(sizes))
            short.append(np.flatnonzero(counts < np.minimum(MIN_ROWS_PER_CLUSTER, sizes)))
        if not any(map(len, short)):
            return []
        found = first_of_clusters(self._X, self._parts, MIN_ROWS_PER_CLUSTER)
        nobody = first.first(0)
        return [
            Rows.of([nobody, *(found[i][cluster] for cluster in clusters.tolist())])
            for i, clusters in enumerate(short)
        ]

    def _screens(self, rows: Rows) -> list[SquaredScreen]:
        """Look at all rows once; return the rough values of the rows that are given."""
        X, engine = self._X, NumPyBackend()
        head = X[:BLOCK_ROWS]
        spreads = [
            spreads_of(engine.assign(head, c, progress=no_progress), len(c)) for c in self._many
        ]
        asked = [np.flatnonzero(rows.part == number) for number in range(len(X.parts))]
        places = [rows.place[where] for where in asked]
        common = {"many": self._many, "spreads": spreads, "on": X.cluster.engine}
        futures = X.cluster.each("silhouette", looks.screens, X.parts, places, **common)
        found = X.cluster.results(futures)
        values = np.empty((len(self._many), len(rows)))
        for where, of_part in zip(asked, found, strict=True):
            values[:, where] = of_part.values
        means = sum(of_part.totals for of_part in found) / len(X)
        return [
            SquaredScreen(sizes, self._extents(i), values[i], float(means[i]))
            for i, sizes in enumerate(self.sizes)
        ]

    def _extents(self, number: int) -> npt.NDArray[np.float64]:
        extents: npt.NDArray[np.float64] = self._total.distances[number] / np.maximum(
            self.sizes[number], 1
        )
        return extents


def first_of_clusters(X: Matrix, parts: Sequence[Any], n_rows: int) -> list[list[Rows]]:
    """Find the first rows of each cluster of each segmentation, by the order of content."""
    found = X.cluster.results(
        X.cluster.each("sample", steps.first_of_each, parts, X.keys, n_rows=n_rows)
    )
    return [
        [
            rows_of([of_part[i][cluster] for of_part in found]).first(n_rows)
            for cluster in range(len(clusters))
        ]
        for i, clusters in enumerate(found[0])
    ]
