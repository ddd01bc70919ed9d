"""Expected return, policy gradient, costate covariance and one-step variances, each by roads that share no algebra."""

import numpy as np
import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from envs.linear_quadratic import double_integrator, random_system
from envs.lq_variants import state_scaled_noise, step_reward
from envs.noise import draw_noise
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by, numerical_gradient, simulate_lq
from tests.theory.cases import endless_cases, finite_cases, forward_return, stable_gain, tensor
from theory.continuous.costates import autograd_costates
from theory.continuous.lq_gradients import (
    costate_covariance,
    expected_return,
    one_step_variances,
    one_step_world,
    policy_gradient,
)
from theory.continuous.lyapunov import linear_value
from theory.continuous.riccati import riccati

CASES = finite_cases() | {f"endless_{name}": case for name, case in endless_cases().items()}
OPTIMA = {
    "finite": random_system(3, 2, seed=2, horizon=4, gamma=0.9),
    "double_integrator": double_integrator(horizon=6),
    "endless": random_system(3, 2, seed=2, gamma=0.9),
}


@pytest.mark.parametrize("name", CASES)
def test_expected_return_is_the_forward_sum_and_the_mean_of_simulated_returns(name):
    world, K = CASES[name]
    J = float(expected_return(world, K))
    assert forward_return(world, K, steps=1000) == pytest.approx(J, rel=1e-10)
    returns, _ = simulate_lq(world, K, 10_000, world.horizon or 200, seed=7)
    assert_mean_within(returns, J)
    elsewhere = float(expected_return(world.replace(m_0=world.m_0 + 1), K))
    assert differs_by(returns, elsewhere), "the control: the first state's mean counts"


@pytest.mark.parametrize("name", CASES)
def test_policy_gradient_equals_central_differences_of_a_forward_sum(name):
    world, K = CASES[name]
    truth = numerical_gradient(lambda gain: forward_return(world, gain, steps=400), K)
    np.testing.assert_allclose(policy_gradient(world, K), truth, rtol=1e-6, atol=1e-7 * np.abs(truth).max())
    assert policy_gradient(world, K).shape == K.shape


@pytest.mark.parametrize("name", ["scalar", "double_integrator", "several"])
def test_gradient_in_a_constant_gain_is_the_sum_of_those_in_its_copies(name):
    world, K = finite_cases()[name]
    each = policy_gradient(world, K.expand(world.horizon, *K.shape))
    torch.testing.assert_close(each.sum(0), policy_gradient(world, K), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMA)
def test_policy_gradient_and_action_noise_in_the_costate_vanish_at_the_optimal_gain_only(name):
    world = OPTIMA[name]
    K = riccati(world).K
    away = 0.9 * K
    assert policy_gradient(world, K).abs().max() < 1e-10 * policy_gradient(world, away).abs().max()
    at_optimum, elsewhere = costate_covariance(world, K)[0], costate_covariance(world, away)[0]
    assert at_optimum.abs().max() < 1e-18 * max(1.0, float(K.abs().max())) + 1e-12 * elsewhere.abs().max()
    assert elsewhere.trace() > 1e-5
    assert costate_covariance(world, K)[1].trace() > 1e-5, "process noise stays in the costate"


def test_closed_forms_refuse_worlds_with_other_noise_or_reward():
    K = tensor([[0.8]])
    for exact in (policy_gradient, costate_covariance):
        for horizon in (None, 3):
            with pytest.raises(InputError, match="StateScaledNoise has no such closed form"):
                exact(state_scaled_noise(horizon=horizon), K)
            with pytest.raises(InputError, match="StepReward has no such closed form"):
                exact(step_reward(horizon=horizon), K)
    with pytest.raises(InputError, match=r"t must lie in 0\.\.5"):
        costate_covariance(finite_cases()["scalar"][0], K, t=6)


def brute_force_covariance(world, K, steps):
    """R_0 is quadratic in (s_0, noise); mixed second differences give the costate's coefficient of each noise number."""
    A, B, Q, R, Q_f = (np.asarray(getattr(world, name)) for name in ("A", "B", "Q", "R", "Q_f"))
    n, m = B.shape

    def returns(s, xi, w):
        total = 0.0
        for t in range(steps):
            a = xi[t] - np.asarray(K[t] if K.ndim == 3 else K) @ s
            total -= world.gamma**t * (s @ Q @ s + a @ R @ a)
            s = A @ s + B @ a + w[t]
        return total - (world.gamma**steps * s @ Q_f @ s if world.horizon else 0.0)

    def coefficients(kind, size):
        none = {"xi": np.zeros((steps, m)), "w": np.zeros((steps, n))}
        out = np.zeros((n, steps, size))
        for i, t, k in np.ndindex(n, steps, size):
            noise = none | {kind: np.zeros((steps, size))}
            noise[kind][t, k] = 1.0
            state, zero = np.eye(n)[i], np.zeros(n)
            out[i, t, k] = returns(state, **noise) - returns(state, **none) - returns(zero, **noise)
        return out

    action, process = coefficients("xi", m), coefficients("w", n)
    return [np.einsum("itk,kl,jtl->ij", C, S, C) for C, S in ((action, world.S_x), (process, world.S_w))]


