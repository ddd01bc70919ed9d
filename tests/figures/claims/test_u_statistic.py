"""Planted defects turn the parts of the claim on the variance of group updates."""

import pandas as pd
import pytest
import torch

import figures.claims.critic_free.u_statistic as claim
from figures.harness.judge import judge

SMALL = claim.UStatisticSetting("garnet (2,3)", 1, sizes=(2, 3), sampled=(2, 4), samples=20_000)


def outcome(part):
    rows = claim.measure(SMALL, torch.Generator().manual_seed(0), "cpu")
    return judge(claim.CLAIM, pd.DataFrame(rows)).parts[part].result.outcome


@pytest.mark.parametrize("part", [claim.EXACT_SUM, claim.ORACLE])
def test_as_it_stands_the_part_holds(part):
    assert outcome(part) == "holds"


def test_a_wrong_remainder_is_seen(monkeypatch):
    real = claim.hoeffding
    monkeypatch.setattr(claim, "hoeffding", lambda *a: (real(*a)[0], 1.001 * real(*a)[1]))
    assert outcome(claim.EXACT_SUM) == "fails"


def test_a_baseline_that_is_not_V_is_seen(monkeypatch):
    real = claim.oracle_recipe
    monkeypatch.setattr(claim, "oracle_recipe", lambda V: real(1.01 * V))
    assert outcome(claim.ORACLE) == "fails"


def test_an_excess_of_another_size_is_seen(monkeypatch):
    real = claim.hoeffding
    monkeypatch.setattr(claim, "hoeffding", lambda *a: (real(*a)[0], 1.5 * real(*a)[1]))
    assert outcome(claim.EXCESS) == "fails"
