"""The rows of a matrix, and labels of rows, that lie on the workers in parts.

Rows are numbered in the order of the table. The order that depends on their content alone is
known as a key of each row; the first rows of that order are a fair sample, and the very
sample that a run on one machine takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuseg.distributed import looks, steps
from gpuseg.distributed.cluster import Cluster
from gpuseg.records import KMeansFit

#: Hashes that one task compares, to find the rows that are equal to rows of other parts.
HASHES_PER_TASK = 1 << 24

#: Rows of the beginning that are kept here once they were asked for.
LARGEST_HEAD = 1 << 18


class Rows(NamedTuple):
    """Some rows, in the order of their content."""

    part: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]  # row of the part
    keys: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, n_rows: int) -> Rows:
        """Return the first of them."""
        return self.at(slice(n_rows))

    def at(self, where: Any) -> Rows:
        """Return those that stand at these places of the list."""
        return Rows(self.part[where], self.place[where], self.keys[where])

    def union(self, others: Rows) -> Rows:
        """Return all rows of either, each once."""
        together = Rows.of([self, others])
        _keys, where = np.unique(together.keys, return_index=True)  # no two rows share a key
        return together.at(where)

    @classmethod
    def of(cls, lists: Sequence[Rows]) -> Rows:
        """Put lists one after another."""
        return cls(
            np.concatenate([rows.part for rows in lists]),
            np.concatenate([rows.place for rows in lists]),
            np.concatenate([rows.keys for rows in lists]),
        )


def rows_of(found: Sequence[steps.Places]) -> Rows:
    """Put the rows that were found in each part in the order of their content."""
    together = Rows.of(
        [Rows(np.full(len(keys), part), places, keys) for part, (keys, places) in enumerate(found)]
    )
    return together.at(np.argsort(together.keys, kind="stable"))


class Matrix:
    """What `FeatureMatrix.X` is to a run on one machine.

    Parameters
    ----------
    parts
        Futures of arrays of shape (n_of_part, n_features), float32.
    sizes
        Rows of each part.
    keys
        Futures of the keys that rows are ordered by; see `steps.keys`.
    """

    def __init__(
        self,
        cluster: Cluster,
        parts: Sequence[Any],
        sizes: Sequence[int],
        n_features: int,
        keys: Sequence[Any],
    ) -> None:
        self.cluster = cluster
        self.parts = list(parts)
        self.sizes = list(sizes)
        self.keys = list(keys)
        self.shape = (sum(sizes), n_features)
        self._head: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of values."""
        return self.shape[0] * self.shape[1]

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        found = self.cluster.results(self.cluster.each("statistics", steps.extremes, self.parts))
        lowest, highest = zip(*found, strict=True)
        return float(np.min(lowest)), float(np.max(highest))

    def min(self) -> float:
        """Return the smallest value."""
        return self._extremes[0]

    def max(self) -> float:
        """Return the largest value."""
        return self._extremes[1]

    @cached_property
    def moments(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean (d,) and population covariance (d, d), float64.

        References
        ----------
        Chan, Golub and LeVeque (1983). Algorithms for computing the sample variance. The
        American Statistician 37.
        """
        on = self.cluster.engine
        found = self.cluster.results(
            self.cluster.each("covariance", steps.covariance, self.parts, on=on)
        )
        counts = np.array([float(count) for count, _mean, _covariance in found])
        means = np.stack([mean for _count, mean, _covariance in found])
        mean = counts @ means / counts.sum()
        total = np.zeros((self.shape[1], self.shape[1]))
        for (count, of_part, covariance), off in zip(found, means - mean, strict=True):
            assert of_part.shape == off.shape
            total += count * (covariance + np.outer(off, off))
        return mean, total / counts.sum()

    def few_distinct(self, at_most: int) -> Any:
        """Return distinct rows of each part, at most so many of each, on the host."""
        common = {"at_most": at_most, "on": self.cluster.engine}
        found = self.cluster.each("statistics", steps.few_distinct, self.parts, **common)
        return np.concatenate(self.cluster.results(found))

    def scorer(self, fits: Sequence[KMeansFit]) -> Any:
        """Return what scores fits of these rows where they lie."""
        from gpuseg.distributed.scoring import ScorerOnWorkers  # which needs matrices itself

        return ScorerOnWorkers(self, fits)

    def numbers(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return the numbers of rows in the table."""
        firsts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)
        numbers: npt.NDArray[np.int64] = firsts[rows.part] + rows.place
        return numbers

    def group_sums(self, ids: Any, known: Sequence[int]) -> npt.NDArray[np.float64]:
        """Add up the rows of groups, (n_groups, n_features).

        Parameters
        ----------
        ids : array of shape (n_samples,), int
            Group of each row; those that are not in `known` are left out.
        known
            Ascending.
        """
        names = np.asarray(known)
        groups = []
        for own in np.split(np.asarray(ids), np.cumsum(self.sizes)[:-1]):
            place = np.minimum(np.searchsorted(names, own), max(len(names) - 1, 0))
            is_known = np.isin(own, names)
            groups.append(np.where(is_known, place, -1).astype(np.int32))
        common = {"n_groups": len(names), "on": self.cluster.engine}
        parts = self.cluster.each("compare", looks.group_sums, self.parts, groups, **common)
        sums: npt.NDArray[np.float64] = self.cluster.total("compare", parts, steps.add)
        return sums

    def reach(self, centroids: Any, share: float) -> list[float]:
        """Return how far from its centroid that share of each cluster's rows is."""
        common = {"centroids": np.asarray(centroids), "on": self.cluster.engine}
        parts = self.cluster.each("assign", looks.distance_counts, self.parts, **common)
        return looks.reach_of_counts(self.cluster.total("assign", parts, steps.add), share)

    def first_rows(self, n_rows: int) -> Rows:
        """Find the first rows of the order of content."""
        n_rows = min(n_rows, len(self))
        # keys look like random numbers, so about this many are below the limit; some more
        wanted = n_rows + 6 * int(np.sqrt(n_rows)) + 10
        while True:
            below = int(2**64 * wanted / len(self)) if wanted < len(self) else 2**64
            found = rows_of(
                self.cluster.results(
                    self.cluster.each("sample", steps.smallest, self.keys, below=below)
                )
            )
            if len(found) >= n_rows:
                return found.first(n_rows)
            wanted *= 2

    def take(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Bring some rows here, (r, n_features)."""
        result = np.empty((len(rows), self.shape[1]), np.float32)
        brought = bring(self.cluster, steps.take, self.parts, rows, on=self.cluster.engine)
        for where, values in brought:
            result[where] = values
        return result

    def __getitem__(self, rows: slice) -> npt.NDArray[np.float32]:
        """Bring the first rows of the order of content here."""
        if rows.start not in (None, 0) or rows.step not in (None, 1):
            raise IndexError("only the first rows can be brought here")
        n_rows = len(self) if rows.stop is None else min(rows.stop, len(self))
        if self._head is None or len(self._head) < n_rows:
            head = self.take(self.first_rows(n_rows))
            if n_rows > LARGEST_HEAD:
                return head
            self._head = head
        return np.ascontiguousarray(self._head[:n_rows])


def bring(
    cluster: Cluster, function: Any, parts: Sequence[Any], rows: Rows, **common: Any
) -> list[tuple[Any, Any]]:
    """Let each part give some of its rows; return where they belong, and what was given."""
    asked = [
        (number, np.flatnonzero(rows.part == number)) for number in np.unique(rows.part).tolist()
    ]
    futures = cluster.each(
        "sample",
        function,
        [parts[number] for number, _where in asked],
        [rows.place[where] for _number, where in asked],
        **common,
    )
    given = cluster.results(futures)
    return [(where, values) for (_number, where), values in zip(asked, given, strict=True)]


class Labels:
    """The labels of all rows by given centroids: made where the rows are, when asked for."""

    def __init__(self, matrix: Matrix, centroids: npt.NDArray[np.float32]) -> None:
        self._matrix = matrix
        self._centroids = centroids
        self.sample: Any = None  # of the rows, kept by whoever took it
        self._here: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self._matrix)

    def __getitem__(self, rows: slice) -> npt.NDArray[np.int32]:
        """Return the labels of the first rows of the order of content."""
        head = self._matrix[rows]
        return np.asarray(
            steps.assigned(head, centroids=self._centroids, on="numpy").labels, dtype=np.int32
        )

    @cached_property
    def parts(self) -> list[Any]:
        """Futures of `steps.Labelled`, with one segmentation."""
        return label(self._matrix, [self._centroids])

    def sizes(self, n_clusters: int) -> npt.NDArray[np.int64]:
        """Return the number of rows of each cluster."""
        assert n_clusters == len(self._centroids)
        return np.asarray(sums_of(self._matrix.cluster, self.parts).sizes[0])

    def on_host(self) -> npt.NDArray[np.int32]:
        """Bring the labels of all rows here, in the order of the table: 4 bytes a row."""
        if self._here is None:
            labels = self._matrix.cluster.each("assign", steps.pick_labels, self.parts)
            self._here = brought_in_order(self._matrix, labels, np.int32)
        return self._here


class Measured:
    """Another column of an `Assignment`, brought here only when it is asked for."""

    def __init__(self, matrix: Matrix, centroids: Any, name: str) -> None:
        self._matrix, self._centroids, self._name = matrix, centroids, name
        self._here: npt.NDArray[Any] | None = None

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        """Return the values of some rows, in the order of the table."""
        values: npt.NDArray[Any] = self.on_host()[rows]
        return values

    def on_host(self) -> npt.NDArray[Any]:
        """Bring the values of all rows here, in the order of the table."""
        if self._here is None:
            kind = np.int32 if self._name.endswith("labels") else np.float32
            self._here = brought_in_order(self._matrix, self._of_parts(), kind)
        return self._here

    def total(self) -> float:
        """Add up the values of all rows where they are."""
        cluster = self._matrix.cluster
        return float(sum(cluster.results(cluster.each("assign", steps.sum_of, self._of_parts()))))

    def _of_parts(self) -> list[Any]:
        cluster = self._matrix.cluster
        common = {"centroids": self._centroids, "on": cluster.engine, "name": self._name}
        return cluster.each("assign", steps.measured, self._matrix.parts, **common)


def brought_in_order(matrix: Matrix, parts: Sequence[Any], kind: Any) -> npt.NDArray[Any]:
    """Bring one value for each row to the disk here, where memory need not hold them all."""
    cluster = matrix.cluster
    cluster.n_files += 1
    path = cluster.scratch / f"column-{cluster.n_files}.npy"
    result = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(len(matrix),))
    first = 0
    for part, size in zip(parts, matrix.sizes, strict=True):
        result[first : first + size] = cluster.result(part)
        first += size
    return result


def label(matrix: Matrix, many: Sequence[Any]) -> list[Any]:
    """Label all rows by each set of centroids; return futures of `steps.Labelled`."""
    common = {"many": list(many), "on": matrix.cluster.engine}
    return matrix.cluster.each("assign", steps.labelled, matrix.parts, **common)


def sums_of(cluster: Cluster, parts: Sequence[Any]) -> steps.Labelled:
    """Return sizes and distances over all parts."""
    own = cluster.each("assign", steps.without_labels, parts)
    total: steps.Labelled = cluster.total("assign", own, steps.add_labelled)
    return total


def ordered_keys(cluster: Cluster, parts: Sequence[Any], n_rows: int) -> list[Any]:
    """Return futures of the keys that the rows of each part are ordered by.

    Equal rows are told apart by how many of them come before, in earlier parts too. What
    that takes goes from part to part: the hashes, 16 bytes a row at most, and not the rows.
    """
    of_rows = cluster.each("order", steps.hashes, parts, on=cluster.engine)
    n_shares = -(-n_rows // HASHES_PER_TASK)
    shares = range(n_shares)
    counted = cluster.each("order", steps.counted, of_rows, n_shares=n_shares)
    picked = [
        [cluster.one("order", steps.pick, part, share) for part in counted] for share in shares
    ]
    before = cluster.each("order", steps.earlier, picked)
    of_part = [
        [cluster.one("order", steps.pick, before[share], number) for share in shares]
        for number in range(len(parts))
    ]
    return cluster.each("order", steps.keys, of_rows, of_part)


def fit_of(
    matrix: Matrix, centroids: npt.NDArray[np.float32], inertia: float, n_iter: int
) -> KMeansFit:
    """Return a fit whose labels are made when they are asked for."""
    return KMeansFit(centroids, Labels(matrix, centroids), inertia, n_iter)
