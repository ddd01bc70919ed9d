"""The exact mean of the token mean: one group by another normaliser, two groups by all pairs of groups."""

import itertools
from dataclasses import replace

import pytest
import torch

from agents.recipes.learners import build_learner
from agents.recipes.surrogates import token_mean
from envs.world import InputError
from figures.measures.token_mean import expected_token_mean
from figures.measures.token_systems import build_policy, build_world
from theory.groups.expected_update import expected_update
from theory.groups.outcomes import distinct_outcomes
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import grow


@pytest.fixture(scope="module")
def stop():
    world = build_world("stop (3,3)")
    return world, build_policy(world, 0, spread=2.0)


def test_the_token_mean_of_one_group_is_the_group_token_mean(stop):
    world, policy = stop
    plain = build_learner("grpo", length="group token mean")
    update = expected_token_mean(world, policy, build_learner("grpo"), 3, 1)
    assert torch.allclose(update.mean.flat, expected_update(world, policy, plain, 3).mean.flat, atol=1e-12)
    with pytest.raises(InputError, match="groups must be"):
        expected_token_mean(world, policy, build_learner("grpo"), 3, 0)


def test_the_token_mean_of_two_groups_is_that_of_all_pairs_of_groups(stop):
    world, policy = stop
    learner = build_learner("grpo", std="none")
    rows = completions(grow(world, policy))
    weigh, index = replace(learner, normalise=token_mean), torch.tensor([0, 0, 1, 1])
    cases = []
    for p, rewards, mask in zip(rows.p, rows.rewards, rows.mask, strict=True):
        of, outcomes = distinct_outcomes({"rewards": rewards, "mask": mask})
        cases.append((of, outcomes, torch.zeros(len(outcomes["mask"]), dtype=torch.float64).index_add_(0, of, p)))
    of, mine, law = cases[0]
    expected = torch.zeros(len(law), dtype=torch.float64)
    for share, (_, theirs, other) in zip(world.weights, cases, strict=True):
        for own, beside, *rest in itertools.product((0, len(law) - 1), range(len(law)), *[range(len(other))] * 2):
            rewards, mask = (torch.cat([mine[x][[own, beside]], theirs[x][rest]]) for x in ("rewards", "mask"))
            expected[own] += share * law[beside] * other[rest].prod() * 4 * weigh(rewards, mask, index)[0][0, 0]
    update = expected_token_mean(world, policy, learner, 2, 2)
    steps = [w[: len(w) // 2].flatten().repeat_interleave(2 * len(of) // w.numel()) for w in update.weights]
    own = torch.stack(steps, -1).gather(1, rows.mask[0].sum(1, keepdim=True) - 1)[:, 0]
    compared = (of == 0) | (of == len(law) - 1)
    assert float(expected.abs().min()) == 0 < float(expected[[0, -1]].abs().min())
    assert torch.allclose(own[compared], expected[of][compared], atol=1e-12)
