"""Cross term, linear costs and offsets in values and moments, against a world that has none of them, loops and samples."""

import numpy as np
import pytest
import torch

from envs.linear_quadratic import LinearQuadratic
from envs.lq_variants import StateScaledNoise
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.cases import affine_policies, plain_road, priced, tensor, variant
from tests.typecheck import unchecked
from theory.continuous.gains import gain_at, offset_at
from theory.continuous.lq_gradients import expected_return
from theory.continuous.lyapunov import (
    discounted_mean,
    discounted_second_moment,
    linear_value,
    mean_states,
    second_moments,
)
from theory.continuous.quadrature import quadrature_value

EXACT = {"rtol": 1e-10, "atol": 1e-10}
NAMES = list(affine_policies(priced(5)))
CASES = [(horizon, name) for horizon in (5, None) for name in affine_policies(priced(horizon))]
DROPPED = ({"N": None}, {"q": None}, {"q_a": None}, {"q_f": None})


def case(horizon, name):
    world = priced(horizon)
    return world, *affine_policies(world)[name]


def lifted_value(world, K, k):
    """P, p and c of the world by the plain road."""
    plain, extra, gain = plain_road(world, K, k)
    value, n, gamma = linear_value(plain, gain), world.n, world.gamma
    if world.horizon is None:
        bonus = extra / (1 - gamma)
    else:
        bonus = torch.stack([extra * sum(tensor(gamma**i) for i in range(j + 1)) for j in range(world.horizon, -1, -1)])
    return value.P[..., :n, :n], value.P[..., :n, n], value.P[..., n, n] - bonus + value.c


@pytest.mark.parametrize(("horizon", "name"), CASES)
def test_the_value_is_that_of_the_plain_world_with_a_constant_state(horizon, name):
    world, K, k = case(horizon, name)
    value, (P, p, c) = linear_value(world, K, k), lifted_value(world, K, k)
    torch.testing.assert_close(value.P, P, **EXACT)
    torch.testing.assert_close(value.p, p, **EXACT)
    torch.testing.assert_close(value.c, c, rtol=1e-9, atol=1e-9)
    for dropped in DROPPED if horizon else DROPPED[:3]:
        other = linear_value(world.replace(**dropped), K, k)
        first = 0 if horizon else ...
        gap = (other.P[first] - value.P[first]).abs().max() + (other.p[first] - value.p[first]).abs().max()
        assert gap > 1e-2, f"the control: {dropped} counts"


@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_the_mean_of_simulated_returns(name):
    """A loop in numpy, without any code of the suite; the linear costs' share of the value is far above the error."""
    world, K, k = case(5, name)
    start = np.array([0.5, -1.0, 0.7])
    returns = simulated(world, K, k, start, 40_000)
    value = linear_value(world, K, k).value(tensor(start))
    assert_mean_within(returns[:, None], value)
    for dropped in DROPPED:
        assert differs_by(returns[:, None], linear_value(world.replace(**dropped), K, k).value(tensor(start))), dropped


def simulated(world, K, k, start, paths, scaled=lambda s: 1.0, seed=3):
    """Sampled returns from `start`; `scaled` multiplies the action noise."""
    rng, s, total = np.random.default_rng(seed), np.tile(start, (paths, 1)), np.zeros(paths)
    for t in range(world.horizon):
        u = -s @ gain_at(K, t).numpy().T - (0.0 if k is None else offset_at(k, t).numpy())
        a = u + scaled(s) * rng.multivariate_normal(np.zeros(world.m), world.S_x, paths)
        for i, j in np.ndindex(world.n, world.n):
            total -= world.gamma**t * world.Q[i, j] * s[:, i] * s[:, j]
        for i, j in np.ndindex(world.m, world.m):
            total -= world.gamma**t * world.R[i, j] * a[:, i] * a[:, j]
        for i, j in np.ndindex(world.n, world.m):
            total -= 2 * world.gamma**t * world.N[i, j] * s[:, i] * a[:, j]
        total -= 2 * world.gamma**t * (s @ world.q + a @ world.q_a)
        s = s @ world.A.T + a @ world.B.T + rng.multivariate_normal(np.zeros(world.n), world.S_w, paths)
    return total - world.gamma**world.horizon * (np.sum(s @ world.Q_f * s, 1) + 2 * s @ world.q_f)


