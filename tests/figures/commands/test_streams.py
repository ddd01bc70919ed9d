"""A reader who leaves, a closed stream and a full disk: the work is done all the same, or one line says what is not."""

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from figures.cli import main
from figures.commands.streams import Tolerant, lost, tolerant_streams
from figures.harness import records
from tests.figures.commands.test_impact import COPY, SIZES
from tests.figures.commands.test_train import TOKENS

ROOT = Path(__file__).parents[3]
CHECK = ("check", "bellman_costate", "--preset", "tiny", "--jobs", "1")
LEFT_BEHIND = {"verdicts.json", "report.html", "explorer.html", "drawing.json", "figures", "records", "rows"}


def run(*arguments):
    """The command in this process: exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


def without_reader():
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "no reader": without_reader,
    "a full disk": lambda: open("/dev/full", "w"),  # noqa: SIM115
    "closed": lambda: None,
    "closed later": closed,
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A folder with finished points, so that a second check draws and reports alone."""
    out = tmp_path_factory.mktemp("checked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("figures.report.report.questions", lambda: ())
        assert run(*CHECK, "--out", out) == 0
    shutil.copytree(out / "figures", out.parent / f"{out.name}-figures")
    return out


@pytest.fixture
def light(checked, monkeypatch):
    """The report's questions and the picture take most of the time and print nothing."""

    def stored(verdict, out):
        shutil.copytree(checked.parent / f"{checked.name}-figures", out / "figures", dirs_exist_ok=True)

    monkeypatch.setattr("figures.report.report.questions", lambda: ())
    monkeypatch.setattr("figures.report.report.draw_claim", stored)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_check_writes_its_files_whatever_becomes_of_its_streams(checked, which, kind, monkeypatch, capsys):
    (checked / "report.html").unlink()
    streams = {name: STREAMS[kind]() for name in (("stdout", "stderr") if which == "both" else (which,))}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    code = run(*CHECK, "--out", checked)
    for stream in filter(None, streams.values()):
        stream.close()
    assert {path.name for path in checked.iterdir()} == LEFT_BEHIND
    failed = kind in ("a full disk", "closed later") and which != "stderr"
    assert code == (2 if failed else 0)
    said = capsys.readouterr().err if which == "stdout" else ""
    assert ("costate: stdout cannot be written: " in said) == (failed and which == "stdout")


def full_disk(handle, mode):
    """A file whose writes fail as on a full disk: the kernel's error names no file."""
    os.close(handle)
    return open("/dev/full", mode, buffering=0)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    "arguments",
    [CHECK, TOKENS, ("pretrain", *COPY, *SIZES)],
    ids=["check", "train", "pretrain"],
)
def test_a_full_disk_is_one_line_that_names_the_place(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records.os, "fdopen", full_disk)
    assert run(*arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"costate: {tmp_path / 'out'}/"), "the file in the folder"
    assert "No space left on device" in said
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()], "no half of a file is left"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError("no number")])
def test_a_failure_that_names_no_file_is_said_with_the_folder(error, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("figures.commands.check.load_claims", lambda names: (_ for _ in ()).throw(error))
    assert run(*CHECK, "--out", tmp_path) == 2
    assert capsys.readouterr().err.startswith(f"costate: {tmp_path}: {error.strerror or error}")


def test_a_stream_takes_what_its_encoding_lacks_as_escapes_and_passes_the_rest_on():
    kept = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = Tolerant(kept)
    assert stream.write("Grüße\n") == 6
    stream.flush()
    assert kept.buffer.getvalue() == b"Gr\\xfc\\xdfe\n"
    assert stream.encoding == "ascii"
    assert stream.failure is None


def test_only_a_reader_who_left_is_no_loss():
    for kind, reason in (
        ("no reader", ""),
        ("a full disk", "No space left on device"),
        ("closed later", "closed file"),
    ):
        stream = Tolerant(STREAMS[kind]())
        stream.write("x")
        stream.flush()
        assert stream.failure is not None
        assert reason in lost(stream)
        assert bool(reason) == bool(lost(stream))
        stream.write("more")
        stream.flush()  # and closing it cannot fail
        stream.stream.close()


def test_streams_are_put_back_also_after_an_error(capsys):
    before = sys.stdout, sys.stderr

    def fail():
        with tolerant_streams():
            print("told")
            raise KeyError(type(sys.stdout))

    with pytest.raises(KeyError, match="Tolerant"):
        fail()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "told\n"


SCRIPT = """
import os
import sys
from contextlib import suppress
from figures.commands.streams import tolerant_streams
with tolerant_streams():
    with open(sys.argv[1], "w") as file:
        for i in range(20_000):
            print("a line of the table")
        print("said", file=sys.stderr)
        with suppress(OSError):
            os.write(2, b"by C\\n")
        file.write("result")
sys.exit(3)
"""


def shell(line, *arguments):
    """A script or the command at the beginning of a line of bash: what is heard, and its own exit code."""
    line += '; echo "code ${PIPESTATUS[0]}" >&2'
    command = ["bash", "-c", f'"$0" "$@" {line}', sys.executable, *arguments]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=buffered)


@pytest.mark.parametrize(
    ("line", "out", "err"),
    [
        ("| head -1", "a line of the table\n", "said\nby C\ncode 3\n"),
        ("| head -0", "", "said\nby C\ncode 3\n"),
        ("2>&1 | head -0", "", "code 3\n"),
        (">&-", "", "said\nby C\ncode 3\n"),
        (">&- 2>&-", "", "code 3\n"),
        ("<&- >&- 2>&-", "", "code 3\n"),
        (">/dev/full", "", "said\nby C\ncode 3\n"),
    ],
)
def test_a_process_writes_its_file_and_keeps_its_exit_code(line, out, err, tmp_path):
    """A process of its own: Python flushes its streams once more when it exits, and a file may get a closed stream's number."""
    done = shell(line, "-c", SCRIPT, str(tmp_path / "file"))
    assert (done.stdout, done.stderr) == (out, err)
    assert (tmp_path / "file").read_text() == "result"


def test_the_command_itself_bears_a_reader_who_leaves():
    done = shell("| head -0", "-m", "figures", "--help")
    assert (done.stdout, done.stderr) == ("", "code 0\n")
