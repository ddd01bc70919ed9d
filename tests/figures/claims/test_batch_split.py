"""The claim on micro-batches comes out as documented, and a token mean that keeps groups apart would be seen."""

import pandas as pd
import torch

import figures.claims.critic_free.batch_split as claim
from agents.recipes.learners import build_learner
from figures.harness.judge import judge


def verdict():
    rows = claim.measure(claim.settings("quick")[0], torch.Generator().manual_seed(0), "cpu")
    return judge(claim.CLAIM, pd.DataFrame(rows))


def test_one_batch_comes_out_as_documented():
    result = verdict()
    assert result.as_documented, result.reason


def test_a_token_mean_that_keeps_groups_apart_would_be_seen(monkeypatch):
    real = claim.learners
    monkeypatch.setattr(claim, "learners", lambda: real() | {"token mean": build_learner("grpo", length="row sum")})
    parts = verdict().parts
    assert parts[claim.TOKENS].result.outcome == "holds"
    assert parts[claim.SHARED].result.outcome == "fails"  # tokens are then the wrong share


def test_a_normaliser_that_couples_groups_makes_the_claim_fail(monkeypatch):
    real = claim.learners
    monkeypatch.setattr(claim, "learners", lambda: real() | {"row sum": build_learner("grpo", length="token mean")})
    assert verdict().parts[claim.EQUAL].result.outcome == "fails"
