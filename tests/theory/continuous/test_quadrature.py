"""Gauss-Hermite truth: its moments, its grid, its refusals, linear policies exactly, non-linear ones at their rate."""

import math

import numpy as np
import pytest
import torch

from agents.policies.linear import PositionAttention
from envs.linear_quadratic import double_integrator, random_system, scalar
from envs.lq_variants import ChaoticMap
from envs.stacked_history import stack_history
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from tests.theory.cases import stable_gain, tensor
from theory.continuous.attention import history_gain
from theory.continuous.chaotic_map import circle_moments
from theory.continuous.gains import gain_at
from theory.continuous.lyapunov import linear_value
from theory.continuous.quadrature import gauss_hermite, noise_grid, quadrature_value, quadrature_value_gradient


def linear(K):
    return lambda history, t: -history[:, -1] @ gain_at(K, t).mT


def saturated(history, t):
    return -1.5 * torch.tanh(history[:, -1])


def kinked(history, t):
    return -1.5 * (history[:, -1] - 0.2).abs()


def normal_moment(k):
    """E x^k of a standard normal: (k - 1)!! for even k."""
    return math.prod(range(k - 1, 0, -2)) if k % 2 == 0 else 0


@pytest.mark.parametrize("nodes", [1, 2, 3, 8])
def test_gauss_hermite_is_exact_below_degree_2_nodes_and_not_at_it(nodes):
    x, weights = gauss_hermite(nodes)
    for k in range(2 * nodes):
        scale = float(weights @ x.abs() ** k)
        assert float(weights @ x**k) == pytest.approx(normal_moment(k), rel=1e-11, abs=1e-12 * (1 + scale))
    assert float(weights @ x ** (2 * nodes)) < 0.999 * normal_moment(2 * nodes)


@pytest.mark.parametrize("nodes", [0, -1])
def test_no_nodes_are_refused(nodes):
    with pytest.raises(InputError, match="nodes must be a whole number >= 1"):
        gauss_hermite(nodes)


@pytest.mark.parametrize(
    "world",
    [
        random_system(2, 2, seed=1),
        random_system(2, 2, seed=1).replace(S_x=[[1.0, 1.0], [1.0, 1.0]]),  # one direction without variance
        double_integrator(),
        scalar(action_noise=0.0),
        scalar(action_noise=0.0).replace(S_w=[[0.0]]),
    ],
)
def test_the_grid_has_the_moments_of_the_noise_and_no_node_too_many(world):
    xi, w, weights = noise_grid(world, 2, 3)
    rank = sum(np.linalg.matrix_rank(np.asarray(S)) for S in (world.S_x, world.S_w))
    assert len(weights) == 3 ** (2 * rank)
    assert xi.shape[1:] == (2, world.m)
    assert w.shape[1:] == (2, world.n)
    assert xi.dtype == w.dtype == weights.dtype == torch.float64
    both = torch.cat([xi.flatten(1), w.flatten(1)], 1)
    blocks = [tensor(S) for S in (world.S_x, world.S_x, world.S_w, world.S_w)]
    torch.testing.assert_close(weights @ both, torch.zeros(both.shape[1], dtype=torch.float64), atol=1e-13, rtol=0)
    torch.testing.assert_close((both.mT * weights) @ both, torch.block_diag(*blocks), atol=1e-12, rtol=1e-11)
    assert float(weights.sum()) == pytest.approx(1)


def test_a_grid_over_budget_is_refused_before_anything_is_allocated(monkeypatch):
    world = scalar(horizon=2)  # 4 noise dimensions; 8 bytes x (4 + 1 + 2 x 3) numbers a point
    bytes_needed = 5**4 * 8 * 11
    noise_grid(world, 2, 5, budget=bytes_needed)

    def allocate(*args):
        raise AssertionError("allocated")

    monkeypatch.setattr(torch, "cartesian_prod", allocate)
    with pytest.raises(InputError, match="nodes=5 over 4 noise dimensions"):
        noise_grid(world, 2, 5, budget=bytes_needed - 1)
    with pytest.raises(
        InputError, match=r"makes 20\^16 points, 2\.00e\+14 GiB of 1 allowed: take fewer steps or nodes"
    ):
        quadrature_value(scalar(horizon=8), saturated, tensor([0.4]), nodes=20)
    with pytest.raises(InputError, match=r"makes 20\^600 points") as refusal:
        noise_grid(scalar(horizon=300), 300, 20)  # more points than a float can count
    assert len(str(refusal.value)) < 200
    with pytest.raises(AssertionError, match="allocated"):
        noise_grid(world, 2, 5, budget=bytes_needed)


def test_noise_without_this_rule_and_endless_worlds_are_refused():
    with pytest.raises(InputError, match="noise must be gaussian for Gauss-Hermite quadrature; got 'laplace'"):
        noise_grid(scalar(noise="laplace"), 2, 3)
    with pytest.raises(InputError, match="horizon must be finite"):
        quadrature_value(scalar(horizon=None), saturated, tensor([0.4]))


