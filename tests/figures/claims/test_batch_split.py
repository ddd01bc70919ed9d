"""The claim on micro-batches comes out as documented, and normalisers that couple other groups than it says are seen."""

import pandas as pd
import torch

import figures.claims.critic_free.batch_split as claim
from figures.harness.judge import judge


def verdict():
    rows = claim.measure(claim.settings("quick")[0], torch.Generator().manual_seed(0), "cpu")
    return judge(claim.CLAIM, pd.DataFrame(rows))


def test_one_batch_comes_out_as_documented():
    result = verdict()
    assert result.as_documented, result.reason


def test_a_row_sum_and_a_token_mean_that_change_places_are_seen(monkeypatch):
    real = claim.learners()
    changed = real | {"token mean": real["row sum"], "row sum": real["token mean"]}
    monkeypatch.setattr(claim, "learners", lambda: changed)
    parts = verdict().parts
    assert parts[claim.EQUAL].result.outcome == "fails"
    assert parts[claim.TOKENS].result.outcome == "holds"
    assert parts[claim.SHARED].result.outcome == "fails"  # tokens are then the wrong share
