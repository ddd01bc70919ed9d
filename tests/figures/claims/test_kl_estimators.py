"""Penalties of another size turn the claim about KL estimators."""

from dataclasses import replace

import pandas as pd
import torch

import figures.claims.critic_free.kl_estimators as kl
from agents.recipes.learners import Penalty
from figures.harness.judge import judge
from figures.measures import kl_penalties


def outcomes(setting, parts):
    rows = kl.measure(setting, torch.Generator().manual_seed(0), "cpu")
    verdict = judge(kl.CLAIM, pd.DataFrame(rows))
    return [verdict.parts[part].result.outcome for part in parts]


def test_penalties_of_another_size_are_seen(monkeypatch):
    setting, real = kl.KlEstimatorsSetting("lock (2,3)", 0, (1 / 64, 1 / 4)), kl_penalties.penalised_learners()
    own = (kl.K3_FORWARD, kl.K1_REWARD)
    assert outcomes(setting, own) == ["holds", "holds"]
    off = {
        "k3 in the loss": replace(real["k3 in the loss"], kl_loss=Penalty("k3", 1.01)),
        "k1 in the reward": replace(real["k1 in the reward"], kl_reward=Penalty("k1", 0.99)),
    }
    monkeypatch.setattr(kl_penalties, "penalised_learners", lambda: real | off)
    assert outcomes(setting, own) == ["fails", "fails"]


def test_an_estimator_of_another_value_is_seen(monkeypatch):
    setting, own = kl.KlEstimatorsSetting("one choice", 0, (1 / 64, 1 / 4)), (kl.VALUES,)
    assert outcomes(setting, own) == ["holds"]
    monkeypatch.setitem(kl_penalties.KL_ESTIMATORS, "k3", lambda x: x.exp() - 1 - x)  # the ratio turned round
    assert outcomes(setting, own) == ["fails"]
