"""`costate train` with V3.2's repairs and towards teachers: what is run, where it ends, what is refused."""

import json
import shutil

import pandas as pd
import pytest
import torch

from agents.policies.nucleus import Nucleus
from agents.policies.transformer import Transformer
from envs.token_tasks import sum_and_stop
from figures.cli import main
from figures.commands.run_checkpoint import resume
from figures.commands.teachers import named_teachers, read_teachers
from figures.commands.training_run import Run, build_trainer, learner_of
from theory.groups.kl import sequence_kl
from theory.tokens.prefix_tree import grow

WORLD = ("--world", "TokenSumAndStop", "--set", "horizon=3")
SMALL = ("--width", 8, "--layers", 1, "--heads", 2, "--every", 50)
DISTIL = ("--learner", "reinforce", "--option", "use_rewards=false", "--kl-loss", "k2:1")
STOP = sum_and_stop(2, 3)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """No pictures: they take most of the time."""
    monkeypatch.setattr("figures.commands.train.draw_run", lambda *arguments: None)


def train(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *map(str, arguments)])
    return stopped.value.code


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Checkpoints of both commands: one trained, and one pretrained policy."""
    out = tmp_path_factory.mktemp("teachers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("figures.commands.train.draw_run", lambda *arguments: None)
        assert train("--learner", "rloo", *WORLD, *SMALL, "--steps", 20, "--rate", 0.02, "--out", out / "a") == 0
    with pytest.raises(SystemExit) as stopped:
        main(["pretrain", *WORLD, "--updates", "8", "--checkpoints", "1", "--width", "8", "--out", str(out / "b")])
    assert stopped.value.code == 0
    (run,) = (out / "a").iterdir()
    return run / "checkpoint.pt", sorted((out / "b").glob("*.pt"))[-1]


def only(out):
    (folder,) = out.iterdir()
    return folder


def test_a_run_with_all_repairs_is_the_one_that_was_asked_for(tmp_path, capsys):
    options = ("--kl-loss", "rho-k3:0.2", "--option", "off_policy_delta=0.05", "--top-p", 0.7, "--epochs", 2)
    assert train("--learner", "grpo", *WORLD, *SMALL, "--steps", 4, "--seeds", 2, "--out", tmp_path, *options) == 0
    log = pd.read_csv(only(tmp_path) / "log.csv")
    assert float(log["ratio_error"].max()) < 1e-12
    settings = json.loads((only(tmp_path) / "settings.json").read_text())
    assert settings["top_p"] == 0.7
    run = Run("grpo", "TokenSumAndStop", width=8, layers=1, heads=2, top_p=0.7, kl_loss=("rho-k3", 0.2))
    penalty = learner_of(run).kl_loss
    assert (penalty.estimator, penalty.beta, penalty.importance) == ("k3", 0.2, True)
    start = Nucleus(Transformer(STOP.V, None, 8, 1, 2, length=STOP.longest, seed=0, dtype=torch.float64), 0.7)
    assert log["J"][0] == pytest.approx(float(grow(STOP, start).J))
    assert log["J"][0] != pytest.approx(float(grow(STOP, start.policy).J), rel=1e-3)


def test_runs_without_the_new_options_keep_their_names():
    assert Run("grpo", "TokenSumAndStop").name == "grpo-TokenSumAndStop-994d2261"
    assert Run("grpo", "TokenSumAndStop", top_p=0.9).name != Run("grpo", "TokenSumAndStop").name


def test_teachers_of_both_commands_are_read_as_they_were_written(teachers):
    trained, pretrained = teachers
    found = read_teachers(named_teachers([f"{trained}:0.7", f"{pretrained}:0.3"]), STOP, 1.0, torch.zeros(1).double())
    assert found.weights == [0.7, 0.3]
    settings = json.loads((trained.parent / "settings.json").read_text())
    run = Run("rloo", "TokenSumAndStop", world_options=(("horizon", 3),), width=8, layers=1, heads=2)
    trainer, _, _ = build_trainer(run)
    resume(trained.parent, trainer, "cpu")
    assert settings["seeds"] == 1
    tokens = torch.tensor([[0, 1, 0], [0, 0, 1]])
    with torch.no_grad():
        mine, theirs = (p(p.embed(tokens)) for p in (found.policies[0], trainer.policies[0]))
    torch.testing.assert_close(mine, theirs)
    state = torch.load(pretrained, weights_only=True)["state"]
    for name, x in state.items():
        assert torch.equal(found.policies[1].state_dict()[name], x.double()), name


def test_distillation_comes_near_to_its_teacher_and_a_changed_file_is_another_run(teachers, tmp_path):
    trained, out = teachers[0], tmp_path / "runs"
    command = (*DISTIL, *WORLD, *SMALL, "--steps", 60, "--rate", 0.02, "--out", out)
    copied = tmp_path / "teacher"
    shutil.copytree(trained.parent, copied)
    assert train(*command, "--teacher", copied / "checkpoint.pt") == 0
    teacher = read_teachers(named_teachers([str(trained)]), STOP, 1.0, torch.zeros(1).double()).policies[0]
    student, _, _ = build_trainer(
        Run("rloo", "TokenSumAndStop", world_options=(("horizon", 3),), width=8, layers=1, heads=2)
    )

    def apart(policy):
        with torch.no_grad():
            return float(sequence_kl(grow(STOP, policy), [level.logits for level in grow(STOP, teacher).levels]))

    before = apart(student.policies[0])
    resume(only(out), student, "cpu")
    assert apart(student.policies[0]) < 0.1 * before
    kept = torch.load(copied / "checkpoint.pt", weights_only=True)
    kept["state"]["actor"][0] += 1.0
    torch.save(kept, copied / "checkpoint.pt")
    assert train(*command[:-4], "--rate", 0.02, "--out", out, "--teacher", copied / "checkpoint.pt") == 0
    assert len(list(out.iterdir())) == 2


REFUSED = {
    "weights that do not sum to one": (["A:0.7", "B:0.4"], "weights"),
    "weights at one of two": (["A:0.7", "B"], "--teacher"),
    "a file that is not there": (["A", "no.pt"], "--teacher"),
    "a file of no known folder": (["C"], "--teacher"),
    "a file that is no checkpoint": (["D"], "--teacher"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_teachers_that_are_refused(name, teachers, tmp_path, capsys):
    given, first = REFUSED[name]
    alone, damaged = tmp_path / "alone" / "c.pt", tmp_path / "damaged"
    alone.parent.mkdir()
    shutil.copy(teachers[1], alone)
    shutil.copytree(teachers[0].parent, damaged)
    (damaged / "checkpoint.pt").write_text("no checkpoint")
    places = {"A": teachers[0], "B": teachers[1], "C": alone, "D": damaged / "checkpoint.pt"}
    texts = [
        ":".join([str(places.get(text.split(":")[0], text.split(":")[0])), *text.split(":")[1:]]) for text in given
    ]
    out = tmp_path / "out"
    assert train(*DISTIL, *WORLD, *SMALL, "--out", out, *(x for text in texts for x in ("--teacher", text))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"costate: {first}"), line
    assert not out.exists()


OPTIONS = {
    "another vocabulary": (("--world", "TokenParity", *DISTIL, "--teacher", "A"), "vocabulary"),
    "a world without tokens": (("--world", "LQScalar", "--set", "horizon=3", *DISTIL, "--teacher", "A"), "--teacher"),
    "no KL term": (("--learner", "grpo", *WORLD, "--teacher", "A"), "teachers need a KL term"),
    "k3 with two": (
        ("--learner", "grpo", *WORLD, "--kl-loss", "k3:1", "--teacher", "A", "--teacher", "B"),
        "one teacher",
    ),
    "top-p of 0": (("--learner", "grpo", *WORLD, "--top-p", "0"), "top_p must lie in (0, 1]"),
    "top-p above 1": (("--learner", "grpo", *WORLD, "--top-p", "1.5"), "top_p must lie in (0, 1]"),
    "top-p without tokens": (
        ("--learner", "grpo", "--world", "LQScalar", "--set", "horizon=3", "--top-p", "0.5"),
        "top_p",
    ),
    "delta of 0": (("--learner", "grpo", *WORLD, "--option", "off_policy_delta=0"), "off_policy_delta must be > 0"),
    "rho in the reward": (("--learner", "grpo", *WORLD, "--kl-reward", "rho-k1:1"), "kl_reward"),
    "an unknown estimator": (("--learner", "grpo", *WORLD, "--kl-loss", "rho-k4:1"), "estimator must be one of"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_are_refused(name, teachers, tmp_path, capsys):
    options, said = OPTIONS[name]
    places = {"A": teachers[0], "B": teachers[1]}
    assert train(*(places.get(x, x) for x in options), "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()
