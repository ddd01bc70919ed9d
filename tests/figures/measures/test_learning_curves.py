"""Learning curves against exact ascent by another road, and interquartile means against plain loops."""

import numpy as np
import pytest
import torch

from agents.recipes.learners import ppo, value_gradient
from agents.training.settings import TrainingSettings
from figures.measures.learning_curves import exact_returns, interquartile
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow


def test_curves_of_the_exact_gradient_are_those_of_exact_ascent():
    world, seeds = build_world("stop (2,4)"), [3, 4]
    setting = TrainingSettings(4, 32, 1, rate=0.01, every=2)
    curves = exact_returns(world, value_gradient(), setting, seeds)
    assert curves.shape == (3, 2)
    for seed, curve in zip(seeds, curves.T, strict=True):
        path = exact_ascent(world, build_policy(world, seed, spread=1.0), (0, 2, 4), 0.01)
        with torch.no_grad():
            returns = [float(grow(world, policy).J) for policy in path]
        assert curve == pytest.approx(returns, rel=1e-8)
        assert returns[0] + 1e-4 < returns[2]


def test_a_learned_critic_changes_neither_the_start_nor_the_seeds():
    world, setting = build_world("stop (2,4)"), TrainingSettings(2, 8, 1, rate=0.01, every=1)
    curves = {name: exact_returns(world, ppo(critic=name), setting, [3, 4]) for name in ("exact", "learned")}
    assert curves["exact"][0] == pytest.approx(curves["learned"][0])
    assert not np.allclose(curves["exact"], curves["learned"])
    assert curves["learned"] == pytest.approx(exact_returns(world, ppo(), setting, [3, 4]))


def test_the_interquartile_mean_is_that_of_the_middle_half():
    numbers = np.array([5.0, -100.0, 1.0, 2.0, 3.0, 100.0, 4.0, 0.5])
    mean, interval = interquartile(numbers, np.random.default_rng(0))
    assert float(mean.mean) == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert float(mean.mean) != pytest.approx(numbers.mean())
    assert mean.samples == 8
    assert interval["low"] < float(mean.mean) < interval["high"]


def test_its_error_and_interval_are_those_of_resampled_seeds():
    numbers = np.random.default_rng(1).exponential(size=40)
    mean, interval = interquartile(numbers, np.random.default_rng(0))
    rng, means = np.random.default_rng(2), []
    for _ in range(4000):
        again = np.sort(rng.choice(numbers, 40))
        means.append(again[10:30].mean())
    assert float(mean.standard_error) == pytest.approx(np.std(means), rel=0.1)
    low, high = np.quantile(means, (0.025, 0.975))
    assert interval == pytest.approx({"low": low, "high": high}, abs=0.2 * (high - low))
