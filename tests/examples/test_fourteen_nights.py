"""The simulation of nights, on three of them: it runs, measures and draws."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

CODE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import fourteen_nights as nights
plan = nights.Plan(Path(sys.argv[1]) / "gluon_train.parquet", nights=3, new_kind_on=2, broken_on=3,
                   n_rows=400, arguments=("--num-clusters", "4", "--max-psi", "0.25"))
nights.write(plan, nights.simulate(plan, Path("runs")), Path("out"))
"""


@pytest.mark.slow
def test_three_nights(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", CODE, str(EXAMPLES)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    facts = json.loads((tmp_path / "out.json").read_text())
    first, second, third = facts["nights"]
    assert (first["n_rows"], first["exit_code"], first["stability"]) == (300, 0, None)
    assert (second["entrants"], second["leavers"]) == (4 + 24, 3)
    assert sum(second["sizes"].values()) == second["n_rows"] == 325
    assert (third["exit_code"], third["status"], third["stability"]) == (3, "refused", None)
    assert third["reasons"][0].startswith("column 'hours-per-week' moved")
    assert third["max_psi"] > 1
    assert third["max_psi_column"] == "hours-per-week"
    assert ET.fromstring((tmp_path / "out.svg").read_text()).tag.endswith("svg")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
