"""Every empirical costate: sampled against exact, exact against central differences, and where each is (not) the truth."""

import copy

import pytest
import torch
from torch import nn

from envs.token_tasks import garnet
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import (
    differences,
    several_prompts,
    transformer,
    value_differences,
    worlds,
)
from theory.tokens.costates import SURROGATES, expected_costates, sampled_costates

close = torch.testing.assert_close
WORLDS = worlds()
EXACT = [name for name in SURROGATES if name != "gumbel"]
SITES = ("embedding", "layer1", "layer2")


def path(moved, still, averaged=False, level=0):
    """Realised return with the tokens' chances held: E1, or E1b."""
    return moved.by_node(still.chance(level) * moved.returns(level, averaged), level)


def score(moved, still):
    """sum_k gamma^k (Q_k - V_k) log pi(c_k) with all but log pi held: E2."""
    gamma, total = still.world.gamma, 0.0
    for k in range(still.world.horizon):
        after = still.world.V ** (still.world.horizon - k - 1)
        advantage = (still.Q(k) - still.V(k)[..., None]).flatten(1).repeat_interleave(after, 1)
        total = total + gamma**k * still.chance(0) * advantage * moved.log_pi[..., k]
    return moved.by_node(total, 0)


MEASURES = {
    "attention": path,
    "attention_expected": lambda moved, still: path(moved, still, averaged=True),
    "score": score,
    "total": lambda moved, still: moved.V(0),
}


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("costate", MEASURES)
@pytest.mark.parametrize("name", ["garnet", "several_prompts"])
def test_costate_is_the_central_difference_of_what_it_is_said_to_differentiate(name, costate, alpha):
    world = WORLDS[name]
    policy = transformer(world, temperature=0.7, seed=3)
    costates = expected_costates(world, policy, costate, "layer1", alpha)[0]
    close(costates, differences(MEASURES[costate], world, policy, alpha, "layer1"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.4, 1.0])
@pytest.mark.parametrize("costate", EXACT)
def test_samples_have_the_exact_mean(costate, alpha, rng):
    world = several_prompts()
    policy = transformer(world, seed=3)
    samples = sampled_costates(world, policy, costate, "layer1", 4000, rng, alpha)
    exact = expected_costates(world, policy, costate, "layer1", alpha)[0]
    assert samples.shape == (2, 4000, 2, 8)
    for values, mean in zip(samples, exact, strict=True):
        assert_mean_within(values, mean)
        shift = 0.3 * mean.norm() + 0.03
        assert differs_by(values, mean + shift), "the control: the samples are many enough to tell"


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("site", SITES)
def test_score_is_the_value_gradient_at_every_prefix_layer_and_temperature(site, temperature):
    world = WORLDS["garnet"]
    policy = transformer(world, temperature=temperature, seed=3)
    scores, totals = (expected_costates(world, policy, costate, site, 1.0) for costate in ("score", "total"))
    for k in range(world.horizon):
        close(scores[k], totals[k])
        close(scores[k], value_differences(world, policy, 1.0, site, k), rtol=1e-6, atol=1e-9)
    biased = expected_costates(world, policy, "score", site, 0.5)[0]
    truth = value_differences(world, policy, 0.5, site)
    assert float((biased - truth).norm()) > 1e-2 * float(truth.norm()), "the control: alpha < 1 needs the path too"


class Detached(nn.Module):
    """Queries as they are; keys and values without a gradient."""

    def __init__(self, inward):
        super().__init__()
        self.inward = inward

    def forward(self, x):
        q, k, v = self.inward(x).chunk(3, -1)
        return torch.cat([q, k.detach(), v.detach()], -1)


@pytest.mark.parametrize("site", SITES)
def test_detached_keys_and_values_break_the_identity_where_attention_carries_credit(site):
    world = WORLDS["garnet"]
    policy = transformer(world, seed=3)
    cut = copy.deepcopy(policy)
    for block in cut.blocks:
        block.attention.inward = Detached(block.attention.inward)
    truth = value_differences(world, policy, 1.0, site)
    costates = expected_costates(world, cut, "score", site, 1.0)[0]
    lost = float((costates - truth).norm() / truth.norm())
    assert lost > 0.05 if site != "layer2" else lost < 1e-6, "nothing attends to the last layer's output"


@pytest.mark.parametrize("name", WORLDS)
def test_attention_costate_of_a_token_reward_is_zero_for_hard_tokens_only(name, rng):
    world = WORLDS[name]
    policy = transformer(world, seed=3)
    for level in expected_costates(world, policy, "attention", "embedding", 1.0):
        assert torch.equal(level, torch.zeros_like(level))
    assert not sampled_costates(world, policy, "attention", "embedding", 5, rng, 1.0).any()
    assert float(expected_costates(world, policy, "attention", "embedding", 0.9)[0].norm()) > 1e-6
    assert float(expected_costates(world, policy, "attention_expected", "embedding", 1.0)[0].norm()) > 1e-6


@pytest.mark.parametrize("costate", SURROGATES)
def test_the_generator_decides_the_samples(costate):
    world = WORLDS["garnet"]
    draw = lambda seed: sampled_costates(  # noqa: E731
        world, transformer(world), costate, "layer1", 20, torch.Generator().manual_seed(seed), 0.5
    )
    assert torch.equal(draw(1), draw(1))
    assert torch.equal(draw(1), draw(2)) == (costate == "soft"), "soft has no randomness"


def test_bad_requests_are_refused(rng):
    world = garnet(V=3, horizon=1, seed=2)
    policy = transformer(world)
    with pytest.raises(InputError, match=r"'nonsense' is unknown.*attention.*gumbel"):
        expected_costates(world, policy, "nonsense", "layer1")
    with pytest.raises(InputError, match="'nonsense' is unknown"):
        sampled_costates(world, policy, "nonsense", "layer1", 3, rng)
    with pytest.raises(InputError, match=r"gumbel.*sampled_costates"):
        expected_costates(world, policy, "gumbel", "layer1")
    with pytest.raises(InputError, match="tau_g must be > 0"):
        sampled_costates(world, policy, "gumbel", "layer1", 3, rng, tau_g=0.0)
    with pytest.raises(InputError, match="layer7"):
        expected_costates(world, policy, "total", "layer7")
    with pytest.raises(InputError, match="alpha"):
        expected_costates(world, policy, "total", "layer1", 1.5)
