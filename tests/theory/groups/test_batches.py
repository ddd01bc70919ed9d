"""Recipes that mix the groups of a batch: their mean update is that of all ordered batches, one by one."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from agents.recipes.batch import Batch
from agents.recipes.learners import build_learner
from agents.recipes.surrogates import token_mean
from envs.token_mdp import TokenMDP
from envs.token_tasks import sum_and_stop
from tests.envs.refusals import refused
from tests.theory.groups.enumeration import Enumeration, policy_of
from tests.typecheck import unchecked
from theory.groups import batches
from theory.groups.binary_rewards import alignment, grpo_kappa
from theory.groups.expected_update import expected_update
from theory.groups.objectives import prompt_gradients

close = torch.testing.assert_close


def noisy_prompts():
    """Two prompts of unequal weight, one step by chance, then a reward that the state alone decides; and an end token."""
    P, r = torch.zeros(4, 3, 4), torch.zeros(2, 4, 3)
    P[0, 0, 1], P[0, 0, 2], P[0, 1, 1], P[0, 1, 2] = 0.8, 0.2, 0.3, 0.7
    P[:, 2, 3] = 1.0  # the end
    P[1:3, :2, 3] = P[3, :, 3] = 1.0
    r[0, 0, 0], r[1, 1, 0], r[1, 1, 1], r[1, 2, 1] = 0.1, 1.0, 1.0, 0.5
    return TokenMDP(P, r, [[0], [1]], [0, 1], 2, 0.9, weights=[0.4, 0.6], end=2)


def two_starts():
    """Numbers that must reach a sum, from two starts; rows of one and two tokens."""
    s = sum_and_stop(2, 2, gamma=0.9)
    return TokenMDP(s.P, s.r, [[0], [1]], [0, 1], 2, 0.9, weights=[0.7, 0.3], end=s.end)


WORLDS = {"noisy": noisy_prompts(), "lengths": two_starts()}
MIXING = {  # a learner, and rows of a group: one where it can be, for as few batches as possible
    "baseline of the batch": (build_learner("reinforce", baseline=True), 1),
    "token mean": (replace(build_learner("reinforce"), normalise=token_mean), 1),
    "whitened": (build_learner("reinforce_pp"), 1),
    "whitened, with a baseline": (build_learner("reinforce_pp", baseline=True), 2),
}


@unchecked()
def mean_of_all_batches(learner, world, policy, G, drawn_prompts):
    """`sum_batches P(batch) (minus the gradient of its loss)`; a batch is an ordered list of ordered groups."""
    every = Enumeration(world)
    p, fields = every.chances(policy).tolist(), every.fields()
    own = {q: list(itertools.product((every.prompt == q).nonzero()[:, 0].tolist(), repeat=G)) for q in range(2)}
    tables = [x.detach().requires_grad_() for x in every.evaluate(policy)]
    weights = torch.zeros_like(tables[0])
    for prompts, share in drawn_prompts:
        index = torch.arange(len(prompts)).repeat_interleave(G)
        for groups in itertools.product(*(own[q] for q in prompts)):
            rows = [i for group in groups for i in group]
            chosen = {name: x[rows] for name, x in fields.items()}
            w = learner.slopes(*(x[rows] for x in tables), Batch(group=index, **chosen))[1]
            weights.index_add_(0, torch.tensor(rows), share * math.prod(p[i] for i in rows) * w)
    total = (weights * every.evaluate(policy)[0]).sum()
    slopes = torch.autograd.grad(total, policy.parameters(), allow_unused=True, materialize_grads=True)
    return parameters_to_vector(slopes)


@pytest.mark.parametrize(
    ("place", "name"), [("lengths", name) for name in MIXING] + [("noisy", name) for name in list(MIXING)[:3]]
)
def test_a_batch_that_always_holds_both_prompts_has_the_mean_of_all_ordered_batches(place, name):
    world, (learner, G) = WORLDS[place], MIXING[name]
    policy = policy_of(world)
    brute = mean_of_all_batches(learner, world, policy, G, [((1, 0), 1.0)])
    close(expected_update(world, policy, learner, G, prompts=[1, 0]).mean.flat, brute, rtol=1e-9, atol=1e-12)
    other = expected_update(world, policy, learner, G, prompts=[0, 0]).mean.flat
    assert float((other - brute).norm()) > 1e-2 * float(brute.norm()), "the control: another batch"


@pytest.mark.parametrize("name", list(MIXING)[:3])
def test_prompts_that_are_drawn_have_the_mean_over_all_draws(name):
    world, (learner, G) = WORLDS["noisy"], MIXING[name]
    policy, w = policy_of(world, 1), world.weights.tolist()
    drawn = [(pair, w[pair[0]] * w[pair[1]]) for pair in itertools.product(range(2), repeat=2)]
    update = expected_update(world, policy, learner, G, prompts=2)
    close(update.mean.flat, mean_of_all_batches(learner, world, policy, G, drawn), rtol=1e-9, atol=1e-12)


def test_three_drawn_prompts_have_the_mean_over_all_draws():
    world, learner = WORLDS["lengths"], build_learner("reinforce_pp")
    policy, w = policy_of(world, 1), world.weights.tolist()
    drawn = [(three, math.prod(w[q] for q in three)) for three in itertools.product(range(2), repeat=3)]
    brute = mean_of_all_batches(learner, world, policy, 1, drawn)
    close(expected_update(world, policy, learner, 1, prompts=3).mean.flat, brute, rtol=1e-9, atol=1e-12)


def test_a_recipe_that_keeps_its_groups_apart_has_one_mean_for_every_number_of_drawn_prompts():
    world = WORLDS["noisy"]
    policy, learner = policy_of(world), build_learner("rloo")
    alone, three = (expected_update(world, policy, learner, 2, prompts=n).mean.flat for n in (None, 3))
    close(alone, three)
    first_only = expected_update(world, policy, learner, 2, prompts=[0]).mean.flat
    only = TokenMDP(world.P, world.r, world.prompts, world.starts, 2, 0.9, weights=[1.0, 0.0], end=2)
    close(first_only, expected_update(only, policy, learner, 2).mean.flat)
    close(
        expected_update(world, policy, learner, 2, prompts=[0, 1, 0]).mean.flat,
        mean_of_all_batches(learner, world, policy, 2, [((0,), 2 / 3), ((1,), 1 / 3)]),
    )


def test_a_whitened_batch_comes_near_the_gradient_as_it_grows():
    world = WORLDS["lengths"]
    policy, learner = policy_of(world), build_learner("reinforce_pp")
    cosines = [
        alignment((u := expected_update(world, policy, learner, 1, prompts=n)).mean, u.truth).cosine for n in (2, 3)
    ]
    assert cosines[0] < cosines[1] <= 1


def test_a_recipe_that_mixes_groups_needs_its_batch(monkeypatch):
    world = WORLDS["lengths"]
    policy, learner = policy_of(world), build_learner("reinforce_pp")
    with refused("recipe mixes"):
        expected_update(world, policy, learner, 2)
    for wrong in (0, [], [2], [0, -1]):
        with refused("prompts"):
            expected_update(world, policy, learner, 2, prompts=wrong)
    monkeypatch.setattr(batches, "MOST_BATCHES", 10)
    with refused("prompts=2"):
        expected_update(world, policy, learner, 2, prompts=2)


def test_a_normaliser_whose_groups_mix_only_across_prompts_is_seen():
    """Completions of one prompt have one length, so that a prompt's own groups do not tell that the token mean mixes them."""
    P, r = torch.zeros(3, 2, 3), torch.zeros(2, 3, 2)
    P[0, :, 1] = P[1:, :, 2] = 1.0  # from state 0 two steps, from state 1 one: there the first token is the end
    P[0, 1] = torch.tensor([0.0, 0.0, 1.0])
    r[0, 0, 1] = 0.0
    r[:, 1, 0] = 1.0
    world = TokenMDP(P, r, [[0], [1]], [0, 1], 2)
    policy, learner = policy_of(world), build_learner("grpo", length="token mean")
    expected_update(world, policy, learner, 2)  # all completions have two tokens: nothing is mixed
    with refused("recipe mixes"):
        expected_update(WORLDS["lengths"], policy_of(WORLDS["lengths"]), learner, 2)


