"""Both estimators reach every parameter of position attention: central differences of the stacked world's exact value."""

import pytest
import torch

from agents.policies.linear import PositionAttention
from agents.sampling.pathwise import pathwise_gradient
from agents.sampling.score_function import score_function_gradient
from envs.stacked_history import stack_history
from tests.agents.cases import MANY, T, attention, sample, world
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from theory.continuous.attention import history_gain
from theory.continuous.lq_gradients import expected_return

ESTIMATORS = {
    "pathwise": lambda lq, policy, path: pathwise_gradient(policy, path),
    "score function": lambda lq, policy, path: score_function_gradient(lq, policy, path, -6.0),
}


def exact_gradient(lq, policy):
    """Central differences of the stacked world's expected return in every parameter."""
    stacked, numbers = stack_history(lq, policy.window), {k: p.detach() for k, p in policy.named_parameters()}

    def value(name, changed):
        gains = PositionAttention(**(numbers | {name: torch.as_tensor(changed)})).gains(T)
        return expected_return(stacked, history_gain(gains).detach())

    return {name: numerical_gradient(lambda x, name=name: value(name, x), number) for name, number in numbers.items()}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_parameter_of_position_attention_gets_its_exact_gradient(estimator, rng):
    lq, policy = world(), attention()
    _, path = sample(lq, policy, 2 * MANY, rng)
    own = ESTIMATORS[estimator](lq, policy, path)
    truth = exact_gradient(lq, policy)
    assert own.keys() == truth.keys() == {"scores", "W"}
    for name, exact in truth.items():
        assert own[name][0].shape == exact.shape
        assert_mean_within(own[name], exact)
        assert differs_by(own[name], 1.5 * torch.as_tensor(exact))
