"""`costate train` where it goes wrong: runs that diverge, and checkpoints that are damaged or of another program."""

import json
import os
import pickle

import pandas as pd
import pytest
import torch

from agents.training.trainer import Trainer
from envs.world import InputError
from figures.harness import code
from tests.figures.commands.test_train import TOKENS, folder, run, undrawn  # noqa: F401  (a fixture)

DIVERGING = (
    "train",
    "--learner",
    "reinforce",
    "--world",
    "LQScalar",
    "--optimiser",
    "sgd",
    "--steps",
    60,
    "--rate",
    3.0,
)


def test_a_run_that_diverges_says_where_and_keeps_what_was_before(tmp_path, capsys):
    assert run(*DIVERGING, "--every", 1, "--out", tmp_path) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "diverged at update" in said
    update = int(said.split("diverged at update ")[1].split(":")[0])
    own = folder(tmp_path)
    log = pd.read_csv(own / "log.csv")
    assert log["step"].tolist() == list(range(update))
    assert (own / "curves.png").stat().st_size > 5000
    kept = torch.load(own / "checkpoint.pt", weights_only=True)
    assert kept["rows"][-1]["step"] == update - 1
    assert all(bool(x.isfinite().all()) for x in kept["state"]["actor"])
    assert run(*DIVERGING, "--every", 1, "--out", tmp_path) == 1, "the same command goes on and diverges again"
    assert pd.read_csv(own / "log.csv").equals(log)


def test_a_run_that_cannot_begin_is_bad_usage_and_not_divergence(tmp_path):
    assert run(*TOKENS, "--group", 1, "--out", tmp_path) == 2
    assert not list(tmp_path.iterdir())


def test_a_refusal_before_the_first_update_is_bad_usage_and_after_it_divergence(tmp_path, monkeypatch, capsys):
    def refuse(trainer):
        raise InputError("this world cannot be learned")

    monkeypatch.setattr(Trainer, "step", refuse)
    assert run(*TOKENS, "--out", tmp_path) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == "costate: this world cannot be learned"


class Foreign:
    """Something that a checkpoint never holds."""

    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped")
    assert run(*TOKENS, "--out", out) == 0
    return out


def damage(form, path):
    """Write the checkpoint again in a damaged form."""
    kept = torch.load(path, weights_only=True)
    whole = path.read_bytes()
    if isinstance(form, bytes):
        path.write_bytes(form)
    elif form == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif form == "foreign pickle":
        path.write_bytes(pickle.dumps(Foreign()))
    elif callable(form):
        torch.save(form(kept), path)
    return path


FORMS = {
    "empty": b"",
    "text": b"not a checkpoint\n",
    "cut": "cut",
    "foreign pickle": "foreign pickle",
    "a list": lambda kept: [1],
    "an empty dict": lambda kept: {},
    "no rows": lambda kept: {**kept, "rows": []},
    "rows without steps": lambda kept: {**kept, "rows": [{"loss": 1.0}]},
    "rows without numbers": lambda kept: {**kept, "rows": [{"step": 1}]},
    "rows of another program": lambda kept: {**kept, "rows": [{**row, "more": 1} for row in kept["rows"]]},
    "rows that are no rows": lambda kept: {**kept, "rows": 3},
    "no state": lambda kept: {"rows": kept["rows"]},
    "another network": lambda kept: {**kept, "state": {**kept["state"], "actor": kept["state"]["actor"][:-1]}},
    "another shape": lambda kept: {**kept, "state": {**kept["state"], "actor": [torch.zeros(1)] * 99}},
    "no noise": lambda kept: {**kept, "state": {**kept["state"], "noise": []}},
    "a state that is none": lambda kept: {**kept, "state": [1]},
    "updates that are none": lambda kept: {**kept, "state": {**kept["state"], "taken": "many"}},
    "an optimiser of another program": lambda kept: {**kept, "state": {**kept["state"], "optimiser": [1]}},
    "no optimiser": lambda kept: {**kept, "state": {k: x for k, x in kept["state"].items() if k != "optimiser"}},
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_checkpoint_is_named_in_one_line(stopped, form, capsys):
    path = folder(stopped) / "checkpoint.pt"
    whole = path.read_bytes()
    try:
        damage(FORMS[form], path)
        assert run(*TOKENS, "--out", stopped) == 2
        said = capsys.readouterr()
        assert "unpickled" not in said.out
        last = said.err.strip().splitlines()[-1]
        assert last.startswith("costate: ")
        assert "checkpoint.pt is damaged" in last
    finally:
        path.write_bytes(whole)
    assert run(*TOKENS, "--out", stopped) == 0, "the control: the whole one is taken"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_a_checkpoint_that_is_no_file_is_named_and_does_not_hang(stopped, kind, capsys, tmp_path):
    path = folder(stopped) / "checkpoint.pt"
    path.rename(tmp_path / "kept")
    try:
        {"a pipe": os.mkfifo, "a folder": os.mkdir, "a device": lambda p: os.symlink("/dev/zero", p)}[kind](path)
        assert run(*TOKENS, "--out", stopped) == 2
        assert f"checkpoint.pt is {kind}, not a file" in capsys.readouterr().err.strip().splitlines()[-1]
    finally:
        path.rmdir() if kind == "a folder" else path.unlink()
        (tmp_path / "kept").rename(path)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("writer", [[1], "me", None, 3])
def test_a_checkpoint_that_does_not_say_who_wrote_it_is_taken_but_not_silently(stopped, writer, capsys):
    path = folder(stopped) / "checkpoint.pt"
    whole = path.read_bytes()
    try:
        torch.save({**torch.load(path, weights_only=True), "written by": writer}, path)
        assert run(*TOKENS, "--out", stopped) == 0
        assert "was written with other code" in capsys.readouterr().err
    finally:
        path.write_bytes(whole)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("other", ["code", "torch"])
def test_a_checkpoint_of_other_code_or_libraries_is_taken_but_not_silently(stopped, other, capsys, monkeypatch):
    writer = code.writer("figures.commands.training_run")
    monkeypatch.setattr(code, "writer", lambda module: writer | {other: "another"})
    assert run(*TOKENS, "--out", stopped) == 0
    assert f"was written with other {other}; the run goes on from it" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(*TOKENS, "--out", stopped) == 0
    assert "other" not in capsys.readouterr().err
    assert json.loads((folder(stopped) / "settings.json").read_text())["learner"] == "grpo"
