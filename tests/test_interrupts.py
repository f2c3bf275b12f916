"""Ctrl-C and SIGTERM: heard at once, or after a block that must not be cut in two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from gpuseg import interrupts
from gpuseg.interrupts import PUBLISHED, ending_cleanly, interrupts_held

BOTH = pytest.mark.parametrize("number", interrupts.SIGNALS)


@BOTH
def test_both_end_a_block(number):
    before = [signal.getsignal(n) for n in interrupts.SIGNALS]

    def work():
        with ending_cleanly():
            os.kill(os.getpid(), number)
            pytest.fail("the signal was not heard")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert [signal.getsignal(n) for n in interrupts.SIGNALS] == before


def test_a_second_signal_does_not_stop_the_cleaning_up():
    cleaned = []

    def work():
        with ending_cleanly():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert cleaned == [True]


def test_signals_are_heard_again_after_a_while(monkeypatch):
    monkeypatch.setattr(interrupts, "CLEANING_SECONDS", 0.0)
    with ending_cleanly():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)


@BOTH
def test_a_block_that_holds_them_is_finished(number):
    done = []

    def work():
        with ending_cleanly():
            with interrupts_held():
                os.kill(os.getpid(), number)
                done.append(True)
            pytest.fail("the signal was forgotten")

    with pytest.raises(KeyboardInterrupt, match=PUBLISHED):
        work()
    assert done == [True]


def test_an_error_in_the_block_comes_first():
    def work():
        with ending_cleanly(), interrupts_held():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_a_handler_of_somebody_else_has_its_say():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_cleanly(), interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_library_is_ended_by_sigterm_after_the_block():
    script = (
        "import os, signal; from gpuseg.interrupts import interrupts_held\n"
        "with interrupts_held():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('done', flush=True)\n"
        "print('too far')"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "done\n")


def test_other_threads_have_nothing_to_hold():
    done = []

    def work():
        with ending_cleanly(), interrupts_held():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
