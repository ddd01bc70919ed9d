"""The five gradient estimators on sampled paths against one-step closed forms and the exact policy gradient."""

import torch

from envs.linear_quadratic import random_system
from figures.harness.statistics import estimate
from figures.measures.gradient_estimators import ESTIMATORS, sample_estimators
from theory.continuous.lq_gradients import one_step_variances, one_step_world, policy_gradient
from theory.continuous.riccati import riccati

R, MU, SIGMA = 1.3, 0.7, 0.5


def test_variances_of_one_step_are_the_closed_forms(rng):
    K = torch.tensor([[MU]], dtype=torch.float64)
    sample = sample_estimators(one_step_world(R, SIGMA), K, 100_000, 50, rng, "cpu")
    assert sample.variances.shape == (50, len(ESTIMATORS))
    exact = one_step_variances(R, torch.tensor(MU), torch.tensor(SIGMA))
    named = {"critic": exact.pathwise}  # nothing follows the only step
    means = estimate(sample.variances)
    for i, name in enumerate(ESTIMATORS):
        target, error = float(named.get(name, getattr(exact, name, 0.0))), float(means.standard_error[i])
        assert abs(float(means.mean[i]) - target) < 5 * error + 1e-12 * target, name
        assert error < 0.05 * target


def test_a_perfect_critic_keeps_the_mean_and_lowers_the_variance(rng):
    world = random_system(size=2, actions=1, seed=3, horizon=4, gamma=0.9).to()
    K = 0.7 * riccati(world).K[0]
    sample = sample_estimators(world, K, 8_000, 10, rng, "cpu")
    gap = torch.as_tensor(sample.critic.mean) - policy_gradient(world, K)
    assert bool((gap.abs() < 5 * torch.as_tensor(sample.critic.standard_error)).all())
    assert (sample.critic.samples, len(sample.variances)) == (8_000, 10)
    pathwise, critic, score, value_baseline, best_baseline = sample.variances.mean(0).tolist()
    assert critic < pathwise < value_baseline < score
    assert best_baseline < score
