"""State-reading transformers of any vocabulary and their worlds: laws of the tokens, positions, rewards, the two clusters."""

import copy
import math

import pytest
import torch

from figures.measures import state_readers as module
from theory.tokens.dynamic_programming import tables
from theory.tokens.softmax_bounds import entropy, gini
from theory.tokens.state_reading import state_reading_split

close = torch.testing.assert_close


def probabilities(V, kind, tied, seed=5):
    with torch.no_grad():
        logits = module.state_logits(module.reader_policy(V, kind, tied, seed))
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
            policy = module.reader_policy(4096, kind, tied, 1)
            h = torch.randn(200, module.WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            h = torch.nn.functional.layer_norm(h, (module.WIDTH,))
            spread = (h @ policy.head.weight.T / policy.temperature).std()
            assert float(spread.detach()) == pytest.approx(module.POLICIES[kind], rel=0.1)


def test_the_states_token_stands_where_a_rollout_would_have_it():
    """The same logits from a network whose position embeddings T and T + k are exchanged."""
    policy, T = module.reader_policy(8, "Zipf", False, 0), len(module.PROMPT)
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
    policy, rng = module.reader_policy(512, "near uniform", True, 2), torch.Generator().manual_seed(0)
    worlds = {}
    for rewards in module.REWARDS:
        scores = module.token_scores(policy, rewards, rng)
        worlds[rewards] = module.reader_world(scores, torch.Generator().manual_seed(1))
        related = torch.corrcoef(torch.stack([scores[1, 2], worlds[rewards].r[1, 2]]))[0, 1]
        assert float(related.detach()) > 0.9
    one, other = worlds.values()
    assert torch.equal(one.P, other.P)
    assert not torch.equal(one.r, other.r)
    assert torch.equal(one.r.sort(-1).values, other.r.sort(-1).values)
    table = torch.cat([policy.head.weight.detach(), torch.ones(512, 1)], 1)
    explained = [
        1 - (r[0, 0] - table @ torch.linalg.lstsq(table, r[0, 0]).solution).var() / r[0, 0].var()
        for r in (one.r, other.r)
    ]
    assert explained[0] > 0.9
    assert explained[1] < 0.2


def test_the_error_is_the_slope_of_the_value():
    """Central differences of the value of one policy of the grid, through tables alone."""
    policy, rng = module.reader_policy(64, "peaked", True, 3), torch.Generator().manual_seed(0)
    world = module.reader_world(module.token_scores(policy, "related", rng), rng)
    logits = module.state_logits(policy)

    def value(delta):
        pi = torch.stack([torch.softmax(logits(delta, k), -1) for k in range(module.HORIZON)])
        return tables(world, pi).V[0, 0].detach()

    axes = 1e-5 * torch.eye(module.WIDTH, dtype=torch.float64)
    slope = torch.stack([(value(axis) - value(-axis)) / 2e-5 for axis in axes])
    split = state_reading_split(world, logits, module.WIDTH)
    close(split.value_gradient, slope, rtol=1e-6, atol=1e-10)


def test_splits_share_the_law_of_the_tokens_and_not_the_error():
    """The slopes are computed once: the split of the second kind of reward is that of a fresh computation."""
    splits = module.splits_by_rewards(64, "near uniform", True, torch.Generator().manual_seed(4))
    rng = torch.Generator().manual_seed(4)
    policy_seed, world_seed = torch.randint(2**31, (2,), generator=rng).tolist()
    policy = module.reader_policy(64, "near uniform", True, policy_seed)
    for rewards in module.REWARDS:
        world = module.reader_world(
            module.token_scores(policy, rewards, rng), torch.Generator().manual_seed(world_seed)
        )
        fresh = state_reading_split(world, module.state_logits(policy), module.WIDTH)
        for name, value in vars(fresh).items():
            assert torch.equal(getattr(splits[rewards], name), value), name
    one, other = (module.quantities(split) for split in splits.values())
    assert one["H"] == other["H"]
    assert one["sd(w) sd(Q)"] != other["sd(w) sd(Q)"]


@pytest.mark.parametrize("V", [8, 512])
def test_two_clusters_attain_the_bound(V):
    split = module.two_clusters(V, torch.Generator().manual_seed(0))
    close(split.error, split.reach / 4)
    close(split.tiers, split.reach.expand(4) / 4)
    assert float(split.error) > 0
