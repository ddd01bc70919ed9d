"""The critic's gradient: with the sampled costates it is the pathwise one, with the exact value it has the same mean."""

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.pathwise import critic_gradient, pathwise_gradient
from tests.agents.cases import MANY, MEANS, POLICIES, T, same, sample, world
from tests.oracles import assert_mean_within, differs_by
from theory.continuous.costates import autograd_costates
from theory.continuous.lq_gradients import policy_gradient
from theory.continuous.lyapunov import linear_value


@pytest.mark.parametrize("changes", [{}, {"horizon": None}])
@pytest.mark.parametrize("name", POLICIES)
def test_the_sampled_costates_as_critic_give_the_pathwise_gradient_back(name, changes, rng):
    lq, policy = world(**changes), POLICIES[name]()
    _, path = sample(lq, policy, 4, rng, steps=T)
    costates = autograd_costates(path.returns, path.state_probe, lq.gamma)

    def sampled(states, t):
        assert torch.equal(states, path.states[:, t])
        return costates[:, t]

    same(critic_gradient(lq, policy, path, sampled), pathwise_gradient(policy, path))


@pytest.mark.parametrize("case", ["finite", "time-varying", "endless", "uniform"])
def test_the_exact_critic_keeps_the_mean(case, rng):
    lq, K, steps = MEANS[case]
    policy, value, truth = LinearPolicy(K), linear_value(lq, K), policy_gradient(lq, K)
    _, path = sample(lq, policy, MANY, rng, steps)
    assert_mean_within(critic_gradient(lq, policy, path, value.gradient)["K"], truth)
    wrong = critic_gradient(lq, policy, path, lambda s, t: 1.2 * value.gradient(s, t))["K"]
    assert differs_by(wrong, truth)


def test_a_critic_one_step_late_is_biased(rng):
    lq, K, _ = MEANS["finite"]
    policy, value = LinearPolicy(K), linear_value(lq, K)
    _, path = sample(lq, policy, MANY, rng)
    late = critic_gradient(lq, policy, path, lambda s, t: value.gradient(s, t - 1))["K"]
    assert differs_by(late, policy_gradient(lq, K))
