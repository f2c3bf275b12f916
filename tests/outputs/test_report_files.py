"""A report is rebuilt from its run folder, and from nothing else."""

from __future__ import annotations

import json
import shutil

import pytest

import gpuseg
from gpuseg.errors import DataError
from gpuseg.outputs.report import rebuild_report
from gpuseg.outputs.report_files import REPORT_DATA, find_run, read_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one model, on the table of the mall."""
    folder = tmp_path_factory.mktemp("runs")
    for k in (3, 4):
        gpuseg.segment(
            "tests/data/Mall_Customers.csv", num_clusters=k, model_name="mall",
            runs_dir=str(folder),
        )  # fmt: skip
    return folder


def contents(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix in (".html", ".svg", ".png")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_files_come_out_again(runs):
    for folder in (runs / "mall").glob("2*"):
        before = contents(folder)
        assert len(before) > 10
        rebuild_report(str(folder), runs)
        assert contents(folder) == before


def test_a_moved_run_is_rebuilt_from_its_folder_alone(runs, tmp_path):
    newest = find_run("mall", runs)
    moved = shutil.copytree(newest, tmp_path / "elsewhere")
    before = contents(moved)
    for path in moved.rglob("*"):
        if path.suffix in (".html", ".svg", ".png"):
            path.unlink()
    assert rebuild_report(str(moved), tmp_path / "no_runs") == moved / "report.html"
    assert contents(moved) == before


def test_a_model_stands_for_its_newest_run(runs):
    newest = max(path.name for path in (runs / "mall").glob("2*"))
    assert find_run("mall", runs) == runs / "mall" / newest
    assert find_run(str(runs / "mall" / newest), runs).name == newest


def test_contents_can_be_hidden_afterwards(runs, tmp_path):
    moved = shutil.copytree(find_run("mall", runs), tmp_path / "copy")
    assert "Female" in (moved / "report.html").read_text(encoding="utf-8")
    rebuild_report(str(moved), runs, hide_table_contents=True)
    files = [moved / "report.html", moved / REPORT_DATA, *(moved / "plots").glob("*.svg")]
    for path in files:
        assert "Female" not in path.read_text(encoding="utf-8")
    assert not (moved / "plots" / "map.png").exists()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("moll", "no run 'moll'.*did you mean 'mall'.*models there: mall"),
        ("a/nowhere", "not the folder of a finished run"),
        ("", "not the folder of a finished run"),
        ("{runs}/mall", "not the folder of a finished run"),
    ],
)
def test_what_is_no_run_is_said_clearly(runs, run, words):
    with pytest.raises(ValueError, match=words):
        find_run(run.format(runs=runs), runs)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / REPORT_DATA).unlink(), "has no report.json.*run it again"),
        (lambda f: (f / REPORT_DATA).write_text("{"), "is damaged"),
        (lambda f: (f / REPORT_DATA).write_text("[]"), "is damaged"),
        (lambda f: (f / "manifest.json").write_text("{}"), "is damaged"),
        (lambda f: (f / "tables" / "columns.parquet").write_bytes(b"x"), "is damaged"),
        (lambda f: (f / "tables" / "k_scores.parquet").unlink(), "is damaged"),
    ],
)
def test_a_damaged_run_is_refused(runs, tmp_path, spoil, words):
    moved = shutil.copytree(find_run("mall", runs), tmp_path / "copy")
    spoil(moved)
    with pytest.raises(DataError, match=words):
        read_run(moved)


def test_a_newer_format_is_refused(runs, tmp_path):
    moved = shutil.copytree(find_run("mall", runs), tmp_path / "copy")
    own = json.loads((moved / REPORT_DATA).read_text(encoding="utf-8"))
    (moved / REPORT_DATA).write_text(json.dumps(own | {"format_version": 99}))
    with pytest.raises(DataError, match="newer gpuseg"):
        read_run(moved)