def test_rewards_of_a_noisy_verifier_are_compared_as_they_are_drawn():
    """GRPO with one prompt is c_4(J) times the gradient whatever lies between tokens and reward; so it is with two prompts."""
    P, r = torch.zeros(4, 2, 4, dtype=torch.float64), torch.zeros(2, 4, 2)
    good, chances = 2, [(0.8, 0.3), (0.9, 0.1)]
    for z, pair in enumerate(chances):
        for a, chance in enumerate(pair):
            P[z, a, good], P[z, a, 3] = chance, 1 - chance
    P[2, :, 2] = P[3, :, 3] = r[1, good] = 1.0
    learner = build_learner("grpo", length="row sum")
    for starts, G in (([0], 4), ([0, 1], 4)):
        world = TokenMDP(P, r, [[0], [1]][: len(starts)], starts, 2)
        update = expected_update(world, policy_of(world), learner, G)
        by_prompt = expected_update(world, policy_of(world), build_learner("rloo"), 2).mean.V[0]
        if len(starts) == 1:
            assert alignment(update.mean, update.truth).scale == pytest.approx(float(grpo_kappa(update.J, G)), rel=1e-9)
            assert alignment(update.mean, update.truth).cosine == pytest.approx(1)
        else:  # each prompt's gradient has its own factor
            _, slopes = prompt_gradients(world, policy_of(world))
            close(update.mean.flat, (grpo_kappa(by_prompt, G)[:, None] * slopes).mean(0), rtol=1e-9, atol=1e-12)


@unchecked()
def test_numpys_whole_numbers_are_taken_and_a_recipe_of_no_numbers_is_named_as_that():
    world = WORLDS["lengths"]
    policy, learner = policy_of(world), build_learner("reinforce_pp")
    plain = expected_update(world, policy, learner, 1, prompts=[0, 1]).mean.flat
    for prompts in (np.array([1, 0]), (np.int64(0), np.int32(1)), torch.tensor([0, 1])):
        close(expected_update(world, policy, learner, np.int64(1), prompts=prompts).mean.flat, plain)
    close(
        expected_update(world, policy, learner, 1, prompts=np.int64(2)).mean.flat,
        expected_update(world, policy, learner, 1, prompts=2).mean.flat,
    )
    for wrong in (1.5, "0", [0.5], True):
        with refused("prompts"):
            expected_update(world, policy, learner, 1, prompts=wrong)
    with refused("recipe gives"):
        expected_update(world, policy, lambda rewards, mask, group, **others: (rewards * math.nan, None), 2)
