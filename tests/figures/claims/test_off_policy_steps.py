"""Planted defects turn the parts of the claim on inner steps and stale rows."""

from dataclasses import replace

import pandas as pd
import torch

import figures.claims.critic_free.off_policy_steps as claim
from agents.recipes.learners import Learner
from agents.recipes.surrogates import importance
from figures.harness.judge import judge
from figures.measures import off_policy

SETTING = claim.OffPolicyStepsSetting(off_policy.LOCK, steps=2, group=2, temperature=2.0)


def outcomes(learners, setting, monkeypatch):
    monkeypatch.setattr(off_policy, "learners", lambda: learners)
    rows = claim.measure(setting, torch.Generator().manual_seed(0), "cpu")
    return {name: part.result.outcome for name, part in judge(claim.CLAIM, pd.DataFrame(rows)).parts.items()}


def test_a_first_step_with_a_bias_and_whole_rows_weighted_by_tokens_are_seen(monkeypatch):
    few = {name: off_policy.learners()[name] for name in ("grpo", "whole row")}
    right = outcomes(few, SETTING, monkeypatch)
    assert right[claim.FIRST] == right[claim.WHOLE] == "holds"
    wrong = {
        "grpo": Learner("grpo", lambda r, m, g: (r.sum(1, keepdim=True) + 0.3 * r.cumsum(1)) * m),
        "whole row": replace(few["whole row"], surrogate=importance),
    }
    seen = outcomes(wrong, SETTING, monkeypatch)
    assert seen[claim.FIRST] == seen[claim.WHOLE] == "fails"


def test_later_steps_and_stale_rows_that_stayed_exact_would_be_seen(monkeypatch):
    exact = {"grpo": off_policy.learners()["whole row"]}
    assert outcomes(exact, SETTING, monkeypatch)[claim.LATER] == "holds"
    stale = claim.OffPolicyStepsSetting(off_policy.STOP, ages=(1,), group=2)
    assert outcomes(exact, stale, monkeypatch)[claim.STALE] == "holds"


def test_a_clip_that_never_acts_and_one_where_there_is_none_are_seen(monkeypatch):
    recipes = off_policy.learners()
    setting = claim.OffPolicyStepsSetting(off_policy.STOP, steps=2, stride=0.1, group=2)
    right = outcomes({name: recipes[name] for name in ("grpo", "importance")}, setting, monkeypatch)
    assert right[claim.CLIP] == right[claim.NO_CLIP] == "holds"
    seen = outcomes({"grpo": recipes["importance"], "importance": recipes["grpo"]}, setting, monkeypatch)
    assert seen[claim.CLIP] == seen[claim.NO_CLIP] == "fails"
