"""The host runner itself: shuffles and atomics work, and what would hang a device ends."""

import numpy as np
import pytest
from kernels.cuda_on_host import SANITIZE, HostDevice, KernelFailedError

from gpuseg.backends.cuda_device import Kernel, LaunchShape

KERNEL = Kernel("probe", "probe", arrays={"values": "float32"}, scalars={"n": "int32"})

SUM_BY_WARPS = """
extern "C" __global__ void probe(float* values, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = i < n ? values[1 + i] : 0.0f;
    for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
    if (threadIdx.x % 32 == 0) atomicAdd(values, sum);
}
"""

SOME_LEAVE_EARLY = """
extern "C" __global__ void probe(float* values, int n) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    values[threadIdx.x] = 1.0f;
}
"""

TWO_BARRIERS = """
extern "C" __global__ void probe(float* values, int n) {
    if (threadIdx.x < n) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
"""

HALF_A_SHUFFLE = """
extern "C" __global__ void probe(float* values, int n) {
    if (threadIdx.x < n) values[0] = __shfl_xor_sync(0xffffffffu, values[0], 1);
}
"""

ANY_VOTE = """
extern "C" __global__ void probe(float* values, int n) {
    values[threadIdx.x] = __syncthreads_or(threadIdx.x == n) ? 1.0f : 0.0f;
}
"""

UNWRITTEN_SHARED = """
extern "C" __global__ void probe(float* values, int n) {
    DYNAMIC_SHARED(float, shared);
    values[threadIdx.x] = shared[threadIdx.x];
}
"""


def probe(text, values, n, *, schedule="forward", grid=1, n_threads=64, options=("-O0",)):
    device = HostDevice(text, schedule=schedule, options=options)
    shape = LaunchShape((grid, 1), n_threads, 4 * n_threads)
    device.launch(KERNEL, shape, {"values": values, "n": np.int32(n)})
    return values


@pytest.mark.parametrize("schedule", ["forward", "reverse", "random"])
def test_shuffles_and_atomics_add_up(schedule):
    values = np.r_[0, np.arange(150)].astype(np.float32)
    probe(SUM_BY_WARPS, values, 150, schedule=schedule, grid=3)
    assert values[0] == np.arange(150).sum()


@pytest.mark.parametrize("n", [3, 64])
def test_one_vote_is_everyones(n):
    values = np.zeros(64, dtype=np.float32)
    assert (probe(ANY_VOTE, values, n) == (n < 64)).all()


@pytest.mark.parametrize("text", [SOME_LEAVE_EARLY, TWO_BARRIERS, HALF_A_SHUFFLE])
def test_threads_that_wait_for_nobody_end_the_run(text):
    with pytest.raises(KernelFailedError, match="not at the same barrier at line"):
        probe(text, np.zeros(64, dtype=np.float32), 5)


def test_shared_memory_starts_out_unusable():
    assert (probe(UNWRITTEN_SHARED, np.zeros(64, dtype=np.float32), 0) > 1e37).all()


@pytest.mark.parametrize("n_values", [63, 64])
def test_the_sanitizer_sees_an_array_end(n_values):
    values = np.zeros(n_values, dtype=np.float32)
    if n_values == 64:
        probe(ANY_VOTE, values, 0, options=SANITIZE)
        return
    with pytest.raises(KernelFailedError, match="heap-buffer-overflow"):
        probe(ANY_VOTE, values, 0, options=SANITIZE)
