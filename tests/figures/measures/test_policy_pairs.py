"""Pairs of policies in one world: how far apart, and which is which."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from figures.measures.policy_pairs import ascended_pair, between
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow


def flat(policy):
    return parameters_to_vector(policy.parameters()).detach()


def value(world, policy):
    with torch.no_grad():
        return float(grow(world, policy).J)


def test_a_policy_between_two_lies_on_their_line_and_leaves_both_alone():
    world = build_world("lock (2,3)")
    here, there = build_policy(world, 0), build_policy(world, 1)
    ends = flat(here), flat(there)
    middle = between(here, there, 0.25)
    torch.testing.assert_close(flat(middle), 0.75 * ends[0] + 0.25 * ends[1])
    assert torch.equal(flat(here), ends[0])
    assert torch.equal(flat(there), ends[1])
    torch.testing.assert_close(flat(between(here, there, 1.0)), ends[1])


@pytest.mark.parametrize("seed", [0, 1])
def test_an_ascended_pair_has_one_prompt_and_a_second_random_policy(seed):
    pair, whole = ascended_pair("stop (3,3)", seed, 2), build_world("stop (3,3)")
    assert torch.equal(pair.world.prompts, whole.prompts[[seed]])
    assert pair.world.weights.tolist() == [1.0]
    start = build_policy(pair.world, seed, spread=2.0)
    assert value(pair.world, pair.policy) > value(pair.world, start)
    torch.testing.assert_close(flat(pair.other), flat(build_policy(pair.world, 100 + seed, spread=2.0)))


def test_ahead_the_other_policy_is_the_one_before_the_further_steps():
    pair = ascended_pair("garnet (2,3)", 0, 1, ahead=2)
    start = build_policy(pair.world, 0, spread=2.0)
    before, after = exact_ascent(pair.world, start, (1, 3), 0.02)
    torch.testing.assert_close(flat(pair.other), flat(before))
    torch.testing.assert_close(flat(pair.policy), flat(after))
    assert not torch.equal(flat(before), flat(after))
