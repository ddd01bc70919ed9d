"""`costate train` from end to end: files, going on, stopping in the middle, other settings, and bad usage."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest
import torch

from agents.training.settings import Record, TrainingSettings
from agents.training.trainer import Trainer
from envs.registry import WORLDS, Entry
from figures.cli import main
from figures.commands.options import pairs
from figures.commands.training_run import Run, build_trainer
from figures.measures.oracles import best_return
from tests.theory.cases import priced
from theory.continuous.lq_gradients import expected_return, offset_gradient

TINY = ("--width", 4, "--heads", 1, "--layers", 1, "--prompts", 4, "--group", 4, "--every", 2, "--steps", 5)
TOKENS = ("train", "--learner", "grpo", "--world", "TokenSumAndStop", "--set", "horizon=3", *TINY)
FULL = (
    *TOKENS[:2],
    "ppo",
    *TOKENS[3:],
    "--seeds",
    2,
    "--seed",
    5,
    "--epochs",
    2,
    "--minibatches",
    2,
    "--kl-reward",
    "k1:0.05",
    "--kl-loss",
    "k3:0.1",
    "--entropy",
    0.01,
    "--max-norm",
    1,
)
FILES = {"settings.json", "log.csv", "checkpoint.pt", "curves.png", "curves.svg"}


def run(*arguments):
    """The command in this process: exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


