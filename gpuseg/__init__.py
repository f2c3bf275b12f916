"""gpuseg: a table in, explained segments out.

The public names are loaded when they are first used, so that ``import gpuseg`` and
``gpuseg --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuseg.api import assign, segment
    from gpuseg.clustering.silhouette import (
        silhouette_samples,
        silhouette_score,
        silhouette_sweep,
    )
    from gpuseg.estimator import KSweep
    from gpuseg.records import Segmentation

__version__ = "0.1.0"

_HOMES = {
    "assign": "gpuseg.api",
    "segment": "gpuseg.api",
    "silhouette_samples": "gpuseg.clustering.silhouette",
    "silhouette_score": "gpuseg.clustering.silhouette",
    "silhouette_sweep": "gpuseg.clustering.silhouette",
    "KSweep": "gpuseg.estimator",
    "Segmentation": "gpuseg.records",
}

__all__ = [
    "KSweep",
    "Segmentation",
    "assign",
    "segment",
    "silhouette_samples",
    "silhouette_score",
    "silhouette_sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gpuseg' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
