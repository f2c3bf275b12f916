"""The rooms of a run on a Dask cluster, in the form in which `pipeline` enters them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from gpuseg.backends.select import Engine
from gpuseg.distributed import explanation, preparing, scoring
from gpuseg.distributed.backend import DaskBackend
from gpuseg.distributed.cluster import Cluster, cluster_of
from gpuseg.distributed.table import read_on_workers
from gpuseg.places import Place, Rooms
from gpuseg.settings import Settings


@contextlib.contextmanager
def on_dask(settings: Settings) -> Iterator[Place]:
    """Connect to the cluster that the settings name, and work there.

    Raises
    ------
    GpusegError
        As `cluster_of`.
    """
    with cluster_of(settings) as cluster:
        yield place_on(cluster)


def place_on(cluster: Cluster, *, n_partitions: int | None = None) -> Place:
    """Return the rooms of a cluster.

    Parameters
    ----------
    n_partitions
        By default as many as the rows and the workers suggest. Results do not depend on it.
    """
    return Place(
        Engine(DaskBackend(cluster), _reason(cluster)),
        Rooms(
            read=functools.partial(read_on_workers, cluster, n_partitions=n_partitions),
            prepare=preparing.prepare,
            prepare_again=preparing.prepare_again,
            sweep=scoring.sweep,
            place=scoring.place,
            score_placed=scoring.score_placed,
            explain=explanation.explained,
            sketch=explanation.sketch,
        ),
    )


def _reason(cluster: Cluster) -> str:
    n = len(cluster.facts)
    reasons = dict.fromkeys(fact.backend_reason for fact in cluster.facts)
    workers = f"{n} Dask worker{'s' if n != 1 else ''}"
    return f"{cluster.engine} on {workers} ({'; '.join(reasons)})"
