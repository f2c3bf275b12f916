"""Lloyd's iterations up to a deadline: a few steps at a time, while the next few fit in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from gpuseg.backends.base import Backend
from gpuseg.records import Array, KMeansFit, Progress, no_progress
from gpuseg.stages import Deadline


def lloyd_in_time(
    backend: Backend,
    X: Array,
    starts: Sequence[Any],
    *,
    max_iter: int,
    tol: float,
    deadline: Deadline,
    progress: Progress,
) -> tuple[list[KMeansFit], list[bool]]:
    """Run ``Backend.lloyd`` for as long as there is time; at least one step of each run.

    A run that goes on from its centroids takes the steps that it would have taken, up to the
    rounding of sums: where time suffices the result is the same.

    Returns
    -------
    fits
        Of each start; labels are those of the centroids, finished or not.
    finished
        Whether each run came to its end.
    """
    fits: dict[int, KMeansFit] = {}
    running, taken, n_steps, seconds = list(range(len(starts))), 0, min(1, max_iter), 0.0
    while running and deadline.allows(seconds):
        begin = time.monotonic()
        here = [fits[i].centroids if taken else starts[i] for i in running]
        found = backend.lloyd(X, here, max_iter=n_steps, tol=tol, progress=no_progress)
        both = list(zip(running, found, strict=True))
        fits |= {i: fit._replace(n_iter=taken + fit.n_iter) for i, fit in both}
        taken += n_steps
        running = [i for i, fit in both if fit.n_iter == n_steps and taken < max_iter]
        # rows are assigned once more than there are steps
        pace = (time.monotonic() - begin) / (n_steps + 1)
        half_of_the_rest = int(deadline.seconds_left / 2 / max(pace, 1e-9))
        n_steps = max(1, min(2 * n_steps, max_iter - taken, half_of_the_rest))
        seconds = pace * (n_steps + 1)
        progress(1 - len(running) / len(starts))
    if not fits:  # no time at all
        fits = dict(enumerate(backend.lloyd(X, starts, max_iter=0, tol=tol, progress=progress)))
    return [fits[i] for i in range(len(starts))], [i not in running for i in range(len(starts))]
