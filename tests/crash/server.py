"""Forks a process for each job: warm in the kernels, and no thread has started yet.

Run as a script. It reads one job per line from stdin, as JSON, lets `faults.work` do it in a
child of its own, and writes how the child ended: its exit code, or minus the signal.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np


def warm_up() -> None:
    """Load libraries and compiled kernels, without anything whose threads outlive it."""
    import gpuseg.cli
    import gpuseg.outputs.report
    import gpuseg.pipeline  # noqa: F401
    from gpuseg.backends.numpy import NumPyBackend
    from gpuseg.clustering.choice import choose
    from gpuseg.clustering.sweep import sweep
    from gpuseg.records import no_progress

    backend = NumPyBackend()
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    fit = choose(backend, X, sweep(backend, X, [2, 3], n_init=2, random_state=0)).fit
    k = len(fit.centroids)
    forest = backend.forest(
        X, fit.labels, k, n_trees=3, max_depth=3, max_rows=300, random_state=0,
        progress=no_progress,
    )  # fmt: skip
    columns = np.arange(4, dtype=np.int32)
    backend.shap_means(forest, X, fit.labels, columns, 4, rows=None, progress=no_progress)


def serve() -> None:
    """Answer each line of stdin with one of stdout."""
    from crash.faults import work

    answers = os.fdopen(os.dup(1), "w")
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = work(**json.loads(line))
            finally:
                sys.stderr.flush()
                os._exit(code)
        _pid, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    warnings.simplefilter("ignore")
    warm_up()
    serve()
