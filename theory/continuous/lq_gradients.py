"""Closed-form gradients of a linear-quadratic world: policy gradient, costate covariance, one-step variances.

Theory page, section 1: "The policy gradient and its two estimators".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.linear_quadratic import LinearQuadratic
from envs.record import short_repr
from envs.world import InputError
from theory.continuous.gains import check_gain, check_keeps, check_offset, gain_at
from theory.continuous.lyapunov import (
    discounted_mean,
    discounted_second_moment,
    discounted_sum,
    endless_cost,
    linear_value,
    mean_states,
    second_moments,
)


def expected_return(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], k: Float[Tensor, "*offset_time m"] | None = None
) -> Float[Tensor, ""]:
    """`J(K, k) = E V_0(s_0) = -(tr(P_0 Sigma_0) + 2 p_0'm_0 + c_0)` of the policy u = -K s - k.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        k: the offset, likewise; None for zero.

    Returns:
        J, in return units.

    Raises:
        InputError: as in `theory.continuous.lyapunov.linear_value`.
    """
    value, here = linear_value(world, K, k), world.to()
    P, p, c = value.at(0)
    cost: Tensor = (P @ (here.S_0 + torch.outer(here.m_0, here.m_0))).trace() + 2 * p @ here.m_0 + c
    return -cost


def policy_gradient(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], k: Float[Tensor, "*offset_time m"] | None = None
) -> Float[Tensor, "*time m n"]:
    """Exact `grad_K J` of the policy u = -K s - k by the adjoint: one backward sweep for P and p, one forward for Sigma and m.

    `grad_K J = -2 sum_t gamma^t (E_t Sigma_t + e_t m_t')`, `m_t = E s_t`, where

        E_t = (R + gamma B'P_{t+1}B) K - N' - gamma B'P_{t+1}A
        e_t = (R + gamma B'P_{t+1}B) k - q_a - gamma B'p_{t+1}

    both zero at the optimum. For a K that changes with time, (T, m, n), the terms of the sum are the gradients of the
    K_t, and they are returned without the sum. Assumes additive noise and, in an endless world, gamma rho(Phi)^2 < 1.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        k: the offset, likewise; None for zero.

    Returns:
        The gradient in every entry of K, in the shape of K.

    Raises:
        InputError: K or k does not fit, the world does not keep this closed form, or an endless sum is infinite.
    """
    K, k, world = check_gain(world, K), check_offset(world, k), world.to()
    affine = world.has_linear or k is not None
    if world.horizon is None:
        if not affine:
            P = endless_cost(world, K)  # refuses an unstable gain
            return -2 * _gain_error(world, K, P) @ discounted_second_moment(world, K, known_stable=True)
        value = linear_value(world, K, k)
        offset_error = _offset_error(world, k, value.P, value.p)
        slope = _gain_error(world, K, value.P) @ discounted_second_moment(world, K, k)
        return -2 * (slope + torch.outer(offset_error, discounted_mean(world, K, k)))
    value, Sigma = linear_value(world, K, k), second_moments(world, K, k)
    terms = _gain_error(world, K, value.P[1:]) @ Sigma[:-1]
    if affine:
        means = mean_states(world, K, k)[:-1]
        terms = terms + _offset_error(world, k, value.P[1:], value.p[1:])[:, :, None] * means[:, None, :]
    terms = -2 * _discounts(world)[:, None, None] * terms
    return terms if K.ndim == 3 else terms.sum(0)


def offset_gradient(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], k: Float[Tensor, "*offset_time m"] | None = None
) -> Float[Tensor, "*offset_time m"]:
    """Exact `grad_k J = -2 sum_t gamma^t (E_t m_t + e_t)` of the policy u = -K s - k, in the letters of `policy_gradient`.

    For a k that changes with time, (T, m), the terms are returned without the sum.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        k: the offset, likewise; None for zero.

    Returns:
        The gradient in every entry of k, in the shape of k.

    Raises:
        InputError: as `linear_value`, or the sum is infinite: an endless world with gamma = 1.
    """
    K, k, world = check_gain(world, K), check_offset(world, k), world.to()
    value = linear_value(world, K, k)
    if world.horizon is None and world.gamma == 1:
        raise InputError("gamma must be < 1 for horizon=None: an offset changes the cost of every step without end")
    if world.horizon is None:
        error = _offset_error(world, k, value.P, value.p) / (1 - world.gamma)
        return -2 * (_gain_error(world, K, value.P) @ discounted_mean(world, K, k) + error)
    means = mean_states(world, K, k)[:-1]
    along = (_gain_error(world, K, value.P[1:]) @ means[:, :, None])[:, :, 0]
    terms = -2 * _discounts(world)[:, None] * (along + _offset_error(world, k, value.P[1:], value.p[1:]))
    return terms if k is not None and k.ndim == 2 else terms.sum(0)


def _discounts(world: LinearQuadratic) -> Tensor:
    """gamma^t of every step."""
    return world.gamma ** torch.arange(world.horizon or 0, dtype=torch.float64)


def _gain_error(world: LinearQuadratic, K: Tensor, P: Tensor) -> Tensor:
    """`E = (R + gamma B'PB) K - N' - gamma B'PA`: zero at the optimal gain."""
    weighted = world.gamma * world.B.mT @ P
    error: Tensor = (world.R + weighted @ world.B) @ K - weighted @ world.A - world.N.mT
    return error


def _offset_error(world: LinearQuadratic, k: Tensor | None, P: Tensor, p: Tensor) -> Tensor:
    """`e = (R + gamma B'PB) k - q_a - gamma B'p`: zero at the optimal offset."""
    linear: Tensor = world.q_a + world.gamma * p @ world.B
    if k is None:
        return -linear
    by_offset: Tensor = (world.R + world.gamma * world.B.mT @ P @ world.B) @ k[..., None]
    return by_offset[..., 0] - linear


def costate_covariance(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], t: int = 0
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """`Cov(lambda_t | s_t)`, the same for every s_t and offset, as its two parts: from action noise and from process noise.

    `4 sum_{j=t}^{T-1} gamma^{2(j-t)} (Phi^{j-t})' [L_j S_x L_j' + gamma^2 Phi'P_{j+1} S_w P_{j+1}Phi] Phi^{j-t}`,
    `L_j = gamma Phi'P_{j+1}B + N - K'R`; where K changes with time, Phi^{j-t} is the product of the Phi's. At the
    optimal gain L_j = 0, and action noise drops out of the costate. In an endless world the sum goes to infinity and is
    the same at every t.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        t: the time of the costate; without effect in an endless world.

    Returns:
        The part from action noise and the part from process noise; their sum is the covariance.

    Raises:
        InputError: t lies outside 0..T, K does not fit, or the world does not keep this closed form.
    """
    check_keeps(world, "costate covariance")
    K, world = check_gain(world, K), world.to()
    P = linear_value(world, K).P
    if world.horizon is None:
        Phi = world.A - world.B @ K
        action, process = noise_sources(world, K, P)
        return 4 * discounted_sum(world.gamma * Phi, action), 4 * discounted_sum(world.gamma * Phi, process)
    if not 0 <= t <= world.horizon:
        raise InputError(f"t must lie in 0..{world.horizon}; got {t}")
    action = process = torch.zeros_like(world.A)
    for j in reversed(range(t, world.horizon)):
        Phi = world.gamma * (world.A - world.B @ gain_at(K, j))
        new_action, new_process = noise_sources(world, gain_at(K, j), P[j + 1])
        action, process = new_action + Phi.mT @ action @ Phi, new_process + Phi.mT @ process @ Phi
    return 4 * action, 4 * process


def noise_sources(
    world: LinearQuadratic, K: Float[Tensor, "m n"], P: Float[Tensor, "n n"]
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """`L S_x L'` and `gamma^2 Phi'P S_w P Phi` of one step: a quarter of what its noise adds to the costate's covariance.

    Args:
        world: one linear-quadratic system, as torch tensors in float64.
        K: the gain of the step.
        P: quadratic part of the value after it.

    Returns:
        The part from action noise and the part from process noise.
    """
    back = world.gamma * (world.A - world.B @ K).mT @ P
    L = back @ world.B - K.mT @ world.R
    L = L + world.N if world.has_cross else L
    return L @ world.S_x @ L.mT, back @ world.S_w @ back.mT


@short_repr
@dataclass(frozen=True)
class OneStepVariances:
    """Variance of each estimator of d/dmu E[-(R a^2 + 2 q_a a)], a = mu + sigma eps, eps ~ N(0, 1).

    The true gradient is -2 (R mu + q_a).

    Attributes:
        pathwise: of the pathwise estimator.
        score: of the score-function estimator without a baseline.
        score_value_baseline: of the score-function estimator with the baseline E Q.
        score_best_baseline: of the score-function estimator with the best constant baseline.
        best_baseline: this best constant itself, in return units.
    """

    pathwise: Float[Tensor, "..."]
    score: Float[Tensor, "..."]
    score_value_baseline: Float[Tensor, "..."]
    score_best_baseline: Float[Tensor, "..."]
    best_baseline: Float[Tensor, "..."]


def one_step_variances(
    R: float, mu: Float[Tensor, "..."], sigma: Float[Tensor, "..."], q_a: float = 0.0
) -> OneStepVariances:
    """Closed-form variances of the pathwise and the score-function estimator of one quadratic step.

    pathwise `4 R^2 sigma^2`; score function `R^2 (mu^4/sigma^2 + 14 mu^2 + 15 sigma^2)`; with baseline E Q
    `R^2 (8 mu^2 + 10 sigma^2)`; with the best constant `b = -R (mu^2 + 3 sigma^2) - 2 q_a mu`: `R^2 (8 mu^2 + 6 sigma^2)`.

    A linear cost adds `8 q_a (2 R mu + q_a)` to all three of the score function, and to the one without baseline
    `4 q_a mu (R (mu^2/sigma^2 + 3) + q_a mu/sigma^2)` more; `E Q` is then `-(R (mu^2 + sigma^2) + 2 q_a mu)`. A cross
    term of one step from a fixed state s_0 is such a cost: `q_a = N's_0`.

    Args:
        R: weight of the squared action.
        mu: mean of the action; it may be a tensor of any shape.
        sigma: standard deviation of the action, of a shape that broadcasts with that of mu.
        q_a: weight of the linear cost `2 q_a a`.

    Returns:
        All variances, in the common shape of mu and sigma.
    """
    mu, sigma = torch.as_tensor(mu, dtype=torch.float64), torch.as_tensor(sigma, dtype=torch.float64)
    slope, level = 8 * q_a * (2 * R * mu + q_a), 4 * q_a * mu * (R * mu + q_a) * mu / sigma**2 + 12 * R * q_a * mu
    return OneStepVariances(
        pathwise=4 * R**2 * sigma**2 + 0 * mu,
        score=R**2 * (mu**4 / sigma**2 + 14 * mu**2 + 15 * sigma**2) + level + slope,
        score_value_baseline=R**2 * (8 * mu**2 + 10 * sigma**2) + slope,
        score_best_baseline=R**2 * (8 * mu**2 + 6 * sigma**2) + slope,
        best_baseline=-R * (mu**2 + 3 * sigma**2) - 2 * q_a * mu,
    )


def one_step_world(R: float, sigma: float, q_a: float = 0.0) -> LinearQuadratic:
    """The world of `one_step_variances`: from s_0 = -1 it pays -(R a^2 + 2 q_a a) once, and the gain K commands mu = K.

    Args:
        R: weight of the squared action.
        sigma: standard deviation of the action noise.
        q_a: weight of the linear cost `2 q_a a`.

    Returns:
        A world with one state, one action and one step.
    """
    none, linear = [[0.0]], [q_a] if q_a else None
    world = LinearQuadratic(
        A=none, B=none, Q=none, R=[[R]], q_a=linear, m_0=[-1.0], S_0=none, S_x=[[sigma**2]], horizon=1
    )
    return world.to()


@takes_numbers("K", "start")
def command_slope(
    world: LinearQuadratic, K: Float[Tensor, "m n"], start: Float[Tensor, "n"], k: Float[Tensor, "m"] | None = None
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m n"]]:
    """Exact slopes of the return from s_0 in the command `u_0 = -K s_0 - k` and in K.

    In the command: `-2 [(R + gamma B'P_1 B) u_0 + (N' + gamma B'P_1 A) s_0 + q_a + gamma B'p_1]`.

    Args:
        world: one linear-quadratic system.
        K: the gain, the same at every step.
        start: s_0, of n numbers.
        k: the offset, the same at every step; None for zero.

    Returns:
        The slope in the command u_0, and the policy gradient in K from this start.

    Raises:
        InputError: as in `theory.continuous.lyapunov.linear_value`.
    """
    P, p, _ = linear_value(world, K, k).at(1)
    u, back = -K @ start if k is None else -K @ start - k, world.gamma * world.B.mT @ P
    here = world.replace(m_0=start, S_0=torch.zeros_like(world.S_0))
    slope = (world.R + back @ world.B) @ u + back @ world.A @ start
    if world.has_cross:
        slope = slope + world.N.mT @ start
    return -2 * (slope + world.q_a + world.gamma * world.B.mT @ p), policy_gradient(here, K, k)
