"""What scoring the fits of a sweep asks of the rows, wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpuseg.backends.base import Backend
from gpuseg.clustering.estimation import Floats
from gpuseg.clustering.rounds import Frame, rows_of_small_clusters
from gpuseg.clustering.screen import SquaredScreen, squared_screen
from gpuseg.clustering.silhouette import Segmentations, silhouettes
from gpuseg.records import Array, KMeansFit, Progress, no_progress

Rows = npt.NDArray[np.int64]


class Scorer(Protocol):
    """Rows and several fits of them."""

    @property
    def sizes(self) -> Sequence[npt.NDArray[np.int64]]:
        """Rows of each cluster of each fit."""

    def every(self, progress: Progress) -> Floats:
        """Return the silhouettes of all rows in all fits, (m, n_samples)."""

    def first(self, n_rows: int) -> Floats:
        """Return the silhouettes of some rows, to learn how long that takes."""

    def extents(self) -> list[SquaredScreen]:
        """Return what centroids say of each fit, without rough values of single rows."""

    def frame(self, fewest: int, most: int) -> tuple[Frame, list[SquaredScreen]]:
        """Look up all rows that may be scored: the first ones, and more of small clusters."""

    def some(self, rows: Rows, progress: Progress) -> Floats:
        """Return the silhouettes of rows of the frame, (m, r)."""

    def called(self, rows: Rows, values: Floats) -> tuple[Rows, Floats]:
        """Return rows of the frame as rows of `X`, ascending, and their values."""


def scorer_of(backend: Backend, X: Array, fits: Sequence[KMeansFit]) -> Scorer:
    """Return what scores the rows of `X` where they lie."""
    if hasattr(X, "scorer"):
        elsewhere: Scorer = X.scorer(fits)
        return elsewhere
    return ScorerHere(backend, X, fits)


class ScorerHere:
    """Scores rows that a backend holds as one array."""

    def __init__(self, backend: Backend, X: Array, fits: Sequence[KMeansFit]) -> None:
        self._backend, self._X, self._fits = backend, X, fits
        self._of = Segmentations.of(backend, {i: fit.labels for i, fit in enumerate(fits)})
        self.sizes = self._of.sizes

    def every(self, progress: Progress) -> Floats:
        """Return the silhouettes of all rows."""
        return silhouettes(self._backend, self._X, self._of, None, progress=progress)

    def first(self, n_rows: int) -> Floats:
        """Return the silhouettes of the first rows."""
        return self.some(np.arange(n_rows), no_progress)

    def extents(self) -> list[SquaredScreen]:
        """Return what centroids say of each fit."""
        return self._screens(np.empty(0, np.int64))

    def frame(self, fewest: int, most: int) -> tuple[Frame, list[SquaredScreen]]:
        """Look up all rows that may be scored."""
        small = rows_of_small_clusters(self._backend, self._of, fewest)
        rows = np.unique(np.concatenate([np.arange(most), *small]))
        screens = self._screens(rows)
        frame = Frame(
            rows=rows,
            clusters=self._of.clusters(self._backend, rows),
            added=np.stack([np.isin(rows, of_k) for of_k in small]),
            sizes=self._of.sizes,
            screens=np.stack([screen.values for screen in screens]),
            screen_means=np.array([screen.mean for screen in screens]),
        )
        return frame, screens

    def some(self, rows: Rows, progress: Progress) -> Floats:
        """Return the silhouettes of some rows."""
        return silhouettes(self._backend, self._X, self._of, rows, progress=progress)

    def called(self, rows: Rows, values: Floats) -> tuple[Rows, Floats]:
        """Return the same rows."""
        return rows, values

    def _screens(self, rows: Any) -> list[SquaredScreen]:
        return [squared_screen(self._backend, self._X, fit, rows) for fit in self._fits]
