"""One run of a model at a time; the lock of a process that died is nobody's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from gpuseg.errors import ModelError, SettingsError, SinkError
from gpuseg.outputs import locking
from gpuseg.outputs.locking import LOCK, ModelBusyError, is_busy, model_lock

#: Holds the lock until it is killed, and says so.
HOLDER = """
import sys, time
from pathlib import Path
from gpuseg.outputs.locking import model_lock
with model_lock(Path(sys.argv[1]), "m"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of the model m."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def signed(path, **facts):
    """Leave a lock file as a process that is gone, or on another host, does."""
    path.parent.mkdir(parents=True)
    there = {"host": socket.gethostname(), "pid": os.getpid(), "since": "2026-11-23T22:30:45Z"}
    path.write_text(json.dumps(there | facts))


def test_a_second_one_is_told_who_is_at_work(tmp_path, holder):
    entries = sorted((tmp_path / "m").iterdir())
    said = rf"model 'm' .* process {holder.pid} .* since 20"
    with pytest.raises(ModelBusyError, match=said), model_lock(tmp_path, "m"):
        pytest.fail("both work on the model")
    assert ModelBusyError.exit_code == 4
    assert sorted((tmp_path / "m").iterdir()) == entries
    assert is_busy(tmp_path, "m")
    with model_lock(tmp_path, "another"):
        pass


def test_a_killed_holder_is_no_obstacle(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "m" / LOCK).exists()
    with model_lock(tmp_path, "m"):
        assert is_busy(tmp_path, "m")
    assert not (tmp_path / "m" / LOCK).exists()
    assert not is_busy(tmp_path, "m")


def test_who_waits_gets_it(tmp_path, holder):
    threading.Timer(0.3, holder.kill).start()
    with model_lock(tmp_path, "m", wait_seconds=30.0):
        assert holder.wait() == -signal.SIGKILL


def test_waiting_comes_to_an_end(tmp_path, holder):
    begin = time.monotonic()
    with pytest.raises(ModelBusyError), model_lock(tmp_path, "m", wait_seconds=0.5):
        pytest.fail("both work on the model")
    assert time.monotonic() - begin >= 0.5


def test_nothing_stays_behind(tmp_path):
    with model_lock(tmp_path / "runs", "m"):
        assert (tmp_path / "runs" / "m" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs" / "m").mkdir(parents=True)
    with model_lock(tmp_path / "runs", "m"):
        pass
    assert (tmp_path / "runs" / "m").is_dir()


def test_an_error_lets_go(tmp_path):
    with pytest.raises(KeyError), model_lock(tmp_path, "m"):
        raise KeyError
    assert not is_busy(tmp_path, "m")


def test_threads_take_turns(tmp_path):
    """A counter that is read, and written a little later, misses no step."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    def step():
        with model_lock(tmp_path, "m", wait_seconds=60.0):
            seen = int(counter.read_text())
            time.sleep(0.005)
            counter.write_text(str(seen + 1))

    threads = [threading.Thread(target=step) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "12"


@pytest.fixture
def short_silence(monkeypatch):
    monkeypatch.setattr(locking, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(locking, "SILENT_SECONDS", 0.4)


def test_another_host_that_is_silent_is_gone(tmp_path, short_silence):
    signed(tmp_path / "m" / LOCK, host="elsewhere", pid=1)
    with model_lock(tmp_path, "m"):
        assert locking.read_holder(tmp_path / "m" / LOCK).pid == os.getpid()


def test_another_host_that_is_at_work_is_not_disturbed(tmp_path, short_silence):
    path = tmp_path / "m" / LOCK
    signed(path, host="elsewhere", pid=7)
    ended = threading.Event()

    def work_elsewhere():
        while not ended.wait(0.02):
            os.utime(path)

    thread = threading.Thread(target=work_elsewhere)
    thread.start()
    try:
        said = "process 7 on elsewhere"
        with pytest.raises(ModelBusyError, match=said), model_lock(tmp_path, "m"):
            pytest.fail("both work on the model")
    finally:
        ended.set()
        thread.join()
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_a_holder_touches_its_lock(tmp_path, short_silence):
    with model_lock(tmp_path, "m"):
        first = (tmp_path / "m" / LOCK).stat().st_mtime_ns
        until = time.monotonic() + 30
        while (tmp_path / "m" / LOCK).stat().st_mtime_ns == first:
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.usefixtures("short_silence")
class TestWithoutLocks:
    """On a file system that knows no locks."""

    @pytest.fixture(autouse=True)
    def _no_locks(self, monkeypatch):
        def flock(_descriptor, _operation):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(locking.fcntl, "flock", flock)

    def test_it_is_taken(self, tmp_path):
        with model_lock(tmp_path, "m"):
            assert locking.read_holder(tmp_path / "m" / LOCK).is_here
        assert not (tmp_path / "m").exists()

    def test_a_running_process_holds_it(self, tmp_path):
        signed(tmp_path / "m" / LOCK, pid=os.getppid())
        with pytest.raises(ModelBusyError), model_lock(tmp_path, "m"):
            pytest.fail("both work on the model")

    def test_a_dead_process_does_not(self, tmp_path):
        with subprocess.Popen([sys.executable, "-c", ""]) as dead:
            pass
        signed(tmp_path / "m" / LOCK, pid=dead.pid)
        with model_lock(tmp_path, "m"):
            pass

    def test_of_two_who_sign_at_once_one_has_it(self, tmp_path, monkeypatch):
        sign = locking._sign

        def sign_and_be_overwritten(descriptor):
            holder = sign(descriptor)
            (tmp_path / "m" / LOCK).write_text(json.dumps(holder._replace(pid=1)._asdict()))
            return holder

        monkeypatch.setattr(locking, "_sign", sign_and_be_overwritten)
        with pytest.raises(ModelBusyError), model_lock(tmp_path, "m"):
            pytest.fail("both work on the model")


def test_a_lock_file_that_says_nothing_is_no_obstacle(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / LOCK).write_bytes(b"\0\xff")
    with model_lock(tmp_path, "m"):
        pass


def test_names_and_links_are_checked(tmp_path):
    with pytest.raises(SettingsError), model_lock(tmp_path, "../m"):
        pass
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="symbolic link"), model_lock(tmp_path, "m"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SinkError, match="cannot be written"), model_lock(tmp_path / "runs", "m"):
        pass
