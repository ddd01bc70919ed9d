"""The claim on normalisers comes out as documented on a few settings, and would not on recipes without their breaker."""

import pandas as pd
import torch

import figures.claims.critic_free.normalisation_breaks as breaks
from figures.harness.judge import judge
from figures.measures.breakers import BreakerCase

FEW = [
    s
    for s in breaks.settings("quick")
    if (s.seed, s.ascended) == (0, 0) and s.group < 6 and (s.breaker, s.recipe) != (breaks.LENGTH, "GRPO")
]


def verdict(settings):
    rng = torch.Generator().manual_seed(0)
    rows = pd.DataFrame([row for setting in settings for row in breaks.measure(setting, rng, "cpu")])
    return judge(breaks.CLAIM, rows)


def test_a_few_settings_come_out_as_documented():
    few = verdict(FEW)
    assert few.as_documented, few.reason


def test_recipes_without_their_breaker_would_be_seen(monkeypatch):
    real = BreakerCase.recipes
    monkeypatch.setattr(BreakerCase, "recipes", lambda case: (real(case)[1],) * 2)
    parts = verdict([s for s in FEW if s.breaker in (breaks.LENGTH, breaks.STD)]).parts
    assert parts[breaks.LENGTH].result.outcome == parts[breaks.STD].result.outcome == "holds"