@pytest.mark.parametrize(
    "world", [scalar(horizon=3), double_integrator(horizon=3), random_system(2, 2, seed=1, horizon=2, gamma=0.8)]
)
@pytest.mark.parametrize("varying", [False, True])
def test_linear_policies_get_their_closed_form_from_two_nodes_on(world, varying):
    K = tensor(np.linspace(0.3, 0.9, world.m * world.n).reshape(world.m, world.n))
    K = K * tensor(np.linspace(0.5, 1.0, world.horizon))[:, None, None] if varying else K
    states = tensor(np.random.default_rng(0).standard_normal((2, 3, world.n)))
    truth = linear_value(world, K)
    for nodes in (2, 3):
        values = quadrature_value(world, linear(K), states, nodes)
        torch.testing.assert_close(values, truth.value(states), rtol=1e-10, atol=1e-12)
    slope = quadrature_value_gradient(world, linear(K), states, nodes=2)
    torch.testing.assert_close(slope, truth.gradient(states), rtol=1e-7, atol=1e-8)
    one = quadrature_value(world, linear(K), states, nodes=1)
    assert (one > truth.value(states)).all(), "the control: one node knows no variance, hence no cost of noise"


def test_a_policy_with_memory_sees_its_whole_history():
    world = random_system(2, 1, seed=2, horizon=3, gamma=0.9)
    policy = PositionAttention([[0.3, -0.2, 0.5], [0.0, 1.0, -1.0]], [[[0.5, 0.2]], [[-0.3, 0.4]]])
    state = tensor([0.7, -1.1])
    lifted = linear_value(stack_history(world, 3), history_gain(policy.gains(3).detach()))
    truth = lifted.value(torch.cat([state, torch.zeros(4, dtype=torch.float64)]))
    with torch.no_grad():
        assert float(quadrature_value(world, policy, state, nodes=2)) == pytest.approx(float(truth), rel=1e-10)
        forgetful = quadrature_value(world, lambda h, t: policy(h[:, -1:], t), state, nodes=2)
    assert float(forgetful) != pytest.approx(float(truth), rel=1e-3)
    slope = quadrature_value_gradient(world, policy, state, nodes=2)
    torch.testing.assert_close(
        slope, lifted.gradient(torch.cat([state, torch.zeros(4).double()]))[:2], rtol=1e-7, atol=1e-8
    )
    assert not slope.requires_grad, "the policy's parameters do, the truth does not"


def test_a_smooth_policy_converges_by_a_constant_factor_per_node_and_a_kink_does_not():
    world, state = scalar(horizon=2, action_noise=0.6), tensor([0.0])

    def errors(command):
        values = [float(quadrature_value(world, command, state, nodes)) for nodes in (2, 4, 6, 8, 10, 18)]
        return np.abs(np.subtract(values[:-1], values[-1]))

    smooth, kink = errors(saturated), errors(kinked)
    assert (smooth[1:] < 0.1 * smooth[:-1]).all()
    assert smooth[-1] < 1e-8
    assert not (kink[1:] < 0.1 * kink[:-1]).all()
    assert kink[-1] > 1e-5


def simulate(start, paths, seed):
    """Returns of u = -1.5 tanh(s) in `scalar(horizon=3, action_noise=0.6)`, numbers written out again."""
    rng, s, total = np.random.default_rng(seed), np.full(paths, start), np.zeros(paths)
    for t in range(3):
        a = -1.5 * np.tanh(s) + 0.6 * rng.standard_normal(paths)
        total -= 0.95**t * (s**2 + 0.2 * a**2)
        s = 1.05 * s + 0.5 * a + 0.1 * rng.standard_normal(paths)
    return total - 0.95**3 * s**2


def test_a_non_linear_policy_gets_the_mean_return_of_simulated_paths():
    world = scalar(horizon=3, action_noise=0.6)
    returns = simulate(0.8, 200_000, seed=9)
    value = quadrature_value(world, saturated, tensor([0.8]), nodes=6)
    assert_mean_within(returns, value)
    assert differs_by(returns, quadrature_value(world, linear(tensor([[0.5]])), tensor([0.8]), nodes=2))
    slope = quadrature_value_gradient(world, saturated, tensor([[0.8]]), nodes=6)
    ends = simulate(0.8 + 1e-3, 200_000, seed=9), simulate(0.8 - 1e-3, 200_000, seed=9)
    assert_mean_within((ends[0] - ends[1]) / 2e-3, slope[0, 0], floor=1e-5)


def test_gradient_equals_differences_of_the_value_in_every_component():
    world, states = random_system(2, 1, seed=3, horizon=1), tensor([[0.5, -0.2], [1.0, 0.3]])
    command = lambda h, t: -torch.tanh(h[:, -1:, 0] + 0.5 * h[:, -1:, 1])  # noqa: E731
    gradients = quadrature_value_gradient(world, command, states, nodes=8)
    for row in range(2):
        truth = numerical_gradient(lambda s: quadrature_value(world, command, tensor(s), 8), states[row])
        np.testing.assert_allclose(gradients[row], truth, rtol=1e-6)


def test_the_chaotic_map_gets_the_return_that_its_circle_moments_give():
    world, theta = ChaoticMap(horizon=3), 0.4
    command = lambda history, t: torch.full_like(history[:, -1], theta)  # noqa: E731
    exact = float(circle_moments(world, theta).expected_return[-1])
    assert float(quadrature_value(world, command, tensor([world.start]), nodes=40)) == pytest.approx(exact, abs=1e-7)


def test_time_varying_gain_is_read_at_its_own_time():
    world = random_system(2, 2, seed=1, horizon=2)
    K, state = stable_gain(world, steps=2), tensor([0.5, -1.0])
    swapped = quadrature_value(world, linear(K.flip(0)), state, nodes=2)
    assert float(swapped) != pytest.approx(float(linear_value(world, K).value(state)), rel=1e-3)
