"""The large-vocabulary claim: its rows, and verdicts that change when its numbers are spoilt."""

import pandas as pd
import pytest
import torch

from envs.world import InputError
from figures.claims.tokens import large_vocabulary as module
from figures.harness.judge import judge
from figures.measures.state_readers import QUANTITIES

SMALL = module.LargeVocabularySetting(network=0, sizes=(8, 512, 1024))


def measured(setting=SMALL):
    return pd.DataFrame(module.measure(setting, torch.Generator().manual_seed(3), "cpu"))


@pytest.fixture(scope="module")
def rows():
    return measured()


def test_all_parts_come_out_as_documented_at_every_size(rows):
    verdict = judge(module.CLAIM, rows)
    assert verdict.as_documented, verdict.reason
    bounds = rows[rows["part"] == "every bound is kept"]
    assert bounds.groupby(["V", "policy", "tied", "rewards"]).size().eq(6).all()
    assert len(bounds) == 3 * 3 * 2 * 2 * 6
    clusters = rows[rows["policy"] == "two clusters"]
    assert clusters[clusters["part"] == "tier 2 is attained"]["measured"].sub(0.25).abs().max() < 1e-12


def test_h_g_and_the_jacobian_are_the_same_for_both_rewards_and_the_error_is_not(rows):
    quantities = rows[rows["part"] == "quantity"]
    for name, same in (("H", True), ("G", True), ("||J||", True), ("D", True), ("sd(w) sd(Q)", False)):
        group = quantities[quantities["quantity"] == name].groupby(["V", "policy", "tied"])["measured"]
        assert (group.max() == group.min()).all() == same
    large = quantities[(quantities["quantity"] == "H") & (quantities["policy"] == "near uniform")]
    error = large.pivot_table(index=["V", "tied"], columns="rewards", values="target")
    assert (error.loc[512:, "related"] > 2 * error.loc[512:, "unrelated"]).all()


def test_rank_correlations_and_slopes_are_reported_once_each(rows):
    ranks = rows[rows["part"] == "rank correlation with the error"]
    assert set(ranks["over"]) == {"whole grid", "large", "large, related", "large, unrelated"}
    assert not ranks.duplicated(["over", "quantity"]).any()
    assert {*QUANTITIES, "tier 1", "tier 2"} == set(ranks["quantity"])
    slopes = rows[rows["part"] == "slope of ln in ln V"].set_index(["policy", "rewards", "quantity"])["measured"]
    assert slopes["near uniform", "related", "||J||"] == pytest.approx(-1, abs=0.1)
    assert slopes["Zipf", "related", "naive product"] > 0.5


def spoilt_covariance(p, w, Q):
    return 30 * torch.einsum("...a,...ad->...d", p * Q, w)


@pytest.mark.parametrize(
    ("name", "spoilt", "part"),
    [
        ("covariance", spoilt_covariance, "every bound is kept"),
        ("spread_factor", lambda G: (G / 2).clamp(max=0.25) * 0.99, "tier 2 is attained"),
        ("spread_factor", lambda G: (G / 2).clamp(max=0.5), "tier 2 is attained"),
        ("oscillation", lambda q: 0.5 * (q.amax(-1) - q.amin(-1)), "tier 2 is attained"),
        ("diameter", lambda w: (w - w.mean(-2, keepdim=True)).norm(dim=-1).amax(-1), "tier 2 is attained"),
        ("_largest_singular_value", lambda w: 0.01 * w.norm(dim=(-2, -1)), "every bound is kept"),
    ],
)
def test_a_planted_error_in_the_theory_makes_the_claim_fail(name, spoilt, part, monkeypatch):
    monkeypatch.setattr(f"theory.tokens.state_reading.{name}", spoilt)
    monkeypatch.setattr(module, "_LARGE", 8)
    one_kind = module.LargeVocabularySetting(0, (8, 16), policies=("Zipf",))  # is enough to see it
    verdict = judge(module.CLAIM, measured(one_kind))
    assert verdict.outcome == "fails"
    assert verdict.parts[part].result.outcome == "fails"


def test_the_presets_cover_the_documented_sizes():
    tiny, quick, full = (module.settings(preset) for preset in ("tiny", "quick", "full"))
    assert tiny[0].sizes == (8, 16)
    assert quick[0].sizes == (8, 64, 512, 4096, 32768)
    assert full[0].sizes == tuple(2**i for i in range(3, 16))
    assert len({setting.network for setting in full}) == 20


@pytest.mark.parametrize("sizes", [(8,), (8, 8), (4, 8), (8, 9), (8, 2**21)])
def test_sizes_that_cannot_be_judged_or_held_are_refused(sizes):
    with pytest.raises(InputError, match=r"sizes must be at least two even numbers from 8 to 1048576; got \("):
        module.LargeVocabularySetting(0, sizes)
