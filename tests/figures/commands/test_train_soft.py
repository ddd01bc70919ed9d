"""`costate train --learner soft_grpo`: exact returns in the log, estimates that are called so, going on, bad usage."""

import pandas as pd
import pytest

from tests.figures.commands.test_train import folder, run, stop_before, undrawn  # noqa: F401

SIZES = ("--prompts", 2, "--group", 4, "--every", 2, "--steps", 4, "--width", 8, "--seeds", 2)
SOFT = ("train", "--learner", "soft_grpo", "--world", "TokenParity", "--set", "horizon=1", *SIZES)


@pytest.fixture
def done(tmp_path, undrawn):  # noqa: F811
    """The folder of a run that nothing stopped."""
    assert run(*SOFT, "--out", tmp_path / "whole") == 0
    return folder(tmp_path / "whole")


def test_the_log_has_exact_returns_without_a_word_and_estimates_are_called_so(done, tmp_path, capsys):
    table = pd.read_csv(done / "log.csv")
    assert table["J"].notna().sum() == 6
    assert table["ratio_error"].max() < 1e-9
    assert "estimates" not in capsys.readouterr().err
    assert run(*SOFT, "--option", "official=true", "--out", tmp_path / "code") == 0
    assert "J and cosine are estimates from 256 draws" in capsys.readouterr().err
    assert pd.read_csv(folder(tmp_path / "code") / "log.csv")["J"].notna().sum() == 6


def test_stopped_and_gone_on_the_log_is_the_same_to_the_byte(done, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_before(patch, "step", 3)
        assert run(*SOFT, "--out", tmp_path / "stopped") == 130
    assert run(*SOFT, "--out", tmp_path / "stopped") == 0
    assert (folder(tmp_path / "stopped") / "log.csv").read_bytes() == (done / "log.csv").read_bytes()


BAD = {
    "thoughts": (("--option", "thoughts=0"), "thoughts must be a whole number >= 1"),
    "tau": (("--option", "tau=0"), "tau must be a finite number > 0"),
    "tau below 0": (("--option", "tau=-1"), "tau must be a finite number > 0"),
    "clip": (("--option", "clip=-1"), "low"),
    "kind": (("--option", "official=3"), "option official of learner 'soft_grpo' must be a bool"),
    "name": (("--option", "sigma=1"), "option 'sigma'"),
    "top-p": (("--top-p", 0.9), "top_p must be 1"),
    "group": (("--group", 1), "group must be >= 2"),
    "world": (("--world", "LQScalar"), "take a token world"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_usage_is_one_line_and_writes_nothing(case, capsys, tmp_path):
    options, named = BAD[case]
    usage = ["train", "--learner", "soft_grpo", "--world", "TokenParity", *SIZES]
    assert run(*usage, *options, "--out", tmp_path / "none") == 2
    message = capsys.readouterr().err.strip()
    assert named in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())
