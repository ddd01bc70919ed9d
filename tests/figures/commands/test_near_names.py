"""What is misspelt is named with what was probably meant, in one line, everywhere."""

import pytest

from figures.cli import main
from tests.envs.test_own_world import own  # noqa: F401

TRAIN = ("train", "--learner", "grpo", "--world", "TokenParity")
TYPOS = {
    "a command": (("chekc",), "'chekc'", "check"),
    "an option of all": (("--verison",), "'--verison'", "--version"),
    "an option": (("check", "--prest", "quick"), "'--prest'", "--preset"),
    "an option with =": (("check", "--prest=quick"), "'--prest'", "--preset"),
    "an option with one dash": (("check", "-preset", "quick"), "'-preset'", "--preset"),
    "a needed option": (("train", "--lerner", "grpo", "--world", "TokenParity"), "'--lerner'", "--learner"),
    "a choice": (("check", "--preset", "quik"), "--preset 'quik'", "quick"),
    "another choice": ((*TRAIN, "--dtype", "flot32"), "--dtype 'flot32'", "float32"),
    "a kind of list": (("list", "wrlds"), "'wrlds'", "worlds"),
    "a shell": (("completion", "bsh"), "'bsh'", "bash"),
    "a claim": (("check", "eror_map"), "claim 'eror_map'", "error_map"),
    "a claim to sweep": (("sweep", "eror_map"), "claim 'eror_map'", "error_map"),
    "a claim to plot": (("plot", "eror_map"), "claim 'eror_map'", "error_map"),
    "a learner": (("train", "--learner", "grop", "--world", "TokenParity"), "learner 'grop'", "grpo"),
    "a world": (("train", "--learner", "grpo", "--world", "TokenParty"), "world 'TokenParty'", "TokenParity"),
    "a world to pretrain in": (("pretrain", "--out", "x", "--world", "TokenSkils"), "'TokenSkils'", "TokenSkills"),
    "a world's option": ((*TRAIN, "--set", "horizn=3"), "world TokenParity: 'horizn'", "horizon"),
    "a learner's option": ((*TRAIN, "--option", "clp=0.1"), "'clp'", "clip"),
    "a field to keep": (("sweep", "error_map", "--only", "wrld=garnet (3,3)"), "field 'wrld'", "world"),
    "a value to keep": (("sweep", "error_map", "--only", "world=garnt (3,3)"), "world 'garnt (3,3)'", "garnet (3,3)"),
    "a field to set": (("sweep", "error_map", "--set", "alpas=1"), "field 'alpas'", "alphas"),
    "a system to set": (("sweep", "costate_mean", "--set", "system=scaler"), "system 'scaler'", "scalar"),
    "a function": (("train", "--learner", "grpo", "--world", "own.py:tokns"), "function 'tokns'", "tokens"),
    "a module's function": (
        ("check", "--world", "envs.token_tasks:parrity"),
        "function 'parrity'",
        "parity",
    ),
}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("arguments", "named", "meant"), TYPOS.values(), ids=TYPOS)
def test_a_typo_is_answered_with_what_was_meant(arguments, named, meant, capsys, own):  # noqa: F811
    before = sorted(own.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert stopped.value.code == 2
    assert shown.out == ""
    assert line.startswith("costate: ")
    assert named in line
    assert meant in line.partition("did you mean ")[2].partition("?")[0].split(" or ")
    assert sorted(path for path in own.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.parametrize("arguments", [("check", "--pre", "quick", "--hel"), ("train", "--help"), ("--help",)])
def test_what_is_right_is_no_typo(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 0
    assert capsys.readouterr().err == ""


def test_help_of_train_lists_learners_and_worlds_in_80_columns(capsys):
    from agents.recipes.learners import LEARNERS
    from envs.registry import WORLDS

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    names = set(shown.replace(",", " ").split())
    assert set(LEARNERS) | set(WORLDS) <= names
    assert max(map(len, shown.split("learners:")[1].splitlines())) <= 80
