"""Older runs go; what is needed, foreign or unfinished never does."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs.runs import NAME, add_run, run_id_of

from gpuseg.outputs.history import run_history
from gpuseg.outputs.models import champion, list_models, promote
from gpuseg.outputs.promotions import read_champion
from gpuseg.outputs.retention import finished_runs, prune_runs, rollback_run


def rows_of(runs_dir):
    return {path.parts[-3] for path in runs_dir.glob(f"{NAME}/*/tables/rows.parquet")}


def test_the_newest_runs_are_kept(tmp_path):
    ids = [add_run(tmp_path, number) for number in range(5)]
    assert prune_runs(tmp_path, NAME, 3) == ()
    assert finished_runs(tmp_path, NAME) == tuple(ids[2:])
    assert rows_of(tmp_path) == set(ids[3:])
    assert sorted(p.name for p in (tmp_path / NAME).iterdir()) == [*ids[2:], "champion.json"]
    assert [run.status for run in run_history(tmp_path, NAME)] == ["removed"] * 2 + [
        "published"
    ] * 3


def test_the_current_run_and_the_one_before_it_outlive_many_refused_ones(tmp_path):
    before, current = add_run(tmp_path, 0), add_run(tmp_path, 1)
    refused = [add_run(tmp_path, number, status="refused") for number in range(2, 9)]
    prune_runs(tmp_path, NAME, 2)
    assert finished_runs(tmp_path, NAME) == (before, current, *refused[-2:])
    assert rows_of(tmp_path) == {before, current, *refused[-2:]}  # refused ones wait for a look


def test_one_run_can_be_kept(tmp_path):
    ids = [add_run(tmp_path, number) for number in range(4)]
    prune_runs(tmp_path, NAME, 1)
    assert finished_runs(tmp_path, NAME) == tuple(ids[2:])  # the last one, and the way back


def test_nothing_foreign_or_unfinished_is_touched(tmp_path):
    ids = [add_run(tmp_path, number) for number in range(6)]
    folder = tmp_path / NAME
    other = tmp_path / "other" / ids[0]
    add_run(tmp_path, 0, name="other")
    foreign = {
        "notes.txt": lambda p: p.write_text("mine"),
        "my folder": lambda p: p.mkdir(),
        f".{run_id_of(70)}.partial": lambda p: p.mkdir(),
        run_id_of(71): lambda p: p.mkdir(),  # no manifest: no run
        f".{run_id_of(72)}.removed": lambda p: p.symlink_to(other),
        ".precious.removed": lambda p: p.mkdir(),
    }
    for name, make in foreign.items():
        make(folder / name)
    (folder / run_id_of(73)).symlink_to(other)
    shutil.copytree(folder / ids[5], folder / run_id_of(74))  # its manifest names another run
    (folder / run_id_of(75)).mkdir()
    (folder / run_id_of(75) / "manifest.json").write_text("{")
    there = {path.name for path in folder.iterdir()} - set(ids)
    assert prune_runs(tmp_path, NAME, 1) == ()
    assert {path.name for path in folder.iterdir()} == there | set(ids[4:])
    assert (other / "manifest.json").is_file()


def test_a_removal_that_was_cut_short_is_finished_later_and_seen_by_nobody(tmp_path):
    ids = [add_run(tmp_path, number) for number in range(3)]
    hidden = tmp_path / NAME / f".{ids[0]}.removed"
    (tmp_path / NAME / ids[0]).rename(hidden)
    shutil.rmtree(hidden / "model")
    assert {entry.run_id for entry in list_models(tmp_path)} == set(ids[1:])
    assert run_history(tmp_path, NAME)[0].status == "removed"
    assert prune_runs(tmp_path, NAME, 9) == ()
    assert not hidden.exists()


def test_what_cannot_be_removed_is_a_warning(tmp_path, monkeypatch):
    ids = [add_run(tmp_path, number) for number in range(4)]

    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    warnings = prune_runs(tmp_path, NAME, 1)
    assert finished_runs(tmp_path, NAME) == tuple(ids)
    assert len(warnings) == 2
    assert all("Permission denied" in warning for warning in warnings)


def test_without_knowing_what_is_current_nothing_is_removed(tmp_path):
    ids = [add_run(tmp_path, number) for number in range(4)]
    (tmp_path / NAME / "champion.json").write_text("{")
    (warning,) = prune_runs(tmp_path, NAME, 1)
    assert "damaged" in warning
    assert finished_runs(tmp_path, NAME) == tuple(ids)


def test_rows_of_runs_that_were_never_promoted_stay(tmp_path):
    died = add_run(tmp_path, 0, status="published")
    (tmp_path / NAME / "champion.json").unlink()
    ids = [add_run(tmp_path, number) for number in range(1, 4)]
    prune_runs(tmp_path, NAME, 9)
    assert rows_of(tmp_path) == {died, *ids[1:]}
    assert run_history(tmp_path, NAME)[0].status == "not published"


STEPS = st.lists(
    st.tuples(st.sampled_from(["run", "refused", "promote", "rollback", "prune"]), st.integers(0)),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS, keep=st.integers(1, 4))
def test_in_any_history_the_current_run_and_the_way_back_stay(steps, keep):
    """By an oracle of its own: a stack of what was published, and a set of what is there."""
    with tempfile.TemporaryDirectory() as place:
        runs_dir = Path(place)
        stack, there, number = [], set(), 0
        published, with_rows = set(), set()
        for step, pick in steps:
            if step in ("run", "refused"):
                run_id = add_run(
                    runs_dir, number, status="published" if step == "run" else "refused"
                )
                there.add(run_id)
                with_rows.add(run_id)
                number += 1
                if step == "run":
                    stack.append(run_id)
            elif step == "promote" and there:
                run_id = sorted(there)[pick % len(there)]
                promote(runs_dir, NAME, run_id, how="promote")
                if stack[-1:] != [run_id]:
                    stack.append(run_id)
            elif step == "rollback":
                target = next((r for r in stack[::-1] if r in there and r != stack[-1]), None)
                assert rollback_run(runs_dir, NAME, read_champion(runs_dir, NAME)) == target
                if target is not None:
                    promote(runs_dir, NAME, target, how="rollback")
                    while stack[-1] != target:
                        stack.pop()
            elif step == "prune":
                before = next((r for r in stack[::-1] if r in there and r != stack[-1]), None)
                newest = set(sorted(there)[-keep:])
                there &= newest | set(stack[-1:]) | {before}
                assert prune_runs(runs_dir, NAME, keep) == ()
                with_rows &= there - (published - {before, *stack[-1:]})
            published.update(stack)
            assert rows_of(runs_dir) == with_rows
            assert set(finished_runs(runs_dir, NAME)) == there
            assert champion(runs_dir, NAME) == (stack[-1] if stack else None)


def test_history_counts_promotions_of_before_they_were_remembered(tmp_path):
    run_id = add_run(tmp_path, 0)
    path = tmp_path / NAME / "champion.json"
    path.write_text(json.dumps({"run_id": run_id, "promoted": "2026-11-23T22:30:45Z"}))
    newer = add_run(tmp_path, 1)
    assert rollback_run(tmp_path, NAME, read_champion(tmp_path, NAME)) == run_id
    assert [p.run_id for p in read_champion(tmp_path, NAME).promotions] == [run_id, newer]


@pytest.mark.parametrize(
    "edit",
    [
        {"promotions": "all"}, {"promotions": [1, None, {"run_id": 3}]}, {"promotions": None},
        {"next_cluster_id": "many"}, {"next_cluster_id": True}, {"next_cluster_id": -4},
    ],
)  # fmt: skip
def test_a_history_that_somebody_edited_does_not_hide_what_is_current(tmp_path, edit):
    run_id = add_run(tmp_path, 0)
    path = tmp_path / NAME / "champion.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    assert champion(tmp_path, NAME) == run_id
    assert read_champion(tmp_path, NAME).promotions[-1].run_id == run_id
    assert read_champion(tmp_path, NAME).next_cluster_id in (0, 3)
    newer = add_run(tmp_path, 1)
    assert champion(tmp_path, NAME) == newer


def test_ids_that_were_given_are_remembered_when_their_run_is_gone(tmp_path):
    from gpuseg.outputs.models import next_cluster_id

    for number in range(4):
        add_run(tmp_path, number)
    assert next_cluster_id(tmp_path, NAME) == 3
    path = tmp_path / NAME / "champion.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"next_cluster_id": 11}))
    add_run(tmp_path, 5)
    prune_runs(tmp_path, NAME, 1)
    assert next_cluster_id(tmp_path, NAME) == 11
