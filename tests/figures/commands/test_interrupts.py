"""Ctrl-C at any time: one line, exit code 130, no traceback, no warning of a library, and no process left."""

import os
import signal
import subprocess
import sys
import time

import pytest

from figures.cli import COMMANDS, main
from figures.harness import interrupts
from figures.harness.workers import in_workers

CHECK = ("check", "costate_mean", "chaos", "--preset", "quick", "--jobs", "2")
BUSY = ("check", "bellman_costate", *CHECK[2:])  # records in a moment, then points of seconds
TRAIN = ("train", "--learner", "grpo", "--world", "TokenParity", "--steps", "100000", "--width", "4")
PRETRAIN = ("pretrain", "--updates", "100000", "--width", "4", "--layers", "1", "--heads", "1")
BAR = ("grpo |", "pretraining |")


def started(out, *arguments):
    command = [sys.executable, "-m", "figures", *arguments, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def interrupted(process):
    """Ctrl-C reaches all processes of the terminal: exit code and the lines of stderr."""
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)
    return process.returncode, [line for line in told.splitlines() if line and not line.startswith(BAR)]


def alive(group):
    """Processes of the group that still run; one that ended but that nobody has asked about does not count."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [stat for pgid, stat in rows if int(pgid) == group and not stat.startswith("Z")]


def wait_for(found, process, seconds=240):
    end = time.monotonic() + seconds
    while not found() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    assert found()


def assert_silent(process, code, lines):
    assert code == 130
    *before, last = lines
    assert last.startswith("costate: stopped")
    assert all(line.startswith("costate: ") for line in before), lines
    for _ in range(100):  # loky's helpers end when they see that their parent has
        if not alive(process.pid):
            break
        time.sleep(0.05)
    assert alive(process.pid) == []


def children(process):
    return len(alive(process.pid)) - 1


@pytest.mark.parametrize("arguments", [CHECK, TRAIN, PRETRAIN], ids=lambda x: x[0])
def test_while_modules_are_loaded(arguments, tmp_path):
    process = started(tmp_path / "out", *arguments)
    time.sleep(0.5)
    code, lines = interrupted(process)
    assert_silent(process, code, lines)


@pytest.mark.parametrize("busy", [False, True], ids=["while workers start", "while workers are busy"])
def test_while_points_are_run_in_workers(busy, tmp_path):
    process, records = started(tmp_path / "out", *(BUSY if busy else CHECK)), tmp_path / "out" / "records"
    wait_for(lambda: any(records.glob("*/*.json")) if busy else children(process) >= 4, process)
    code, lines = interrupted(process)
    assert_silent(process, code, lines)
    assert not list(records.glob("*/.*")), "no half of a record is left"


@pytest.mark.parametrize("arguments", [TRAIN, PRETRAIN], ids=lambda x: x[0])
def test_while_it_learns(arguments, tmp_path):
    process, out = started(tmp_path / "out", *arguments), tmp_path / "out"
    wait_for(lambda: any(out.rglob("*.pt")), process)
    code, lines = interrupted(process)
    assert_silent(process, code, lines)
    assert ("begins anew" in lines[-1]) == (arguments is PRETRAIN)


def test_while_figures_are_drawn(tmp_path):
    """In the process itself; workers that draw are stopped like all others."""
    process = started(tmp_path / "out", "check", "attention_path", "bellman_costate", "--preset", "tiny", "--jobs", "1")
    wait_for((tmp_path / "out" / "verdicts.json").exists, process)
    code, lines = interrupted(process)
    assert_silent(process, code, lines)


# ---- the pieces


def _mask(_):
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def _fail(number):
    if number == 3:
        raise ZeroDivisionError
    return number


def test_workers_get_no_interrupt_and_their_caller_does():
    assert list(in_workers(2, _mask, [1, 2, 3])) == [True] * 3
    assert not _mask(0)


def test_an_error_in_a_worker_is_raised_and_ends_the_others():
    with pytest.raises(ZeroDivisionError):
        list(in_workers(2, _fail, list(range(40))))
    assert sorted(in_workers(2, _fail, [1, 2])) == [1, 2], "new workers are started after that"


def test_an_interrupt_that_python_drops_comes_again():
    class Ends:
        def __del__(self):
            raise KeyboardInterrupt

    def end_one():
        one = Ends()
        del one
        time.sleep(5)

    with interrupts.handled_by(interrupts.interrupt), pytest.raises(KeyboardInterrupt):
        end_one()


def test_handlers_are_put_back(monkeypatch, capsys):
    class Stops:
        @staticmethod
        def add_options(parser):
            pass

        @staticmethod
        def run(options):
            raise KeyboardInterrupt

    monkeypatch.setattr("figures.cli.importlib.import_module", lambda name: Stops)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], sys.unraisablehook
    with pytest.raises(SystemExit) as stopped:
        main([next(iter(COMMANDS))])
    assert stopped.value.code == 130
    assert capsys.readouterr().err.startswith("costate: stopped; ")
    assert ([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], sys.unraisablehook) == before
