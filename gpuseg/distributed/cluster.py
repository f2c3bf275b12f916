"""The Dask cluster of a run: how it is found, what is asked of it, how work is named there."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import secrets
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuseg.distributed.facts import WorkerFacts, check_agreement, worker_facts
from gpuseg.errors import BackendUnavailableError, ClusterError, GpusegError, SettingsError
from gpuseg.records import Progress, no_progress
from gpuseg.settings import Settings
from gpuseg.tables.staging import StagingFolder

log = logging.getLogger("gpuseg")

#: A cluster without any worker for so many seconds is taken for lost. One that has lost a
#: worker is given another one by its nanny within a few.
LOST_SECONDS = 30.0

#: Seconds until a scheduler that does not answer counts as out of reach.
CONNECT_SECONDS = 10.0

#: How often a wait for results looks whether the cluster is still there.
LOOK_SECONDS = 1.0

#: What all tasks of a batch share goes to the workers once from this size on, not with each task.
SHARED_BYTES = 1 << 16

#: Partial results that are added up by one task; more are added up in rounds.
FAN_IN = 16

_ADDRESS = re.compile(r"([a-z]+://)?[^\s/]+:\d+")


class Cluster:
    """Workers that do what they are told, part by part.

    Parameters
    ----------
    client
        Connected.
    facts
        Worker's address -> what it said about itself.
    scratch
        A folder of this run, removed when the cluster is closed.
    shared_scratch
        Whether the workers see that folder too.
    """

    def __init__(
        self,
        client: Any,
        facts: Mapping[str, WorkerFacts],
        scratch: Path,
        *,
        shared_scratch: bool,
    ) -> None:
        self.client = client
        self.addresses = tuple(facts)
        self.facts = tuple(facts.values())
        self.scratch = scratch
        self.shared_scratch = shared_scratch
        self.engine = self.facts[0].backend
        self.n_files = 0  # in the scratch folder
        self.leftovers: list[Path] = []  # files elsewhere that go with the cluster
        self._run, self._batch = secrets.token_hex(3), 0

    @property
    def n_threads(self) -> int:
        """Tasks that the workers do at the same time."""
        return sum(fact.n_threads for fact in self.facts)

    def each(
        self, stage: str, function: Callable[..., Any], *parts: Sequence[Any], **common: Any
    ) -> list[Any]:
        """Start ``function(part, …, **common)`` for each part; return the futures.

        Parameters
        ----------
        stage
            What the dashboard calls the tasks: ``gpuseg <first word>``, and after a colon
            what it says of this batch.
        parts
            Sequences of equal length; futures in them stand for their results.
        """
        from dask.sizeof import sizeof

        self._batch += 1
        name, _, detail = stage.partition(":")
        group = f"gpuseg {name}-{self._batch}{self._run}{detail}"
        keys = [(group, number) for number in range(len(parts[0]))]
        large = {name: value for name, value in common.items() if sizeof(value) >= SHARED_BYTES}
        with self._errors(), warnings.catch_warnings():
            # what all tasks share may be some megabytes: a sample of rows
            warnings.filterwarnings("ignore", message="Sending large graph")
            if large:
                # left to itself, Dask calls them by their bare names, so that the rows of one
                # batch would pass for the rows of the next; as a task of this batch they are
                # also computed anew when a worker is lost, which scattered data is not
                shared = self.client.submit(dict, large, key=(group, "shared"), pure=False)
                parts = (*parts, [shared] * len(keys))
                common = {n: v for n, v in common.items() if n not in large}
                function = functools.partial(_with_shared, function)
            futures: list[Any] = self.client.map(function, *parts, key=keys, pure=False, **common)
        return futures

    def one(self, stage: str, function: Callable[..., Any], *args: Any, **common: Any) -> Any:
        """Start a single task; return its future."""
        return self.each(stage, function, *([arg] for arg in args), **common)[0]

    def results(self, futures: Sequence[Any], progress: Progress = no_progress) -> list[Any]:
        """Wait for results and bring them here, in the order of the futures.

        Raises
        ------
        ClusterError
            If the scheduler is gone, or all workers for `LOST_SECONDS`.
        GpusegError
            Whatever a task raised.
        """
        from distributed import wait

        seen_alive = time.monotonic()
        with self._errors(), self.client.as_current():
            while True:
                try:
                    wait(futures, timeout=LOOK_SECONDS)
                    break
                except TimeoutError:
                    if any(future.status == "error" for future in futures):
                        break
                    progress(sum(future.done() for future in futures) / len(futures))
                    seen_alive = self._check_life(seen_alive)
            results: list[Any] = self.client.gather(futures)
        progress(1.0)
        return results

    def result(self, future: Any) -> Any:
        """Wait for one result."""
        return self.results([future])[0]

    def total(self, stage: str, futures: Sequence[Any], add: Callable[[Any, Any], Any]) -> Any:
        """Add up partial results, always in the same order, and bring the total here."""
        level = list(futures)
        while len(level) > FAN_IN:
            groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
            level = self.each(stage, _added_up, groups, add=add)
        return _added_up(self.results(level), add)

    def on_every_worker(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Call a function on every worker, and return what it said, by worker's address."""
        with self._errors():
            said: dict[str, Any] = self.client.run(function, *args)
        return said

    def tell_losses(self) -> None:
        """Say which of the workers that were there at the beginning are no more."""
        with self._errors():
            there = self.client.nthreads()
        if lost := [address for address in self.addresses if address not in there]:
            log.warning(
                "%d of %d workers were lost on the way; what they had was computed anew",
                len(lost),
                len(self.addresses),
            )

    def _check_life(self, seen_alive: float) -> float:
        """Return when workers were last seen; ClusterError if that is too long ago."""
        if self.client.status not in ("running", "connecting"):
            raise ClusterError(_LOST.format("the scheduler has gone"))
        try:
            workers = self.client.nthreads()
        except (OSError, ValueError, RuntimeError):  # it is being reconnected
            workers = {}
        if workers:
            return time.monotonic()
        if time.monotonic() - seen_alive > LOST_SECONDS:
            raise ClusterError(_LOST.format("it has no worker any more"))
        return seen_alive

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Say in the words of the house what went wrong with the cluster."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            yield
        except GpusegError:
            raise
        except KilledWorker as error:
            raise ClusterError(
                f"workers died again and again ({str(error).partition('.')[0]}), perhaps for lack "
                "of memory; give them more (--memory for local:N), or take more of them"
            ) from None
        except CancelledError:
            raise ClusterError(_LOST.format("the scheduler has gone")) from None
        except CommClosedError as error:
            raise ClusterError(_LOST.format(str(error).partition("\n")[0])) from None


