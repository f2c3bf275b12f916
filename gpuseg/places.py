"""The rooms as `pipeline` enters them: those of this machine, or those of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gpuseg.backends.select import Engine, select_backend
from gpuseg.clustering.placing import place, score_placed
from gpuseg.clustering.sweep import sweep
from gpuseg.explain.saying import say
from gpuseg.features import prepare, prepare_again
from gpuseg.outputs.sketch import sketch
from gpuseg.settings import Settings
from gpuseg.tables.input import read_input


class Rooms(NamedTuple):
    """What is done in each room; each has the form of this machine's function of that name."""

    read: Callable[..., Any]
    prepare: Callable[..., Any]
    prepare_again: Callable[..., Any]
    sweep: Callable[..., Any]
    place: Callable[..., Any]
    score_placed: Callable[..., Any]
    explain: Callable[..., Any]
    sketch: Callable[..., Any]


class Place(NamedTuple):
    """Where a run works."""

    engine: Engine
    rooms: Rooms


HERE = Rooms(read_input, prepare, prepare_again, sweep, place, score_placed, say, sketch)


@contextlib.contextmanager
def place_of_work(settings: Settings) -> Iterator[Place]:
    """Return this machine, or the Dask cluster that the settings name, for as long as it lasts.

    Raises
    ------
    BackendUnavailableError, SettingsError, ClusterError
        If the engine, or the cluster, is not to be had.
    """
    if settings.dask is None:
        yield Place(select_backend(settings.backend), HERE)
        return
    from gpuseg.distributed.rooms import on_dask

    with on_dask(settings) as there:
        yield there
