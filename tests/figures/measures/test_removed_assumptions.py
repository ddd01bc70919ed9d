"""The worlds with an assumption removed: which means meet the exact answers there, and which do not."""

import pytest
import torch

from figures.measures.removed_assumptions import (
    GAIN,
    QUANTISED_START,
    mean_costate,
    mean_score_gradient,
    quantised_world,
    scaled_world,
    step_world,
)
from theory.continuous.broken_assumptions import quantised_costates, step_reward_gain_slope, step_reward_gradient
from theory.continuous.lyapunov import linear_value

START = torch.tensor([1.2], dtype=torch.float64)


def off(estimate, target):
    """Largest deviation in standard errors."""
    gap = abs(torch.as_tensor(estimate.mean).flatten() - target.flatten())
    return float((gap / torch.as_tensor(estimate.standard_error).flatten()).max())


def test_under_a_step_reward_the_score_function_meets_the_slope_and_the_costate_is_zero(rng):
    world = step_world()
    score = mean_score_gradient(world, START, 20_000, rng, "cpu")
    slope = step_reward_gain_slope(world, GAIN, START)
    assert off(score, slope) < 5
    assert off(score, torch.zeros(1)) > 8
    assert not mean_costate(world, START, 50, rng, "cpu").mean.any()
    assert float(step_reward_gradient(world, GAIN, START)[1].abs().max()) > 0.01


def test_under_state_scaled_noise_the_costate_is_right_with_all_paths_open_only(rng):
    world = scaled_world()
    truth = linear_value(world, GAIN).gradient(START)
    assert off(mean_costate(world, START, 20_000, rng, "cpu"), truth) < 5
    assert off(mean_costate(world.replace(cut_scale_path=True), START, 20_000, rng, "cpu"), truth) > 8


@pytest.mark.parametrize("quantum", [0.5, 6.0])
def test_the_quantum_is_given_in_standard_deviations_of_the_noise(quantum, rng):
    world = quantised_world(quantum)
    assert world.quantum == pytest.approx(quantum * float(world.L_x))
    straight = mean_costate(world.replace(straight_through=True), QUANTISED_START, 20_000, rng, "cpu")
    assert off(straight, quantised_costates(world, GAIN, QUANTISED_START).straight_through) < 5