@pytest.mark.parametrize("name", finite_cases())
@pytest.mark.parametrize("t", [0, 2])
def test_costate_covariance_is_the_coefficient_matrix_multiplied_out(name, t):
    world, K = finite_cases()[name]
    rest, gains = world.replace(horizon=world.horizon - t), K[t:] if K.ndim == 3 else K
    for part, truth in zip(
        costate_covariance(world, K, t), brute_force_covariance(rest, gains, rest.horizon), strict=True
    ):
        np.testing.assert_allclose(part, truth, rtol=1e-9, atol=1e-12)
    assert not any(part.any() for part in costate_covariance(world, K, world.horizon)), "s_T leaves nothing to chance"


def test_endless_costate_covariance_is_the_limit_of_long_horizons():
    world = random_system(2, 1, spectral_radius=0.5, seed=1, gamma=0.8)
    K = stable_gain(world)
    endless = costate_covariance(world, K)
    for part, truth in zip(endless, brute_force_covariance(world, K, 40), strict=True):
        np.testing.assert_allclose(part, truth, rtol=1e-8)
    for part, later in zip(endless, costate_covariance(world, K, t=7), strict=True):
        torch.testing.assert_close(part, later)


@pytest.mark.parametrize("horizon", [4, None])
def test_costate_covariance_is_that_of_autograd_costates(horizon, rng):
    world = random_system(2, 2, seed=1, horizon=horizon, gamma=0.8).replace(S_w=0.1 * np.eye(2))
    K, start, paths = stable_gain(world), tensor([0.5, -1.0]), 10_000
    trajectory = rollout(world, LinearPolicy(K), draw_noise(world, paths, horizon or 30, rng), start.expand(paths, 2))
    costates = autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma)[:, 0]
    centred = costates - linear_value(world, K).gradient(start)
    action, process = costate_covariance(world, K)
    products = centred[:, :, None] * centred[:, None, :]
    assert_mean_within(products, action + process)
    assert differs_by(products, action), "the control: process noise is seen"
    assert differs_by(products, process), "the control: action noise is seen"


ONE_STEP = [(1.0, 0.7, 0.5), (0.3, -2.0, 1.5), (2.0, 0.0, 0.2)]


def one_step_samples(R, mu, sigma, eps, baseline):
    """Pathwise and score-function samples of d/dmu E[-R (mu + sigma eps)^2]."""
    a = mu + sigma * eps
    return -2 * R * a, (-R * a**2 - baseline) * eps / sigma


def gauss_hermite_variance(R, mu, sigma, baseline=0.0):
    """Mean and variance of both estimators by a rule that is exact for polynomials of degree 23."""
    eps, weights = np.polynomial.hermite_e.hermegauss(12)
    samples = np.stack(one_step_samples(R, mu, sigma, eps, baseline))
    mean = samples @ weights / weights.sum()
    return mean, (samples - mean[:, None]) ** 2 @ weights / weights.sum()


@pytest.mark.parametrize(("R", "mu", "sigma"), ONE_STEP)
def test_one_step_variances_equal_quadrature(R, mu, sigma):
    exact = one_step_variances(R, tensor(mu), tensor(sigma))
    baselines = [(0.0, exact.score), (-R * (mu**2 + sigma**2), exact.score_value_baseline)]
    for b, variance in [*baselines, (float(exact.best_baseline), exact.score_best_baseline)]:
        mean, truth = gauss_hermite_variance(R, mu, sigma, b)
        np.testing.assert_allclose(mean, -2 * R * mu, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose([exact.pathwise, variance], truth, rtol=1e-10)


@pytest.mark.parametrize(("R", "mu", "sigma"), ONE_STEP)
def test_best_baseline_minimises_the_score_function_variance(R, mu, sigma):
    best = float(one_step_variances(R, tensor(mu), tensor(sigma)).best_baseline)
    lowest = gauss_hermite_variance(R, mu, sigma, best)[1][1]
    slope = numerical_gradient(lambda b: gauss_hermite_variance(R, mu, sigma, float(b))[1][1], best, step=1e-3)
    assert abs(slope) < 1e-8 * lowest / sigma**2 + 1e-8
    for away in (-0.1, 0.1, 2 * R * sigma**2):
        assert gauss_hermite_variance(R, mu, sigma, best + away)[1][1] > lowest


def test_one_step_variances_are_those_of_samples_and_broadcast():
    eps = np.random.default_rng(8).standard_normal(200_000)
    mu, sigma = tensor([0.7, -1.0]), tensor([0.5, 1.5])
    exact = one_step_variances(1.3, mu, sigma)
    for i in range(2):
        m, s = float(mu[i]), float(sigma[i])
        pathwise, score = one_step_samples(1.3, m, s, eps, 0.0)
        _, baselined = one_step_samples(1.3, m, s, eps, float(exact.best_baseline[i]))
        for sample, variance in (
            (pathwise, exact.pathwise),
            (score, exact.score),
            (baselined, exact.score_best_baseline),
        ):
            assert_mean_within((sample + 2 * 1.3 * m) ** 2, variance[i])
        assert differs_by((baselined + 2 * 1.3 * m) ** 2, exact.score_value_baseline[i])


def test_the_one_step_world_is_the_one_of_the_formulas():
    """Expected return -R (mu^2 + sigma^2), slope -2 R mu, at the command mu that the gain K = mu gives from s_0 = -1."""
    world, K = one_step_world(1.3, 0.5), tensor([[0.7]])
    assert float(expected_return(world, K)) == pytest.approx(-1.3 * (0.7**2 + 0.5**2))
    assert float(policy_gradient(world, K)) == pytest.approx(-2 * 1.3 * 0.7)
