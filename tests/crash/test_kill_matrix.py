"""A run is struck at every moment: what others see is whole, and the next command heals.

Each cell is a real process, really struck. The result is the table in
``docs/decisions/kill-matrix.md``, which is compared here with what happens;
``GPUSEG_WRITE_KILL_MATRIX=1`` writes it anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from crash.conftest import run_arguments, table
from crash.faults import MOMENTS, lose_what_was_not_synced

PAGE = Path(__file__).parents[2] / "docs" / "decisions" / "kill-matrix.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- /matrix -->"

SAYS = {
    "kill": "SIGKILL",
    "power": "power cut",
    "SIGTERM": "SIGTERM",
    "SIGINT": "Ctrl-C",
    "full": "disk full",
}
PUBLISHING = MOMENTS[MOMENTS.index("publish") :]
CELLS = [
    *((moment, "kill") for moment in MOMENTS),
    *((moment, "power") for moment in PUBLISHING),
    *((moment, "SIGTERM") for moment in MOMENTS),
    *((moment, "SIGINT") for moment in ("sweep", "staged", "swap 0", "commit")),
    *((moment, "full") for moment in ("read", "sweep", "publish", "run folder", "stage 0")),
    *((moment, "full") for moment in ("stage 2", "staged", "swap 0")),
]

ASSIGN = [
    "assign", "--input-table", "in.parquet", "--model-name", "m", "--output-table",
    "placed.parquet", "--quiet",
]  # fmt: skip


def tables(folder: Path) -> dict[str, list]:
    """Return what stands in the three places, in an order of its own."""
    with duckdb.connect(str(folder / "gpuseg.duckdb"), read_only=True) as connection:
        rows = connection.execute("FROM crm.rows ORDER BY id").fetchall()
    return {
        "rows": rows,
        "scores": pl.read_parquet(folder / "scores.parquet").rows(),
        "rules": pl.read_parquet(folder / "rules" / "*.parquet").rows(),
    }


def champion(folder: Path) -> dict:
    """Return the model that is current, without what differs between two runs."""
    parent = folder / "gpuseg_runs" / "m"
    run_id = json.loads((parent / "champion.json").read_bytes())["run_id"]
    model = json.loads((parent / run_id / "model" / "model.json").read_bytes())
    arrays = {
        path.name: np.load(path).tolist() for path in (parent / run_id / "model").glob("*.npy")
    }
    return {"n_clusters": model["n_clusters"], "silhouette": model["silhouette"], **arrays}


def state(folder: Path) -> dict:
    return tables(folder) | {"model": champion(folder)}


def hidden(folder: Path) -> list[str]:
    """Return what is left of work that was not finished."""
    return sorted(path.name for path in folder.rglob(".*") if path.name != ".checkpoint")


def said(folder: Path) -> str:
    return (folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def states(gpuseg, earlier, tmp_path_factory) -> dict[str, dict]:
    """What is there before, and after a run that nothing strikes."""
    place = tmp_path_factory.mktemp("wanted") / "work"
    shutil.copytree(earlier, place)
    assert gpuseg(place, run_arguments(3)) == 0
    assert hidden(place) == []
    found = {"old": state(earlier), "new": state(place)}
    for name in found["old"]:
        assert found["old"][name] != found["new"][name]
    return found


def which(found: dict, states: dict[str, dict]) -> dict[str, str]:
    """Say of each thing whether it is the old or the new one; it must be one of them."""
    answer = {}
    for name, value in found.items():
        answer[name] = next(
            (label for label, known in states.items() if known[name] == value), "broken"
        )
    assert "broken" not in answer.values(), answer
    return answer


SEEN: dict[tuple[str, str], str] = {}


@pytest.mark.parametrize(("moment", "fault"), CELLS, ids=[f"{f}-{m}" for m, f in CELLS])
def test_what_others_see_is_whole_and_the_next_command_heals(gpuseg, folder, states, moment, fault):
    before = {path.stat().st_ino for path in [folder, *folder.rglob("*")]}
    code = gpuseg(folder, run_arguments(3, "--quiet"), moment, fault)
    if code == 71:
        pytest.skip("this system lets nobody mount a small disk")
    lost = lose_what_was_not_synced(folder, before) if fault == "power" else []
    then = which(state(folder), states)
    places = [then[name] for name in ("rows", "scores", "rules")]
    appeared = places[0] if len(set(places)) == 1 else "each whole, some new"
    struck = said(folder)
    if fault in ("kill", "power"):
        assert code == -signal.SIGKILL, struck
    else:
        assert code == (4 if fault == "full" else 130), struck
        assert "bug" not in struck
        assert appeared in ("old", "new")
        assert then["model"] == appeared
        assert ("published already" in struck) == (appeared == "new" and fault != "full")
    if moment in MOMENTS[: MOMENTS.index("swap 0")]:
        assert set(then.values()) == {"old"}

    ended = fault not in ("kill", "power")
    after = _nothing_left(folder) if ended else _next(gpuseg, folder, states, moment)
    outcome = f"{code} | {appeared} | {then['model']} | {after}"
    row = f"| {moment} | {SAYS[fault]} | {outcome} |"
    SEEN[moment, fault] = row
    if "GPUSEG_WRITE_KILL_MATRIX" not in os.environ:
        assert row in PAGE.read_text(encoding="utf-8"), (row, lost)


def _nothing_left(folder: Path) -> str:
    """Say what the next run will find; that it goes on from there is seen after SIGKILL."""
    assert hidden(folder) == []
    kept = sorted(path.stem for path in (folder / "gpuseg_runs" / "m").glob(".checkpoint/*"))
    words = {(): "nothing to heal", ("kmeans",): "a run resumes k-means"}
    return words.get(tuple(kept), "a run resumes k-means and scores")


def _next(gpuseg, folder: Path, states: dict, moment: str) -> str:
    """Let the next command work; return what became of it, in words."""
    (folder / "log.txt").write_text("")
    was_cut_off = (folder / "gpuseg_runs" / "m" / ".publishing.json").exists()
    if moment in PUBLISHING and was_cut_off:
        assert gpuseg(folder, ASSIGN) == 0, said(folder)
        words = _words(said(folder))
        healed = set(which(state(folder), states).values())
        assert len(healed) == 1, "tables and model do not agree"
        assert "journal" not in hidden(folder)
        placed = pl.read_parquet(folder / "placed.parquet")["cluster_id"].n_unique()
        assert placed == champion(folder)["n_clusters"]
        return f"assign: {words}; all {healed.pop()}"
    assert gpuseg(folder, run_arguments(3)) == 0, said(folder)
    resumed = re.search(r"resumed: ([^)\n]+)", said(folder))
    assert set(which(state(folder), states).values()) == {"new"}
    assert hidden(folder) == []
    assert not (folder / "gpuseg_runs" / "m" / ".checkpoint").exists()
    return f"run: {f'resumes {resumed[1]}; ' if resumed else ''}all new"


def _words(log: str) -> str:
    healed = " ".join(re.findall(r"warning: (run .*)", log))
    return re.sub(r"run \d{8}T\d{6}Z-[0-9a-f]{6}", "the run", healed)


def test_the_page_has_every_cell_and_no_other():
    """Runs last: it writes the page where that is asked for."""
    if "GPUSEG_WRITE_KILL_MATRIX" in os.environ:
        head = PAGE.read_text(encoding="utf-8").split(BEGIN)[0]
        titles = "moment | fault | exit code | tables then | model then | the next command"
        ruler = " | ".join(["---"] * 6)
        rows = "\n".join(SEEN[cell] for cell in CELLS if cell in SEEN)
        text = f"{head}{BEGIN}| {titles} |\n| {ruler} |\n{rows}\n{END}\n"
        PAGE.write_text(text, encoding="utf-8")
    found = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines()[2:]
    cells = [tuple(row.strip("| ").split(" | ")[:2]) for row in found]
    assert cells == [(moment, SAYS[fault]) for moment, fault in CELLS]


def test_a_moment_is_struck_at_all(gpuseg, folder, states):
    """A moment that no run comes by would prove nothing."""
    assert gpuseg(folder, run_arguments(3, "--quiet"), "no such moment", "kill") == 0
    assert which(state(folder), states)["rows"] == "new"
    assert table().height == len(tables(folder)["rows"])
