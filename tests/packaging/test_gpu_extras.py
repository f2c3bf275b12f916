"""pip's extras, conda's environment and the checks at run time mean the same GPU libraries."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from gpuseg.backends.gpu_checks import (
    CUDA_MAJORS,
    CUPY_BROKEN,
    CUPY_BUILDS,
    CUPY_MIN,
    RAPIDS_BEFORE,
    RAPIDS_MIN,
    release,
)

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def split(requirement: str) -> tuple[str, str]:
    """Return name, with its extras, and range."""
    name, bounds = re.fullmatch(r"([\w.\[\]-]+?)\s*([<>=!].*)?", requirement).groups()
    return name, bounds or ""


CONDA = dict(
    split(line)
    for line in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    if isinstance(line, str)
)


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


CUPY_RANGE = f">={dotted(CUPY_MIN)},!={dotted(CUPY_BROKEN)}"
RAPIDS_RANGE = f">={dotted(RAPIDS_MIN)},<{dotted(RAPIDS_BEFORE)}"


@pytest.mark.parametrize("major", CUDA_MAJORS)
def test_each_extra_installs_what_the_checks_accept(major):
    assert dict(map(split, EXTRAS[f"cuda{major}"])) == {
        f"cupy-cuda{major}x": CUPY_RANGE,
        f"cudf-cu{major}": RAPIDS_RANGE,
        f"cuml-cu{major}": RAPIDS_RANGE,
    }
    assert f"cupy-cuda{major}x" in CUPY_BUILDS
    assert dict(map(split, EXTRAS[f"dask{major}"])) == {
        f"cuml-cu{major}[dask]": RAPIDS_RANGE,
        "dask-cuda": RAPIDS_RANGE,
    }


def test_there_is_an_extra_for_each_cuda_and_no_other():
    found = {int(match[1]) for name in EXTRAS if (match := re.fullmatch(r"cuda(\d+)", name))}
    assert found == set(CUDA_MAJORS)


def test_extras_for_different_cuda_conflict():
    declared = {
        frozenset(entry["extra"] for entry in group) for group in PROJECT["tool"]["uv"]["conflicts"]
    }
    kinds = itertools.product(("cuda", "dask"), repeat=2)
    assert declared == {frozenset((f"{a}12", f"{b}13")) for a, b in kinds}


def test_conda_takes_the_same_libraries_in_the_same_range():
    assert CONDA["cupy"] == CUPY_RANGE
    for name in ("cudf", "cuml", "dask-cudf", "dask-cuda", "raft-dask"):
        fixed = re.fullmatch(r"=(\d+\.\d+)\.\*", CONDA[name])
        assert RAPIDS_MIN <= release(fixed[1]) < RAPIDS_BEFORE, name
    assert len({CONDA[name] for name in ("cudf", "cuml", "dask-cudf", "dask-cuda")}) == 1
    assert int(re.fullmatch(r"=(\d+)\.\*", CONDA["cuda-version"])[1]) in CUDA_MAJORS


def test_conda_takes_cuda_from_nowhere_else():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["rapidsai", "conda-forge"]
    (pip,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert [name for name in pip if "cu1" in name or "cuda" in name or "[" in name] == []
