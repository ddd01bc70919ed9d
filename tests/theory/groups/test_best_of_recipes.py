"""Exact means of the pass@k recipes against the exact gradients of max@k and pass@k, with recipes that must miss them."""

import math

import pytest
import torch

from agents.recipes.learners import Penalty, build_learner
from envs.token_tasks import arithmetic
from tests.theory.groups.enumeration import policy_of
from tests.theory.groups.test_targets import PLACES
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import expected_update
from theory.groups.objectives import prompt_gradients
from theory.groups.targets import kl_regularised, max_at_k, pass_at_k

close = torch.testing.assert_close
CASES = [(2, 2, "none"), (2, 3, "loo"), (2, 2, "loo-1"), (3, 3, "none"), (3, 3, "loo-1"), (1, 2, "loo"), (1, 1, "none")]


@pytest.mark.parametrize("place", ["two prompts", "when to stop", "noisy"])
@pytest.mark.parametrize(("k", "G", "baseline"), CASES)
def test_pkpos_mean_is_the_gradient_of_max_at_k_with_costates_and_nothing_elses(place, k, G, baseline):
    world, learner = PLACES[place], build_learner("pkpo", k=k, baseline=baseline)
    policy = policy_of(world)
    update = expected_update(world, policy, learner, G, ("layer1",), target=max_at_k(k))
    close(update.mean.flat, update.truth.flat, rtol=1e-9, atol=1e-13)
    for ours, theirs in zip(update.mean.costates["layer1"], update.truth.costates["layer1"], strict=True):
        close(ours, theirs, rtol=1e-8, atol=1e-12, equal_nan=True)
    if k > 1:  # the controls: grad J, the gradient of another k, and a recipe that knows nothing of k
        for target in (None, max_at_k(k + 1)):
            other = alignment(update.mean, expected_update(world, policy, learner, G, target=target).truth)
            assert abs(other.scale - 1) + other.bias > 1e-2
        plain = alignment(expected_update(world, policy, build_learner("rloo"), 2).mean, update.truth)
        assert abs(plain.scale - 1) + plain.bias > 1e-2


@pytest.mark.parametrize("prompts", [2, [0, 1], [1, 1]])
def test_a_batch_of_several_prompts_has_the_same_mean_times_its_shares(prompts):
    world, policy = PLACES["two prompts"], policy_of(PLACES["two prompts"])
    update = expected_update(world, policy, build_learner("pkpo"), 2, target=max_at_k(2), prompts=prompts)
    shares = {2: [0.3, 0.7], (0, 1): [0.5, 0.5], (1, 1): [0.0, 1.0]}[prompts if prompts == 2 else tuple(prompts)]
    there = type(world)(world.P, world.r, world.prompts, world.starts, 2, 0.8, weights=shares)
    close(update.mean.flat, expected_update(there, policy, build_learner("pkpo"), 2, target=max_at_k(2)).truth.flat)


def factor(P, G, k, divided=True):
    """c(P) of the docstring: what a success gets more than a failure, over the other rows, in a loop."""
    total = 0.0
    for j in range(G):
        M, N = (1 - math.comb(G - x, k) / math.comb(G, k) for x in (j + 1, j))
        top, low = 1 - M, 1 - N - math.comb(G - 1 - j, k - 1) / math.comb(G - 1, k - 1)
        if divided:
            top, low = (x / math.sqrt(m * (1 - m)) if 0 < m < 1 else 0.0 for x, m in ((top, M), (low, N)))
        total += math.comb(G - 1, j) * P**j * (1 - P) ** (G - 1 - j) * (top - low)
    return total


@pytest.mark.parametrize(("k", "G"), [(1, 3), (2, 3), (2, 5), (3, 5), (3, 3)])
def test_pass_k_trainings_mean_is_its_factor_times_the_gradient_of_every_prompt(k, G):
    world, learner = arithmetic(2, 2), build_learner("pass_k_training", k=k)
    policy = policy_of(world)
    P, slopes = prompt_gradients(world, policy)
    update = expected_update(world, policy, learner, G, target=pass_at_k(k))
    c = torch.tensor([factor(x, G, k) for x in P.tolist()], dtype=torch.float64)
    close(update.mean.flat, (c[:, None] * slopes).mean(0), rtol=1e-9, atol=1e-13)
    assert factor(0.37, G, k, divided=False) == pytest.approx((1 / k - 1 / G) * k * 0.63 ** (k - 1), abs=1e-12)
    ours = alignment(update.mean, update.truth)
    if k == G:
        assert float(update.mean.flat.norm()) < 1e-12
    elif k + 1 == G:
        assert (ours.cosine, ours.scale) == pytest.approx((1, k**-1.5), abs=1e-9)
    elif k > 1:  # neither a multiple of grad pass@k nor of grad J, but nearer to the first than GRPO is
        grpo = expected_update(world, policy, build_learner("grpo", length="row sum"), G, target=pass_at_k(k))
        assert alignment(grpo.mean, grpo.truth).cosine < ours.cosine < 1 - 1e-9
        assert alignment(update.mean, expected_update(world, policy, learner, G).truth).bias > 1e-3


def test_in_large_groups_pass_k_training_climbs_the_arcsine_of_pass_at_k():
    P, k = 0.3, 3
    passed = 1 - (1 - P) ** k
    limit = (1 - P) ** (k - 1) / math.sqrt(passed * (1 - passed))
    gaps = [abs(factor(P, G, k) / limit - 1) for G in (50, 100, 200)]
    assert gaps[1] == pytest.approx(gaps[0] / 2, rel=0.15)
    assert gaps[2] == pytest.approx(gaps[1] / 2, rel=0.1)


def test_k1_in_the_reward_climbs_the_return_less_the_divergence():
    world = PLACES["noisy"]
    policy, reference = policy_of(world), policy_of(world, seed=5)
    target, means = kl_regularised(reference, 0.4), {}
    for estimator in ("k1", "k3"):
        learner = build_learner("rloo", kl_reward=Penalty(estimator, 0.4))
        update = expected_update(world, policy, learner, 2, reference=reference, target=target)
        means[estimator] = alignment(update.mean, update.truth)
    assert means["k1"].cosine == pytest.approx(1, abs=1e-12)
    assert means["k1"].scale == pytest.approx(1, abs=1e-10)
    assert means["k3"].bias > 1e-3, "the control"
