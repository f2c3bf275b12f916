"""What this machine can do at most, measured, not looked up: multiply-adds and memory."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import extending, njit, types

from gpuseg.backends.cpu.threads import in_threads, thread_count

#: Independent chains, enough to hide the latency of two units; and their length in a loop.
CHAINS, STEPS = 10, 4
LOOPS = 2_000_000

#: Bytes that each thread reads: more than any cache holds.
MEMORY_BYTES = 256 * 2**20

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8


@extending.intrinsic
def _multiply_add(_typing: Any, _factor: Any, _loops: Any) -> Any:
    """Run chains of ``a * factor + factor`` in registers; return a lane of their sum."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        int64, number = ir.IntType(64), ir.FloatType()
        vector = ir.VectorType(number, LANES)
        nothing = ir.Constant(vector, ir.Undefined)
        first_lane = ir.Constant(ir.IntType(32), 0)
        single = builder.insert_element(nothing, args[0], first_lane)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        factors = builder.shuffle_vector(single, nothing, mask)
        before, loop = builder.block, builder.append_basic_block("loop")
        after = builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        counter = builder.phi(int64)
        starts = [builder.phi(vector) for _chain in range(CHAINS)]
        values = list(starts)
        for _step in range(STEPS):
            for chain in range(CHAINS):
                product = builder.fmul(values[chain], factors, flags=("contract",))
                values[chain] = builder.fadd(product, factors, flags=("contract",))
        following = builder.add(counter, ir.Constant(int64, 1))
        counter.add_incoming(ir.Constant(int64, 0), before)
        counter.add_incoming(following, loop)
        for chain, (start, value) in enumerate(zip(starts, values, strict=True)):
            start.add_incoming(ir.Constant(vector, [float(chain)] * LANES), before)
            start.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, args[1]), loop, after)
        builder.position_at_end(after)
        total = values[0]
        for value in values[1:]:
            total = builder.fadd(total, value)
        return builder.extract_element(total, first_lane)

    return types.float32(types.float32, types.int64), generate


@njit(nogil=True)
def _run(factor, loops):  # pragma: no cover
    return _multiply_add(factor, loops)


def fma_peak(repeats: int = 5) -> float:
    """Return float32 multiply-adds per second over all threads that gpuseg may use."""
    factor, threads = np.float32(0.5), thread_count()
    _run(factor, 10)
    seconds = []
    for _repeat in range(repeats):
        begin = time.perf_counter()
        for _done in in_threads(lambda _thread: _run(factor, LOOPS), range(threads)):
            pass
        seconds.append(time.perf_counter() - begin)
    return threads * LOOPS * CHAINS * STEPS * LANES / min(seconds)


def memory_peak(repeats: int = 5) -> float:
    """Return bytes per second that all threads together read from memory."""
    threads = thread_count()
    parts = [np.ones(MEMORY_BYTES // 4, np.float32) for _thread in range(threads)]
    _read(parts[0][:10])
    seconds = []
    for _repeat in range(repeats):
        begin = time.perf_counter()
        for _done in in_threads(_read, parts):
            pass
        seconds.append(time.perf_counter() - begin)
    return threads * MEMORY_BYTES / min(seconds)


@njit(nogil=True, fastmath=True)
def _read(values):  # pragma: no cover
    total = np.float32(0)
    for value in values:
        total += value
    return total


def machine_facts(libraries: tuple[str, ...]) -> dict[str, Any]:
    """Return what a result must be read with: machine, its peaks, load, versions, revision."""
    return {
        "machine": _processor(),
        "threads": thread_count(),
        "fma_peak_per_second": fma_peak(),
        "memory_peak_bytes_per_second": memory_peak(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in libraries},
        "revision": _revision(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    facts = {}
    if (path := Path("/proc/cpuinfo")).exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    model = facts.get("model name") or platform.processor() or platform.machine()
    family = f", family {facts['cpu family']} model {facts['model']}" if "model" in facts else ""
    return f"{model}{family}, {'AVX-512' if LANES == 16 else 'no AVX-512'}"


def _revision() -> str:
    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")


if __name__ == "__main__":
    print(f"{fma_peak() / 1e9:.1f} G multiply-adds per second on {thread_count()} threads")
    print(f"{memory_peak() / 1e9:.1f} GB per second read from memory")
