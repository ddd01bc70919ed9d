"""Optimum, policy gradient, costates and their covariance with cross term, linear costs and offsets, by independent roads."""

import numpy as np
import pytest
import scipy.linalg
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.pathwise import critic_gradient, pathwise_gradient
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise, draw_noise
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from tests.theory.cases import affine_policies, plain_road, priced, tensor
from theory.continuous.costates import autograd_costates, path_costates
from theory.continuous.endless import cut_endless, gradient_size, steps_until_settled
from theory.continuous.gains import gain_at, offset_at
from theory.continuous.lq_gradients import (
    command_slope,
    costate_covariance,
    expected_return,
    offset_gradient,
    one_step_variances,
    one_step_world,
    policy_gradient,
)
from theory.continuous.lyapunov import linear_value, mean_states, second_moments
from theory.continuous.riccati import riccati

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CASES = [(horizon, name) for horizon in (5, None) for name in affine_policies(priced(horizon))]
EACH = pytest.mark.parametrize(("horizon", "name"), CASES)
HORIZONS = pytest.mark.parametrize("horizon", [1, 5, None])


def case(horizon, name):
    world = priced(horizon)
    return world, *affine_policies(world)[name]


# ---- the optimum


@HORIZONS
def test_the_optimum_is_that_of_the_plain_world_with_a_constant_state(horizon):
    world = priced(horizon)
    plain, _, _ = plain_road(world, None)
    best, lifted = riccati(world), riccati(plain)
    N_1 = np.vstack([world.N, world.q_a])
    gain = lifted.K + tensor(np.linalg.solve(world.R, N_1.T))
    torch.testing.assert_close(best.K, gain[..., :3], **EXACT)
    torch.testing.assert_close(best.k, gain[..., 3], **EXACT)
    torch.testing.assert_close(best.P, lifted.P[..., :3, :3], **EXACT)
    torch.testing.assert_close(best.p, lifted.P[..., :3, 3], **EXACT)
    assert (riccati(world.replace(N=None)).K - best.K).abs().max() > 0.05, "the control: N counts"
    for dropped in ("q", "q_a") if horizon != 1 else ("q_f", "q_a"):
        assert (riccati(world.replace(**{dropped: None})).k - best.k).abs().max() > 0.05, (
            f"the control: {dropped} counts"
        )


def test_an_endless_optimum_is_scipys_own_with_a_cross_term():
    world = priced(None)
    root = world.gamma**0.5
    P = scipy.linalg.solve_discrete_are(root * world.A, root * world.B, world.Q, world.R, s=world.N)
    torch.testing.assert_close(riccati(world).P, tensor(P), **EXACT)


@HORIZONS
def test_the_optimum_is_where_both_gradients_vanish_and_no_neighbour_is_better(horizon):
    world = priced(horizon)
    best = riccati(world)
    top = expected_return(world, best.K, best.k)
    assert float(policy_gradient(world, best.K, best.k).abs().max()) < 1e-9
    assert float(offset_gradient(world, best.K, best.k).abs().max()) < 1e-9
    rng = np.random.default_rng(0)
    for _ in range(5):
        away = tensor(0.05 * rng.standard_normal(best.k.shape))
        assert expected_return(world, best.K, best.k + away) < top
        assert expected_return(world, best.K + 0.05 * tensor(rng.standard_normal(best.K.shape)), best.k) < top
    assert expected_return(world, best.K) < top, "the control: without the offset it is worse"
    value = linear_value(world, best.K, best.k)
    torch.testing.assert_close(best.P, value.P, **EXACT)
    torch.testing.assert_close(best.p, value.p, **EXACT)


@pytest.mark.parametrize("horizon", [4, None])
def test_a_batch_of_systems_has_the_optimum_of_each(horizon):
    one = priced(horizon)
    other = one.replace(A=0.8 * one.A.T, N=-0.5 * one.N, q=[0.1, 2.0, -1.0], q_a=[0.0, 0.4])
    names = ("A", "B", "Q", "R", "Q_f", "N", "q", "q_a")
    both = one.replace(**{x: np.stack([getattr(one, x), getattr(other, x)]) for x in names})  # q_f is shared
    batch, single = riccati(both), [riccati(one), riccati(other)]
    for field in ("K", "P", "k", "p"):
        axis = 0 if horizon is None else 1
        truth = torch.stack([getattr(x, field) for x in single], axis)
        torch.testing.assert_close(getattr(batch, field), truth, **EXACT)


