"""Which backend would run here, what the GPU would need, and whether the kernels work."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpuseg.backends.base import Backend
from gpuseg.backends.gpu_checks import Check, gpu_checks
from gpuseg.backends.select import engine_after
from gpuseg.errors import GpusegError
from gpuseg.outputs.manifest import versions
from gpuseg.records import no_progress

#: What a backend may raise that does not work here: our own errors, or those of libraries
#: that are broken, or newer than we know.
_FAILURES = (
    GpusegError, RuntimeError, ImportError, OSError, MemoryError, AttributeError, TypeError,
    ValueError, LookupError,
)  # fmt: skip

_K_VALUES = (2, 5)


@dataclass(frozen=True)
class Examination:
    """What the doctor saw."""

    backend: str
    backend_reason: str
    facts: dict[str, str]
    gpu: tuple[Check, ...]
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether the backend that would run passed every check; a GPU is not needed."""
        return all(check.passed for check in self.checks)

    @property
    def gpu_obstacle(self) -> Check | None:
        """The first thing that keeps the GPU from being used."""
        return next((check for check in self.gpu if not check.passed), None)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        obstacle = self.gpu_obstacle
        return asdict(self) | {
            "gpu": [check._asdict() for check in self.gpu],
            "checks": [check._asdict() for check in self.checks],
            "gpu_obstacle": obstacle and obstacle._asdict(),
            "healthy": self.healthy,
        }


def examine() -> Examination:
    """Look at this machine and try the kernels of the backend that would run."""
    gpu = tuple(gpu_checks())
    backend, reason, _warnings = engine_after("auto", gpu)
    return Examination(
        backend=backend.name,
        backend_reason=reason,
        facts=_facts(),
        gpu=gpu,
        checks=tuple(_kernel_checks(backend)),
    )


def _facts() -> dict[str, str]:
    from gpuseg.backends.cpu.threads import thread_count

    return {
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": str(thread_count()),
        **versions(),
    }


def _kernel_checks(backend: Backend) -> list[Check]:
    """Compare the backend's operations with plain NumPy on a few rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(203, 7)).astype(np.float32)
    labels = np.stack([rng.integers(0, k, size=203) for k in _K_VALUES]).astype(np.int32)
    trials = (
        ("silhouette kernel", _try_silhouette),
        ("assignment kernel", _try_assignment),
        ("forest and SHAP", _try_explanation),
    )
    checks = []
    for name, trial in trials:
        try:
            passed, detail = trial(backend, X, labels)
        except _FAILURES as error:
            passed, detail = False, f"{type(error).__name__}: {error}"
        checks.append(Check(name, passed, detail))
    return checks


def _try_silhouette(backend: Backend, X: np.ndarray, labels: np.ndarray) -> tuple[bool, str]:
    distances = np.linalg.norm(X[:, None].astype(np.float64) - X[None], axis=2)
    expected = np.hstack([distances @ np.eye(k)[labels[i]] for i, k in enumerate(_K_VALUES)])
    here, there = backend.from_host(X), backend.from_host(labels)
    sums = backend.distance_sums(here, there, _K_VALUES, rows=None, progress=no_progress)
    worst = float(np.max(np.abs(backend.to_host(sums) - expected) / expected))
    return worst < 1e-5, f"largest relative error {worst:.1e}"


def _try_assignment(backend: Backend, X: np.ndarray, _labels: np.ndarray) -> tuple[bool, str]:
    distances = np.linalg.norm(X[:, None].astype(np.float64) - X[None, :5], axis=2)
    found = backend.assign(backend.from_host(X), X[:5], progress=no_progress)
    same = bool((backend.to_host(found.labels) == distances.argmin(axis=1)).all())
    return same, "nearest centroids as by brute force" if same else "nearest centroids differ"


def _try_explanation(backend: Backend, X: np.ndarray, _labels: np.ndarray) -> tuple[bool, str]:
    """Explain a forest of what two columns say: their SHAP values must add up to it."""
    here = backend.from_host(X)
    labels = backend.from_host((X[:, 0] + X[:, 1] > 0).astype(np.int32))
    forest = backend.forest(
        here, labels, 2, n_trees=5, max_depth=4, max_rows=203, random_state=0, progress=no_progress
    )
    column_of = np.arange(7, dtype=np.int32)
    found = backend.shap_means(forest, here, labels, column_of, 7, rows=None, progress=no_progress)
    error = found.max_additivity_error
    telling = set(np.argsort(found.mean_abs.sum(axis=0))[-2:].tolist())
    passed = error < 1e-4 and telling == {0, 1}
    return passed, f"values add up to the prediction within {error:.1e}"
