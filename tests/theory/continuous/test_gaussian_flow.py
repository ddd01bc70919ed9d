"""Gaussian value-gradient flow by second roads: ODE integration, Bures by matrix roots, quadrature, search over all maps."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm, sqrtm
from scipy.optimize import minimize

from tests.agents.cases import draws
from tests.envs.refusals import refused
from theory.continuous.gaussian_flow import (
    beta_of_kl,
    flow,
    flow_kl,
    multiplier_of_distance,
    path_length,
    proximal,
    tilted,
)
from theory.continuous.gaussians import gaussian_kl, mean_value, w2

close = torch.testing.assert_close


def problem(n, seed=0, common=False):
    """R, a*, m, S; R and S have unlike eigenvectors unless they are to have common ones."""
    roots = draws(2, n, n, seed=seed)
    R, S = (x @ x.mT / n + 0.2 * torch.eye(n).double() for x in roots)
    if common:
        U = torch.linalg.eigh(R)[1]
        S = (U * torch.linalg.eigvalsh(S).flip(0)) @ U.mT
    else:
        assert n == 1 or float((R @ S - S @ R).norm()) > 0.1
    return R, draws(n, seed=seed + 1), draws(n, seed=seed + 2), S


def bures(m, S, other_m, other_S):
    """W2 by the formula with matrix roots (scipy)."""
    S, T = S.numpy(), other_S.numpy()
    root = np.real(sqrtm(S))
    square = np.trace(S + T - 2 * np.real(sqrtm(root @ T @ root)))
    return math.sqrt(max(square, 0.0) + float((m - other_m).square().sum()))


def kl_by_inverse(m, S, ref_m, ref_S):
    P = torch.linalg.inv(ref_S)
    d = ref_m - m
    return float((P @ S).trace() - len(m) - torch.logdet(P @ S) + d @ P @ d) / 2


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize(("t", "alpha"), [(0.1, 1.0), (0.7, 0.5), (2.0, 5.0)])
def test_the_flow_is_the_solution_of_its_equation(n, t, alpha):
    """Mean and covariance by integration of `m' = -2R(m - a*)/alpha`, `S' = -2(RS + SR)/alpha`."""
    R, a_star, m, S = problem(n)

    def slope(_, x):
        mean, cov = torch.from_numpy(x[:n]), torch.from_numpy(x[n:]).reshape(n, n)
        return torch.cat([-2 * R @ (mean - a_star), (-2 * (R @ cov + cov @ R)).flatten()]).numpy() / alpha

    end = solve_ivp(slope, (0, t), torch.cat([m, S.flatten()]).numpy(), rtol=1e-11, atol=1e-12).y[:, -1]
    law = flow(R, a_star, m, S, t, alpha)
    close(law.mean, torch.from_numpy(end[:n]), rtol=1e-8, atol=1e-9)
    close(law.covariance, torch.from_numpy(end[n:]).reshape(n, n), rtol=1e-7, atol=1e-9)
    close(law.map, torch.from_numpy(expm(-2 * R.numpy() * t / alpha)))
    assert not torch.allclose(law.map, flow(R, a_star, m, S, 1.1 * t, alpha).map, rtol=1e-3)


def test_euler_steps_are_steps_and_tend_to_the_flow():
    R, a_star, m, S = problem(3)
    point, F = m.clone(), torch.eye(3).double()
    for _ in range(5):
        point, F = point - 2 * 0.1 / 0.7 * R @ (point - a_star), (torch.eye(3).double() - 0.2 / 0.7 * R) @ F
    law = flow(R, a_star, m, S, 0.5, 0.7, steps=5)
    close(law.mean, point)
    close(law.covariance, F @ S @ F.mT)
    exact = flow(R, a_star, m, S, 0.5, 0.7)
    gaps = [float((flow(R, a_star, m, S, 0.5, 0.7, steps=k).mean - exact.mean).norm()) for k in (100, 200)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("t", [0.01, 0.3, 1.5])
def test_the_closed_distance_is_bures_and_lies_below_both_budgets(n, t):
    """Fact 1. An Euler map with a negative eigenvalue is not the cheapest one: the control."""
    R, a_star, m, S = problem(n, seed=3)
    law = flow(R, a_star, m, S, t)
    assert law.distance == pytest.approx(bures(m, S, law.mean, law.covariance), abs=1e-6)
    assert w2(m, S, law.mean, law.covariance) == pytest.approx(law.distance, rel=1e-10)
    length = path_length(R, a_star, m, S, t)
    second = S + torch.outer(m - a_star, m - a_star)

    def speed(s):
        F = torch.from_numpy(expm(-2 * R.numpy() * s))
        return math.sqrt(float((4 * R @ F @ second @ F @ R).trace()))

    assert length == pytest.approx(quad(speed, 0, t, epsrel=1e-10)[0], rel=1e-8)
    assert law.distance <= length * (1 + 1e-12)
    assert law.distance <= math.sqrt(float(second.trace()))
    assert n == 1 or law.distance < length * (1 - 1e-9), "the path is not straight"
    wild = flow(R, a_star, m, S, 1.5 / float(torch.linalg.eigvalsh(R)[-1]), steps=1)
    assert wild.distance > w2(m, S, wild.mean, wild.covariance) + 0.01


def test_the_length_of_a_long_path_of_unlike_rates_is_that_of_a_fine_sum():
    R = torch.diag(torch.tensor([1e-3, 1.0, 300.0])).double()
    a_star, m, S = torch.zeros(3).double(), torch.tensor([2.0, -1.0, 0.5]).double(), torch.eye(3).double()
    s = np.concatenate([[0.0], np.geomspace(1e-9, 1e4, 400_001)])
    weights = 4 * R.diagonal().numpy() ** 2 * (1 + m.numpy() ** 2)
    speed = np.sqrt((weights * np.exp(-4 * R.diagonal().numpy() * s[:, None])).sum(1))
    assert path_length(R, a_star, m, S, 1e4) == pytest.approx(float(np.trapezoid(speed, s)), rel=1e-6)
    assert path_length(R, a_star, m, S, 0.0) == path_length(0 * R, a_star, m, S, 1.0) == 0.0


@pytest.mark.parametrize("t", [0.1, 1.0])
def test_no_linear_map_of_the_same_cost_earns_more_than_the_proximal_one(t):
    """Fact 2: over all maps `a -> F a + b`, symmetric or not, by constrained optimisation from several starts."""
    R, a_star, m, S = problem(2, seed=5)
    law = flow(R, a_star, m, S, t)
    best = proximal(R, a_star, m, S, multiplier_of_distance(R, a_star, m, S, law.distance))
    assert best.distance == pytest.approx(law.distance, rel=1e-12)
    second = S + torch.outer(m, m)

    def parts(x):
        F, b = torch.from_numpy(x[:4]).reshape(2, 2), torch.from_numpy(x[4:])
        move = F - torch.eye(2).double()
        cost = (move @ second @ move.mT).trace() + 2 * b @ move @ m + b @ b
        return mean_value(R, a_star, F @ m + b, F @ S @ F.mT), float(cost)

    found = []
    for seed in range(3):
        start = np.r_[1, 0, 0, 1, 0, 0] + 0.1 * draws(6, seed=seed).numpy()
        limit = {"type": "ineq", "fun": lambda x: law.distance**2 - parts(x)[1]}
        options = {"ftol": 1e-14, "maxiter": 500}
        found.append(-minimize(lambda x: -parts(x)[0], start, constraints=[limit], options=options).fun)
    top = mean_value(R, a_star, best.mean, best.covariance)
    assert max(found) == pytest.approx(top, rel=1e-6)
    own, start = mean_value(R, a_star, law.mean, law.covariance), mean_value(R, a_star, m, S)
    assert 0 < (top - own) / (top - start) < 0.05, "the flow is near the best map, and is not it"


def test_the_flow_is_the_proximal_map_in_one_direction_alone():
    R, a_star, m, S = problem(1)
    law = flow(R, a_star, m, S, 0.4)
    close(proximal(R, a_star, m, S, multiplier_of_distance(R, a_star, m, S, law.distance)).map, law.map)
    limit = proximal(*problem(3), 1e-9)
    assert limit.distance == pytest.approx(math.sqrt(-mean_value(torch.eye(3), *problem(3)[1:])), rel=1e-6)


@pytest.mark.parametrize("beta", [0.2, 3.0])
def test_the_tilt_is_the_density_times_the_exponential_of_the_value(beta):
    """By sums on a grid, in two directions that do not commute."""
    R, a_star, m, S = problem(2, seed=1)
    axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    log_p = -torch.einsum("ki,ij,kj->k", x - m, torch.linalg.inv(S), x - m) / 2
    p = torch.softmax(log_p - torch.einsum("ki,ij,kj->k", x - a_star, R, x - a_star) / beta, 0)
    tilt = tilted(R, a_star, m, S, beta)
    close(tilt.mean, p @ x, rtol=1e-8, atol=1e-9)
    close(tilt.covariance, (p[:, None] * (x - p @ x)).mT @ (x - p @ x), rtol=1e-8, atol=1e-9)
    precision = torch.linalg.inv(S) + 2 * R / beta
    close(tilt.covariance, torch.linalg.inv(precision))


@pytest.mark.parametrize("kl", [1e-6, 0.1, 3.0, 40.0])
def test_beta_of_a_divergence_gives_it_back(kl):
    R, a_star, m, S = problem(3)
    tilt = tilted(R, a_star, m, S, beta_of_kl(R, a_star, m, S, kl))
    assert kl_by_inverse(tilt.mean, tilt.covariance, m, S) == pytest.approx(kl, rel=1e-4 if kl < 1e-3 else 1e-6)
    flat = torch.diag(torch.tensor([1.0, 0.0])).double()  # the reference lives on a line
    line = tilted(
        torch.eye(2), [1.0, 1.0], [0.0, 0.0], flat, beta_of_kl(torch.eye(2), [1.0, 1.0], [0.0, 0.0], flat, 0.5)
    )
    one = [[1.0]]
    alone = tilted(one, [1.0], [0.0], one, beta_of_kl(one, [1.0], [0.0], one, 0.5))
    close(line.mean, torch.tensor([float(alone.mean), 0.0]).double())


def test_kl_by_monte_carlo_and_by_the_inverse():
    R, a_star, m, S = problem(3)
    law = flow(R, a_star, m, S, 0.3)
    exact = gaussian_kl(law.mean, law.covariance, m, S)
    assert exact == pytest.approx(kl_by_inverse(law.mean, law.covariance, m, S), rel=1e-10)
    assert flow_kl(R, a_star, m, S, 0.3) == pytest.approx(exact, rel=1e-10)
    own, ref = (torch.distributions.MultivariateNormal(*x) for x in ((law.mean, law.covariance), (m, S)))
    x = law.mean + draws(200_000, 3) @ torch.linalg.cholesky(law.covariance).mT
    ratio = own.log_prob(x) - ref.log_prob(x)
    assert abs(float(ratio.mean()) - exact) < 4 * float(ratio.std()) / math.sqrt(len(x))
    assert gaussian_kl(m, 0 * S, m, S) == math.inf


def test_kl_grows_without_bound_and_w2_does_not():
    """Fact 3: the slope of KL in time is `2 tr R / alpha` in the long run."""
    R, a_star, m, S = problem(3)
    values = [flow_kl(R, a_star, m, S, t, 2.0) for t in (100.0, 101.0, 1e5)]
    assert values[1] - values[0] == pytest.approx(float(R.trace()), rel=1e-9)
    assert values[2] > 1e4 * flow(R, a_star, m, S, 1e5, 2.0).distance


@pytest.mark.parametrize("t", [0.1, 1.0])
def test_covariances_where_the_flow_and_a_tilt_have_one_mean(t):
    """Fact 3: S and R commute, and S is such that one beta matches all means; then `Cov_flow Cov_ref = Cov_KL^2`."""
    R, a_star, m, _ = problem(3)
    rates, U = torch.linalg.eigh(R)
    beta = 0.7
    S = (U * beta * torch.expm1(2 * rates * t) / (2 * rates)) @ U.mT
    law, tilt = flow(R, a_star, m, S, t), tilted(R, a_star, m, S, beta)
    close(tilt.mean, law.mean)
    close(law.covariance @ S, tilt.covariance @ tilt.covariance)
    assert not torch.allclose(law.covariance, tilt.covariance, rtol=1e-2)
    _, _, _, other = problem(3, common=True)  # with another S no beta matches two directions
    betas = 2 * rates * torch.diagonal(U.mT @ other @ U) / torch.expm1(2 * rates * t)
    assert float(betas.max() / betas.min()) > 1.2


@pytest.mark.parametrize("t", [0.1, 0.3, 1.0])
def test_the_tilt_at_the_divergence_of_the_flow_earns_more(t):
    for n in (1, 3):
        R, a_star, m, S = problem(n, seed=2)
        law = flow(R, a_star, m, S, t)
        tilt = tilted(R, a_star, m, S, beta_of_kl(R, a_star, m, S, flow_kl(R, a_star, m, S, t)))
        assert mean_value(R, a_star, tilt.mean, tilt.covariance) > mean_value(R, a_star, law.mean, law.covariance)


def test_the_mean_value_is_that_of_draws():
    R, a_star, m, S = problem(3)
    x = m + draws(200_000, 3) @ torch.linalg.cholesky(S).mT - a_star
    value = -(x @ R * x).sum(1)
    assert abs(float(value.mean()) - mean_value(R, a_star, m, S)) < 4 * float(value.std()) / math.sqrt(len(x))


def test_a_value_without_a_maximum_flows_too():
    R, a_star, m, S = problem(2)
    saddle = R - 1.5 * torch.eye(2).double()
    law = flow(saddle, a_star, m, S, 0.4)
    close(law.map, torch.from_numpy(expm(-0.8 * saddle.numpy())))
    assert law.distance == pytest.approx(bures(m, S, law.mean, law.covariance), abs=1e-6)
    with refused("R"):
        proximal(saddle, a_star, m, S, 1.0)
    with refused("t"):
        flow(saddle, a_star, m, S, 1e5)


def test_small_distances_keep_their_digits_and_points_are_laws():
    R, a_star, m, S = problem(3)
    law = flow(R, a_star, m, S, 1e-9)
    assert w2(m, S, law.mean, law.covariance) == pytest.approx(law.distance, rel=1e-5)
    assert w2([0.0, 0.0], torch.zeros(2, 2), [3.0, 4.0], torch.zeros(2, 2)) == pytest.approx(5)
    assert w2([0.0], [[4.0]], [0.0], [[0.0]]) == pytest.approx(2)


def test_plain_numbers_and_single_precision_are_converted():
    law = flow([[1.0]], [0.0], [2.0], [[1.0]], 0.5)
    assert float(law.mean) == pytest.approx(2 * math.exp(-1))
    R, a_star, m, S = problem(3)
    single = flow(*(x.float() for x in (R, a_star, m, S)), 0.5)
    assert single.mean.dtype == torch.float64
    close(single.mean, flow(R, a_star, m, S, 0.5).mean, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused():
    R, a_star, m, S = problem(2)
    for name, call in {
        "R": lambda: flow(R + torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double(), a_star, m, S, 1.0),
        "S": lambda: flow(R, a_star, m, -S, 1.0),
        "m": lambda: flow(R, a_star, 1.0, S, 1.0),
        "a_star": lambda: flow(R, a_star[:1], m, S, 1.0),
        "t": lambda: flow(R, a_star, m, S, -1.0),
        "alpha": lambda: flow(R, a_star, m, S, 1.0, 0.0),
        "steps": lambda: flow(R, a_star, m, S, 1.0, steps=0),
        "multiplier": lambda: proximal(R, a_star, m, S, 0.0),
        "distance": lambda: multiplier_of_distance(R, a_star, m, S, 1e3),
        "beta": lambda: tilted(R, a_star, m, S, -1.0),
        "kl": lambda: beta_of_kl(R, a_star, m, S, 0.0),
        "ref_S": lambda: gaussian_kl(m, S, m, 0 * S),
        "to_m": lambda: w2(m, S, [1.0], [[1.0]]),
    }.items():
        with refused(name):
            call()
    with refused("R"):
        beta_of_kl(0 * R, a_star, m, S, 1.0)
    with refused("S"):
        flow_kl(R, a_star, m, 0 * S, 1.0)
