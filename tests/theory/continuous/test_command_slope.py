"""Slopes of the return in the first command and in the gain, from one start state, against differences of the return."""

import pytest
import torch

from envs.linear_quadratic import random_system
from theory.continuous.lq_gradients import command_slope, expected_return


def test_the_slopes_in_command_and_gain_are_differences_of_the_return():
    world = random_system(3, 2, seed=1, horizon=3, action_noise=0.5).to()
    K = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 4
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    here = world.replace(m_0=start, S_0=torch.zeros_like(world.S_0))
    command, gain = command_slope(world, K, start)
    for i in range(2):
        first = torch.zeros(3, 2, 3, dtype=torch.float64)
        first[0, i] = -1e-4 * start / start.square().sum()  # moves u_0 alone, and by 1e-4
        ends = [expected_return(here, K.expand(3, -1, -1) + sign * first) for sign in (1, -1)]
        assert float(ends[0] - ends[1]) / 2e-4 == pytest.approx(float(command[i]), rel=1e-8)
    step = torch.zeros_like(K)
    step[1, 2] = 1e-4
    ends = [expected_return(here, K + sign * step) for sign in (1, -1)]
    assert float(ends[0] - ends[1]) / 2e-4 == pytest.approx(float(gain[1, 2]), rel=1e-6)
