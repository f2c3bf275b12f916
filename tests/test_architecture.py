"""The plan of the house holds: imports point one way, and the doors are where they should be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gpuseg"

#: Who may import whom: a room imports from its own line or from lines above.
LAYERS = [
    {"errors", "interrupts", "redaction", "memory"},
    {"addresses"},
    {"records", "change", "explained"},
    {"settings", "config", "stages", "tables", "backends"},
    {"features", "clustering"},
    {"explain"},
    {"outputs"},
    {"nightly"},
    {"activation"},
    {"doctor"},
    {"rooms", "places", "distributed"},
    {"pipeline", "estimator"},
    {"plan", "plan_memory", "api", "device_memory", "watch"},
    {"terminal", "terminal_models", "observing"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


#: How a result looks in a notebook is the outputs' business, but notebooks ask the record.
ALLOWED = {("records.py", "gpuseg.outputs.notebook")}


def imports() -> list[tuple[str, str, str]]:
    """Return (file, importing room, imported module) for every import in the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(str(relative), room, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{relative} imports relatively"
                found.append((str(relative), room, node.module or ""))
    return found


IMPORTS = imports()


def test_there_is_something_to_look_at():
    assert len({file for file, _, _ in IMPORTS}) > 30


def test_imports_point_one_way():
    wrong = []
    for file, room, module in IMPORTS:
        parts = module.split(".")
        if parts[0] != "gpuseg" or len(parts) < 2 or room in ("__init__", "__main__"):
            continue
        if LEVEL[parts[1]] > LEVEL[room] and (file, module) not in ALLOWED:
            wrong.append(f"{file} imports {module}")
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("cupy", "backends"),
        ("cudf", "backends"),
        ("cuml", "backends"),
        ("numba", "backends"),
        ("dask", "distributed/"),
        ("distributed", "distributed/"),
        ("dask_cuda", "distributed/"),
        ("duckdb", "tables"),
        ("pytd", "tables"),
        ("tdclient", "tables"),
        ("trino", "tables"),
        ("typer", "cli/"),
        ("rich", "terminal.py"),
    ],
)
def test_a_library_is_imported_in_its_own_room_only(library, home):
    importers = {file for file, _, module in IMPORTS if module.split(".")[0] == library}
    assert {file for file in importers if not file.startswith(home)} == set()


def test_models_are_never_pickled():
    assert not {module for _, _, module in IMPORTS} & {"pickle", "joblib", "dill", "marshal"}


@pytest.mark.parametrize("statement", ["import gpuseg", "import gpuseg.cli"])
def test_importing_loads_no_heavy_library(statement):
    heavy = ["numba", "polars", "duckdb", "sklearn", "matplotlib", "pyarrow", "numpy", "cupy"]
    heavy += ["pytd", "pandas", "trino"]
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_public_names_are_what_they_are():
    import gpuseg

    assert gpuseg.__all__ == [
        "KSweep",
        "Segmentation",
        "assign",
        "segment",
        "silhouette_samples",
        "silhouette_score",
        "silhouette_sweep",
    ]
    assert all(getattr(gpuseg, name) is not None for name in gpuseg.__all__)
