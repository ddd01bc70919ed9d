"""Exact ascent climbs the exact return by its exact slope, and leaves the policy that it was given alone."""

import copy

import pytest
import torch

from envs.world import InputError
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow

WORLD = build_world("parity (2,5)")


def value(policy):
    return float(grow(WORLD, policy).J)


def test_it_climbs_to_the_optimal_return_and_copies_stand_still():
    policy = build_policy(WORLD, 0)
    before = copy.deepcopy(policy.state_dict())
    steps = exact_ascent(WORLD, policy, (0, 10, 30, 60), 0.01)
    values = [value(each) for each in steps]
    assert values == sorted(values)
    assert values[0] == value(policy)
    assert values[-1] > 0.99 * WORLD.optimal_return
    assert all(torch.equal(x, y) for x, y in zip(before.values(), policy.state_dict().values(), strict=True))


def test_its_first_step_is_adam_on_the_slope_of_central_differences():
    policy = build_policy(WORLD, 1)
    (after,) = exact_ascent(WORLD, policy, (1,), 1e-3)
    moved = after.head.bias - policy.head.bias  # Adam's first step is the rate times the sign of the slope
    for i in range(2):
        up, down = copy.deepcopy(policy), copy.deepcopy(policy)
        with torch.no_grad():
            up.head.bias[i] += 1e-5
            down.head.bias[i] -= 1e-5
        assert float(moved[i].detach()) == pytest.approx(1e-3 * (1 if value(up) > value(down) else -1), rel=1e-3)


@pytest.mark.parametrize("checkpoints", [(), (3, 1), (1, 1), (-1, 2)])
def test_checkpoints_that_do_not_rise_are_refused(checkpoints):
    with pytest.raises(InputError, match="checkpoints must be rising whole numbers"):
        exact_ascent(WORLD, build_policy(WORLD, 0), checkpoints)
