"""What the README says is so: parameters, commands, the tour, the notebook."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpuseg.cli.command import default_text
from gpuseg.settings import PARAMETERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def part(name: str) -> str:
    """Return what stands between the comments ``name`` and ``/name``."""
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.DOTALL).group(1)


def parameter_table() -> str:
    """Return the table of parameters as the README must have it."""
    lines = ["| parameter | default | |", "| --- | --- | --- |"]
    for name, field in PARAMETERS.items():
        default = default_text(name).removeprefix(" [default: ").removesuffix("]")
        lines.append(
            f"| `{name}` | {f'`{default}`' if default else ''} | {field.metadata['help']} |"
        )
    return "\n".join(lines) + "\n"


def test_every_parameter_is_described_as_the_command_line_does():
    assert part("parameters") == parameter_table()


def code(block: str) -> list[str]:
    return re.search(r"```\w+\n(.*?)```", block, re.DOTALL).group(1).splitlines()


@pytest.mark.slow
def test_the_tour_runs(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for line in code(part("tour")):
        program, *arguments = shlex.split(line)
        assert program == "gpuseg"
        command = [sys.executable, "-m", "gpuseg", *arguments]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{line}\n{ran.stderr}"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = tmp_path / "notebook.py"
    script.write_text("\n".join([*code(part("notebook")), "assert len(placed.labels) == 100"]))
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"examples", "notebook.py"}


def test_every_command_is_in_the_readme():
    listing = subprocess.run(
        [sys.executable, "-m", "gpuseg", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = re.findall(r"^  (\w+) ", listing.split("Commands:")[1], re.MULTILINE)
    assert len(commands) >= 6
    assert [name for name in commands if f"`gpuseg {name}" not in README] == []
