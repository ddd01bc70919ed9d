"""The Gaussian head in a linear-quadratic world: sampled costates have the value gradient of quadrature as their mean."""

import pytest
import torch

from agents.policies.transformer import Transformer, TransformerCommand
from agents.sampling.rollout import rollout
from envs.linear_quadratic import random_system, scalar
from envs.noise import draw_noise
from tests.agents.cases import draws
from tests.oracles import assert_mean_within, differs_by
from theory.continuous.quadrature import quadrature_value, quadrature_value_gradient

WORLD = scalar(horizon=3, gamma=0.9, action_noise=0.4).replace(S_w=[[0.0]])  # three noise dimensions
STARTS = pytest.mark.parametrize("start", [-1.2, 0.7])


def command(m=1, n=1, **settings):
    return TransformerCommand(Transformer(m, n, **({"width": 8, "heads": 2, "length": 4} | settings)))


def paths(start, rng, batch=20_000, policy=None):
    """Returns and first costates of many noisy paths from one state."""
    noise = draw_noise(WORLD, batch, 3, rng)
    run = rollout(WORLD, policy or command(), noise, torch.full((batch, 1), start, dtype=torch.float64))
    return run.returns, torch.autograd.grad(run.returns.sum(), run.state_probe)[0][:, 0]


@STARTS
def test_the_mean_costate_is_the_value_gradient_of_quadrature(start, rng):
    policy, state = command(), torch.tensor([start], dtype=torch.float64)
    truth = [quadrature_value_gradient(WORLD, policy, state, nodes=nodes) for nodes in (8, 10)]
    torch.testing.assert_close(*truth, rtol=1e-3, atol=1e-4)  # the quadrature has converged, far below sampling error
    costates = paths(start, rng)[1]
    assert_mean_within(costates, truth[1])
    assert differs_by(costates, truth[1] * 1.3)


@STARTS
def test_the_mean_return_is_the_value_of_quadrature(start, rng):
    value = quadrature_value(WORLD, command(), torch.tensor([start], dtype=torch.float64), nodes=10)
    assert_mean_within(paths(start, rng)[0], value)
    assert differs_by(paths(start, rng)[0], 1.3 * value)


class LastStateOnly(TransformerCommand):
    """The control: a costate that leaves out what attention carries from earlier states."""

    def forward(self, history, t):
        return super().forward(torch.cat([history[:, :-1].detach(), history[:, -1:]], 1), t)


def test_without_the_path_through_attention_the_mean_is_another(rng):
    state, policy = torch.tensor([-1.2], dtype=torch.float64), LastStateOnly(command().network)
    assert differs_by(paths(-1.2, rng, policy=policy)[1], quadrature_value_gradient(WORLD, command(), state, nodes=8))


@pytest.mark.parametrize("seen", [1, 3])
def test_the_command_is_the_head_at_the_last_state(seen):
    policy, history = command(2, 3), draws(5, seen, 3)
    network = policy.network
    by_hand = network(history @ network.embedding.weight.T + network.embedding.bias)[:, seen - 1]
    torch.testing.assert_close(policy(history, seen - 1), by_hand)
    assert policy(history, 0).shape == (5, 2)
    assert policy.window is None


def test_it_acts_in_a_world_of_any_size_and_every_parameter_learns(rng):
    world = random_system(3, 2, seed=1, horizon=4)
    policy = command(2, 3)
    rollout(world, policy, draw_noise(world, 16, 4, rng)).returns.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())
    assert policy.network.position.grad.abs().sum(-1).min() > 0
