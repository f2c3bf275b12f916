"""Write down what the GPU libraries offer, from the libraries themselves.

    PYTHONPATH=tests python -m gpu_api.snapshot

Run it from the checkout, where the libraries of the extra ``cuda13`` are installed; no GPU
is needed. It writes ``signatures.json`` and ``cupy_names.json`` here, so that every machine
can hold gpuseg's calls against them. With ``--check`` it writes nothing and fails when
gpuseg uses something that these libraries do not have, or not so.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu_api.conformance import declared_calls, mistakes, source_uses
from gpu_api.signatures import signature_text

HERE = Path(__file__).parent
SIGNATURES, CUPY_NAMES = HERE / "signatures.json", HERE / "cupy_names.json"

DISTRIBUTIONS = (
    "cupy-cuda13x", "cuml-cu13", "cudf-cu13", "rmm-cu13", "pylibcudf-cu13", "numpy"
)  # fmt: skip

#: Everything public in these is written down, so that a new call needs no new snapshot.
MODULES = (
    "cupy", "cupy.linalg", "cupy.random", "cupy.cuda", "cupy.cuda.runtime", "cupy.cuda.compiler",
    "cupy.cuda.memory", "cupyx", "cupyx.profiler", "cuml.metrics.cluster", "rmm", "rmm.mr",
    "rmm.allocators.cupy",
)  # fmt: skip

#: Of these the constructor and the public methods; by each name that works.
CLASSES = (
    "cupy.ndarray", "cupy.RawModule", "cupy.RawKernel", "cupy.ElementwiseKernel",
    "cupy.ReductionKernel", "cupy.cuda.Device", "cupy.cuda.Stream", "cupy.cuda.Event",
    "cupy.cuda.MemoryPool", "cupy.cuda.PinnedMemoryPool", "cuml.KMeans", "cuml.cluster.KMeans",
    "cuml.PCA", "cuml.decomposition.PCA", "cuml.ensemble.RandomForestClassifier",
    "cuml.RandomForestClassifier", "cuml.explainer.TreeExplainer", "cuml.TreeExplainer",
    "pylibcudf.io.parquet.ChunkedParquetReader",
)  # fmt: skip

FUNCTIONS = (
    "cudf.read_parquet", "cudf.read_csv", "cudf.set_option", "cudf.get_option",
    "cudf.DataFrame", "cudf.DataFrame.from_arrow", "cudf.DataFrame.to_arrow",
    "cudf.DataFrame.to_cupy", "cudf.DataFrame.interleave_columns", "cudf.Series",
    "cudf.Series.to_cupy", "cudf.Series.astype", "cudf.DataFrame.astype",
    "cuml.using_output_type", "cuml.set_global_output_type",
)  # fmt: skip


def find(name: str) -> Any:
    """Import as much of a dotted name as is a module, and look the rest up in it.

    Raises
    ------
    AttributeError, ImportError
        If there is no such thing.
    """
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], start=2):
        try:
            # a function may have the name of a submodule: what `from a import b` gives
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(".".join(parts[:i]))
    return found


def public(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]


def snapshot() -> dict[str, Any]:
    """Return versions, signatures by name, and the names of everything else."""
    wanted = {name for module in MODULES for name in _members(module)}
    wanted |= {name for cls in CLASSES for name in (cls, *_members(cls))} | set(FUNCTIONS)
    # what the code uses beyond that; a name that is not there is found by the check
    used = {use.name for use in source_uses() if not use.guessed} | {
        call.name for call in declared_calls()
    }
    signatures: dict[str, str] = {}
    others = []
    for name in sorted(wanted | used):
        try:
            thing = find(name)
        except (AttributeError, ImportError):
            continue
        text = None if inspect.ismodule(thing) or not callable(thing) else signature_text(thing)
        if text is None:
            others.append(name)
        else:
            signatures[name] = text
    return {"versions": versions(), "signatures": signatures, "others": others}


def _members(name: str) -> list[str]:
    return [f"{name}.{member}" for member in public(find(name))]


def versions() -> dict[str, str]:
    found = {}
    for distribution in DISTRIBUTIONS:
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            sys.exit(f"{distribution} is not installed here; see the extra cuda13")
    return found


def cupy_names() -> dict[str, Any]:
    """Return the public names of CuPy and of its arrays."""
    cupy = find("cupy")
    names = {"cupy": public(cupy), "ndarray": public(cupy.ndarray)}
    return {"version": version("cupy-cuda13x")} | names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; check gpuseg's calls")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # libraries that look for a driver say so
    found = snapshot()
    if options.check:
        wrong = mistakes(found)
        print("\n".join(wrong) or f"every call agrees with {found['versions']}")
        sys.exit(1 if wrong else 0)
    SIGNATURES.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
    CUPY_NAMES.write_text(json.dumps(cupy_names(), indent=0) + "\n", encoding="utf-8")
    print(f"{len(found['signatures'])} signatures, {len(found['others'])} other names")


if __name__ == "__main__":
    main()
