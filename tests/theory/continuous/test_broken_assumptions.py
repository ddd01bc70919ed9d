"""Exact answers of the step reward and of quantised actions: Monte Carlo, differences, one-step algebra, limits."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from envs.linear_quadratic import double_integrator, random_system, scalar
from envs.lq_variants import QuantisedAction, StepReward, quantised_action, step_reward
from envs.noise import draw_noise
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by, numerical_gradient, simulate_lq
from tests.theory.cases import stable_gain, tensor, variant
from theory.continuous.broken_assumptions import (
    quantised_costates,
    quantised_means,
    step_reward_gain_slope,
    step_reward_gradient,
)
from theory.continuous.costates import autograd_costates
from theory.continuous.lyapunov import linear_value


def mean_costate(world, K, start, rng, paths=20_000):
    """Autograd costates at s_0 = start along sampled paths of the world itself."""
    noise = draw_noise(world, paths, world.horizon, rng)
    trajectory = rollout(world, LinearPolicy(K), noise, start.expand(paths, world.n))
    return autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma)[:, 0], trajectory


# ---- the step reward ----


def stepped(horizon=4, steps=None):
    world = variant(StepReward, random_system(3, 2, seed=1, horizon=horizon, gamma=0.9), width=0.3)
    return world, stable_gain(world, steps=steps)


STEPS = {
    "scalar": (step_reward(horizon=4, width=0.3), tensor([[0.8]]), tensor([0.7])),
    "several": (*stepped(), tensor([0.5, -0.4, 0.3])),
    "time_varying": (*stepped(steps=4), tensor([0.9, -0.4, 0.3])),
}


@pytest.mark.parametrize("name", STEPS)
def test_step_reward_value_is_the_mean_return_of_simulated_paths(name):
    world, K, state = STEPS[name]
    _, states = simulate_lq(world.replace(m_0=state.numpy(), S_0=0 * world.S_0), K, 50_000, world.horizon, seed=1)
    outside = 1.0 * (np.abs(states[:, :, 0]) > world.width)
    value, _ = step_reward_gradient(world, K, state)
    assert_mean_within(-outside @ world.gamma ** np.arange(world.horizon + 1), value)
    forgotten = -outside[:, :-1] @ world.gamma ** np.arange(world.horizon)
    assert differs_by(forgotten, value), "the control: the last state is judged too"


@pytest.mark.parametrize("name", STEPS)
def test_step_reward_gradient_equals_differences_and_the_pathwise_gradient_is_zero(name, rng):
    world, K, state = STEPS[name]
    _, slope = step_reward_gradient(world, K, state)
    truth = numerical_gradient(lambda s: step_reward_gradient(world, K, tensor(s))[0], state)
    np.testing.assert_allclose(slope, truth, rtol=1e-6, atol=1e-9)
    assert slope.abs().max() > 0.01
    costates, _ = mean_costate(world, K, state, rng, paths=100)
    assert not costates.any()


def test_the_slope_in_the_gain_is_the_chain_rule_through_the_next_mean_state():
    """One step: the value depends on K through `(A - B K) s` alone, so `dV/dK = dV/dmean (-B s)`."""
    world, K, state = step_reward(horizon=1, width=0.3), tensor([[0.8]]), tensor([0.7])
    through_mean = step_reward_gradient(world, K, state)[1] / (world.A - world.B @ K.numpy()).item()
    slope = step_reward_gain_slope(world, K, state)
    torch.testing.assert_close(slope, -(through_mean * world.B.item() * state)[None], rtol=1e-6, atol=1e-10)
    assert slope.abs().max() > 0.01
    several = STEPS["several"]
    assert step_reward_gain_slope(*several).shape == several[1].shape


def test_a_component_that_noise_has_not_reached_yet_is_a_flat_step():
    """Position is certain after one step and noisy after two; the gradient is finite and counts the second only."""
    world = StepReward(
        A=[[1.0, 0.5], [0.0, 1.0]], B=[[0.0], [1.0]], Q=np.eye(2), R=[[1.0]], S_x=[[0.09]], horizon=2, width=1.0
    )
    state = tensor([0.9, 0.4])
    value, slope = step_reward_gradient(world, torch.zeros(1, 2, dtype=torch.float64), state)
    mean, sd = 0.9 + 2 * 0.5 * 0.4, 0.5 * 0.3  # s_1 = 1.1 is outside for certain, s_2 ~ N(1.3, 0.15^2)
    assert float(value) == pytest.approx(-1 - norm.sf((1 - mean) / sd) - norm.cdf((-1 - mean) / sd))
    np.testing.assert_allclose(slope, -norm.pdf((1 - mean) / sd) / sd * np.array([1.0, 1.0]), rtol=1e-9)


@pytest.mark.parametrize("changes", [{"horizon": None}, {"noise": "laplace"}])
def test_step_reward_outside_its_closed_form_is_refused(changes):
    with pytest.raises(InputError, match="horizon must be finite and noise gaussian"):
        step_reward_gradient(step_reward(horizon=3).replace(**changes), tensor([[0.8]]), tensor([0.7]))


# ---- quantised actions ----


def quantised(quantum, straight_through=False, steps=None):
    """Two states, S_w = 0, a coarse grid of actions."""
    base = random_system(2, 1, seed=4, horizon=3, gamma=0.9).replace(S_w=np.zeros((2, 2)), S_x=[[0.09]])
    world = variant(QuantisedAction, base, quantum=quantum, straight_through=straight_through)
    return world, stable_gain(world, seed=2, steps=steps)


START = tensor([0.8, -0.5])


@pytest.mark.parametrize("steps", [None, 3])
def test_quantised_means_are_those_of_simulated_paths(steps):
    world, K = quantised(0.7, steps=steps)
    rng, paths = np.random.default_rng(2), 50_000
    s, total, exact = np.tile(START, (paths, 1)), np.zeros(paths), quantised_means(world, K, START)
    for t in range(3):
        wanted = -s @ np.asarray(K[t] if steps else K).T + 0.3 * rng.standard_normal((paths, 1))
        a = 0.7 * np.round(wanted / 0.7)
        total -= 0.9**t * (np.sum(s @ world.Q * s, 1) + np.sum(a @ world.R * a, 1))
        s = s @ world.A.T + a @ world.B.T
        assert_mean_within(a, exact.actions[t])
        assert_mean_within(s, exact.states[t + 1])
    total -= 0.9**3 * np.sum(s @ world.Q_f * s, 1)
    assert_mean_within(total, exact.value)
    torch.testing.assert_close(exact.states[0], START)
    plain = variant(type(scalar()), random_system(2, 1, seed=4, horizon=3, gamma=0.9))
    plain = plain.replace(S_w=np.zeros((2, 2)), S_x=[[0.09]])
    assert differs_by(total, linear_value(plain, K).value(START)), "the control: rounding changes the value"


@pytest.mark.parametrize(("straight_through", "field"), [(True, "straight_through"), (False, "rounded")])
@pytest.mark.parametrize("steps", [None, 3])
def test_mean_costates_of_both_treatments_are_those_of_autograd(straight_through, field, steps, rng):
    world, K = quantised(0.7, straight_through, steps)
    costates, trajectory = mean_costate(world, K, START, rng)
    exact = quantised_costates(world, K, START)
    assert_mean_within(costates, getattr(exact, field))
    assert_mean_within(trajectory.returns, quantised_means(world, K, START).value)
    other = {"straight_through": "rounded", "rounded": "straight_through"}[field]
    assert differs_by(costates, getattr(exact, other))
    assert differs_by(costates, exact.value_gradient), "neither treatment gives the value gradient at a coarse quantum"


@pytest.mark.parametrize("steps", [None, 3])
def test_quantised_values_and_costates_with_cross_term_and_linear_costs(steps, rng):
    costs = {"N": [[0.2], [-0.3]], "q": [0.5, -0.7], "q_a": [0.9], "q_f": [-0.4, 1.2]}
    for straight_through, field in ((True, "straight_through"), (False, "rounded")):
        world, K = quantised(0.7, straight_through, steps)
        world = world.replace(**costs)
        costates, trajectory = mean_costate(world, K, START, rng)
        exact = quantised_costates(world, K, START)
        assert_mean_within(costates, getattr(exact, field))
        assert_mean_within(trajectory.returns, quantised_means(world, K, START).value)
        for name in costs if straight_through else ("N", "q", "q_f"):
            other = quantised_costates(world.replace(**{name: None}), K, START)
            assert differs_by(costates, getattr(other, field)), f"the control: {name} counts"


@pytest.mark.parametrize("state", [0.3, 1.1, -2.0])
def test_one_quantised_step_equals_its_sum_over_levels(state):
    world, k, q, sd = quantised_action(horizon=1, quantum=0.8), 0.9, 0.8, 0.3
    levels = q * np.arange(-20, 21)
    upper, lower = (levels + q / 2 + k * state) / sd, (levels - q / 2 + k * state) / sd
    p, slope = norm.cdf(upper) - norm.cdf(lower), (norm.pdf(upper) - norm.pdf(lower)) * k / sd
    following = 1.05 * state + 0.5 * levels
    cost = 0.2 * levels**2 + 0.95 * following**2
    value = -(state**2) - p @ cost
    gradient = -2 * state - slope @ cost - p @ (0.95 * 2 * 1.05 * following)
    world, K = world.replace(S_w=[[0.0]]), tensor([[k]])
    assert float(quantised_means(world, K, tensor([state])).value) == pytest.approx(value, rel=1e-12)
    exact = quantised_costates(world, K, tensor([state]))
    assert float(exact.value_gradient) == pytest.approx(gradient, rel=1e-6)
    truth = numerical_gradient(lambda s: quantised_means(world, K, tensor(s)).value, tensor([state]))
    np.testing.assert_allclose(exact.value_gradient, truth, rtol=1e-6)
    mean_action, mean_next = p @ levels, p @ following
    straight = -2 * state + 2 * k * 0.2 * mean_action + 0.95 * (1.05 - 0.5 * k) * -2 * mean_next
    assert float(exact.straight_through) == pytest.approx(straight, rel=1e-12)
    assert float(exact.rounded) == pytest.approx(-2 * state + 0.95 * 1.05 * -2 * mean_next, rel=1e-12)


def test_a_fine_quantum_gives_back_the_linear_world_and_a_coarse_one_does_not():
    """Sheppard: for quantum << sd, rounding only adds noise of variance quantum^2 / 12."""
    world, K = quantised(0.15)
    plain = random_system(2, 1, seed=4, horizon=3, gamma=0.9)
    plain = plain.replace(S_w=np.zeros((2, 2)), S_x=[[0.09 + 0.15**2 / 12]])
    exact, linear = quantised_costates(world, K, START), linear_value(plain, K)
    torch.testing.assert_close(exact.value_gradient, linear.gradient(START), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(exact.straight_through, linear.gradient(START), rtol=1e-8, atol=1e-8)
    assert float(quantised_means(world, K, START).value) == pytest.approx(float(linear.value(START)), rel=1e-8)
    assert not torch.allclose(exact.rounded, linear.gradient(START), rtol=1e-2)
    coarse = quantised_costates(quantised(1.5)[0], K, START)
    assert not torch.allclose(coarse.straight_through, coarse.value_gradient, rtol=1e-2)


def test_too_many_action_sequences_are_refused_before_allocation(monkeypatch):
    world, K = quantised_action(horizon=3, quantum=0.5).replace(S_w=[[0.0]]), tensor([[0.8]])
    quantised_means(world, K, tensor([0.7]))

    def allocate(*args):
        raise AssertionError("allocated")

    monkeypatch.setattr(torch, "round", allocate)
    with pytest.raises(
        InputError, match=r"quantum=0.001 and horizon=3 make 5403\^3 action sequences, 50000000 allowed"
    ):
        quantised_means(world.replace(quantum=0.001), K, tensor([0.7]))
    with pytest.raises(InputError, match=r"make 15\^9999 action sequences") as refusal:
        quantised_costates(world.replace(horizon=9999), K, tensor([0.7]))
    assert len(str(refusal.value)) < 200
    with pytest.raises(AssertionError, match="allocated"):
        quantised_means(world, K, tensor([0.7]))


@pytest.mark.parametrize(
    "world",
    [
        quantised_action(horizon=None).replace(S_w=[[0.0]]),
        quantised_action(horizon=2),  # S_w is not zero
        quantised_action(horizon=2, noise="uniform").replace(S_w=[[0.0]]),
        variant(QuantisedAction, random_system(2, 2, horizon=2).replace(S_w=np.zeros((2, 2)))),
    ],
)
def test_quantised_worlds_outside_the_enumeration_are_refused(world):
    with pytest.raises(InputError, match="quantised values need a finite horizon, one action component"):
        quantised_means(
            world, torch.zeros(world.m, world.n, dtype=torch.float64), torch.zeros(world.n, dtype=torch.float64)
        )


def test_a_double_integrator_can_be_quantised():
    world = variant(QuantisedAction, double_integrator(horizon=2).replace(S_w=np.zeros((2, 2))), quantum=0.5)
    assert quantised_means(world, tensor([[1.0, 1.5]]), START).states.shape == (3, 2)
