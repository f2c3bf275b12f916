"""Means over all rows, estimated from some of them, and how far they may be off.

What is estimated, why it is unbiased and how the intervals were tried is in
``docs/decisions/silhouette-sampling.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from gpuseg.errors import DataError

Floats = npt.NDArray[np.float64]

#: What the stated intervals are meant to cover, and how surely two k called different are.
CONFIDENCE = 0.95

#: Quantile at which intervals end, wider than 0.975: looking again after each round, and
#: values of which few are far off, take up to two points of the coverage (measured).
INTERVAL_QUANTILE = 0.985

#: The row that pulls most at an estimate is taken to stand for so many more that were not
#: met: on skewed values the variance of a sample is too small more often than too large.
UNMET_ROWS = 2


class Sample(NamedTuple):
    """Scored rows of one segmentation.

    Parameters
    ----------
    values : array of shape (r,), float64
        What was computed for each scored row; its mean over all rows is wanted.
    clusters : array of shape (r,), int
        Cluster of each scored row.
    counted : array of shape (r,), bool
        Rows that are a fair sample of their cluster; the others are left out.
    sizes : array of shape (k,), int64
        Rows of each cluster, scored or not; 0 for a cluster that is not there.
    screen : array of shape (r,), float64
        A rough value of each scored row that is known for all rows; zeros if there is none.
    screen_mean : float
        Mean of the rough values over all rows.
    """

    values: Floats
    clusters: npt.NDArray[np.int32]
    counted: npt.NDArray[np.bool_]
    sizes: npt.NDArray[np.int64]
    screen: Floats
    screen_mean: float


@dataclass(frozen=True)
class Estimates:
    """Means of several segmentations, estimated from the same rows.

    Parameters
    ----------
    means : array of shape (m,), float64
    pulls : array of shape (m, r), float64
        How far each row may pull at each mean: the sum of squares is the variance, up to
        `UNMET_ROWS`. The same rows pull at all means, so differences are known far better.
    freedom : array of shape (m,), float64
        Degrees of freedom of each variance.
    """

    means: Floats
    pulls: Floats
    freedom: Floats

    @property
    def stderr(self) -> Floats:
        """Standard error of each mean, (m,)."""
        return _length(self.pulls)

    @property
    def intervals(self) -> Floats:
        """The interval of each mean that covers the truth in 95 % of the cases, (m, 2)."""
        reach = _quantile(self.freedom, INTERVAL_QUANTILE) * self.stderr
        return np.stack([self.means - reach, self.means + reach], axis=1)

    def difference_stderr(self, i: int, j: int) -> float:
        """Return the standard error of ``means[i] - means[j]``."""
        return float(_length(self.pulls[i] - self.pulls[j]))

    def rivals(self, i: int, others: Sequence[int], *, looks: int = 1) -> list[int]:
        """Return which of the others may well have a higher mean than the i-th.

        Parameters
        ----------
        looks
            How often the question is asked while rows are added. With all looks and all
            others taken together, a rival is overlooked in 5 % of the cases at most.
        """
        error = (1 - CONFIDENCE) / max(1, looks * len(others))
        return [j for j in others if self._is_rival(i, j, error)]

    def _is_rival(self, i: int, j: int, error: float) -> bool:
        freedom = np.minimum(self.freedom[i], self.freedom[j])
        reach = float(_quantile(freedom, 1 - error)) * self.difference_stderr(i, j)
        return bool(self.means[i] - self.means[j] < reach)


def estimate(samples: Sequence[Sample]) -> Estimates:
    """Estimate the mean of each segmentation: its known screen, corrected cluster by cluster.

    With W the share of a cluster of all rows, y the values and x the screen, the mean is
    ``mean(x over all rows) + sum over clusters of W * mean(y - x over its counted rows)``:
    unbiased whatever the screen, because only the difference is sampled.

    Parameters
    ----------
    samples
        Of the same rows in the same order, for each segmentation.

    Raises
    ------
    DataError
        If a cluster has no counted row.

    References
    ----------
    Cochran (1977), "Sampling Techniques": section 5.4, stratified sampling with the finite
    population correction; chapter 7, regression estimates, here with the slope given as 1.
    Satterthwaite (1946), "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2, for the degrees of freedom.
    """
    found = [_estimate_one(sample) for sample in samples]
    pulls = np.stack([pull for _mean, pull, _freedom in found])
    return Estimates(
        means=np.array([mean for mean, _pull, _freedom in found]),
        pulls=pulls,
        freedom=np.array([freedom for _mean, _pull, freedom in found]),
    )


def _estimate_one(sample: Sample) -> tuple[float, Floats, float]:
    """Return the mean, the pull of each row, and the degrees of freedom."""
    k, counted = len(sample.sizes), sample.counted
    clusters = sample.clusters[counted]
    n_counted = np.bincount(clusters, minlength=k)
    missing = np.flatnonzero((n_counted == 0) & (sample.sizes > 0))
    if len(missing):
        raise DataError(f"no row of cluster {missing[0]} is among the scored rows; add some")
    rest = (sample.values - sample.screen)[counted]
    shares = sample.sizes / sample.sizes.sum()
    means = np.bincount(clusters, rest, minlength=k) / np.maximum(n_counted, 1)
    deviations = rest - means[clusters]
    unseen = 1 - n_counted / np.maximum(sample.sizes, 1)
    # a lone row says nothing about the spread of its cluster: that of all rows is taken
    lone = (n_counted == 1)[clusters]
    deviations[lone] = rest.std(ddof=1) if len(rest) > 1 else 0.0
    others = np.maximum(n_counted - 1, 1)
    steps = shares * np.sqrt(unseen / (np.maximum(n_counted, 1) * others))
    pulls = np.zeros(len(counted))
    pulls[counted] = steps[clusters] * deviations
    variances = np.bincount(clusters, pulls[counted] ** 2, minlength=k)
    total = variances.sum()
    freedom = total**2 / (variances**2 / others).sum() if total > 0 else np.inf
    return sample.screen_mean + float(shares @ means), pulls, float(freedom)


def _length(pulls: Floats) -> Floats:
    """Root of the sum of squares, the largest one counted `UNMET_ROWS` times more."""
    squares = pulls**2
    length: Floats = np.sqrt(squares.sum(axis=-1) + UNMET_ROWS * squares.max(axis=-1))
    return length


def _quantile(freedom: npt.ArrayLike, probability: float) -> Floats:
    """Quantile of Student's t; nobody has more than a million degrees of freedom to tell."""
    quantiles: Floats = stdtrit(np.minimum(freedom, 1e6), probability)
    return quantiles