@pytest.mark.parametrize("name", NAMES)
def test_noise_that_scales_with_the_state_leaves_cross_term_and_linear_costs_exact(name):
    plain, K, k = case(5, name)
    world, start = variant(StateScaledNoise, plain, C=0.4 * np.ones((2, 3))), np.array([0.5, -1.0, 0.7])
    returns = simulated(world, K, k, start, 40_000, lambda s: 1 + s @ world.C.T)
    value = linear_value(world, K, k).value(tensor(start))
    assert_mean_within(returns[:, None], value)
    assert differs_by(returns[:, None], linear_value(world.replace(N=None), K, k).value(tensor(start)))
    endless = world.replace(horizon=None, C=0.1 * np.ones((2, 3)))
    if K.ndim == 2 and (k is None or k.ndim == 1):
        fixed = linear_value(endless, K, k)
        step = linear_value(endless.replace(horizon=1, Q_f=fixed.P.numpy(), q_f=fixed.p.numpy()), K, k)
        torch.testing.assert_close(step.P[0], fixed.P, **EXACT)
        torch.testing.assert_close(step.p[0], fixed.p, **EXACT)


def test_an_endless_value_is_the_limit_of_long_ones():
    world, K, k = case(None, "offset")
    value, long = linear_value(world, K, k), linear_value(world.replace(horizon=500, Q_f=None, q_f=None), K, k)
    for whole, part in zip(value.at(0), long.at(0), strict=True):
        torch.testing.assert_close(whole, part, **EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_moments_of_the_states_are_those_of_the_plain_world(name):
    world, K, k = case(5, name)
    plain, _, gain = plain_road(world, K, k)
    lifted = second_moments(plain, gain)
    torch.testing.assert_close(second_moments(world, K, k), lifted[:, :3, :3], **EXACT)
    torch.testing.assert_close(mean_states(world, K, k), lifted[:, :3, 3], **EXACT)


@pytest.mark.parametrize("name", affine_policies(priced(None)))
def test_discounted_moments_are_those_of_the_plain_world(name):
    world, K, k = case(None, name)
    plain, _, gain = plain_road(world, K, k)
    lifted = discounted_second_moment(plain, gain)
    torch.testing.assert_close(discounted_second_moment(world, K, k), lifted[:3, :3], **EXACT)
    torch.testing.assert_close(discounted_mean(world, K, k), lifted[:3, 3], **EXACT)


@pytest.mark.parametrize(("horizon", "name"), CASES)
def test_the_expected_return_is_that_of_the_plain_world(horizon, name):
    world, K, k = case(horizon, name)
    plain, extra, gain = plain_road(world, K, k)
    bonus = extra / 0.1 if horizon is None else extra * sum(0.9**i for i in range(horizon + 1))
    torch.testing.assert_close(expected_return(world, K, k), expected_return(plain, gain) + bonus, rtol=1e-9, atol=1e-8)


def test_quadrature_and_closed_form_agree():
    world, K, k = case(5, "offset")
    world, state = world.replace(horizon=2, S_w=None), tensor([0.5, -1.0, 0.7])
    value = quadrature_value(world, lambda history, t: -history[:, -1] @ K.mT - k, state, nodes=2)
    torch.testing.assert_close(value, linear_value(world, K, k).value(state), rtol=1e-11, atol=1e-11)


def test_single_precision_tables_give_the_same_value():
    world, K, k = case(5, "offset")
    single = world.to(dtype=torch.float32)
    assert single.N.dtype == single.q_f.dtype == torch.float32
    value, exact = linear_value(single, K.float(), k.float()), linear_value(world, K, k)
    assert value.p.dtype == torch.float64
    torch.testing.assert_close(value.p, exact.p, rtol=1e-5, atol=1e-5)


def test_without_discount_a_world_that_comes_to_rest_has_a_value_and_one_that_does_not_is_refused():
    """With q alone the state decays to 0 and the sum of 2 q's is finite; an offset costs something at every step for ever."""
    quiet = LinearQuadratic(A=[[0.5]], B=[[1.0]], Q=[[1.0]], R=[[1.0]], N=[[0.5]], q=[3.0], q_a=[1.0])
    value = linear_value(quiet, tensor([[0.2]]))
    s, total = 2.0, 0.0
    for _ in range(200):
        a = -0.2 * s
        total, s = total - (s * s + a * a + s * a + 6 * s + 2 * a), 0.5 * s + a
    assert float(value.value(tensor([2.0]))) == pytest.approx(total, rel=1e-12)
    assert float(discounted_mean(quiet.replace(m_0=[2.0]), tensor([[0.2]]))[0]) == pytest.approx(2 / 0.7)
    for form in (linear_value, discounted_mean, discounted_second_moment):
        with refused("k"):
            form(quiet, tensor([[0.2]]), tensor([0.1]))
        assert form(quiet, tensor([[0.2]]), tensor([0.0])) is not None


@pytest.mark.parametrize("k", [tensor([1.0]), tensor(np.ones((3, 2))), tensor([np.nan, 0.0])])
def test_offsets_that_do_not_fit_are_refused(k):
    world, K, _ = case(5, "offset")
    for form in (linear_value, mean_states, second_moments, expected_return):
        with refused("k"), unchecked():
            form(world, K, k)
