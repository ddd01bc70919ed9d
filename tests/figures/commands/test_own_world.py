"""A user's own world in every command: the same numbers as by hand, kept apart when the file changes, refused in one line."""

import itertools
import json

import pandas as pd
import pytest
import torch

from agents.policies.transformer import Transformer
from envs.own_world import load_own_world
from figures.commands.own_world import own_value
from figures.harness.registry import load_claims
from figures.harness.runner import plan
from figures.measures.token_systems import build_world
from tests.envs.test_own_world import own  # noqa: F401
from tests.figures.commands.test_train import TINY, run, undrawn  # noqa: F401
from theory.tokens.prefix_tree import grow

TOOL = """
from envs.tool_tasks import ask_oracle

def tool(noise=0.2):
    return ask_oracle(2, noise=noise)
"""


@pytest.mark.usefixtures("own", "undrawn")
def test_training_takes_files_and_a_changed_file_is_another_run(own):  # noqa: F811
    command = ("train", "--learner", "rloo", *TINY, "--out", own / "runs")
    for spec in ("own.py:tokens", "own.py:system", "own.json"):
        assert run(*command, "--world", spec) == 0
    log = pd.read_csv(next((own / "runs").glob("rloo-own.py-tokens-*/log.csv")))
    policy = Transformer(3, width=4, layers=1, heads=1, length=3, seed=0)
    assert log["J"][0] == pytest.approx(float(grow(load_own_world("own.py:tokens"), policy).J), rel=1e-12)
    assert run(*command, "--world", "own.py:tokens") == 0
    assert len(list((own / "runs").iterdir())) == 3
    (own / "own.py").write_text((own / "own.py").read_text().replace("seed=1", "seed=2"))
    assert run(*command, "--world", "own.py:tokens") == 0
    assert len(list((own / "runs").iterdir())) == 4


@pytest.mark.usefixtures("own")
def test_a_builder_that_builds_another_world_at_every_call_is_refused(own, capsys, monkeypatch):  # noqa: F811
    (own / "fickle.py").write_text(
        "import itertools\nfrom envs.token_tasks import garnet\nn = itertools.count()\n"
        "def build():\n    return garnet(V=2, states=2, horizon=2, seed=next(n))\n"
    )
    monkeypatch.setattr("envs.own_world.load_user_function", lambda *a, n=[0]: lambda: _next(n))
    assert run("train", "--learner", "rloo", "--world", "fickle.py:build", *TINY, "--out", own / "runs") == 2
    assert "builds another world at every call" in capsys.readouterr().err
    assert not (own / "runs").exists()


def _next(n):
    from envs.token_tasks import garnet

    n[0] += 1
    return garnet(V=2, states=2, horizon=2, seed=n[0])


@pytest.mark.usefixtures("own")
def test_claims_take_worlds_of_their_kind(own, capsys):  # noqa: F811
    (own / "tool.py").write_text(TOOL)
    tiny = ("--preset", "tiny", "--jobs", 1, "--out", own / "r")
    assert run("check", "error_split", "bellman_costate", "--world", "tool.py:tool", *tiny) == 0
    settings = [json.loads(path.read_text())["setting"] for path in (own / "r" / "records").glob("*/*.json")]
    mine = [setting for setting in settings if setting["world"].startswith("tool.py:tool#")]
    assert {setting.get("alpha", 1.0) for setting in mine} == {1.0}
    assert "taken by bellman_costate, error_split" in capsys.readouterr().err
    assert run("check", "costate_mean", "--world", "tool.py:tool", *tiny[:4], "--out", own / "none") == 2
    assert "none of the claims" in capsys.readouterr().err
    assert run("check", "error_split", "--world", "own.json", *tiny[:4], "--out", own / "none") == 2
    assert not (own / "none").exists()


@pytest.mark.usefixtures("own")
def test_a_sweep_takes_a_file_as_the_value_of_a_field(own, capsys):  # noqa: F811
    tiny = ("--preset", "tiny", "--jobs", 1, "--out", own / "r")
    assert run("sweep", "bellman_costate", "--set", "world=own.py:tokens", *tiny) == 0
    rows = pd.read_csv(own / "r" / "rows" / "bellman_costate.csv")
    assert set(rows["world"].str.split("#").str[0]) == {"own.py:tokens"}
    assert run("sweep", "costate_recursion", "--set", "system=own.json", *tiny) == 0
    for claim, change in [("costate_mean", "system=own.py:tokens"), ("bellman_costate", "world=own.json")]:
        assert run("sweep", claim, "--set", change, *tiny[:4], "--out", own / "none") == 2
        assert change.split("=")[1] in capsys.readouterr().err
    assert not (own / "none").exists()


