"""gpuseg calls the GPU libraries as they are: its source against a snapshot of theirs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from gpu_api.conformance import declared_calls, mistakes, use_of
from gpu_api.signatures import mistake, signature_text
from gpu_api.uses import uses_of

SNAPSHOT = json.loads((Path(__file__).parent / "signatures.json").read_text(encoding="utf-8"))


def wrong(source: str) -> list[str]:
    return mistakes(SNAPSHOT, uses_of(source, "planted.py"), [])


def test_every_use_agrees_with_the_libraries():
    begin = time.perf_counter()
    assert mistakes(SNAPSHOT) == []
    assert time.perf_counter() - begin < 5


def test_every_declared_call_is_of_a_library_that_the_extras_install():
    assert {call.name.split(".")[0] for call in declared_calls()} <= {"cupy", "cuml", "cudf", "rmm"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import cupy\ncupy.concatenate(parts, axes=0)", "2: cupy.concatenate: no keyword 'axes'"),
        ("def f(xp):\n return xp.argsort(x, stable=True)", "2: cupy.argsort: no keyword 'stable'"),
        ("device.xp.zeroes(3)", "1: there is no cupy.zeroes"),
        ("self.device.xp.linalg.eig2(c)", "1: there is no cupy.linalg.eig2"),
        ("xp = backend.xp\nx = xp.float33", "2: there is no cupy.float33"),
        ("import cupy as cp\ncp.unique()", "2: cupy.unique: ['ar'] missing"),
        ("xp.clip(x, 0, 1, None, 2)", "1: cupy.clip: 5 positional arguments"),
        ("xp.add(x, y, where=m)", "1: cupy.add: no keyword 'where'"),
        (
            "from cuml.cluster import KMeans\nKMeans(n_cluster=3)",
            "2: cuml.cluster.KMeans: no keyword 'n_cluster'",
        ),
        ("from cuml.cluster import KMeans as K\nK(3)", "2: cuml.cluster.KMeans: 1 positional"),
        (
            "from cuml.metrics import silhouette_score",
            "1: there is no cuml.metrics.silhouette_score",
        ),
        ("cupy.cuda.runtime.memInfo()", "1: there is no cupy.cuda.runtime.memInfo"),
        ("n = xp.pi\nx[part].argsort(stable=True)", "2: cupy.ndarray.argsort: no keyword 'stable'"),
        ("n = xp.pi\nlabels.sum(where=m)", "2: cupy.ndarray.sum: no keyword 'where'"),
        ("xp.sum(x, *rest, axiss=1)", "1: cupy.sum: no keyword 'axiss'"),
    ],
)
def test_a_planted_mistake_is_found(source, message):
    (line,) = wrong(source)
    assert line.startswith(f"planted.py:{message}")


@pytest.mark.parametrize(
    ("target", "positional", "keywords", "message"),
    [
        ("cuml.KMeans.fit", ("self", "X"), {"y": None, "sample_weight": None}, None),
        ("cuml.KMeans.fit", ("self", "X"), {"sample_weights": None}, "no keyword 'sample_weights'"),
        ("cuml.KMeans.fit", ("self",), {}, "['X'] missing"),
        ("cuml.KMeans.fit", ("self", "rows"), {}, "no keyword 'rows'"),
        ("cuml.KMeans.fitt", ("self", "X"), {}, "there is no cuml.KMeans.fitt"),
        ("cuml.KMeans", ("n_clusters",), {}, "1 positional arguments"),
        ("cuml.explainer.TreeExplainer", (), {"model": None, "data": None}, None),
    ],
)
def test_a_planted_mistake_in_the_table_of_calls_is_found(target, positional, keywords, message):
    call = SimpleNamespace(target=target, positional=positional, keywords=keywords)
    lines = mistakes(SNAPSHOT, [], [use_of("planted", call)])
    assert len(lines) == (0 if message is None else 1)
    assert all(line.startswith("CALLS['planted']: ") and message in line for line in lines)


def test_right_calls_pass():
    source = """
import cupy
from cuml.ensemble import RandomForestClassifier
from cuml.metrics.cluster import silhouette_score as score

def f(device, arrays, **more):
    xp = device.xp
    x = xp.concatenate(arrays, axis=0, dtype=xp.float32)
    RandomForestClassifier(n_estimators=3, max_depth=8, n_streams=1).fit(x, y)
    cupy.cuda.Device().synchronize()
    cupy.RawModule(code="", options=("-std=c++17",))
    cupy.get_default_memory_pool().free_all_blocks()
    return xp.linalg.eigh(x), xp.unique(*arrays, **more), score(x, y, chunksize=9), xp.__name__
"""
    assert wrong(source) == []


def test_the_stand_in_for_cupy_has_nothing_that_cupy_lacks():
    double = pytest.importorskip("doubles.device_arrays")
    text = (Path(__file__).parent / "cupy_names.json").read_text(encoding="utf-8")
    names = json.loads(text)
    offered = {name for name in dir(double.xp) if not name.startswith("_")}
    assert len(offered) > 20
    assert offered - set(names["cupy"]) == set()
    methods = {name for name in dir(double.DeviceArray) if not name.startswith("_")}
    assert len(methods) > 10
    assert methods - set(names["ndarray"]) == set()


def test_signatures_of_python_and_of_compiled_callables():
    def python(X, y=None, *, weight: int = 3, **more): ...

    class Compiled:
        """Compiled(str code=None, tuple options=(), *, bool f=False, list g: list[int] = [1, 2])

        More words.
        """

    Compiled.__signature__ = "none"  # as of a compiled class: inspect refuses

    assert signature_text(python) == "(X, y=..., *, weight=..., **more)"
    assert signature_text(Compiled) == "(code=..., options=..., *, f=..., g=...)"


@pytest.mark.parametrize(
    ("n_positional", "keywords", "expected"),
    [
        (1, [], None),
        (2, ["c"], None),
        (0, [], "['a'] missing"),
        (0, ["a"], "no keyword 'a'"),
        (3, [], "3 positional arguments"),
        (1, ["d"], "no keyword 'd'"),
    ],
)
def test_mistakes_by_hand(n_positional, keywords, expected):
    found = mistake("(a, /, b=..., *, c=...)", n_positional, keywords)
    assert found is None if expected is None else found.startswith(expected)
