"""The value of a linear policy and the moments of its states: residuals, sums, scipy, Monte Carlo, refusals."""

from contextlib import nullcontext

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from envs.linear_quadratic import random_system, scalar
from envs.lq_variants import quantised_action, state_scaled_noise, step_reward
from envs.noise import draw_noise
from envs.world import InputError
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by, numerical_gradient, simulate_lq
from tests.theory.cases import endless_cases, finite_cases, forward_return, stable_gain, tensor
from theory.continuous.gains import (
    MOST_STEPS,
    check_gain,
    check_one_system,
    check_stable,
    check_steps,
    gain_at,
    spectral_radius,
)
from theory.continuous.lyapunov import (
    discounted_second_moment,
    discounted_sum,
    endless_cost,
    linear_value,
    second_moments,
)

systems = given(
    size=st.integers(1, 5), actions=st.integers(1, 3), seed=st.integers(0, 10**6), gamma=st.floats(0.3, 0.99)
)
quickly = settings(max_examples=20, deadline=None)


def closed_loop(world, K):
    """Phi, M and the covariance N that a step adds, in numpy."""
    A, B, K = np.asarray(world.A), np.asarray(world.B), np.asarray(K)
    return A - B @ K, world.Q + K.T @ world.R @ K, B @ np.asarray(world.S_x) @ B.T + world.S_w


