"""A Dask cluster as the place of a run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from gpuseg.backends.select import Engine
from gpuseg.distributed import explanation, preparing
from gpuseg.distributed.backend import DaskBackend
from gpuseg.distributed.cluster import Cluster, cluster_of
from gpuseg.distributed.table import read_on_workers
from gpuseg.errors import SettingsError
from gpuseg.places import Place, Work
from gpuseg.settings import Settings


@contextlib.contextmanager
def on_dask(settings: Settings) -> Iterator[Place]:
    """Connect to the cluster that the settings name, and work there.

    Raises
    ------
    SettingsError
        If a parameter asks for what is not done on workers.
    GpusegError
        As `cluster_of`.
    """
    _refuse(settings)
    with cluster_of(settings) as cluster:
        yield place_on(cluster)


def place_on(cluster: Cluster, *, n_partitions: int | None = None) -> Place:
    """Return a cluster as the place of a run.

    Parameters
    ----------
    n_partitions
        By default as many as the rows and the workers suggest. Results do not depend on it.
    """
    return Place(
        Engine(DaskBackend(cluster), _reason(cluster)),
        Work(
            read=functools.partial(read_on_workers, cluster, n_partitions=n_partitions),
            prepare=preparing.prepare,
            prepare_again=preparing.prepare_again,
            say=explanation.explained,
            sketch=explanation.sketch,
        ),
    )


def _refuse(settings: Settings) -> None:
    if settings.publish == "if-better":
        raise SettingsError(
            "publish 'if-better' scores the earlier segments on today's rows, which workers cannot "
            "do; use --publish if-ok with --min-silhouette or --max-churn, or run without dask"
        )


def _reason(cluster: Cluster) -> str:
    n = len(cluster.facts)
    reasons = dict.fromkeys(fact.backend_reason for fact in cluster.facts)
    workers = f"{n} Dask worker{'s' if n != 1 else ''}"
    return f"{cluster.engine} on {workers} ({'; '.join(reasons)})"
