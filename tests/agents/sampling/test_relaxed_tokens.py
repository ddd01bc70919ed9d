"""Relaxed tokens: the noise, one step's estimators, and whole rollouts against sampled ones and by hand."""

import math

import pytest
import torch
from scipy import stats

from agents.policies.transformer import Transformer
from agents.sampling.relaxed_tokens import gumbel_noise, relaxed_estimates, relaxed_returns, relaxed_tokens
from envs.token_tasks import garnet, sum_and_stop
from tests.oracles import assert_mean_within, differs_by
from theory.tokens.prefix_tree import grow


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_noise_is_gumbel():
    drawn = gumbel_noise((50_000,), generator())
    assert stats.kstest(drawn.numpy(), "gumbel_r").pvalue > 1e-3
    assert stats.kstest(1.05 * drawn.numpy(), "gumbel_r").pvalue < 1e-6
    assert torch.equal(drawn, gumbel_noise((50_000,), generator()))


def test_the_largest_entry_has_the_policy_s_law_and_small_tau_gives_the_token():
    logits = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64)
    g = gumbel_noise((100_000, 3), generator())
    y = relaxed_tokens(logits, g, 0.7)
    torch.testing.assert_close(y.sum(1), torch.ones(len(y)).double())
    hard = torch.nn.functional.one_hot(y.argmax(1), 3).double()
    assert_mean_within(hard, torch.softmax(logits, 0))
    assert differs_by(y, torch.softmax(logits, 0))  # a relaxed token is not p in the mean
    assert float((relaxed_tokens(logits, g, 1e-9) - hard).abs().max()) < 1e-9


def test_estimates_of_one_step_by_hand():
    logits, tau = torch.tensor([0.4, -0.2], dtype=torch.float64), 0.6
    g = torch.tensor([[0.3, 1.1], [2.0, -0.4]], dtype=torch.float64)
    found = relaxed_estimates(logits, lambda y: y[:, 0] ** 2, g, tau, (0.1, 0.2))
    p = float(torch.sigmoid(logits[0] - logits[1]))
    for i, (one, other) in enumerate(g.tolist()):
        y = 1 / (1 + math.exp(-(0.6 + one - other) / tau))
        slope = 2 * y * y * (1 - y) / tau
        assert found.pathwise[i].tolist() == pytest.approx([slope, -slope])
        scores = [1 - math.exp(-one), 1 - math.exp(-other)]
        assert found.score[i].tolist() == pytest.approx([(y * y - 0.1) * s for s in scores])
        top = float(y > 0.5)
        assert found.token[i].tolist() == pytest.approx([(top - 0.2) * (top - p), (top - 0.2) * (p - top)])


def case(world, seed=0):
    return world, Transformer(world.V, None, 8, 1, 1, world.longest, seed=seed, dtype=torch.float64)


@pytest.mark.parametrize("world", [sum_and_stop(3, 3), garnet(V=3, horizon=3, gamma=0.8)], ids=["end token", "chance"])
def test_returns_tend_to_the_exact_return_of_sampled_tokens_as_tau_falls(world):
    world, policy = case(world)
    which = torch.arange(len(world.prompts))
    g = gumbel_noise((4_000 * len(which), world.horizon, world.V), generator(1))
    with torch.no_grad():
        cold, warm = (
            relaxed_returns(world, policy, which, g, tau).unflatten(0, (len(which), -1)) for tau in (1e-6, 2.0)
        )
    exact = grow(world, policy).V[0].detach()
    assert_mean_within(cold.T, exact)
    assert differs_by(cold.T, 1.5 * exact)
    if world.end is not None:
        assert differs_by(warm.T, exact)


def test_a_rollout_by_hand():
    """Two steps in a world of three tokens, read by a policy without a cache."""
    world, policy = case(garnet(V=3, horizon=2, gamma=0.7), seed=3)
    policy, g, tau = policy.requires_grad_(False), gumbel_noise((5, 2, 3), generator(2)), 0.9
    found = relaxed_returns(world, policy, torch.tensor([0]), g, tau)
    for i in range(5):
        x, belief, total = policy.embed(world.prompts[:1]), world.start_belief(0), 0.0
        for k in range(2):
            y = torch.softmax((torch.log_softmax(policy(x, {})[0, -1], -1) + g[i, k]) / tau, -1)
            total = total + 0.7**k * sum(
                float(belief[z] * y[a] * world.r[k, z, a]) for z in range(world.S) for a in range(3)
            )
            belief = sum(y[a] * belief @ world.P[:, a] for a in range(3))
            x = torch.cat([x, (y @ policy.embed(torch.arange(3)))[None, None]], 1)
        assert float(found[i]) == pytest.approx(float(total), rel=1e-10)