@pytest.fixture
def undrawn(monkeypatch):
    """No pictures: they are looked at once, and take most of the time."""
    monkeypatch.setattr("figures.commands.train.draw_run", lambda *arguments: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of one run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    assert run(*FULL, "--out", out) == 0
    return folder(out)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a run of one seed without penalties, not drawn."""
    out = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("figures.commands.train.draw_run", lambda *arguments: None)
        assert run(*TOKENS, "--out", out) == 0
    return folder(out)


def folder(out):
    (only,) = out.iterdir()
    return only


def test_a_run_leaves_its_log_its_picture_and_its_settings(whole, capsys, undrawn):
    assert run(*FULL, "--out", whole.parent) == 0  # finished: it only prints again
    assert {path.name for path in whole.iterdir()} == FILES
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (whole / "curves.svg").read_text()
    table = pd.read_csv(whole / "log.csv")
    assert {"seed", *(f.name for f in dataclasses.fields(Record))} == set(table.columns)
    assert table["step"].tolist() == [step for step in range(6) for _ in range(2)]
    assert table["seed"].tolist() == [5, 6] * 6
    assert table["rows"].tolist() == [16 * step for step in range(6) for _ in range(2)]
    exact = table[table["step"].isin([0, 2, 4, 5])]
    assert bool(exact["J"].between(0, 1).all())
    assert bool(table[table["step"].isin([1, 3])]["J"].isna().all())
    assert bool(table[table["step"] < 5]["sampled"].notna().all())
    settings = json.loads((whole / "settings.json").read_text())
    assert settings["learner"] == "ppo"
    assert settings["kl_loss"] == ["k3", 0.1]
    assert settings["setting"]["minibatches"] == 2
    assert settings["world_options"] == [["horizon", 3]]
    printed = capsys.readouterr()
    assert str(whole) in printed.out
    assert "best J 1" in printed.out
    assert f"training in {whole}" in printed.err


def test_a_recipe_with_a_target_of_its_own_shows_its_cosine_to_that_as_well(tmp_path, capsys):
    """It goes on from a log that knows no such column, too."""
    recipe = ("train", "--learner", "pkpo", "--option", "k=3", *TOKENS[3:], "--out", tmp_path)
    assert run(*recipe) == 0
    own, printed = folder(tmp_path), capsys.readouterr().out
    log = pd.read_csv(own / "log.csv")
    assert f"cosine to its own target {log['target_cosine'][:5].mean():.4g}" in printed
    assert "to its own target" in (own / "curves.svg").read_text()
    kept = torch.load(own / "checkpoint.pt", weights_only=True)
    kept["rows"] = [{k: v for k, v in row.items() if k not in ("target_cosine", "curl")} for row in kept["rows"]]
    torch.save(kept, own / "checkpoint.pt")
    assert run(*recipe) == 0
    assert "its own target" not in capsys.readouterr().out
    assert bool(pd.read_csv(own / "log.csv")["target_cosine"].isna().all())


def test_the_log_is_what_the_trainer_records(plain):
    settings = json.loads((plain / "settings.json").read_text())
    settings["setting"] = type(Run("rloo", "TokenCopy").setting)(**settings["setting"])
    settings["world_options"] = tuple(map(tuple, settings["world_options"]))
    same = Run(**settings | {"options": ()})
    assert same.name == plain.name
    trainer, world, _ = build_trainer(same)
    assert world.horizon == 3
    table = pd.read_csv(plain / "log.csv")
    for record, row in zip(trainer.run(), table.to_dict("records"), strict=True):
        for name in ("loss", "J", "entropy", "cosine", "silent"):
            assert float(getattr(record, name)[0]) == pytest.approx(row[name], rel=1e-12, abs=1e-15, nan_ok=True)


def test_the_same_command_again_runs_nothing_and_gives_the_same_log(plain, tmp_path, monkeypatch, undrawn):
    shutil.copytree(plain, tmp_path / plain.name, ignore=shutil.ignore_patterns("log.csv"))

    def never(self):
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr(Trainer, "step", never)
    monkeypatch.setattr(Trainer, "_answers", never)
    assert run(*TOKENS, "--out", tmp_path) == 0
    assert (tmp_path / plain.name / "log.csv").read_bytes() == (plain / "log.csv").read_bytes()


def stop_before(monkeypatch, name, count):
    """Ctrl-C on the call `count` of a method of the trainer."""
    real, calls = getattr(Trainer, name), []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, name, interrupted)


STOPS = [("step", 1), ("step", 4), ("_draw", 3), ("_gradient", 10), ("_fit_critic", 3), ("_answers", 4)]


@pytest.mark.parametrize(("name", "count"), STOPS)
def test_stopped_anywhere_and_gone_on_the_log_is_the_same_to_the_byte(
    whole, tmp_path, monkeypatch, capsys, undrawn, name, count
):
    with monkeypatch.context() as patch:
        stop_before(patch, name, count)
        assert run(*FULL, "--out", tmp_path) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert not (folder(tmp_path) / "log.csv").exists()
    steps, real = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self: steps.append(self.taken) or real(self))
    assert run(*FULL, "--out", tmp_path) == 0
    assert len(steps) <= 5
    assert count == 1 or min(steps, default=1) >= 1  # not from the start: from the last checkpoint
    assert (folder(tmp_path) / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()


def test_other_settings_are_another_folder(tmp_path, undrawn):
    for changed in ((), ("--rate", 0.02), ("--seed", 1), ("--entropy", 0.1), ("--option", "clip=0.1")):
        assert run(*TOKENS, "--steps", 1, *changed, "--out", tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 5


def test_options_and_keywords_reach_learner_and_world(tmp_path, undrawn):
    options = ("--option", "std=none", "--option", "length=row sum", "--set", "modulus=3", "--set", "gamma=0.5")
    assert run(*TOKENS, "--steps", 1, *options, "--optimiser", "sgd", "--out", tmp_path) == 0
    settings = json.loads((folder(tmp_path) / "settings.json").read_text())
    assert settings["options"] == [["length", "row sum"], ["std", "none"]]
    assert settings["world_options"] == [["gamma", 0.5], ["horizon", 3], ["modulus", 3]]
    assert settings["setting"]["optimiser"] == "sgd"


def test_groups_are_filtered_by_accuracy_where_the_reward_is_another(tmp_path, undrawn):
    bonus = ("--set", "bonus=0.4", "--option", "dynamic_sampling=accuracy", "--out", tmp_path, "--seeds", 2)
    assert run("train", "--learner", "dapo", *TOKENS[3:], *bonus) == 0
    log = pd.read_csv(folder(tmp_path) / "log.csv")
    assert 0 < log["silent"].mean() < 1, "filtered groups count as silent"
    assert log["sampled"].max() > 1e-3


def assert_trained(out, learner):
    """In the scalar world, two seeds."""
    command = ("train", "--learner", learner, "--world", "LQScalar", "--set", "horizon=5", "--seeds", 2, *TINY)
    assert run(*command, "--rate", 0.1, "--steps", 8, "--out", out) == 0
    J = pd.read_csv(folder(out) / "log.csv").groupby("step")["J"].mean().dropna()
    assert J.iloc[-1] > J.iloc[0] + 0.1


@pytest.mark.parametrize("learner", ["rloo", "ppo"])
def test_a_linear_quadratic_world_is_trained_likewise(tmp_path, undrawn, learner):
    assert_trained(tmp_path, learner)


def test_a_run_that_samples_nothing_is_drawn_too(tmp_path, capsys):
    assert_trained(tmp_path, "value_gradient")
    assert {path.name for path in folder(tmp_path).iterdir()} == FILES
    assert "best J" in capsys.readouterr().out


@pytest.mark.parametrize("sampler", ["float32", "bfloat16"])
def test_a_linear_quadratic_world_is_sampled_in_another_precision_or_that_is_refused(tmp_path, capsys, sampler):
    command = ("train", "--learner", "rloo", "--world", "LQScalar", "--set", "horizon=5", "--sampler", sampler, *TINY)
    assert run(*command, "--out", tmp_path) == 2
    assert "sampler" in capsys.readouterr().err


def test_a_world_without_closed_form_says_so_and_is_trained(tmp_path, capsys, undrawn):
    command = ("train", "--learner", "rloo", "--world", "LQStepReward", "--set", "horizon=3", *TINY)
    assert run(*command, "--steps", 3, "--out", tmp_path) == 0
    assert "nothing exact is recorded" in capsys.readouterr().err
    assert bool(pd.read_csv(folder(tmp_path) / "log.csv")["J"].isna().all())


def test_single_precision_trains_as_well(tmp_path, undrawn):
    assert run(*FULL, "--dtype", "float32", "--steps", 2, "--out", tmp_path) == 0
    kept = torch.load(folder(tmp_path) / "checkpoint.pt", weights_only=True)
    assert all(p.dtype == torch.float32 for p in kept["state"]["actor"])


BAD = {
    "no such learner": (("--learner", "grpoo"), "grpo"),
    "no such world": (("--world", "TokenSumStop"), "TokenSumAndStop"),
    "no such keyword": (("--set", "modulo=3"), "modulo"),
    "no such option": (("--option", "lam=0.5"), "lam"),
    "no value": (("--set", "modulus"), "--set modulus"),
    "no such estimator": (("--kl-loss", "k9:0.1"), "k9"),
    "nonsense": (("--kl-loss", "nonsense"), "--kl-loss nonsense"),
    "no weight": (("--kl-reward", "k1:"), "--kl-reward k1:"),
    "no steps": (("--steps", "0"), "steps"),
    "no seeds": (("--seeds", "0"), "--seeds"),
    "no groups": (("--learner", "rloo", "--group", "1"), "group"),
    "too many parts": (("--minibatches", "5"), "minibatches"),
    "endless": (("--world", "LQRandom", "--set", "size=2"), "horizon"),
    "a rate of 0": (("--rate", "0"), "rate"),
    "a rate without end": (("--rate", "inf"), "rate"),
    "heads that do not fit": (("--heads", "3"), "heads"),
    "nowhere to write": (("--out", "/dev/null/x"), "--out"),
    "no such optimiser": (("--optimiser", "adamw"), "adamw"),
    "nothing exact for the exact recipe": (
        ("--learner", "value_gradient", "--world", "LQStepReward"),
        "closed forms",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_usage_is_one_line_exit_2_and_writes_nothing(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, named = BAD[case]
    base = [x for x in TOKENS if x not in ("--set", "horizon=3")] if "--world" in options else TOKENS
    assert run(*base, *options) == 2
    message = capsys.readouterr().err.strip()
    assert named in message
    assert "\n" not in message
    assert "Traceback" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("learner", "world"), [("ppo", "TokenSumAndStop"), ("ppo", "LQScalar")])
def test_a_seed_begins_with_the_same_networks_in_whatever_company(learner, world):
    pair, _, _ = build_trainer(Run(learner, world, seeds=2, seed=4, width=4, heads=1))
    alone, _, _ = build_trainer(Run(learner, world, seeds=1, seed=5, width=4, heads=1))
    for mine, own in ((pair.actor, alone.actor), (pair.critic, alone.critic)):
        assert all(torch.equal(p[1], q) for p, q in zip(mine.parameters, own.parameters, strict=True))
    assert any(not torch.equal(p[0], p[1]) for p in pair.critic.parameters)


def test_of_a_key_that_comes_twice_the_last_value_counts():
    assert pairs("--set", ["b=2", "a=9", "b=x"]) == (("a", 9), ("b", "x"))


def test_training_in_a_world_with_linear_costs_finds_the_offset_too(monkeypatch):
    monkeypatch.setitem(WORLDS, "LQPriced", Entry(priced, "every cost there is"))
    setting = TrainingSettings(steps=150, prompts=1, group=1, rate=0.05, every=149)
    trainer, world, _ = build_trainer(Run("value_gradient", "LQPriced", setting=setting))
    first, *_ = list(trainer.run())
    (policy,) = trainer.actor.networks()
    K, k = policy.K.detach(), policy.k.detach()
    J = float(expected_return(world, K, k))
    assert float(first.J) == pytest.approx(float(expected_return(world, 0 * K)))
    assert float(first.J) + 20 < J < best_return(world)
    assert float(expected_return(world, K)) + 0.5 < J, "the control: without its offset it is worse"
    assert float(offset_gradient(world, K, k).norm()) < 0.02 * float(offset_gradient(world, 0 * K).norm())
    plain, _, _ = build_trainer(Run("value_gradient", "LQScalar", setting=setting))
    assert [name for name, _ in plain.actor.network.named_parameters()] == ["K"]
