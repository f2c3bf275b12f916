"""A sweep that goes on from a checkpoint gives the bits of one that was never interrupted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpuseg.backends.numpy import NumPyBackend
from gpuseg.clustering import sweep as sweeping
from gpuseg.outputs import checkpoint
from gpuseg.outputs.checkpoint import Checkpoint
from gpuseg.records import SweepResult
from gpuseg.settings import Settings

BACKEND = NumPyBackend()
K_VALUES = (2, 3, 4)
OPTIONS = {"n_init": 2, "random_state": 0}


@pytest.fixture(scope="module", name="X")
def matrix():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(400, 3)) + 5 * rng.integers(0, 3, (400, 1))).astype(np.float32)


@pytest.fixture(autouse=True)
def _all_is_worth_it(monkeypatch):
    monkeypatch.setattr(checkpoint, "WORTH_SECONDS", 0.0)


def swept(folder, X, **changes):
    """Sweep, and return what was resumed too."""
    kept = Checkpoint(folder)
    options = OPTIONS | {"sample_size": None} | changes
    k_values = options.pop("k_values", K_VALUES)
    return kept.sweep(BACKEND, X, k_values, **options), kept.resumed


def bits(value):
    """Return a result as plain data, arrays as their type and bytes."""
    if dataclasses.is_dataclass(value):
        return {f.name: bits(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, tuple):
        return type(value), tuple(map(bits, value))
    return float(value).hex() if isinstance(value, float) else value


def test_nothing_is_kept_of_a_look_in_a_notebook(X, tmp_path):
    result = Checkpoint(None).sweep(BACKEND, X, K_VALUES, **OPTIONS)
    assert bits(result) == bits(sweeping.sweep(BACKEND, X, K_VALUES, **OPTIONS))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sample_size", [None, 100])
def test_a_rerun_gives_the_same_bits(X, tmp_path, sample_size):
    folder = tmp_path / "m" / ".checkpoint"
    plain = sweeping.sweep(BACKEND, X, K_VALUES, sample_size=sample_size, **OPTIONS)
    first, resumed = swept(folder, X, sample_size=sample_size)
    assert (bits(first), resumed) == (bits(plain), "")
    again, resumed = swept(folder, X, sample_size=sample_size)
    assert bits(again) == bits(plain)
    assert resumed == "k-means and scores of an interrupted run"
    (folder / "scores.npz").unlink()
    again, resumed = swept(folder, X, sample_size=sample_size)
    assert bits(again) == bits(plain)
    assert resumed == "k-means of an interrupted run"


def test_what_is_resumed_is_not_done_again(X, tmp_path, monkeypatch):
    swept(tmp_path, X)

    def done_again(*_args, **_options):
        raise AssertionError

    monkeypatch.setattr(checkpoint, "sweep_kmeans", done_again)
    monkeypatch.setattr(checkpoint, "sweep", done_again)
    assert isinstance(swept(tmp_path, X)[0], SweepResult)


@pytest.mark.parametrize(
    "changes",
    [{"k_values": (2, 3)}, {"random_state": 1}, {"n_init": 3}, {"sample_size": 100}],
    ids=str,
)
def test_other_settings_begin_anew(X, tmp_path, changes):
    swept(tmp_path, X)
    result, resumed = swept(tmp_path, X, **changes)
    assert resumed == ""
    options = OPTIONS | changes
    k_values = options.pop("k_values", K_VALUES)
    assert bits(result) == bits(sweeping.sweep(BACKEND, X, k_values, **options))
    assert swept(tmp_path, X, **changes)[1] != ""


def test_other_rows_versions_or_engines_begin_anew(X, tmp_path, monkeypatch):
    swept(tmp_path, X)
    nudged = X.copy()
    nudged[7, 1] = np.nextafter(nudged[7, 1], np.float32(np.inf))
    assert swept(tmp_path, nudged)[1] == ""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "versions", lambda: {"gpuseg": "another"})
        assert swept(tmp_path, nudged)[1] == ""
    swept(tmp_path, nudged)
    with monkeypatch.context() as patch:
        patch.setattr(NumPyBackend, "name", "another")
        assert swept(tmp_path, nudged)[1] == ""


def test_arrays_among_the_options_are_told_apart_by_their_bits(tmp_path):
    keys = set()
    for value in (np.zeros(5000), np.r_[np.zeros(4999), 1e-9], np.zeros(5000, np.float32)):
        kept = checkpoint._Kept(tmp_path, BACKEND, np.zeros((2, 2), np.float32), {"s": [value]})
        keys.add(kept._key())
    assert len(keys) == 3


@pytest.mark.parametrize("step", ["kmeans", "scores"])
def test_a_damaged_file_is_ignored_and_said(X, tmp_path, step, caplog):
    plain, _resumed = swept(tmp_path, X)
    path = tmp_path / f"{step}.npz"
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 7):
        for damaged in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :],
        ):
            path.write_bytes(damaged)
            again, _resumed = swept(tmp_path, X)
            assert bits(again) == bits(plain)
    assert "is damaged" in caplog.text
    assert path.exists()


def test_small_work_is_not_worth_it(X, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WORTH_SECONDS", 1e6)
    swept(tmp_path / "m", X)
    assert not (tmp_path / "m").exists()


def test_a_disk_that_refuses_is_no_reason_to_stop(X, tmp_path, caplog):
    (tmp_path / "m").write_text("no folder")
    result, _resumed = swept(tmp_path / "m", X)
    assert bits(result) == bits(sweeping.sweep(BACKEND, X, K_VALUES, **OPTIONS))
    assert "not kept" in caplog.text


def test_a_time_budget_keeps_nothing(tmp_path):
    asked = Settings(input_table="t.csv", runs_dir=str(tmp_path), max_seconds=60.0)
    assert Checkpoint.of(asked, "t.csv")._folder is None
    kept = Checkpoint.of(dataclasses.replace(asked, max_seconds=None), "t.csv")
    assert kept._folder == tmp_path / "t" / ".checkpoint"
