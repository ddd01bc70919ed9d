"""Where an endless world may be cut: loops that are nilpotent, defective, not normal or slow, against plain sums of terms."""

import numpy as np
import pytest
import torch

from envs.linear_quadratic import LinearQuadratic, random_system
from tests.envs.refusals import refused
from theory.continuous.endless import cut_endless, steps_until_settled
from theory.continuous.lq_gradients import costate_covariance
from theory.continuous.lyapunov import linear_value, second_moments
from theory.continuous.riccati import riccati

SHIFT = np.eye(4, k=1)
SHIFT[3, 0] = 1e-6
JORDAN = 0.9 * np.eye(3) + np.eye(3, k=1)


def system(A, B, Q=None, R=1.0, gamma=0.9, spread=0.1, S_w=None):
    n, m = np.shape(B)
    return LinearQuadratic(
        A=A,
        B=B,
        Q=np.eye(n) if Q is None else Q,
        R=R * np.eye(m),
        S_x=spread * np.eye(m),
        S_w=S_w,
        gamma=gamma,
        horizon=None,
    ).to()


def optimal(world):
    return riccati(world).K


LAST = np.eye(4)[:, 3:]
CASES = {  # the first four are those that were reported; None stands for the optimal gain
    "nilpotent": (system([[0, 1], [0, 0]], [[0], [1]]), [[0.0, 0.0]]),
    "deadbeat": (system([[1, 1], [0, 1]], [[0.5], [1]]), [[1.0, 1.5]]),
    "shift": (system(SHIFT, LAST), np.zeros((1, 4))),
    "nearly free control": (system([[1, 1], [0, 1]], [[0], [1]], np.diag([1.0, 0.0]), 1e-9, 0.95, 0.01), None),
    "defective": (system(JORDAN, np.eye(3), gamma=0.8), np.zeros((3, 3))),
    "long transient": (system([[0.5, 100.0], [0.0, 0.5]], np.eye(2), S_w=0.1 * np.eye(2)), np.zeros((2, 2))),
    "growing states": (system([[1.02]], [[1.0]], gamma=0.9, S_w=[[0.2]]), [[0.0]]),
    "no undiscounted value": (system([[1.0, 5.0], [0.0, 0.3]], np.eye(2), gamma=0.7), np.zeros((2, 2))),
    "random": (random_system(size=4, actions=2, seed=0).to(), None),
}
EACH = pytest.mark.parametrize("name", CASES)


def case(name):
    world, K = CASES[name]
    return world, optimal(world) if K is None else torch.as_tensor(np.asarray(K, dtype=float))


@EACH
@pytest.mark.parametrize("last", [0, 7])
def test_after_the_cut_nothing_is_left_that_would_be_seen(name, last):
    world, K = case(name)
    cut = cut_endless(world, K, last)
    value, finite, Sigma = linear_value(world, K), linear_value(cut, K), second_moments(cut, K)
    for t in {0, last}:
        gap = finite.P[t] - value.P
        size = 2 * (value.P @ Sigma[t] @ value.P).diagonal().sqrt()
        left = 2 * (gap @ Sigma[t] @ gap).diagonal().clamp(min=0).sqrt()
        assert bool((left <= 2e-8 * size.clamp(min=1e-9 * float(size.max()))).all()), (left, size)
        whole, first = (sum(costate_covariance(w, K, t)) for w in (world, cut))
        least = (1e-4 * float(size.max())) ** 2
        sd = whole.diagonal().clamp(min=least).sqrt()
        assert bool(((whole - first).abs() <= 2e-8 * sd[:, None] * sd).all())


@EACH
def test_a_cut_that_comes_much_earlier_would_be_seen(name):
    world, K = case(name)
    steps = steps_until_settled(world, K)
    early = world.replace(horizon=max(1, steps // 3), Q_f=torch.zeros_like(world.Q))
    gap = (linear_value(early, K).P[0] - linear_value(world, K).P).abs().max()
    assert float(gap) > 1e-7 * float(linear_value(world, K).P.abs().max()) or steps <= 3


def test_the_deadbeat_value_is_the_one_reported():
    world, K = case("deadbeat")
    expected = torch.tensor([[4.025, 2.5125], [2.5125, 3.75625]], dtype=torch.float64)
    torch.testing.assert_close(linear_value(world, K).P, expected, rtol=1e-12, atol=1e-12)
    Phi, total, power = world.A - world.B @ K, torch.zeros(2, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for k in range(5):  # the sum itself: two terms
        total, power = total + 0.9**k * power.mT @ (world.Q + K.mT @ world.R @ K) @ power, Phi @ power
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


def test_a_nilpotent_loop_takes_as_many_steps_as_it_has_states_and_a_transient_more_than_its_radius_says():
    assert steps_until_settled(*case("nilpotent")) == 2
    world, K = case("long transient")
    by_radius = int(np.ceil(np.log(1e-8) / np.log(0.9 * 0.25)))  # of gamma rho^2, were the loop normal
    assert steps_until_settled(world, K) > by_radius


def test_without_noise_the_steps_are_the_fewest_that_the_bound_allows():
    """By plain powers of the closed loop; the transposed loop, which has the same radius, needs another number."""
    world, K = case("long transient")
    quiet = world.replace(S_x=0 * world.S_x, S_w=0 * world.S_w)
    Phi, P = quiet.A - quiet.B @ K, linear_value(quiet, K).P
    Sigma = quiet.S_0 + torch.outer(quiet.m_0, quiet.m_0)
    size = 2 * (P @ Sigma @ P).diagonal().sqrt()

    def fewest(loop):
        for k in range(200):
            power = torch.linalg.matrix_power(loop, k)
            R = quiet.gamma**k * power.mT @ P @ power
            if bool((2 * (R.diagonal() * (R @ Sigma).trace()).sqrt() <= 1e-8 * size).all()):
                return k
        raise AssertionError

    assert steps_until_settled(quiet, K) == fewest(Phi) != fewest(Phi.mT)


def test_a_loop_too_slow_is_refused_with_its_numbers():
    world = system([[1.0]], [[0.0]], gamma=0.9999)
    with refused("A - B K"):
        steps_until_settled(world, torch.zeros(1, 1, dtype=torch.float64))
    with refused("K leaves"):
        steps_until_settled(system([[1.2]], [[1.0]]), torch.zeros(1, 1, dtype=torch.float64))


def test_a_world_with_a_horizon_is_left_as_it_is():
    world = random_system(horizon=5)
    assert cut_endless(world, torch.zeros(2, 4, dtype=torch.float64)) is world


def test_a_world_that_costs_nothing_keeps_a_step():
    world = LinearQuadratic(A=[[0.5]], B=[[1.0]], Q=[[0.0]], R=[[0.0]], S_x=[[0.1]], gamma=0.9).to()
    gain = torch.zeros(1, 1, dtype=torch.float64)
    assert steps_until_settled(world, gain) >= 1
    assert cut_endless(world, gain).horizon >= 1