@systems
@quickly
def test_endless_value_satisfies_its_equation_scipy_and_a_long_sum(size, actions, seed, gamma):
    world = random_system(size, actions, seed=seed, gamma=gamma)
    K = stable_gain(world, seed)
    value, (Phi, M, N) = linear_value(world, K), closed_loop(world, K)
    P, c = value.P.numpy(), float(value.c)
    np.testing.assert_allclose(P, M + gamma * Phi.T @ P @ Phi, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(P, scipy.linalg.solve_discrete_lyapunov(gamma**0.5 * Phi.T, M), rtol=1e-8, atol=1e-9)
    assert c == pytest.approx(np.trace(world.R @ world.S_x) + gamma * (c + np.trace(P @ N)), rel=1e-10)
    state = np.random.default_rng(seed).standard_normal(size)
    steps = int(np.ceil(np.log(1e-14) / np.log(gamma)))  # what follows is less than 1e-14 of the first step
    summed = forward_return(world, K, state, 0 * M, steps=steps)
    assert float(value.value(tensor(state))) == pytest.approx(summed, rel=1e-8)
    assert not value.p.any()
    torch.testing.assert_close(endless_cost(world, K), value.P, rtol=0, atol=0)


@pytest.mark.parametrize("name", finite_cases())
def test_finite_value_equals_the_forward_sum_at_every_time(name):
    world, K = finite_cases()[name]
    value, state = linear_value(world, K), np.linspace(-1.0, 2.0, world.n)
    assert value.P.shape == (world.horizon + 1, world.n, world.n)
    for t in range(world.horizon):
        rest = world.replace(horizon=world.horizon - t)
        truth = forward_return(rest, K[t:] if K.ndim == 3 else K, state, 0 * world.S_0)
        assert float(value.value(tensor(state), t)) == pytest.approx(truth, rel=1e-11)
        np.testing.assert_array_equal(gain_at(K, t), K[t] if K.ndim == 3 else K)
    last = -state @ world.Q_f @ state
    assert float(value.value(tensor(state), world.horizon)) == pytest.approx(last, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", finite_cases())
def test_finite_value_is_the_mean_return_of_simulated_paths(name):
    world, K = finite_cases()[name]
    start = np.linspace(0.5, -1.0, world.n)
    returns, _ = simulate_lq(world.replace(m_0=start, S_0=0 * world.S_0), K, 20_000, world.horizon, seed=1)
    value = linear_value(world, K)
    assert_mean_within(returns, value.value(tensor(start)))
    quiet = linear_value(world.replace(S_x=0 * world.S_x), K)
    assert differs_by(returns, quiet.value(tensor(start))), "the control: the action noise costs something"


def test_endless_value_is_the_mean_return_of_simulated_paths():
    world, K = endless_cases()["several"]
    start = tensor([0.5, -1.0, 0.2])
    returns, _ = simulate_lq(world.replace(m_0=start.numpy(), S_0=0 * world.S_0), K, 5_000, 200, seed=2)
    assert_mean_within(returns, linear_value(world, K).value(start))


@pytest.mark.parametrize("noise", ["laplace", "gumbel", "uniform"])
def test_the_value_depends_on_the_noise_through_its_covariance_only(noise, rng):
    world, K = finite_cases()["several"]
    world, start = world.replace(noise=noise), tensor([0.5, -1.0, 0.2])
    returns = rollout(world, LinearPolicy(K), draw_noise(world, 20_000, 4, rng), start.expand(20_000, 3)).returns
    assert_mean_within(returns, linear_value(world, K).value(start))


@pytest.mark.parametrize("name", ["double_integrator", "several", "time_varying", "endless"])
def test_value_gradient_equals_central_differences(name):
    world, K = endless_cases()["several"] if name == "endless" else finite_cases()[name]
    value, state = linear_value(world, K), tensor(np.linspace(-1.0, 2.0, world.n))
    for t in (0, 2):
        slope = numerical_gradient(lambda s, t=t: value.value(tensor(s), t), state)
        np.testing.assert_allclose(value.gradient(state, t), slope, rtol=1e-6, atol=1e-8)
        batch = torch.stack([state, 2 * state])
        torch.testing.assert_close(value.gradient(batch, t)[1], 2 * value.gradient(state, t), rtol=1e-12, atol=0)
        torch.testing.assert_close(value.value(batch, t)[0], value.value(state, t), rtol=1e-12, atol=0)


def test_an_unstable_gain_is_refused_with_its_radius():
    world = scalar(horizon=None, gamma=0.81)  # A = 1.05, B = 0.5; 1/sqrt(gamma) = 1.1111
    with pytest.raises(InputError, match=r"spectral radius 1\.2, needs < 1\.11111"):
        linear_value(world, tensor([[-0.3]]))
    with pytest.raises(InputError, match="spectral radius"):
        discounted_second_moment(world, tensor([[-0.3]]))
    with pytest.raises(InputError, match="spectral radius"):
        check_stable(world, tensor([[4.5]]))  # Phi = -1.2: the sign does not matter
    linear_value(world, tensor([[-0.12]]))  # Phi = 1.11 grows, but slower than the discount shrinks
    linear_value(world.replace(horizon=3), tensor([[-0.3]]))


def test_undiscounted_endless_noise_is_refused_and_noiseless_is_not():
    world, K = scalar(horizon=None, gamma=1.0), tensor([[0.8]])
    quiet = world.replace(S_x=[[0.0]], S_w=[[0.0]])
    for noisy in (quiet.replace(S_x=[[0.01]]), quiet.replace(S_w=[[0.01]])):
        for exact in (linear_value, discounted_second_moment):
            with pytest.raises(InputError, match="gamma must be < 1"):
                exact(noisy, K)
    value, Phi = linear_value(quiet, K), 1.05 - 0.5 * 0.8
    assert float(value.P) == pytest.approx((1 + 0.2 * 0.8**2) / (1 - Phi**2))
    assert float(value.c) == 0
    assert float(discounted_second_moment(quiet, K)) == pytest.approx(1.25 / (1 - Phi**2))


@pytest.mark.parametrize("horizon", [None, 4])
def test_a_gain_that_does_not_fit_is_refused(horizon):
    world = random_system(3, 2, horizon=horizon)
    fitting = r"\(2, 3\)" if horizon is None else r"\(2, 3\) or \(4, 2, 3\)"
    for shape in [(2, 2), (3, 2), (5, 2, 3)] + ([(4, 2, 3)] if horizon is None else []):
        with pytest.raises(InputError, match=f"K must have shape {fitting}; got"):
            linear_value(world, torch.zeros(shape, dtype=torch.float64))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="K holds NaN or infinity"):
            linear_value(world, torch.full((2, 3), bad, dtype=torch.float64))
    with pytest.raises(InputError, match="K must have shape"):
        endless_cost(world.replace(horizon=None), torch.zeros(2, 2, dtype=torch.float64))
    assert check_gain(world, torch.zeros(2, 3)).dtype == torch.float64


def test_worlds_outside_the_closed_form_are_refused():
    K = tensor([[0.8]])
    for world in (step_reward(horizon=3), quantised_action(horizon=3)):
        with pytest.raises(InputError, match="no such closed form"):
            linear_value(world, K)
        with pytest.raises(InputError, match="no such closed form"):
            endless_cost(world.replace(horizon=None), K)
    for world in (quantised_action(horizon=3), state_scaled_noise(horizon=3)):
        with pytest.raises(InputError, match="no such closed form"):
            second_moments(world, K)
        with pytest.raises(InputError, match="no such closed form"):
            discounted_second_moment(world.replace(horizon=None), K)
    batch = scalar().replace(S_x=np.full((2, 1, 1), 0.1))
    with pytest.raises(InputError, match="only riccati takes a batch"):
        linear_value(batch, K)


@pytest.mark.parametrize("name", finite_cases())
def test_second_moments_are_those_of_simulated_states(name):
    world, K = finite_cases()[name]
    _, states = simulate_lq(world, K, 20_000, world.horizon, seed=3)
    products = np.einsum("bti,btj->btij", states, states)
    Sigma = second_moments(world, K)
    assert_mean_within(products, Sigma)
    assert differs_by(products, Sigma.roll(1, 0)), "the control: times are told apart"
    with pytest.raises(InputError, match="horizon must be finite"):
        second_moments(world.replace(horizon=None), gain_at(K, 0))


@pytest.mark.parametrize("name", endless_cases())
def test_discounted_second_moment_is_the_long_sum_and_the_dual_of_the_value(name):
    world, K = endless_cases()[name]
    X = discounted_second_moment(world, K).numpy()
    discount = world.gamma ** np.arange(401)
    summed = np.einsum("t,tij->ij", discount, second_moments(world.replace(horizon=400), K))
    np.testing.assert_allclose(X, summed, rtol=1e-10)
    _, M, _ = closed_loop(world, K)
    J = -np.trace(M @ X) - np.trace(world.R @ world.S_x) / (1 - world.gamma)
    assert forward_return(world, K, steps=1000) == pytest.approx(J, rel=1e-10)
    _, states = simulate_lq(world, K, 4_000, 200, seed=4)
    assert_mean_within(np.einsum("t,bti,btj->bij", discount[:201], states, states), X)


@quickly
@given(size=st.integers(1, 5), seed=st.integers(0, 10**6), radius=st.floats(0.0, 0.999))
def test_discounted_sum_solves_the_lyapunov_equation_up_to_the_edge_of_stability(size, seed, radius):
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((size, size))
    F *= radius / np.abs(np.linalg.eigvals(F)).max()
    X = discounted_sum(tensor(F), torch.eye(size, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(X, np.eye(size) + F.T @ X @ F, rtol=1e-9, atol=1e-9 * np.abs(X).max())
    assert spectral_radius(tensor(F)) == pytest.approx(radius, abs=1e-9)
    norm = np.linalg.norm(np.linalg.matrix_power(F, 400), 2)
    assert norm == 0 or norm ** (1 / 400) == pytest.approx(radius, rel=0.05), "Gelfand: the growth of powers"


@pytest.mark.parametrize("F", [[[1.0]], [[-1.001]], [[3.0]], [[0.0, -1.0], [1.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]]])
def test_discounted_sum_that_diverges_is_refused(F):
    with pytest.raises(InputError, match="spectral radius < 1"):
        discounted_sum(tensor(F), torch.eye(len(F), dtype=torch.float64))


@pytest.mark.parametrize("name", ["A", "B", "Q", "R", "Q_f", "S_w", "S_x", "S_0", "N", "m_0", "q", "q_a", "q_f"])
def test_a_batch_in_any_field_is_refused_by_its_name(name):
    world = random_system(2, 1, seed=1, horizon=3).to()
    with refused(name):
        check_one_system(world.replace(**{name: torch.stack([getattr(world, name)] * 2)}))


@pytest.mark.parametrize(("horizon", "sound"), [(MOST_STEPS, True), (MOST_STEPS + 1, False)])
def test_the_longest_horizon_is_taken_and_one_step_more_refused(horizon, sound):
    with nullcontext() if sound else refused(f"horizon={horizon}"):
        check_steps(scalar(horizon=horizon))
