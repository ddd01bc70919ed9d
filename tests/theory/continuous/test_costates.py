"""Costates: autograd, the recursion, and central differences of whole noisy paths agree; their mean is grad V."""

import functools

import numpy as np
import pytest
import torch

from agents.policies.linear import ClosedPath, LinearPolicy, PositionAttention
from agents.sampling.rollout import rollout
from envs.linear_quadratic import double_integrator, random_system, scalar
from envs.lq_variants import ChaoticMap, state_scaled_noise
from envs.noise import draw_noise
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from tests.theory.cases import stable_gain, tensor
from theory.continuous.costates import autograd_costates, costate_recursion, path_costates
from theory.continuous.lyapunov import linear_value


class Memoryless:
    """A non-linear policy that also depends on time; `command` takes one state, as `path_costates` wants it."""

    window = 1

    def __init__(self, m):
        self.m = m

    def command(self, state, t):
        return (0.1 * t - torch.tanh((0.8 + 0.1 * t) * state.sum(-1, keepdim=True))).expand(*state.shape[:-1], self.m)

    def __call__(self, history, t):
        return self.command(history[:, -1], t)


WORLDS = {
    "scalar": scalar(horizon=4),
    "double_integrator": double_integrator(horizon=4, gamma=0.9),
    "several": random_system(3, 2, seed=1, horizon=4, gamma=0.8),
    "endless": random_system(2, 2, seed=1, gamma=0.8),
    "state_scaled": state_scaled_noise(horizon=4),
    "chaotic": ChaoticMap(horizon=4),
    "chaotic_discounted": ChaoticMap(horizon=4, gamma=0.7),
}


def sample(world, policy, rng, batch=3):
    """Noise, rollout and autograd costates."""
    noise = draw_noise(world, batch, 4, rng)
    trajectory = rollout(world, policy, noise)
    return noise, trajectory, autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma)


def perturbed_return(world, policy, noise, row, state_shift, command_shift):
    """R_0 of one path with numbers added to its states and commands: a loop of its own, without autograd."""
    world = world.to()
    states, total = [noise.s_0[row : row + 1] + state_shift[0]], 0.0
    with torch.no_grad():
        for t in range(noise.xi.shape[1]):
            history = torch.stack(states[-(policy.window or len(states)) :], 1)
            action = world.act(states[-1], policy(history, t) + command_shift[t], noise.xi[row : row + 1, t])
            total += world.gamma**t * float(world.reward(states[-1], action))
            states.append(world.transition(states[-1], action, noise.w[row : row + 1, t]) + state_shift[t + 1])
        return total + (world.gamma ** (t + 1) * float(world.terminal_reward(states[-1])) if world.horizon else 0.0)


