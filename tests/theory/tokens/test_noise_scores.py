"""Ratios of noise, clamped noise and the mean over likely tokens, by sums and by sampling; the contract's numbers; refusals."""

import math

import pytest
import torch

from agents.recipes.learners import build_learner
from agents.recipes.soft_thoughts import FLOOR
from figures.measures.token_systems import build_policy, build_world
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within
from tests.typecheck import unchecked
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import expected_update
from theory.tokens.noise_scores import clamped_score, hard_limit_surrogate, noise_ratio
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close


def laws(*p):
    return torch.tensor(p, dtype=torch.float64).log()


def test_the_closed_moments_are_those_of_sampled_ratios():
    old, new = laws(0.5, 0.3, 0.2), laws(0.55, 0.25, 0.2)
    E = torch.empty(200_000, 3, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(0))
    g = -E.log()  # noise of the old law
    u = old + g
    log_density = [(-(u - p) - (-(u - p)).exp()).sum(1) for p in (old, new)]
    log_rho = log_density[1] - log_density[0]
    exact = noise_ratio(old, new)
    found = torch.stack([-log_rho, (2 * log_rho).exp()], 1)
    assert_mean_within(found, torch.stack(exact))
    assert_mean_within(log_rho.exp()[:, None], torch.ones(1).double())


def test_the_contracts_numbers():
    small = noise_ratio(laws(0.6, 0.3, 0.1), laws(0.66, 0.28, 0.06))
    assert float(small.kl) == pytest.approx(0.118, abs=5e-4)
    p, q = (laws(*x).exp() for x in ((0.6, 0.3, 0.1), (0.66, 0.28, 0.06)))
    assert float(p @ (p / q).log()) == pytest.approx(0.0146, abs=5e-5)
    score = clamped_score(-1.5, 3.0)
    assert (score.below, score.above, score.mean) == pytest.approx((0.0113, 0.0486, 0.0101), abs=5e-5)


def test_the_second_moment_is_infinite_from_a_fall_by_ln_2_on():
    for fall, finite in ((0.69, True), (math.log(2), False), (1.0, False)):
        moment = noise_ratio(torch.zeros(1).double(), torch.tensor([-fall]).double()).second_moment
        assert bool(moment.isfinite()) == finite
    d = -math.log(2) - 0.1
    E = torch.linspace(0, 400, 400_001, dtype=torch.float64)
    terms = (2 * (d - E * math.expm1(d)) - E).exp() * 1e-3
    partial = terms.cumsum(0)
    assert float(partial[-1]) > 1e3 * float(partial[100_000]), "a truncated sum grows without bound"
    assert float(noise_ratio(laws(1.0), laws(1.0)).second_moment) == 1.0


def test_batches_and_tokens_without_a_chance():
    old, new = torch.log_softmax(draws(4, 3), -1), torch.log_softmax(draws(4, 3) + 0.1 * draws(4, 3, seed=1), -1)
    both = noise_ratio(old, new)
    for i in range(4):
        alone = noise_ratio(old[i], new[i])
        close(alone.kl, both.kl[i])
        close(alone.second_moment, both.second_moment[i])
    none = laws(0.0)
    assert noise_ratio(torch.cat([old[0], none]), torch.cat([new[0], none])).kl == both.kl[0]
    for pair in ((old[0], torch.cat([new[0][:2], none])), (torch.cat([old[0][:2], none]), new[0])):
        assert noise_ratio(*pair).kl == math.inf
        assert noise_ratio(*pair).second_moment == math.inf


def test_clamped_noise_is_that_of_samples():
    E = torch.empty(400_000, 1, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(1))
    g, score = -E.log(), clamped_score(-1.5, 3.0)
    clamped = g.clamp(-1.5, 3.0)
    inside = torch.where(g == clamped, 1 - (-g).exp(), 0.0)
    found = torch.cat([(g < -1.5).double(), (g > 3).double(), 1 - (-clamped).exp(), inside], 1)
    assert_mean_within(found, torch.tensor(score).double())
    assert clamped_score(-math.inf, math.inf) == (0, 0, 0, 0)
    with refused("low"):
        clamped_score(3.0, -1.5)


@pytest.mark.parametrize("name", ["lock (2,3)", "stop (3,3)"])
def test_hard_thoughts_on_all_tokens_are_sampled_tokens(name):
    world = build_world(name)
    policy = build_policy(world, 0, spread=3.0)
    update = expected_update(world, policy, build_learner("rloo"), 2)
    for mean, factor in ((False, 1.0), (True, 1 / world.V)):
        total = hard_limit_surrogate(grow(world, policy), update.weights, mean=mean)
        slopes = torch.autograd.grad(total, list(policy.parameters()))
        for mine, theirs in zip(slopes, update.mean.parameters, strict=True):
            close(mine, factor * theirs, rtol=1e-9, atol=1e-12)


def test_the_mean_over_likely_tokens_is_that_of_sampled_noise():
    """One thought of three tokens, one of them rare; E of the winner's group and of the others by brute force."""
    world = build_world("one choice of 3")
    policy = build_policy(world, 0)
    with torch.no_grad():
        policy.head.bias.copy_(torch.tensor([0.0, 1.0, -4.5]))
        policy.head.weight.mul_(0.05)
    tree = grow(world, policy)
    log_p = torch.log_softmax(tree.levels[0].logits[0], -1)
    M = log_p.detach() > FLOOR
    assert M.tolist() == [True, True, False]
    W = draws(1, 3)
    exact = torch.autograd.grad(hard_limit_surrogate(tree, [W], FLOOR), policy.head.bias, retain_graph=True)[0]
    E = torch.empty(400_000, 3, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(2))
    winner = (log_p.detach() - E.log()).argmax(1)
    scores = torch.stack([torch.autograd.grad(x, policy.head.bias, retain_graph=True)[0] for x in log_p])
    each = W[0][winner, None] * (((1 - E) * M) @ scores) / M.sum()
    assert_mean_within(each, exact)


def test_the_mask_turns_the_update_where_tokens_are_rare_and_only_there():
    world, cosines = build_world("lock (3,4)"), []
    for spread in (1.0, 3.0):
        policy = build_policy(world, 0, spread=spread)
        update = expected_update(world, policy, build_learner("rloo"), 2)
        slopes = torch.autograd.grad(
            hard_limit_surrogate(grow(world, policy), update.weights, FLOOR), list(policy.parameters())
        )
        cosines.append(alignment(slopes, update.truth).cosine)
    assert cosines[0] == pytest.approx(1, abs=1e-12)
    assert cosines[1] < 0.9


@pytest.mark.parametrize(
    ("old", "new", "argument"),
    [
        ([0.0], [0.0, 0.0], "log_p_new"),
        (0.0, 0.0, "log_p_new"),
        ([math.nan], [0.0], "log_p_old"),
        ([0.0], [math.inf], "log_p_new"),
    ],
)
def test_refusals(old, new, argument):
    with unchecked(), refused(argument):
        noise_ratio(old, new)