def test_the_optimum_is_differentiable_in_every_cost():
    """A gradient is asked for at zero costs too: a cost of zero is not left out then."""
    world = priced(4).to().replace(N=None, q=None, q_a=None, q_f=None)
    for name, shape in (("N", (3, 2)), ("q", (3,)), ("q_a", (2,)), ("q_f", (3,))):
        cost = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        weights = torch.linspace(-1, 1, 2, dtype=torch.float64)
        best = riccati(world.replace(**{name: cost}))
        ((best.k[0] @ weights) + (best.K[0] @ torch.ones(3).double()) @ weights).backward()

        def number(x, name=name, weights=weights):
            best = riccati(world.replace(**{name: x}))
            return (best.k[0] @ weights) + (best.K[0] @ torch.ones(3).double()) @ weights

        np.testing.assert_allclose(cost.grad, numerical_gradient(number, np.zeros(shape)), rtol=1e-6, atol=1e-8)
        assert cost.grad.abs().max() > 1e-3


# ---- gradients in the policy


@EACH
def test_both_gradients_are_the_slopes_of_the_plain_worlds_return(horizon, name):
    """Differences of the return of the world without cross term and linear costs: no formula with N or q is used."""
    world, K, k = case(horizon, name)

    def J(K, k):
        plain, _, gain = plain_road(world, K, k)
        return expected_return(plain, gain)

    k_0 = torch.zeros(2).double() if k is None else k
    in_K = numerical_gradient(lambda x: J(tensor(x), k_0), K)
    in_k = numerical_gradient(lambda x: J(K, tensor(x)), k_0)
    np.testing.assert_allclose(policy_gradient(world, K, k), in_K, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(offset_gradient(world, K, k), in_k, rtol=1e-6, atol=1e-6)
    for dropped in ("N", "q", "q_a"):
        other = world.replace(**{dropped: None})
        assert abs(policy_gradient(other, K, k).numpy() - in_K).max() > 1e-2, f"the control: {dropped} counts"


@pytest.mark.parametrize("horizon", [5, None])
def test_an_offset_counts_in_a_world_whose_cost_is_quadratic_alone(horizon):
    world, K, k = case(horizon, "offset")
    world = world.replace(N=None, q=None, q_a=None, q_f=None)
    in_K = numerical_gradient(lambda x: expected_return(world, tensor(x), k), K)
    in_k = numerical_gradient(lambda x: expected_return(world, K, tensor(x)), k)
    np.testing.assert_allclose(policy_gradient(world, K, k), in_K, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(offset_gradient(world, K, k), in_k, rtol=1e-6, atol=1e-6)
    assert abs(policy_gradient(world, K).numpy() - in_K).max() > 1e-2, "the control: the offset counts"
    plain, extra, gain = plain_road(world, K, k)
    bonus = extra * (10 if horizon is None else sum(0.9**i for i in range(6)))
    torch.testing.assert_close(expected_return(world, K, k), expected_return(plain, gain) + bonus, rtol=1e-9, atol=1e-8)


def test_an_offset_has_no_gradient_where_nothing_discounts():
    quiet = LinearQuadratic(A=[[0.5]], B=[[1.0]], Q=[[1.0]], R=[[1.0]], q=[3.0])
    with refused("gamma"):
        offset_gradient(quiet, tensor([[0.2]]))
    slope = numerical_gradient(lambda K: expected_return(quiet, tensor(K)), np.array([[0.2]]))
    np.testing.assert_allclose(policy_gradient(quiet, tensor([[0.2]])), slope, rtol=1e-7)


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_sampled_estimators_have_the_exact_gradients_as_their_means(noise, rng):
    world, K, k = case(5, "offset")
    world = world.replace(noise=noise).to()
    policy, value = LinearPolicy(K, k), linear_value(world, K, k)
    path = rollout(world, policy, draw_noise(world, 4_000, 5, rng))
    levels = torch.stack([value.value(path.states[:, t].detach(), t) for t in range(5)], 1)
    estimates = (
        pathwise_gradient(policy, path),
        critic_gradient(world, policy, path, value.gradient),
        score_function_gradient(world, policy, path, levels),
    )
    for sample in estimates:
        assert_mean_within(sample["K"].flatten(1), policy_gradient(world, K, k).flatten())
        assert_mean_within(sample["k"], offset_gradient(world, K, k))
    for dropped in ("N", "q", "q_a"):
        assert differs_by(estimates[0]["k"], offset_gradient(world.replace(**{dropped: None}), K, k)), dropped


@pytest.mark.parametrize("k", [None, tensor([0.4, -0.3])])
def test_slopes_in_the_first_command(k):
    world, K, _ = case(5, "offset")
    world, start = world.to(), tensor([0.5, -1.0, 0.7])
    command, gain = command_slope(world, K, start, k)
    fixed = world.replace(m_0=start, S_0=torch.zeros(3, 3).double())
    offset = torch.zeros(2).double() if k is None else k
    later = offset.expand(5, 2).clone()

    def J(first):
        changed = later.clone()
        changed[0] = later[0] - tensor(first)  # u_0 = -K s - k
        return expected_return(fixed, K, changed)

    np.testing.assert_allclose(command, numerical_gradient(J, np.zeros(2)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gain, policy_gradient(fixed, K, k), rtol=1e-12)


# ---- costates


@EACH
def test_one_quiet_path_has_the_value_gradient_as_its_costate_and_both_roads_agree(horizon, name):
    """Costates are affine in the noise: the path without noise has their mean, at every time."""
    world, K, k = case(horizon, name)
    steps = world.horizon or 150
    quiet = Noise(tensor([[0.5, -1.0, 0.7]]), torch.zeros(1, steps, 2).double(), torch.zeros(1, steps, 3).double())
    path = rollout(world, LinearPolicy(K, k), quiet)
    costates, states = autograd_costates(path.returns, path.state_probe, world.gamma), path.states.detach()
    value = linear_value(world, K, k)

    def command(s, t):
        return -gain_at(K, t) @ s - (0.0 if k is None else offset_at(k, t))

    if horizon:
        recursion = path_costates(world, command, states, quiet.xi, quiet.w)
        torch.testing.assert_close(recursion, costates, rtol=1e-10, atol=1e-12)
    for t in range(steps + 1) if horizon else range(0, 20, 5):
        torch.testing.assert_close(costates[0, t], value.gradient(states[0, t], t), rtol=1e-8, atol=1e-9)
        assert (costates[0, t] + 2 * value.at(t)[0] @ states[0, t]).abs().max() > 1e-3, "the control: p counts"


@EACH
def test_the_covariance_of_the_costate_is_that_of_the_plain_world(horizon, name):
    world, K, k = case(horizon, name)
    plain, _, gain = plain_road(world, K, k)
    for t in (0, 2, 4, 5) if horizon else (0,):
        for part, lifted in zip(costate_covariance(world, K, t), costate_covariance(plain, gain, t), strict=True):
            torch.testing.assert_close(part, lifted[:3, :3], **EXACT)
    dropped = costate_covariance(world.replace(N=None), K)[0]
    assert (dropped - costate_covariance(world, K)[0]).abs().max() > 1e-3, (
        "the control: N enters the action noise's part"
    )


def test_the_covariance_of_sampled_costates(rng):
    world, K, k = case(5, "offset")
    path = rollout(world, LinearPolicy(K, k), draw_noise(world, 30_000, 5, rng))
    costates, states = autograd_costates(path.returns, path.state_probe, world.gamma), path.states.detach()
    value = linear_value(world, K, k)
    for t in (0, 3):
        e = costates[:, t] - value.gradient(states[:, t], t)
        assert_mean_within(e, torch.zeros(3).double())
        products = (e[:, :, None] * e[:, None]).flatten(1)
        assert_mean_within(products, sum(costate_covariance(world, K, t)).flatten())
        assert differs_by(products, sum(costate_covariance(world.replace(N=None), K, t)).flatten())


@HORIZONS
def test_action_noise_drops_out_of_the_costate_at_the_optimum(horizon):
    world = priced(horizon)
    best = riccati(world)
    assert float(costate_covariance(world, best.K)[0].abs().max()) < 1e-12
    assert float(costate_covariance(world.replace(N=None), best.K)[0].abs().max()) > 1e-4


# ---- where an endless world may be cut


def settled_gap(world, K, k, last):
    """Largest share of the value gradient's size that the steps after the cut add, at the times 0 and `last`."""
    cut = cut_endless(world, K, last, k=k)
    value, finite = linear_value(world, K, k), linear_value(cut, K, k)
    Sigma, means = second_moments(cut, K, k), mean_states(cut, K, k)
    gaps = []
    for t in {0, last}:
        left = gradient_size(finite.P[t] - value.P, Sigma[t], finite.p[t] - value.p, means[t])
        size = gradient_size(value.P, Sigma[t], value.p, means[t])
        gaps.append((left / size.clamp(min=1e-9 * float(size.max()))).max())
    return float(max(gaps))


FREE = LinearQuadratic(A=[[0.95]], B=[[1.0]], Q=[[0.0]], R=[[1.0]], q=[1.0], S_x=[[0.1]], gamma=0.95)
NILPOTENT = LinearQuadratic(
    A=[[0, 5.0], [0, 0]], B=[[0], [1.0]], Q=np.zeros((2, 2)), R=[[1.0]], q=[1.0, 1.0], S_x=[[0.1]], gamma=0.9
)
CUT = {
    "priced": (priced(None), *affine_policies(priced(None))["offset"]),
    "linear cost alone": (FREE, tensor([[0.0]]), None),
    "offset alone": (FREE.replace(Q=[[1.0]], q=None, m_0=[0.0], S_0=[[0.0]]), tensor([[0.1]]), tensor([2.0])),
    "nilpotent": (NILPOTENT, tensor([[0.0, 0.0]]), tensor([1.0])),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("last", [0, 7])
def test_after_the_cut_no_linear_term_is_left_that_would_be_seen(name, last):
    world, K, k = CUT[name]
    assert settled_gap(world, K, k, last) <= 2e-8


def test_a_cost_that_is_linear_alone_is_followed_to_its_end():
    """P is zero here, so that every step that is taken is for p = 1 / (1 - 0.95^2): the known geometric tail."""
    world, K, _ = CUT["linear cost alone"]
    j = steps_until_settled(world, K)
    assert 0.9025**j <= 1e-8 < 0.9025 ** (j - 1)
    tail = linear_value(cut_endless(world, K), K).p[0] / linear_value(world, K).p - 1
    assert float(tail) == pytest.approx(-(0.9025**j), rel=1e-6)


def test_the_size_of_a_gradient_counts_its_constant_part(rng):
    P, p, mean = tensor([[2.0, 0.5], [0.5, 1.0]]), tensor([3.0, -1.0]), tensor([1.0, 2.0])
    root = tensor([[1.0, 0.0], [0.4, 0.5]])
    s = mean + torch.randn(200_000, 2, generator=rng, dtype=torch.float64) @ root.mT
    Sigma = root @ root.mT + torch.outer(mean, mean)
    assert_mean_within((2 * (s @ P + p)) ** 2, gradient_size(P, Sigma, p, mean) ** 2)
    assert differs_by((2 * (s @ P + p)) ** 2, gradient_size(P, Sigma, 0 * p, mean) ** 2)


# ---- one step


@pytest.mark.parametrize(
    ("R", "mu", "sigma", "q_a"), [(1.3, 0.7, 0.5, 0.9), (0.4, -1.0, 1.5, -2.0), (0.0, 0.5, 1.0, 1.0)]
)
def test_one_step_variances_with_a_linear_cost_equal_quadrature(R, mu, sigma, q_a):
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    a, exact = mu + sigma * nodes, one_step_variances(R, tensor(mu), tensor(sigma), q_a)
    reward, slope = -(R * a**2 + 2 * q_a * a), -2 * (R * mu + q_a)
    pathwise = -2 * (R * a + q_a)
    assert float(exact.pathwise) == pytest.approx(weights @ (pathwise - slope) ** 2, abs=1e-12)
    baselines = {
        "score": 0.0,
        "score_value_baseline": weights @ reward,
        "score_best_baseline": float(exact.best_baseline),
    }
    for name, b in baselines.items():
        score = (reward - b) * nodes / sigma
        assert weights @ score == pytest.approx(slope)
        assert float(getattr(exact, name)) == pytest.approx(weights @ (score - slope) ** 2)
    world = one_step_world(R, sigma, q_a)
    assert float(policy_gradient(world, tensor([[mu]]))) == pytest.approx(slope)
