"""`costate audit`: exit codes, files, refusals in one line with nothing written, --vary and --list."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest

from envs.world import InputError
from figures.audit import specs
from figures.audit.auditor import audit
from figures.audit.specs import read_records, same
from figures.cli import main
from figures.commands import audit as command
from figures.commands.audit import wrapped
from tests.figures.audit.made_up import findings, record

USER = """
import torch

def advantage(rewards, mask, group):
    R, alike = rewards.sum(1), (group[:, None] == group).to(rewards)
    return R - (alike @ R - R) / (alike.sum(1) - 1)

def loss(log_probs, advantages, mask):
    print("said by the user's code") if len(mask) == 12 else None
    return -(torch.where(mask, log_probs, 0.0) * advantages[:, None]).sum() / len(mask)

def token_mean(log_probs, advantages, mask):
    return -(torch.where(mask, log_probs, 0.0) * advantages[:, None]).sum() / mask.sum()

def raises(log_probs):
    raise KeyError("nothing there")

def constant(log_probs):
    return torch.zeros(())

def odd_name(log_probs, rewards, maks):
    return log_probs.sum()
"""
RIGHT = ("my.py:loss", "--advantage", "my.py:advantage")
DECLARED = ("--declare", "unbiased", "--declare", "kappa=1", "--declare", "recipe=leave one out; row sum")


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few(monkeypatch):
    """Only three properties are looked at, so that an audit takes no time."""
    looked_at = ("mean update", "recipe", "split")
    monkeypatch.setattr(specs, "audit", lambda *given, **more: audit(*given, properties=looked_at, **more))


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["audit", *map(str, arguments)])
    return stopped.value.code


def refusal(capsys, *arguments):
    assert run(*arguments, "--out", "out/deep") == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = [line for line in said.err.splitlines() if line != "said by the user's code"]
    return line


def test_what_is_declared_holds_or_not_and_the_exit_code_says_it(here, few, capsys):
    assert run(*RIGHT, *DECLARED) == 0
    said = capsys.readouterr()
    assert said.out.startswith("my.py:loss: 0 of 3 properties broken")
    assert "holds   mean update: kappa times the gradient at every prompt; kappa 1\n" in said.out
    assert "said by the user's code" in said.err
    assert run("my.py:token_mean", *RIGHT[1:], *DECLARED) == 1
    said = capsys.readouterr().out
    assert "defect  mean update: declared unbiased=True" in said
    assert re.search(r"defect  recipe: declared recipe=leave one out; row sum, but it is leave", said)
    assert max(map(len, wrapped(said).splitlines())) <= 100  # a batch is not broken
    assert all(len(line) <= 80 for line in said.splitlines() if not line.startswith("  "))
    assert list(here.iterdir()) == [here / "my.py"] or {p.name for p in here.iterdir()} == {"my.py", "__pycache__"}


def test_a_loss_without_declarations_is_described(here, capsys):
    """All properties, as a user calls it."""
    assert run(*RIGHT) == 0
    said = capsys.readouterr().out
    assert said.count("\nholds ") >= 6
    assert "choice  recipe: leave one out; row sum, times 1\n" in said
    assert "defect" not in said


def test_the_files_hold_the_records_and_can_be_joined_again(here, few, capsys):
    assert run("my.py:token_mean", *RIGHT, "--declare", "unbiased", "--title", "Two of mine", "--out", "o/p") == 1
    assert capsys.readouterr().out.endswith("audit.csv, audit.json, audit.html and audit.png are in o/p\n")
    assert {path.name for path in (here / "o/p").iterdir()} == {"audit.csv", "audit.json", "audit.html", "audit.png"}
    table = pd.read_csv(here / "o/p/audit.csv")
    status = table.set_index(["loss", "property"])["status"]
    assert status["my.py:loss", "mean update"] == "holds"
    assert status["my.py:token_mean", "mean update"] == "defect"
    second, first = read_records(here / "o/p/audit.json")
    assert first.frame().equals(replace(first).frame())
    assert same([first, first])
    assert not same([first, second])
    assert "Two of mine" in (here / "o/p/audit.html").read_text()
    assert run("o/p/audit.json", "o/p/audit.json", "--out", "both") == 1
    assert [one["name"] for one in json.loads((here / "both/audit.json").read_text())] == [second.name, first.name] * 2


def test_rows_are_written_before_anything_is_drawn(here, few, monkeypatch):
    def stop(*given):
        raise InputError("the drawing stopped")

    monkeypatch.setattr(command, "save_audits", stop)
    assert run(*RIGHT, "--out", "o") == 2
    assert {path.name for path in (here / "o").iterdir()} == {"audit.csv", "audit.json"}
    assert len(read_records(here / "o/audit.json")) == 1


WRONG = {
    "name a loss": (),
    "'tlr' is unknown; did you mean trl": ("tlr:grpo",),
    "nowhere names no loss": ("nowhere",),
    "recipe 'gropo' is unknown; did you mean grpo": ("suite:gropo",),
    "option 'lenth' is unknown; did you mean length": ("suite:grpo", "--option", "lenth=3"),
    "declaration 'unbised' is unknown": (*RIGHT, "--declare", "unbised"),
    "unbiased must be True or False": (*RIGHT, "--declare", "unbiased=maybe"),
    "kappa must be a number": (*RIGHT, "--declare", "kappa=one"),
    "function 'los' is unknown; did you mean loss": ("my.py:los",),
    "gone.py cannot be read": ("gone.py:loss",),
    "give a second function": ("my.py:loss",),
    "raises KeyError in line": ("my.py:raises",),
    "no gradient": ("my.py:constant",),
    "unknown name 'maks'; did you mean mask": ("my.py:odd_name",),
    "--advantage is for a function of your own": ("suite:rloo", *RIGHT[1:]),
    "--option a is for a library's loss": (*RIGHT, "--option", "a=1"),
    "--option trl:beta is for a library's loss": ("suite:rloo", "--option", "trl:beta=1"),
    "--vary is for a library's loss": (*RIGHT, "--vary", "std"),
    "option of suite:grpo 'stdd' is unknown; did you mean std": ("suite:grpo", "--vary", "stdd"),
    "no audit.json that `costate audit --out` wrote": ("mine.json",),
}


@pytest.mark.parametrize("said", WRONG)
def test_wrong_requests_are_refused_in_one_line_and_nothing_is_written(said, here, few, capsys):
    (here / "mine.json").write_text("[1]")
    assert said in refusal(capsys, *WRONG[said])
    assert not (here / "out/deep").exists()


def test_a_library_that_is_absent_says_what_to_install(here, capsys, monkeypatch):
    from figures.audit.adapters import trl_loss

    monkeypatch.setattr(trl_loss, "PACKAGE", "no-such-package")
    assert run("--list") == 0
    listed = capsys.readouterr().out
    assert re.search(r"^suite +costate-lab +any +\d", listed, re.M)
    assert re.search(rf"^trl +no-such-package +{re.escape(trl_loss.TRIED)} +not installed$", listed, re.M)
    line = refusal(capsys, "--list", "trl")
    assert line == f"costate: trl is not installed: pip install no-such-package=={trl_loss.TRIED}"


def test_the_losses_and_options_of_a_library_are_listed_by_its_own_process(here, capsys):
    assert run("--list", "suite") == 0
    said = capsys.readouterr().out
    assert "rloo, dr_grpo, grpo" in said
    assert "  std: population, sample, none\n" in said


def test_an_option_without_effect_is_named(here, capsys, monkeypatch):
    """By a library that reads one of its options and not the other."""

    def library(spec, options, pictures, **declared):
        assert pictures
        if options.get("std") == "none":
            raise InputError("std none is refused")
        lengths = {"row sum": 0.0, "row mean": 0.4}
        return record(spec, bias=lengths.get(options.get("length"), 0.06))

    monkeypatch.setattr(specs, "audit_library", library)
    assert run("suite:grpo", "--vary", "std", "--vary", "length") == 0
    said = capsys.readouterr().out
    assert "refused: suite:grpo std=none: std none is refused" in said
    assert "std of suite:grpo has no effect: all 2 values give the same weights and findings" in said
    assert "length of suite:grpo has an effect: 3 of 4 values differ" in said
    assert "no difference between suite:grpo length=group token mean and suite:grpo length=token mean" in said


def test_records_are_compared_to_rounding_and_by_numbers_not_words():
    one = record("a")
    noise = [replace(f, value=f.value + 1e-13, words="other words") for f in one.findings]
    assert same([one, replace(one, name="b", seconds=9.0, findings=tuple(noise))])
    assert not same([one, replace(one, findings=findings(bias=0.4001))])


def test_a_real_loss_of_a_library_in_a_process_of_its_own(here, capsys):
    given = (
        "--option",
        "suite:length=row mean",
        "--declare",
        "recipe=population std; row mean",
        "--declare",
        "clip=0.2,0.2",
    )
    assert run("suite:grpo", *given) == 0
    assert capsys.readouterr().out.startswith("suite:grpo length=row mean (")
