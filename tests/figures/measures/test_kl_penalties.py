"""Penalties by themselves: what they are, and the moments of their values over enumerated completions."""

import itertools
import math

import pytest
import torch

from figures.measures.kl_penalties import mean_gradients, penalised_learners, value_moments
from figures.measures.policy_pairs import between
from figures.measures.token_systems import build_policy, build_world
from theory.groups.kl import exact_kl


@pytest.fixture(scope="module")
def case():
    world = build_world("stop (2,4)")
    reference = build_policy(world, 0)
    return world, between(reference, build_policy(world, 1), 0.25), reference


def test_there_is_one_learner_for_each_estimator_and_place_and_k1_to_go():
    places = {f"{name} in the {place}" for name in ("k1", "k2", "k3") for place in ("reward", "loss")}
    learners = penalised_learners()
    assert set(learners) == places | {"k1 to go"}
    for name, learner in learners.items():
        penalty = learner.kl_loss if "loss" in name else learner.kl_reward
        assert (penalty.estimator, penalty.beta) == (name[:2], 1.0)
        assert (learner.kl_loss is None) == ("loss" not in name)


def test_without_rewards_k1_in_the_reward_descends_the_divergence(case):
    gradients, truth = mean_gradients(*case), exact_kl(*case, {}).total["KL"]
    torch.testing.assert_close(gradients["k1 in the reward"], truth, rtol=1e-9, atol=1e-12)
    assert float((gradients["k3 in the loss"] - truth).norm() / truth.norm()) > 1e-3, "the control"


def test_moments_are_those_of_a_loop_over_completions(case):
    world, policy, reference = case
    sums = {name: [0.0, 0.0] for name in ("k1", "k2", "k3")}
    prompt = world.prompts[0]
    for word in itertools.product(range(world.V), repeat=world.horizon):
        length = word.index(world.end) + 1 if world.end in word else world.horizon
        if any(word[length:]):  # what follows the end is written 0, once
            continue
        context = torch.cat([prompt, torch.tensor(word[:length])])[None]
        with torch.no_grad():
            logits = [p(p.embed(context[:, :-1]))[0, len(prompt) - 1 :] for p in (policy, reference)]
        mine, other = (torch.log_softmax(x, -1)[range(length), list(word[:length])] for x in logits)
        ratio, p = (mine - other).tolist(), math.exp(float(mine.sum()))
        each = {"k1": sum(ratio), "k2": sum(x * x / 2 for x in ratio), "k3": sum(math.exp(-x) - 1 + x for x in ratio)}
        for name, k in each.items():
            sums[name][0] += p * k
            sums[name][1] += p * k * k
    for name, (mean, spread) in value_moments(world, policy, reference).items():
        first, second = sums[name]
        assert mean == pytest.approx(first)
        assert spread == pytest.approx(math.sqrt(second - first**2))
