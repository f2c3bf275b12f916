"""Where a run works: on this machine, or on the workers of a cluster.

The rooms are the same in both places. What is done elsewhere in another way is the work that a
`Place` carries; all else asks the rows, features and labels, which know where they lie.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gpuseg.backends.base import Backend
from gpuseg.backends.select import Engine, select_backend
from gpuseg.features import prepare, prepare_again
from gpuseg.outputs.saying import say
from gpuseg.outputs.sketch import sketch
from gpuseg.settings import Settings
from gpuseg.tables.input import read_input


class Work(NamedTuple):
    """What depends on where it is done; each has the form of this machine's function."""

    read: Callable[..., Any]
    prepare: Callable[..., Any]
    prepare_again: Callable[..., Any]
    say: Callable[..., Any]
    sketch: Callable[..., Any]


HERE = Work(read_input, prepare, prepare_again, say, sketch)


class Place(NamedTuple):
    """Where a run works, and how."""

    engine: Engine
    work: Work = HERE

    @property
    def backend(self) -> Backend:
        """The seam of the engine."""
        return self.engine.backend

    @property
    def is_here(self) -> bool:
        """Whether that is this machine."""
        return self.work is HERE

    def at(self, engine: Engine) -> Place:
        """Return the same place with another engine."""
        return self._replace(engine=engine)


def this_machine(settings: Settings) -> Place:
    """Return this machine with the engine that the settings name."""
    return Place(select_backend(settings.backend))


@contextlib.contextmanager
def place_of_work(settings: Settings) -> Iterator[Place]:
    """Return this machine, or the Dask cluster that the settings name, for as long as it lasts.

    Raises
    ------
    BackendUnavailableError, SettingsError, ClusterError
        If the engine, or the cluster, is not to be had.
    """
    if settings.dask is None:
        yield this_machine(settings)
        return
    from gpuseg.distributed.on_dask import on_dask

    with on_dask(settings) as there:
        yield there
