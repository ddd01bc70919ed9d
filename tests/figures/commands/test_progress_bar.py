"""Every line of a progress bar fits 80 columns and shows its numbers whole."""

import io

import pytest

from agents.recipes.learners import LEARNERS
from figures.cli import main
from figures.commands.progress_bar import progress_bar

TINY = ("--width", 4, "--heads", 1, "--layers", 1)
COMMANDS = {
    "train": (
        "--learner",
        "grpo",
        "--world",
        "TokenSumAndStop",
        "--set",
        "horizon=3",
        "--steps",
        3,
        "--every",
        1,
        *TINY,
    ),
    "pretrain": ("--set", "modulus=2", "--set", "horizon=1", "--set", "names=copy", "--updates", 4, *TINY),
}
LAST = {"train": "H ", "pretrain": "H "}


def lines_of(text):
    return [line for line in text.replace("\r", "\n").splitlines() if "|" in line]


@pytest.mark.parametrize("total", [1, 1_000_000])
@pytest.mark.parametrize("name", [*LEARNERS, "pretraining", "checkpoints"])
def test_a_line_is_80_columns_and_its_numbers_are_not_cut(name, total):
    stream, numbers = io.StringIO(), "J -1234.5678 H 12.345 cos -0.99"
    with progress_bar(name, total, stream) as bar:
        bar.set_postfix_str(numbers)
        bar.update(total)
    lines = lines_of(stream.getvalue())
    assert max(map(len, lines)) == 80
    assert lines[-1].startswith(f"{name} |")
    assert lines[-1].endswith(f"| {total}/{total} 00:00 left, {numbers}")


def test_numbers_that_are_too_long_are_cut_at_80_columns():
    stream = io.StringIO()
    with progress_bar("pretraining", 3, stream) as bar:
        bar.set_postfix_str("x" * 100)
    assert max(map(len, lines_of(stream.getvalue()))) == 80


@pytest.mark.parametrize("command", COMMANDS)
def test_the_bar_of_a_command_fits_and_ends_in_its_numbers(command, tmp_path, capsys, monkeypatch):
    for picture in ("train.draw_run", "pretrain.draw_pretraining"):
        monkeypatch.setattr(f"figures.commands.{picture}", lambda *arguments: None)
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in (command, *COMMANDS[command], "--out", tmp_path)])
    assert stopped.value.code == 0
    lines = lines_of(capsys.readouterr().err)
    assert max(map(len, lines)) == 80
    assert ", J 0." in lines[-1]
    assert float(lines[-1].rpartition(LAST[command])[2]) == pytest.approx(0, abs=10)