_LOST = "the Dask cluster is lost: {}. Nothing was published; it is safe to run again"


def _with_shared(function: Callable[..., Any], *parts: Any, **common: Any) -> Any:
    """Call a function with what all tasks of its batch share, which comes last."""
    *own, shared = parts
    return function(*own, **common, **shared)


def _added_up(parts: Sequence[Any], add: Callable[[Any, Any], Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total


@contextlib.contextmanager
def cluster_of(settings: Settings) -> Iterator[Cluster]:
    """Connect to the cluster that the settings name, or start one; close it at the end.

    Raises
    ------
    SettingsError
        If the address is malformed.
    BackendUnavailableError
        If Dask is not installed, or workers run other versions or lack the engine.
    ClusterError
        If the scheduler cannot be reached, or no worker comes.
    """
    where = str(settings.dask)
    n_local = _n_local(where)
    try:
        import distributed
    except ImportError:
        raise BackendUnavailableError(
            "--dask needs Dask, which is not installed here: pip install 'gpuseg[dask]'"
        ) from None
    _hush()
    with contextlib.ExitStack() as stack:
        # of a run that was killed, the next one removes it
        folder = StagingFolder(Path(tempfile.gettempdir()))
        stack.callback(folder.close)
        scratch = folder.path
        if n_local is None:
            client = _connected(distributed, where, where)
        else:
            started = _started(settings, n_local, scratch)
            stack.callback(started.close)
            client = _connected(distributed, started, where)
        stack.callback(client.close)
        facts = _facts(client, settings.backend, where, n_local or 1)
        log.info("Dask: %d workers; dashboard %s", len(facts), client.dashboard_link)
        cluster = Cluster(client, facts, scratch, shared_scratch=n_local is not None)
        try:
            yield cluster
            cluster.tell_losses()
        finally:
            for path in cluster.leftovers:
                path.unlink(missing_ok=True)


def _hush() -> None:
    """Let Dask say only what is worse than a lost worker, unless somebody asked for the log.

    It gives its loggers levels of their own, so that the level of our log means nothing to it.
    """
    if not log.isEnabledFor(logging.INFO):
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("distributed"):
                logging.getLogger(name).setLevel(logging.CRITICAL)


def _n_local(where: str) -> int | None:
    """Return N of ``local:N``; None for an address."""
    if where.startswith("local:"):
        count = where.removeprefix("local:")
        if count.isdecimal() and int(count) >= 1:
            return int(count)
    elif _ADDRESS.fullmatch(where):
        return None
    raise SettingsError(
        f"dask is '{where}'; expected local:N for N processes here, such as local:2, or the "
        "address of a scheduler, such as tcp://HOST:8786"
    )


def _connected(distributed: Any, to: Any, where: str) -> Any:
    try:
        return distributed.Client(to, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at '{where}' within {CONNECT_SECONDS:.0f} s "
            f"({type(error).__name__}); is it running, and reachable from here?"
        ) from None


def _started(settings: Settings, n_workers: int, scratch: Path) -> Any:
    """Start processes on this machine."""
    import dask
    from distributed import LocalCluster

    from gpuseg.backends.select import select_backend

    common: dict[str, Any] = {
        "n_workers": n_workers,
        "local_directory": str(scratch),
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": False if log.isEnabledFor(logging.INFO) else logging.CRITICAL,
    }
    if settings.backend != "numpy" and select_backend(settings.backend).backend.name == "gpu":
        try:
            from dask_cuda import LocalCUDACluster
        except ImportError:
            raise BackendUnavailableError(
                "GPU workers on this machine need dask-cuda, which is not installed: pip install "
                "'gpuseg[dask13]' (or dask12), or use --backend numpy"
            ) from None
        return LocalCUDACluster(**common)
    n_threads = max(1, len(os.sched_getaffinity(0)) // n_workers)
    limit = settings.memory and dask.utils.parse_bytes(settings.memory) // n_workers
    return LocalCluster(
        processes=True,
        threads_per_worker=1,
        memory_limit=limit or "auto",
        preload="gpuseg.distributed.worker",
        env={"GPUSEG_THREADS": os.environ.get("GPUSEG_THREADS", str(n_threads))},
        **common,
    )


def _facts(client: Any, backend: str, where: str, n_workers: int) -> dict[str, WorkerFacts]:
    """Ask all workers who they are, and refuse those that would not give the same result."""
    try:
        client.wait_for_workers(n_workers, timeout=LOST_SECONDS)
    except TimeoutError:
        raise ClusterError(f"no worker has come to the Dask cluster '{where}'") from None
    found = client.run(worker_facts, backend, on_error="return")
    return check_agreement(found)
