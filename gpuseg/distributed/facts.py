"""Who the workers are: their versions and engines, which must give the same results as here."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from typing import Any, NamedTuple

from gpuseg.backends.base import Backend
from gpuseg.backends.select import Engine, select_backend
from gpuseg.errors import BackendUnavailableError, GpusegError

#: What must be equal on all machines for the same rows to give the same result.
_MUST_AGREE = ("gpuseg", "numpy")


class WorkerFacts(NamedTuple):
    """What a worker says about itself."""

    versions: Mapping[str, str]
    backend: str  # numpy or gpu
    backend_reason: str
    n_threads: int  # tasks that it does at the same time


def worker_facts(asked: str, dask_worker: Any) -> WorkerFacts:
    """Say who this worker is, and see to it that its tasks share its cores; runs on the worker.

    Parameters
    ----------
    dask_worker
        Given by Dask.

    Raises
    ------
    BackendUnavailableError
        If it cannot run the engine that was asked for.
    """
    n_tasks = dask_worker.state.nthreads
    os.environ.setdefault("GPUSEG_THREADS", str(max(1, len(os.sched_getaffinity(0)) // n_tasks)))
    engine = engine_of(asked)
    return WorkerFacts(
        versions=versions(),
        backend=engine.backend.name,
        backend_reason=engine.reason,
        n_threads=n_tasks,
    )


@functools.lru_cache(maxsize=2)
def engine_of(asked: str) -> Engine:
    """Return the engine of this process."""
    return select_backend(asked)


def backend_of(asked: str) -> Backend:
    """Return the backend of this process."""
    return engine_of(asked).backend


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    import numpy as np

    import gpuseg

    return {
        "gpuseg": gpuseg.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def check_agreement(found: Mapping[str, Any]) -> dict[str, WorkerFacts]:
    """Return what the workers said; refuse those that differ from here or from each other.

    Parameters
    ----------
    found
        Worker's address -> its facts, or the error that it raised.

    Raises
    ------
    BackendUnavailableError
        Names the worker, and what differs.
    """
    here = versions()
    for address, facts in found.items():
        if isinstance(facts, GpusegError):
            raise BackendUnavailableError(f"worker {address}: {facts}")
        if not isinstance(facts, WorkerFacts):
            raise BackendUnavailableError(
                f"worker {address} cannot run gpuseg {here['gpuseg']} ({type(facts).__name__}: "
                f"{str(facts)[:200]}); install the same version there"
            )
        for name in _MUST_AGREE:
            if facts.versions[name] != here[name]:
                raise BackendUnavailableError(
                    f"worker {address} has {name} {facts.versions[name]}, here it is "
                    f"{here[name]}; results could differ, so install the same version there"
                )
    engines = {facts.backend for facts in found.values()}
    if len(engines) > 1:
        raise BackendUnavailableError(
            "some workers run on a GPU and some do not; say --backend numpy or --backend gpu"
        )
    return dict(found)
