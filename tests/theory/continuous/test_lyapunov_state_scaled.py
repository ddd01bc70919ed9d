"""The value of a linear policy where the action noise is scaled by 1 + C s: quadrature, Monte Carlo, hand algebra."""

import numpy as np
import pytest
import torch

from envs.linear_quadratic import random_system
from envs.lq_variants import StateScaledNoise, state_scaled_noise
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from tests.theory.cases import stable_gain, tensor, variant
from theory.continuous.lq_gradients import expected_return
from theory.continuous.lyapunov import linear_value
from theory.continuous.quadrature import quadrature_value


def two_actions(horizon):
    """Correlated noise on two actions and a C without symmetry: tells W, C and C' apart."""
    plain = random_system(2, 2, seed=3, horizon=horizon, gamma=0.9)
    return variant(StateScaledNoise, plain, C=[[0.4, -0.2], [0.1, 0.5]])


def simulate(world, K, start, paths, steps, seed):
    """Returns of u = -K s with a = u + (1 + C s) xi, in plain numpy."""
    rng, K = np.random.default_rng(seed), np.asarray(K)
    s, total = np.tile(np.asarray(start), (paths, 1)), np.zeros(paths)
    for t in range(steps):
        xi = rng.multivariate_normal(np.zeros(world.m), world.S_x, paths)
        w = rng.multivariate_normal(np.zeros(world.n), world.S_w, paths, method="eigh")
        a = -s @ (K[t] if K.ndim == 3 else K).T + (1 + s @ world.C.T) * xi
        total -= world.gamma**t * (np.sum(s @ world.Q * s, 1) + np.sum(a @ world.R * a, 1))
        s = s @ world.A.T + a @ world.B.T + w
    return total - (world.gamma**steps * np.sum(s @ world.Q_f * s, 1) if world.horizon else 0.0)


@pytest.mark.parametrize("steps", [None, 2])
def test_finite_value_equals_exact_quadrature(steps):
    world = two_actions(horizon=2)
    K, states = stable_gain(world, steps=steps), tensor([[0.5, -1.0], [0.0, 0.0], [2.0, 1.0]])
    command = lambda history, t: -history[:, -1] @ (K[t] if steps else K).mT  # noqa: E731
    exact = quadrature_value(world, command, states, nodes=3)
    torch.testing.assert_close(linear_value(world, K).value(states), exact, rtol=1e-10, atol=1e-12)
    plain = quadrature_value(world.replace(C=0 * world.C), command, states, nodes=3)
    assert not torch.allclose(plain, exact, rtol=1e-2), "the control: the scale matters"


@pytest.mark.parametrize("horizon", [None, 4])
def test_value_is_the_mean_return_of_simulated_paths(horizon):
    world, start = two_actions(horizon), tensor([0.5, -1.0])
    K = stable_gain(world)
    returns = simulate(world, K, start, 20_000, horizon or 150, seed=1)
    assert_mean_within(returns, linear_value(world, K).value(start))
    plain = world.replace(C=0 * world.C)
    assert differs_by(returns, linear_value(plain, K).value(start)), "the control: unscaled noise has another value"


@pytest.mark.parametrize("gamma", [0.9, 0.9999])
def test_endless_value_is_a_fixed_point_of_the_finite_step(gamma):
    """One step of the finite recursion, started at P, gives P back; q and c obey the same step."""
    world = two_actions(None).replace(gamma=gamma)
    K = stable_gain(world)
    value = linear_value(world, K)
    step = linear_value(world.replace(horizon=1, Q_f=value.P.numpy()), K)
    torch.testing.assert_close(step.P[0], value.P, rtol=1e-9, atol=1e-11)
    Phi = tensor(world.A) - tensor(world.B) @ K
    torch.testing.assert_close(step.p[0] + gamma * Phi.mT @ value.p, value.p, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(step.c[0] + gamma * value.c, value.c, rtol=1e-9, atol=1e-11)
    if gamma == 0.9:
        long = linear_value(world.replace(horizon=400, Q_f=0 * world.Q), K)
        torch.testing.assert_close(long.value(Phi[0]), value.value(Phi[0]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("horizon", [None, 4])
def test_value_gradient_and_expected_return_contain_the_linear_term(horizon):
    world, state = two_actions(horizon), tensor([0.5, -1.0])
    K = stable_gain(world)
    value = linear_value(world, K)
    slope = numerical_gradient(lambda s: value.value(tensor(s)), state)
    np.testing.assert_allclose(value.gradient(state), slope, rtol=1e-6)
    assert float(value.at(0)[1].norm()) > 1e-3, "the control: q is not zero here"
    starts = torch.as_tensor(world.initial(np.random.default_rng(5).standard_normal((50_000, 2))))
    assert_mean_within(value.value(starts), expected_return(world, K))


@pytest.mark.parametrize(("growth", "finite"), [(0.999, True), (1.001, False)])
def test_refused_exactly_where_the_second_moment_outgrows_the_discount(growth, finite):
    """One state: s'^2 grows by gamma (Phi^2 + B^2 C^2 S_x) a step."""
    world, K = state_scaled_noise(horizon=None, gamma=0.9), tensor([[0.8]])
    Phi = 1.05 - 0.5 * 0.8
    C = ((growth / 0.9 - Phi**2) / (0.5**2 * 0.3**2)) ** 0.5
    world = world.replace(C=[[C]])
    if finite:
        source = 1 + 0.2 * 0.8**2 + C**2 * 0.2 * 0.3**2
        assert float(linear_value(world, K).P) == pytest.approx(source / (1 - growth), rel=1e-9)
    else:
        with pytest.raises(InputError, match="C makes the noise grow"):
            linear_value(world, K)
        linear_value(world.replace(horizon=5), K)


def test_undiscounted_endless_world_without_noise_is_plain():
    world, K = state_scaled_noise(horizon=None, gamma=1.0, action_noise=0.0), tensor([[0.8]])
    value = linear_value(world.replace(S_w=[[0.0]]), K)
    assert float(value.P) == pytest.approx((1 + 0.2 * 0.64) / (1 - 0.65**2))
    assert float(value.c) == float(value.p) == 0