def assert_equal_to_central_differences(world, policy, noise, trajectory, costates):
    to_commands = autograd_costates(trajectory.returns, trajectory.command_probe, world.gamma)
    discount = world.gamma ** np.arange(5)[:, None]
    still = tensor(np.zeros((5, world.n))), tensor(np.zeros((4, world.m)))
    for row in range(2):
        returns = functools.partial(perturbed_return, world, policy, noise, row)
        by_state = numerical_gradient(lambda x, f=returns: f(tensor(x), still[1]), still[0])
        by_command = numerical_gradient(lambda x, f=returns: f(still[0], tensor(x)), still[1])
        np.testing.assert_allclose(costates[row], by_state / discount, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(to_commands[row], by_command / discount[:4], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", WORLDS)
def test_autograd_recursion_and_central_differences_agree(name, rng):
    world = WORLDS[name]
    policy = Memoryless(world.m)
    noise, trajectory, costates = sample(world, policy, rng)
    by_steps = path_costates(world, policy.command, trajectory.states.detach(), noise.xi, noise.w)
    torch.testing.assert_close(by_steps, costates, rtol=1e-10, atol=1e-12)
    assert_equal_to_central_differences(world, policy, noise, trajectory, costates)


@pytest.mark.parametrize("world", [random_system(2, 1, seed=2, horizon=4, gamma=0.8), ChaoticMap(horizon=4)])
def test_costates_of_a_policy_with_memory_equal_central_differences(world, rng):
    policy = PositionAttention([[0.3, -0.2, 0.5]], np.full((1, 1, world.n), 0.6))
    noise, trajectory, costates = sample(world, policy, rng)
    assert_equal_to_central_differences(world, policy, noise, trajectory, costates)
    _, _, closed = sample(world, ClosedPath(policy, "past"), rng.manual_seed(20261123))
    assert not torch.allclose(closed[:, :2], costates[:, :2], rtol=1e-2), "the control: attention carries something"


@pytest.mark.parametrize("name", ["several", "chaotic_discounted"])
def test_a_path_hidden_from_autograd_is_seen(name, rng):
    world = WORLDS[name]
    policy = Memoryless(world.m)
    noise, trajectory, costates = sample(world, ClosedPath(policy, "all"), rng)
    by_steps = path_costates(world, policy.command, trajectory.states.detach(), noise.xi, noise.w)
    detached = path_costates(
        world, lambda s, t: policy.command(s.detach(), t), trajectory.states.detach(), noise.xi, noise.w
    )
    assert not torch.allclose(by_steps[:, :3], costates[:, :3], rtol=1e-2)
    torch.testing.assert_close(detached, costates, rtol=1e-10, atol=1e-12)


def test_recursion_is_the_sum_over_products_of_jacobians():
    rng = np.random.default_rng(3)
    Dr, Df, terminal = rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3, 2, 2)), rng.standard_normal((2, 2))
    costates = costate_recursion(tensor(Dr), tensor(Df), tensor(terminal), 0.7)
    for row in range(2):
        ahead = [*Dr[row], terminal[row]]
        for t in range(4):
            total, forward = np.zeros(2), np.eye(2)  # forward = d s_k / d s_t
            for k in range(t, 4):
                total += 0.7 ** (k - t) * forward.T @ ahead[k]
                forward = Df[row, k] @ forward if k < 3 else forward
            np.testing.assert_allclose(costates[row, t], total, rtol=1e-12)


@pytest.mark.parametrize("horizon", [4, None])
@pytest.mark.parametrize("t", [0, 2])
def test_the_mean_costate_is_the_value_gradient(horizon, t, rng):
    """The hypothesis itself, at every time: the residual is uncorrelated with 1 and with the state."""
    world = random_system(2, 1, seed=3, horizon=horizon, gamma=0.8)
    K, paths = stable_gain(world), 10_000
    noise, value = draw_noise(world, paths, horizon or 60, rng), linear_value(world, K)

    def moments(policy):
        trajectory = rollout(world, policy, noise)
        costates = autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma)[:, t]
        state = trajectory.states[:, t].detach()
        residual = costates - value.gradient(state, t)
        return torch.cat([residual, residual * state[:, :1], residual * state[:, 1:]], 1)

    assert_mean_within(moments(LinearPolicy(K)), 0.0)
    assert differs_by(moments(ClosedPath(LinearPolicy(K), "all")), 0.0), (
        "the control: partial derivatives are not enough"
    )


def test_returns_without_a_path_to_the_probe_are_refused(rng):
    world, policy = scalar(horizon=4), LinearPolicy([[0.8]])
    noise = draw_noise(world, 3, 4, rng)
    with torch.no_grad():
        blind = rollout(world, policy, noise)
    with pytest.raises(InputError, match="must require grad"):
        autograd_costates(blind.returns, blind.state_probe, 0.9)
    seen, other = rollout(world, policy, noise), rollout(world, policy, noise)
    with pytest.raises(InputError, match="must require grad"):
        autograd_costates(seen.returns.detach(), seen.state_probe, 0.9)
    with pytest.raises(InputError, match="must require grad"):
        autograd_costates(seen.returns, seen.state_probe.detach(), 0.9)
    with pytest.raises(InputError, match="take both from the same rollout"):
        autograd_costates(seen.returns, other.state_probe, 0.9)
    assert autograd_costates(seen.returns, seen.state_probe, 0.9).abs().min() > 0
