"""The large-vocabulary claim: its policies, its worlds, and verdicts that change when its numbers are spoilt."""

import copy
import math

import pandas as pd
import pytest
import torch

from envs.world import InputError
from figures.claims.tokens import large_vocabulary as module
from figures.harness.claim import judge
from theory.tokens.dynamic_programming import tables
from theory.tokens.softmax_bounds import entropy, gini
from theory.tokens.state_reading import state_reading_split

close = torch.testing.assert_close
SMALL = module.LargeVocabularySetting(network=0, sizes=(8, 512, 1024))


def measured(setting=SMALL):
    return pd.DataFrame(module.measure(setting, torch.Generator().manual_seed(3), "cpu"))


@pytest.fixture(scope="module")
def rows():
    return measured()


def probabilities(V, kind, tied, seed=5):
    with torch.no_grad():
        logits = module.state_logits(module.build_policy(V, kind, tied, seed))
        return torch.softmax(logits(torch.zeros(module.WIDTH, dtype=torch.float64), 0), -1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("V", [64, 4096])
def test_policies_are_what_their_names_say_whether_tied_or_not(V, tied):
    uniform, zipf, peaked = (probabilities(V, kind, tied) for kind in module.POLICIES)
    assert float(entropy(uniform).min()) > math.log(V) - 0.03
    assert float(entropy(uniform).max()) < math.log(V) - 1e-4, "a constant policy has no error to speak of"
    assert 0.4 < float(peaked[:, 0].min()) <= float(peaked[:, 0].max()) < 0.9999
    slope = (zipf.log() @ torch.linspace(-1, 1, V).double()).mean()  # ranks in order, whatever the network adds
    assert float(slope) < -0.1 * V
    assert 0.3 < float(gini(zipf).mean()) < 0.99 * float(gini(uniform).mean())


def test_logits_have_the_spread_that_the_temperature_is_chosen_for():
    for tied in (True, False):
        for kind in ("near uniform", "Zipf"):
            policy = module.build_policy(4096, kind, tied, 1)
            h = torch.randn(200, module.WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            h = torch.nn.functional.layer_norm(h, (module.WIDTH,))
            spread = (h @ policy.head.weight.T / policy.temperature).std()
            assert float(spread.detach()) == pytest.approx(module.POLICIES[kind], rel=0.1)


def test_the_states_token_stands_where_a_rollout_would_have_it():
    """The same logits from a network whose position embeddings T and T + k are exchanged."""
    policy, T = module.build_policy(8, "Zipf", False, 0), len(module.PROMPT)
    delta = torch.randn(module.WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits = module.state_logits(policy)
    for k in range(module.HORIZON):
        reader = copy.deepcopy(policy)
        with torch.no_grad():
            reader.position[[T, T + k]] = policy.position[[T + k, T]]
        words = torch.tensor([[*module.PROMPT, z] for z in range(module.STATES)])
        probe = torch.zeros(module.STATES, T + 1, module.WIDTH, dtype=torch.float64)
        probe[:, T - 1] = delta
        close(logits(delta, k), reader(reader.embed(words), {"layer1": probe})[:, -1])
    assert not torch.allclose(logits(delta, 0), logits(delta, 1))


def test_both_ways_to_deal_the_rewards_share_all_but_the_dealing():
    policy, rng = module.build_policy(512, "near uniform", True, 2), torch.Generator().manual_seed(0)
    worlds = {}
    for rewards in module.REWARDS:
        scores = module.token_scores(policy, 512, rewards, rng)
        worlds[rewards] = module.build_world(512, scores, torch.Generator().manual_seed(1))
        related = torch.corrcoef(torch.stack([scores[1, 2], worlds[rewards].r[1, 2]]))[0, 1]
        assert float(related.detach()) > 0.9
    one, other = worlds.values()
    assert torch.equal(one.P, other.P)
    assert not torch.equal(one.r, other.r)
    assert torch.equal(one.r.sort(-1).values, other.r.sort(-1).values)
    table = torch.cat([policy.head.weight.detach(), torch.ones(512, 1)], 1)
    explained = [1 - (r[0, 0] - table @ torch.linalg.lstsq(table, r[0, 0]).solution).var() / r[0, 0].var()
                 for r in (one.r, other.r)]  # fmt: skip
    assert explained[0] > 0.9
    assert explained[1] < 0.2


def test_the_error_is_the_slope_of_the_value(rows):
    """Central differences of the value of one policy of the grid, through tables alone."""
    policy, rng = module.build_policy(64, "peaked", True, 3), torch.Generator().manual_seed(0)
    world = module.build_world(64, module.token_scores(policy, 64, "related", rng), rng)
    logits = module.state_logits(policy)

    def value(delta):
        pi = torch.stack([torch.softmax(logits(delta, k), -1) for k in range(module.HORIZON)])
        return tables(world, pi).V[0, 0].detach()

    axes = 1e-5 * torch.eye(module.WIDTH, dtype=torch.float64)
    slope = torch.stack([(value(axis) - value(-axis)) / 2e-5 for axis in axes])
    split = state_reading_split(world, logits, module.WIDTH)
    close(split.value_gradient, slope, rtol=1e-6, atol=1e-10)


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
    assert set(module.RANKED) <= set(ranks["quantity"])
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
    verdict = judge(module.CLAIM, measured(module.LargeVocabularySetting(0, (8, 16))))
    assert verdict.outcome == "fails"
    assert verdict.parts[part].outcome == "fails"


def test_the_presets_cover_the_sizes_that_are_told():
    quick, full = module.settings("quick"), module.settings("full")
    assert quick[0].sizes == (8, 64, 512, 4096, 32768)
    assert full[0].sizes == tuple(2**i for i in range(3, 16))
    assert len({setting.network for setting in full}) == 20


@pytest.mark.parametrize("sizes", [(8,), (8, 8), (4, 8), (8, 9), (8, 2**21)])
def test_sizes_that_cannot_be_judged_or_held_are_refused(sizes):
    with pytest.raises(InputError, match=r"sizes must be at least two even numbers from 8 to 1048576; got \("):
        module.LargeVocabularySetting(0, sizes)
