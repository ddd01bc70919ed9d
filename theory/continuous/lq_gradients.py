"""Closed-form gradients of a linear-quadratic world: policy gradient, costate covariance, one-step variances."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from theory.continuous.lyapunov import (
    check_gain,
    check_keeps,
    discounted_second_moment,
    discounted_sum,
    endless_cost,
    gain_at,
    linear_value,
    second_moments,
)


def expected_return(world: LinearQuadratic, K: Float[Tensor, "*time m n"]) -> Float[Tensor, ""]:
    """`J(K) = E V_0(s_0) = -(tr(P_0 Sigma_0) + 2 q_0'm_0 + c_0)`."""
    value, here = linear_value(world, K), world.to()
    P, q, c = value.at(0)
    cost: Tensor = (P @ (here.S_0 + torch.outer(here.m_0, here.m_0))).trace() + 2 * q @ here.m_0 + c
    return -cost


def policy_gradient(world: LinearQuadratic, K: Float[Tensor, "*time m n"]) -> Float[Tensor, "*time m n"]:
    """Exact `grad_K J` by the adjoint: one backward sweep for P, one forward sweep for Sigma.

    `grad_K J = -2 sum_t gamma^t [(R + gamma B'P_{t+1}B) K - gamma B'P_{t+1}A] Sigma_t`. For a K that changes with time,
    (T, m, n), the terms of the sum are the gradients of the K_t, and they are returned without the sum. Assumes additive
    noise and, in an endless world, gamma rho(Phi)^2 < 1.
    """
    K, world = check_gain(world, K), world.to()
    if world.horizon is None:
        return -2 * _gain_error(world, K, endless_cost(world, K)) @ discounted_second_moment(world, K)
    P, Sigma, gamma = linear_value(world, K).P, second_moments(world, K), world.gamma
    discount = gamma ** torch.arange(world.horizon, dtype=torch.float64)[:, None, None]
    terms = -2 * discount * (_gain_error(world, K, P[1:]) @ Sigma[:-1])
    return terms if K.ndim == 3 else terms.sum(0)


def _gain_error(world: LinearQuadratic, K: Tensor, P: Tensor) -> Tensor:
    """`(R + gamma B'PB) K - gamma B'PA`: zero at the optimal gain."""
    weighted = world.gamma * world.B.mT @ P
    error: Tensor = (world.R + weighted @ world.B) @ K - weighted @ world.A
    return error


def costate_covariance(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], t: int = 0
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """`Cov(lambda_t | s_t)`, the same for every s_t, as its two parts: from action noise and from process noise.

    `4 sum_{j=t}^{T-1} gamma^{2(j-t)} (Phi^{j-t})' [L_j S_x L_j' + gamma^2 Phi'P_{j+1} S_w P_{j+1}Phi] Phi^{j-t}`,
    `L_j = gamma Phi'P_{j+1}B - K'R`; where K changes with time, Phi^{j-t} is the product of the Phi's. At the optimal gain
    L_j = 0, and action noise drops out of the costate. In an endless world the sum goes to infinity and is the same at
    every t.

    Raises:
        InputError: t lies outside 0..T, K does not fit, or the world does not keep this closed form.
    """
    check_keeps(world, "costate covariance")
    K, world = check_gain(world, K), world.to()
    P = linear_value(world, K).P
    if world.horizon is None:
        Phi = world.A - world.B @ K
        action, process = _noise_sources(world, K, P)
        return 4 * discounted_sum(world.gamma * Phi, action), 4 * discounted_sum(world.gamma * Phi, process)
    if not 0 <= t <= world.horizon:
        raise InputError(f"t must lie in 0..{world.horizon}; got {t}")
    action = process = torch.zeros_like(world.A)
    for j in reversed(range(t, world.horizon)):
        Phi = world.gamma * (world.A - world.B @ gain_at(K, j))
        new_action, new_process = _noise_sources(world, gain_at(K, j), P[j + 1])
        action, process = new_action + Phi.mT @ action @ Phi, new_process + Phi.mT @ process @ Phi
    return 4 * action, 4 * process


def _noise_sources(world: LinearQuadratic, K: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    """`L S_x L'` and `gamma^2 Phi'P S_w P Phi` of one step."""
    back = world.gamma * (world.A - world.B @ K).mT @ P
    L = back @ world.B - K.mT @ world.R
    return L @ world.S_x @ L.mT, back @ world.S_w @ back.mT


@dataclass(frozen=True)
class OneStepVariances:
    """Variance of each estimator of d/dmu E[-R a^2], a = mu + sigma eps, eps ~ N(0, 1); true gradient -2 R mu."""

    pathwise: Float[Tensor, "..."]
    score: Float[Tensor, "..."]
    score_value_baseline: Float[Tensor, "..."]
    score_best_baseline: Float[Tensor, "..."]
    best_baseline: Float[Tensor, "..."]


def one_step_variances(R: float, mu: Float[Tensor, "..."], sigma: Float[Tensor, "..."]) -> OneStepVariances:
    """Closed-form variances of the pathwise and the score-function estimator of one quadratic step.

    pathwise `4 R^2 sigma^2`; score function `R^2 (mu^4/sigma^2 + 14 mu^2 + 15 sigma^2)`; with baseline E Q
    `R^2 (8 mu^2 + 10 sigma^2)`; with the best constant `b = -R (mu^2 + 3 sigma^2)`: `R^2 (8 mu^2 + 6 sigma^2)`.
    """
    mu, sigma = torch.as_tensor(mu, dtype=torch.float64), torch.as_tensor(sigma, dtype=torch.float64)
    return OneStepVariances(
        pathwise=4 * R**2 * sigma**2 + 0 * mu,
        score=R**2 * (mu**4 / sigma**2 + 14 * mu**2 + 15 * sigma**2),
        score_value_baseline=R**2 * (8 * mu**2 + 10 * sigma**2),
        score_best_baseline=R**2 * (8 * mu**2 + 6 * sigma**2),
        best_baseline=-R * (mu**2 + 3 * sigma**2),
    )


def one_step_world(R: float, sigma: float) -> LinearQuadratic:
    """The world of `one_step_variances`: it starts at s_0 = -1, pays -R a^2 once, and the gain K commands mu = K."""
    none = [[0.0]]
    return LinearQuadratic(A=none, B=none, Q=none, R=[[R]], m_0=[-1.0], S_0=none, S_x=[[sigma**2]], horizon=1).to()


def command_slope(
    world: LinearQuadratic, K: Float[Tensor, "m n"], start: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m n"]]:
    """Exact slopes of the return from s_0 in the command, `-2 [(R + gamma B'P_1 B) u_0 + gamma B'P_1 A s_0]`, and in K."""
    P, u = linear_value(world, K).P[1], -K @ start
    back = world.gamma * world.B.mT @ P
    here = world.replace(m_0=start, S_0=torch.zeros_like(world.S_0))
    return -2 * ((world.R + back @ world.B) @ u + back @ world.A @ start), policy_gradient(here, K)
