"""Which backend would run here, with which libraries, and whether the kernels work."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.backends.select import driver_version, select_backend
from gpuseg.errors import GpusegError
from gpuseg.outputs.manifest import versions
from gpuseg.records import no_progress

GPU_LIBRARIES = ("cupy-cuda13x", "cupy-cuda12x", "cudf-cu13", "cudf-cu12", "cuml-cu13", "cuml-cu12")


class Check(NamedTuple):
    """One thing that was tried."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Examination:
    """What the doctor saw."""

    backend: str
    backend_reason: str
    facts: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        checks = [check._asdict() for check in self.checks]
        return asdict(self) | {"checks": checks, "healthy": self.healthy}


def examine() -> Examination:
    """Look at this machine and try the kernels of the backend that would run."""
    backend, reason = select_backend("auto")
    return Examination(
        backend=backend.name,
        backend_reason=reason,
        facts=_facts(),
        checks=(*_library_checks(), *_kernel_checks(backend)),
    )


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _facts() -> dict[str, str]:
    from gpuseg.backends.cpu.threads import thread_count

    gpu = {name: installed_version(name) or "not installed" for name in GPU_LIBRARIES}
    present = {name: version for name, version in gpu.items() if version != "not installed"}
    return {
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": str(thread_count()),
        **versions(),
        "NVIDIA driver": f"CUDA {driver_version()}" if driver_version() else "none",
        **(present or {"GPU libraries": "none (extras cuda12, cuda13)"}),
    }


def _library_checks() -> list[Check]:
    builds = [name for name in ("cupy-cuda12x", "cupy-cuda13x") if installed_version(name)]
    if len(builds) < 2:
        return []
    detail = "cupy-cuda12x and cupy-cuda13x are both installed and overwrite each other"
    return [Check("one CuPy build", passed=False, detail=f"{detail}; uninstall both, install one")]


def _kernel_checks(backend: Backend) -> list[Check]:
    """Compare the pairwise-distance kernel and the assignment with plain NumPy."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(203, 7)).astype(np.float32)
    labels = np.stack([rng.integers(0, k, size=203) for k in (2, 5)]).astype(np.int32)
    distances = np.linalg.norm(X[:, None].astype(np.float64) - X[None], axis=2)
    expected = np.hstack([distances @ np.eye(k)[labels[i]] for i, k in enumerate((2, 5))])
    try:
        sums = backend.distance_sums(
            backend.from_host(X), backend.from_host(labels), (2, 5), rows=None, progress=no_progress
        )
        found = backend.assign(backend.from_host(X), X[:5], progress=no_progress)
    except GpusegError as error:
        return [Check("kernels", passed=False, detail=str(error))]
    worst = float(np.max(np.abs(backend.to_host(sums) - expected) / expected))
    same = bool((backend.to_host(found.labels) == distances[:, :5].argmin(axis=1)).all())
    return [
        Check("silhouette kernel", worst < 1e-5, f"largest relative error {worst:.1e}"),
        Check("assignment kernel", same, "nearest centroids as by brute force"),
    ]
