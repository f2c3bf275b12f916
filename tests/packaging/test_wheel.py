"""The wheel works outside the checkout, with the kernels inside."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel and install it, without its dependencies, into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(folder.glob("gpuseg-*.whl"))
    site = folder / "site"
    install = [*pip, "install", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return wheel, site


def outside(site: Path, *arguments: str) -> str:
    # PYTHONPATH comes before the editable install of the checkout
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=site.parent,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


def test_the_wheel_holds_package_kernels_and_templates_and_nothing_else(installed):
    wheel, _ = installed
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"gpuseg", next(top for top in tops if top.endswith(".dist-info"))}
    assert "gpuseg/kernels/silhouette.cu" in names
    assert any(name.startswith("gpuseg/outputs/templates/") for name in names)


def test_every_kernel_is_found_in_the_installed_package(installed):
    _, site = installed
    code = (
        "import gpuseg; from gpuseg.backends.kernel_loader import kernel_text; "
        "print(gpuseg.__file__); print(len(kernel_text('silhouette')))"
    )
    place, length = outside(site, "-c", code).split()
    assert Path(place).is_relative_to(site)
    assert int(length) > 1000


def test_the_command_runs(installed):
    _, site = installed
    assert "segments" in outside(site, "-m", "gpuseg", "--help")
    assert outside(site, "-m", "gpuseg", "--version").startswith("gpuseg ")


def bounded(requirement: str) -> tuple[str, str]:
    name = requirement.split(">")[0]
    return name, requirement.removeprefix(name)


def test_conda_and_pip_name_the_same_libraries_and_ranges():
    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    named = {}
    for line in conda:
        if isinstance(line, str):
            name, _, bounds = line.partition(" ")
            named[{"python-duckdb": "duckdb"}.get(name, name)] = bounds.strip()
        else:  # what conda does not have comes from pip there too
            named |= {name: bounds for name, bounds in map(bounded, line["pip"]) if bounds}
    for name, bounds in map(bounded, project["dependencies"]):
        assert named[name] == bounds, name
    assert named["python"].startswith(project["requires-python"])
