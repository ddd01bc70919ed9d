"""`costate train --learner vgl`, with a field or a network: curl in the log, stopping and going on, older logs, bad usage."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from figures.commands.training_run import Run, build_trainer
from tests.figures.commands.test_train import folder, run, stop_before, undrawn  # noqa: F401

SIZES = ("--prompts", 4, "--group", 4, "--every", 2, "--steps", 5)
VGL = ("train", "--learner", "vgl", "--option", "lam=0.7", "--world", "LQDoubleIntegrator", "--seeds", 2, *SIZES)
NETWORK = ("--option", "critic=network", "--option", "width=6", "--critic-epochs", 2)


@pytest.fixture
def done(tmp_path, undrawn):  # noqa: F811
    """The folder of a run that nothing stopped."""
    assert run(*VGL, "--out", tmp_path / "whole") == 0
    return folder(tmp_path / "whole")


def test_the_log_has_the_curl_of_the_critic_in_the_checkpoint(done, capsys):
    table = pd.read_csv(done / "log.csv")
    assert table["J"].notna().sum() == 8
    first, last = table[table["step"] == 0], table[table["step"] == 5]
    assert first["curl"].tolist() == [0, 0]
    X = torch.load(done / "checkpoint.pt", weights_only=True)["state"]["critic"][0]
    by_hand = [float((x - x.mT).square().sum().sqrt() / x.square().sum().sqrt()) for x in X]
    assert last["curl"].tolist() == pytest.approx(by_hand, rel=1e-9)
    assert min(by_hand) > 0
    assert run(*VGL, "--out", done.parent) == 0  # finished: it only prints again
    assert f"curl of the critic {last['curl'].mean():.4g}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "count"), [("step", 1), ("step", 4), ("_answers", 3), ("_move", 3)])
def test_stopped_and_gone_on_the_log_is_the_same_to_the_byte(done, tmp_path, monkeypatch, name, count):
    with monkeypatch.context() as patch:
        stop_before(patch, name, count)
        assert run(*VGL, "--out", tmp_path / "stopped") == 130
    assert run(*VGL, "--out", tmp_path / "stopped") == 0
    assert (folder(tmp_path / "stopped") / "log.csv").read_bytes() == (done / "log.csv").read_bytes()


def test_a_network_goes_on_to_the_byte_and_its_options_count(tmp_path, monkeypatch, undrawn):  # noqa: F811
    assert run(*VGL, *NETWORK, "--out", tmp_path / "whole") == 0
    whole = pd.read_csv(folder(tmp_path / "whole") / "log.csv")
    assert whole["curl"].notna().all()
    assert (whole[whole["step"] == 5]["curl"] > 0).all()
    kept = torch.load(folder(tmp_path / "whole") / "checkpoint.pt", weights_only=True)["state"]["critic"]
    assert kept[0].shape == (2, 6, 3)  # seeds, width, states and time
    for i, (name, count) in enumerate((("step", 1), ("step", 4), ("_answers", 3), ("_move", 3))):
        with monkeypatch.context() as patch:
            stop_before(patch, name, count)
            assert run(*VGL, *NETWORK, "--out", tmp_path / str(i)) == 130
        assert run(*VGL, *NETWORK, "--out", tmp_path / str(i)) == 0
        for file in ("log.csv", "settings.json"):
            assert (folder(tmp_path / str(i)) / file).read_bytes() == (folder(tmp_path / "whole") / file).read_bytes()
    for i, change in enumerate((("--critic-epochs", 3), ("--option", "width=7"), ("--critic-rate", 0.02))):
        assert run(*VGL, *NETWORK, *change, "--out", tmp_path / f"other {i}") == 0
        other = pd.read_csv(folder(tmp_path / f"other {i}") / "log.csv")
        assert (other["curl"] != whole["curl"])[4:].any(), change


def test_each_seed_has_a_network_of_its_own_at_the_start():
    how = Run("vgl", "LQDoubleIntegrator", (("critic", "network"), ("width", 6)), seeds=2)
    first, second = (build_trainer(replace(how, seed=seed))[0].critic.parameters[0] for seed in (0, 1))
    assert not torch.allclose(first[0], first[1])
    assert torch.equal(first[1], second[0])


def test_a_checkpoint_without_the_critic_is_damaged(done, capsys):
    kept = torch.load(done / "checkpoint.pt", weights_only=True)
    del kept["state"]["critic"]
    torch.save(kept, done / "checkpoint.pt")
    assert run(*VGL, "--out", done.parent) == 2
    assert "damaged" in capsys.readouterr().err


def test_other_learners_have_no_curl_and_an_older_log_lacks_the_column(tmp_path, undrawn, capsys):  # noqa: F811
    svg = ("train", "--learner", "svg", *VGL[5:], "--out", tmp_path)
    assert run(*svg) == 0
    assert bool(pd.read_csv(folder(tmp_path) / "log.csv")["curl"].isna().all())
    assert "curl" not in capsys.readouterr().out
    kept = torch.load(folder(tmp_path) / "checkpoint.pt", weights_only=True)
    kept["rows"] = [{k: v for k, v in row.items() if k != "curl"} for row in kept["rows"]]
    torch.save(kept, folder(tmp_path) / "checkpoint.pt")
    assert run(*svg) == 0
    assert bool(pd.read_csv(folder(tmp_path) / "log.csv")["curl"].isna().all())


BAD = {
    "lambda": (("--option", "lam=1.2"), "lam must lie in [0, 1]"),
    "lambda below 0": (("--option", "lam=-0.1"), "lam must lie in [0, 1]"),
    "weight": (("--option", "Omega=none"), "Omega must be one of identity, commands"),
    "critic": (("--option", "critic=quadratic"), "critic must be one of linear, network"),
    "width 0": ((*NETWORK, "--option", "width=0"), "width must be a whole number >= 1; got 0"),
    "width NaN": ((*NETWORK, "--option", "width=NaN"), "NaN is not a finite number"),
    "width of a linear field": (("--option", "width=8"), "width must be left out with a linear critic"),
    "width without end": ((*NETWORK, "--option", "width=10000000"), "take a smaller width"),
    "fits": (("--critic-epochs", 0), "must be a whole number from 1"),
    "rate of the critic": ((*NETWORK, "--critic-rate", "nan"), "critic_rate must be a finite number > 0"),
    "tokens": (("--world", "TokenSumAndStop"), "linear-quadratic world"),
    "KL in the loss": (("--kl-loss", "k3:0.1"), "KL terms"),
    "KL in the reward": (("--kl-reward", "k1:0.1"), "KL terms"),
    "passes": (("--epochs", 2), "epochs and minibatches must be 1"),
    "endless": (("--world", "LQRandom", "--set", "size=2"), "horizon"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_usage_is_one_line_and_writes_nothing(case, capsys, tmp_path):
    options, named = BAD[case]
    assert run(*VGL, *options, "--out", tmp_path / "none") == 2
    message = capsys.readouterr().err.strip()
    assert named in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())
