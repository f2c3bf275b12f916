"""Break the kernel on purpose: every barrier and every bound must be missed."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kernels.cuda_on_host import SANITIZE, HostDevice, KernelFailedError, build

from gpuseg.backends.cuda_silhouette import distance_sums
from gpuseg.backends.kernel_loader import kernel_text
from gpuseg.records import no_progress
from kernels import distance_oracle as oracle

TEXT = kernel_text("silhouette")
BARRIERS = list(re.finditer(r"__syncthreads(_or)?\(", TEXT))
PLAIN = ("-O0",)

#: What holds an index inside an array, and the same without it.
BOUNDS = [
    ("row < data.n_rows ? row : data.n_rows - 1", "row"),
    ("threadIdx.x < kRows && row < n_rows", "threadIdx.x < kRows"),
    ("threadIdx.x < kRows && row < n_rows", "row < n_rows"),
    ("min(data.depth, data.n_features - feature0)", "data.depth"),
    ("min(cell_end, kGroups)", "cell_end"),
]


def make():
    """Several tiles, chunks and cells; close pairs in some tiles only."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 50)).astype(np.float32)
    X[100:140] = X[:40]
    labels = np.stack([np.arange(300) % 3, np.arange(300) // 60]).astype(np.int32)
    return X, labels, (3, 5)


def is_noticed(text, schedule, options):
    """Tell whether a run of the text fails or gives another result than the oracle's."""
    X, labels, n_clusters = make()
    device = HostDevice(text, schedule=schedule, options=options)
    try:
        sums = distance_sums(X, labels, n_clusters, rows=None, progress=no_progress, device=device)
    except KernelFailedError:
        return True
    return not np.allclose(sums, oracle.distance_sums(X, labels, n_clusters), rtol=1e-5, atol=0)


def without_barrier(match):
    """Take a barrier away; what its threads vote on stays each thread's own."""
    alone = "(" if match[1] else "void("
    return TEXT[: match.start()] + alone + TEXT[match.end() :]


def without_bound(bound, unbound):
    assert bound in TEXT
    return TEXT.replace(bound, unbound)


@pytest.fixture(scope="module", autouse=True)
def _compile_two_at_a_time():
    """Most of the time here goes into the compiler."""
    work = [(TEXT, PLAIN), (TEXT, SANITIZE)]
    work += [(without_barrier(barrier), PLAIN) for barrier in BARRIERS]
    work += [(without_bound(*bound), SANITIZE) for bound in BOUNDS]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda item: build(item[0], "distance_sums", options=item[1]), work))


def test_the_sound_kernel_passes():
    assert not is_noticed(TEXT, "forward", PLAIN)
    assert not is_noticed(TEXT, "forward", SANITIZE)


def test_there_are_barriers_to_remove():
    assert len(BARRIERS) == TEXT.count("__syncthreads") >= 4


@pytest.mark.parametrize("number", range(len(BARRIERS)))
def test_a_missing_barrier_is_noticed(number):
    broken = without_barrier(BARRIERS[number])
    schedules = ("forward", "reverse", "random")
    assert any(is_noticed(broken, schedule, PLAIN) for schedule in schedules)


@pytest.mark.parametrize(("bound", "unbound"), BOUNDS)
def test_a_missing_bound_is_noticed(bound, unbound):
    assert is_noticed(without_bound(bound, unbound), "forward", SANITIZE)
