"""Moments of both gradient estimators on the circle: Monte Carlo, one-step algebra, differences, growth."""

import math

import numpy as np
import pytest
import torch

from envs.lq_variants import ChaoticMap
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from tests.theory.cases import tensor
from theory.continuous.chaotic_map import circle_moments, pathwise_growth_rate

MAPS = {
    "chaotic": ChaoticMap(beta=2.5, horizon=4),
    "tame": ChaoticMap(beta=0.5, horizon=4),
    "negative": ChaoticMap(beta=-1.5, sd=0.8, start=-2.0, horizon=4),
    "wide": ChaoticMap(beta=2.5, sd=2.0, start=9.0, horizon=4),
}
FIELDS = ("expected_return", "gradient", "score_gradient", "pathwise_sd", "score_sd")


def simulate(world, theta, paths, seed):
    """Per horizon 1..T: returns, pathwise and score-function samples, (paths, T) each, in plain numpy."""
    rng = np.random.default_rng(seed)
    s, D, score, rows = np.full(paths, world.start), np.zeros(paths), np.zeros(paths), []
    for _ in range(world.horizon):
        xi = world.sd * rng.standard_normal(paths)
        s, D = world.beta * np.sin(s) + theta + xi, world.beta * np.cos(s) * D + 1
        score = score + xi / world.sd**2
        rows.append((np.cos(s), -np.sin(s) * D, np.cos(s) * score))
    return [np.stack(parts, 1) for parts in zip(*rows, strict=True)]


@pytest.mark.parametrize("name", MAPS)
def test_moments_are_those_of_simulated_paths(name):
    world, theta = MAPS[name], 0.3
    exact = circle_moments(world, theta)
    returns, pathwise, score = simulate(world, theta, 100_000, seed=1)
    for samples, mean in ((returns, exact.expected_return), (pathwise, exact.gradient), (score, exact.score_gradient)):
        assert_mean_within(samples, mean)
    for samples, mean, sd in ((pathwise, exact.gradient, exact.pathwise_sd), (score, exact.gradient, exact.score_sd)):
        assert_mean_within((tensor(samples) - mean) ** 2, sd**2)
    assert differs_by(returns, circle_moments(world, theta + 1.0).expected_return), "the control: theta counts"
    assert differs_by((tensor(pathwise) - exact.gradient) ** 2, exact.score_sd**2)


@pytest.mark.parametrize("name", MAPS)
def test_both_estimators_have_the_mean_that_differences_of_the_return_give(name):
    world, theta = MAPS[name], 0.3
    exact = circle_moments(world, theta)
    for horizon in range(world.horizon):
        J = lambda x, t=horizon: circle_moments(world, float(x)).expected_return[t]  # noqa: E731
        truth = float(numerical_gradient(J, theta, step=1e-4))
        assert float(exact.gradient[horizon]) == pytest.approx(truth, rel=1e-5, abs=1e-8)
    torch.testing.assert_close(exact.gradient, exact.score_gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("world", [*MAPS.values(), ChaoticMap(sd=5.0, horizon=1)])
def test_one_step_equals_its_closed_form(world):
    theta = 0.3
    exact = circle_moments(world, theta)
    mean, v = world.beta * math.sin(world.start) + theta, world.sd**2
    first, second = math.exp(-v / 2), math.exp(-2 * v)  # of E cos(s) and E cos(2s)
    pathwise = (1 - math.cos(2 * mean) * second) / 2 - (math.sin(mean) * first) ** 2
    square = (1 + math.cos(2 * mean) * second * (1 - 4 * v)) / (2 * v)  # E[cos(s)^2 xi^2] / sd^4
    assert float(exact.expected_return[0]) == pytest.approx(math.cos(mean) * first, rel=1e-10, abs=1e-14)
    assert float(exact.gradient[0]) == pytest.approx(-math.sin(mean) * first, rel=1e-10, abs=1e-14)
    assert float(exact.pathwise_sd[0]) == pytest.approx(pathwise**0.5, rel=1e-9)
    assert float(exact.score_sd[0]) == pytest.approx((square - (math.sin(mean) * first) ** 2) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("world", [ChaoticMap(horizon=20), ChaoticMap(beta=0.5, sd=0.05, horizon=20)])
@pytest.mark.parametrize("grid", [256, 301, 768])
def test_the_grid_does_not_matter(world, grid):
    reference, moments = circle_moments(world, 0.3), circle_moments(world, 0.3, grid)
    for field in FIELDS:
        torch.testing.assert_close(getattr(moments, field), getattr(reference, field), rtol=1e-8, atol=1e-10)
    assert pathwise_growth_rate(world, 0.3, grid) == pytest.approx(pathwise_growth_rate(world, 0.3), rel=1e-8)


@pytest.mark.parametrize(("beta", "sd"), [(2.5, 0.05), (0.5, 0.02), (10.0, 0.3)])
def test_a_grid_too_coarse_for_the_noise_is_refused_and_the_next_one_is_exact(beta, sd):
    world = ChaoticMap(beta=beta, sd=sd, horizon=6)
    needed = math.ceil(8 * math.hypot(1, beta) / sd)
    for moments in (circle_moments, pathwise_growth_rate):
        with pytest.raises(InputError, match=f"grid must be >= {needed}"):
            moments(world, 0.3, needed - 1)
    moments, reference = circle_moments(world, 0.3, needed), circle_moments(world, 0.3, 2 * needed)
    for field in FIELDS:
        torch.testing.assert_close(getattr(moments, field), getattr(reference, field), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("beta", [1.5, 2.5, 4.0])
def test_pathwise_sd_grows_by_the_growth_rate_at_long_horizons(beta):
    world = ChaoticMap(beta=beta, horizon=80)
    exact, rate = circle_moments(world, 0.3), pathwise_growth_rate(world, 0.3)
    ratios = exact.pathwise_sd[1:] / exact.pathwise_sd[:-1]
    assert rate > 1.05
    assert float(ratios[-1]) == pytest.approx(rate, rel=1e-3)
    assert float(ratios[0]) != pytest.approx(rate, rel=1e-3), "the control: early steps have another ratio"


def test_score_function_sd_grows_like_the_root_of_time_where_the_pathwise_sd_explodes():
    exact = circle_moments(ChaoticMap(horizon=80), 0.0)  # theta != 0 favours one well, reached after hundreds of steps
    variance = exact.score_sd**2
    assert float(variance[79] - variance[59]) == pytest.approx(float(variance[59] - variance[39]), rel=1e-3)
    assert float(exact.pathwise_sd[79] / exact.pathwise_sd[19]) > 1e6


def test_a_tame_map_keeps_the_pathwise_sd_bounded():
    world = ChaoticMap(beta=0.5, horizon=80)
    exact = circle_moments(world, 0.3)
    assert pathwise_growth_rate(world, 0.3) < 1
    assert float(exact.pathwise_sd[79]) == pytest.approx(float(exact.pathwise_sd[39]), rel=1e-6)
    assert float(exact.pathwise_sd[79]) < float(exact.score_sd[79])


@pytest.mark.parametrize("world", [ChaoticMap(noise="laplace"), ChaoticMap(gamma=0.9)])
def test_other_worlds_are_refused(world):
    for moments in (circle_moments, pathwise_growth_rate):
        with pytest.raises(InputError, match="noise must be gaussian and gamma 1"):
            moments(world, 0.3)