@pytest.mark.usefixtures("own")
def test_checkpoints_are_judged_in_a_users_world(own, capsys):  # noqa: F811
    (own / "tool.py").write_text(TOOL)
    (own / "ck").mkdir()
    torch.save(Transformer(3, width=4, layers=1, heads=1, length=8, seed=1).state_dict(), own / "ck" / "a.pt")
    judge = ("impact", "--checkpoints", own / "ck", "--heads", 1)
    assert run(*judge, "--world", "own.py:tokens") == 0
    table = pd.read_csv(own / "ck" / "impact.csv")
    policy = Transformer(3, width=4, layers=1, heads=1, length=8, seed=1)
    assert table["J"][0] == pytest.approx(float(grow(load_own_world("own.py:tokens"), policy).J), rel=1e-9)
    torch.save(Transformer(4, width=4, layers=1, heads=1, length=8, seed=1).state_dict(), own / "ck" / "a.pt")
    assert run(*judge, "--world", "tool.py:tool") == 2
    assert "environment speaks" in capsys.readouterr().err


def test_registered_worlds_serve_claims_by_their_names():
    assert build_world("TokenOracle").speech is not None


@pytest.mark.usefixtures("own")
def test_a_claim_gets_no_world_of_the_other_kind():
    claims = load_claims(["costate_mean", "bellman_costate"])
    token_world, system = own_value("world", "own.py:tokens"), own_value("system", "own.json")
    for kind, own_world, taker in [("tokens", token_world, "bellman_costate"), ("system", system, "costate_mean")]:
        plain = {point.id for point in plan(claims, "tiny", 0, "cpu")}
        added = [point for point in plan(claims, "tiny", 0, "cpu", (kind, own_world)) if point.id not in plain]
        assert {point.claim for point in added} == {taker}


# ---- a token world by its table of rewards, in JSON

TABLE = [0.0, 1.0, 0.25, 0.5, 1.0, 0.0, 0.75, 0.5]


@pytest.fixture
def rewards(own):  # noqa: F811
    """A folder with the JSON of a token world, and J of a policy in it by going through all answers."""
    (own / "rewards.json").write_text(json.dumps({"V": 2, "horizon": 3, "rewards": TABLE}))

    @torch.no_grad()
    def J(policy):
        total = 0.0
        for reward, answer in zip(TABLE, itertools.product(range(2), repeat=3), strict=True):
            laws = torch.log_softmax(policy(policy.embed(torch.tensor([[0, *answer]])))[0], -1)
            total += reward * float(sum(laws[k, a] for k, a in enumerate(answer)).exp())
        return total

    return own, J


@pytest.mark.usefixtures("undrawn")
def test_training_takes_a_table_of_rewards(rewards):
    own, J = rewards  # noqa: F811
    assert run("train", "--learner", "rloo", *TINY, "--world", "rewards.json", "--out", own / "runs") == 0
    log = pd.read_csv(next((own / "runs").glob("rloo-rewards.json-*/log.csv")))
    policy = Transformer(2, width=4, layers=1, heads=1, length=4, seed=0)
    assert log["J"][0] == pytest.approx(J(policy), rel=1e-12)
    assert log["J"][1] != pytest.approx(J(policy), rel=1e-6)


def test_pretraining_and_impact_take_a_table_of_rewards(rewards):
    own, J = rewards  # noqa: F811
    small = ("--updates", 4, "--checkpoints", 2, "--batch", 4, "--width", 4, "--layers", 1, "--heads", 1)
    assert run("pretrain", "--world", "rewards.json", *small, "--out", own / "ck") == 0
    policy = Transformer(2, width=4, layers=1, heads=1, length=4, seed=0)
    first = pd.read_csv(own / "ck" / "pretraining.csv")["J"][0]
    assert first == pytest.approx(J(policy), rel=1e-9)
    assert run("impact", "--checkpoints", own / "ck") == 0
    table = pd.read_csv(own / "ck" / "impact.csv")
    assert table["J"][0] == pytest.approx(first, rel=1e-9)
    (own / "rewards.json").write_text(json.dumps({"V": 2, "horizon": 3, "rewards": [1 - x for x in TABLE]}))
    assert run("impact", "--checkpoints", own / "ck", "--world", "rewards.json") == 0
    assert pd.read_csv(own / "ck" / "impact.csv")["J"][0] == pytest.approx(1 - first, rel=1e-9)


def test_check_and_sweep_take_a_table_of_rewards_and_mark_it(rewards, capsys):
    own, _ = rewards  # noqa: F811
    tiny = ("--preset", "tiny", "--jobs", 1, "--out")
    assert run("check", "bellman_costate", "--world", "rewards.json", *tiny, own / "r") == 0
    assert "taken by bellman_costate" in capsys.readouterr().err
    settings = [json.loads(path.read_text())["setting"] for path in (own / "r" / "records").glob("*/*.json")]
    assert any(setting["world"].startswith("rewards.json#") for setting in settings)
    assert run("sweep", "bellman_costate", "--set", "world=rewards.json", *tiny, own / "s") == 0
    assert set(pd.read_csv(own / "s" / "rows" / "bellman_costate.csv")["world"].str.split("#").str[0]) == {
        "rewards.json"
    }
    (own / "rewards.json").write_text(json.dumps({"V": 2, "horizon": 3, "rewards": TABLE[1:]}))
    for command in (
        ("check", "bellman_costate", "--world", "rewards.json"),
        ("sweep", "bellman_costate", "--set", "world=rewards.json"),
    ):
        assert run(*command, *tiny, own / "none") == 2
        assert "rewards must hold V^horizon = 2^3 = 8 numbers" in capsys.readouterr().err
    assert not (own / "none").exists()
