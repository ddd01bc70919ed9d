"""Value of a fixed linear policy and the moments of its states: Lyapunov equations, finite and infinite.

Theory page, section 1: "Value and value gradient".
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.linear_quadratic import LinearQuadratic
from envs.lq_variants import StateScaledNoise
from envs.record import short_repr
from envs.world import InputError
from theory.continuous.gains import (
    check_gain,
    check_keeps,
    check_offset,
    check_rest,
    check_stable,
    gain_at,
    offset_at,
    spectral_radius,
)

_MAX_DOUBLINGS = 64  # sums 2^64 terms


@short_repr
@dataclass(frozen=True)
class QuadraticValue:
    """`V_t(s) = -(s'P_t s + 2 p_t's + c_t)`; a leading time dimension T+1 when the horizon is finite, none when endless.

    p is zero except where the cost is linear too, the policy has an offset, or the noise depends on the state.

    Attributes:
        P: quadratic part, symmetric.
        p: linear part.
        c: constant part, in return units.
    """

    P: Float[Tensor, "*time n n"]
    p: Float[Tensor, "*time n"]
    c: Float[Tensor, "*time"]

    def at(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """P, p, c at time t; the same at every t when endless.

        Args:
            t: the time, 0 ... T.

        Returns:
            P_t, p_t and c_t.

        Raises:
            InputError: t lies outside 0 ... T.
        """
        if self.P.ndim == 2:
            return self.P, self.p, self.c
        if not 0 <= t < len(self.P):
            raise InputError(f"t must lie in 0 ... {len(self.P) - 1}; got {t!r}")
        return self.P[t], self.p[t], self.c[t]

    @takes_numbers("state")
    def value(self, state: Float[Tensor, "*batch n"], t: int = 0) -> Float[Tensor, "*batch"]:
        """V_t(s).

        Args:
            state: one state or a batch of them, components last.
            t: the time, 0 ... T.

        Returns:
            The value of each state, in return units.
        """
        P, p, c = self.at(t)
        return -(((state @ P) * state).sum(-1) + 2 * state @ p + c)

    @takes_numbers("state")
    def gradient(self, state: Float[Tensor, "*batch n"], t: int = 0) -> Float[Tensor, "*batch n"]:
        """The value gradient `grad V_t(s) = -2 (P_t s + p_t)`.

        Args:
            state: one state or a batch of them, components last.
            t: the time, 0 ... T.

        Returns:
            The gradient at each state.
        """
        P, p, _ = self.at(t)
        return -2 * (state @ P + p)


def discounted_sum(F: Float[Tensor, "n n"], M: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """`X = M + F'X F = sum_k (F^k)'M F^k` by doubling (k rounds sum 2^k terms).

    Args:
        F: a square matrix, the discount included (`sqrt(gamma) Phi`, say).
        M: the summand at k = 0.

    Returns:
        X, in the shape of M.

    Raises:
        InputError: the spectral radius of F is not below 1, so that the sum does not converge.
    """
    X = M
    for _ in range(_MAX_DOUBLINGS):
        before, X, F = X, X + F.mT @ X @ F, F @ F
        if torch.equal(X, before) and bool(X.isfinite().all()):
            return X
    raise InputError("F must have spectral radius < 1: the sum does not converge otherwise")


def linear_value(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], k: Float[Tensor, "*offset_time m"] | None = None
) -> QuadraticValue:
    """Value of the policy `u_t = -K_t s_t - k_t` with the world's additive noise.

    `P_T = Q_f`, `P_t = M + gamma Phi'P_{t+1}Phi`, `M = Q - N K - K'N' + K'RK`, `Phi = A - BK`, and with `h = -B k`

        p_T = q_f,  p_t = q - K'q_a + (K'R - N) k + gamma Phi'(p_{t+1} + P_{t+1} h)
        c_T = 0,    c_t = tr(R S_x) + k'Rk - 2 q_a'k
                          + gamma (c_{t+1} + tr(P_{t+1}(B S_x B' + S_w)) + h'P_{t+1}h + 2 p_{t+1}'h)

    Endless: the fixed point. With noise scaled by `1 + C s` (StateScaledNoise): `W = (R + gamma B'P_{t+1}B) o S_x`
    (entrywise), `P_t` gains `C'W C`, `p_t` gains `C'W 1`.

    Assumes noise of zero mean. K is (m, n), or (T, m, n) for a finite horizon; k is (m,), (T, m), or None for zero.

    Args:
        world: one linear-quadratic system, or one with state-scaled noise.
        K: the gain, (m, n), or (T, m, n) for a finite horizon.
        k: the offset, (m,), or (T, m) for a finite horizon; None for zero.

    Returns:
        P, p and c at the times 0 ... T, or once for an endless world.

    Raises:
        InputError: K or k does not fit, or the value of an endless world is infinite: gamma rho(Phi)^2 >= 1 (the error names
            the radius), or gamma = 1 with noise or an offset.
    """
    check_keeps(world, "value")
    K, k, world = check_gain(world, K), check_offset(world, k), world.to()
    if world.horizon is None:
        return _within_range(_endless_value(world, K, k))
    P, p, c = world.Q_f, world.q_f, torch.zeros((), dtype=torch.float64)
    steps, stage = [(P, p, c)], _stage(world, gain_at(K, 0), offset_at(k, 0))
    changes = K.ndim == 3 or (k is not None and k.ndim == 2)
    for t in reversed(range(world.horizon)):
        stage = _stage(world, gain_at(K, t), offset_at(k, t)) if changes else stage
        P, p, c = _value_step(world, stage, P, p, c)
        steps.append((P, p, c))
    return _within_range(QuadraticValue(*(torch.stack(parts) for parts in zip(*reversed(steps), strict=True))))


def _within_range(value: QuadraticValue) -> QuadraticValue:
    if not bool(value.P.isfinite().all() and value.p.isfinite().all() and value.c.isfinite().all()):
        raise InputError("K makes values beyond floating-point range: take a smaller gain or a shorter horizon")
    return value


class _Stage(NamedTuple):
    """One step of the closed loop: what it costs by itself, `s'M s + 2 slope's + level`, and where it leads, `Phi s + h`."""

    Phi: Tensor
    M: Tensor
    slope: Tensor
    level: Tensor | float
    h: Tensor | None  # None where the policy has no offset


def _stage(world: LinearQuadratic, K: Tensor, k: Tensor | None) -> _Stage:
    slope = world.q - K.mT @ world.q_a if world.has_linear else torch.zeros_like(world.q)
    Phi, M = world.A - world.B @ K, stage_cost(world, K)
    if k is None:
        return _Stage(Phi, M, slope, 0.0, None)
    return _Stage(Phi, M, slope + (K.mT @ world.R - world.N) @ k, (k @ world.R - 2 * world.q_a) @ k, -world.B @ k)


def stage_cost(world: LinearQuadratic, K: Float[Tensor, "m n"]) -> Float[Tensor, "n n"]:
    """`M = Q - N K - K'N' + K'RK`: what a step of the closed loop costs, `s'M s` without noise and linear costs.

    Args:
        world: one linear-quadratic system, as torch tensors in float64.
        K: the gain of the step.

    Returns:
        M, symmetric.
    """
    M: Tensor = world.Q + K.mT @ world.R @ K
    return M - world.N @ K - K.mT @ world.N.mT if world.has_cross else M


def _value_step(
    world: LinearQuadratic, stage: _Stage, P: Tensor, p: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(P, p, c) one step earlier."""
    gamma, h = world.gamma, stage.h
    back, ahead = gamma * stage.Phi.mT, p if h is None else p + P @ h
    W = (world.R + gamma * world.B.mT @ P @ world.B) * world.S_x
    cost = W.sum() + gamma * (c + (P @ world.S_w).trace()) + stage.level
    P_before, p_before = stage.M + back @ P @ stage.Phi, stage.slope + back @ ahead
    if isinstance(world, StateScaledNoise):
        P_before, p_before = P_before + world.C.mT @ W @ world.C, p_before + world.C.mT @ W.sum(-1)
    return P_before, p_before, cost if h is None else cost + gamma * h @ (ahead + p)


def endless_cost(world: LinearQuadratic, K: Float[Tensor, "m n"]) -> Float[Tensor, "n n"]:
    """P of `linear_value` in an endless world, without p and c.

    Args:
        world: an endless linear-quadratic world.
        K: a stable gain.

    Returns:
        P, symmetric.

    Raises:
        InputError: K does not fit or is unstable, the world does not keep this closed form, or gamma = 1 with noise.
    """
    check_keeps(world, "value")
    K, world = check_gain(world, K), world.to()
    check_stable(world, K)
    if world.gamma == 1 and bool(world.S_x.any() or world.S_w.any()):
        raise InputError("gamma must be < 1 for horizon=None with noise: the value is minus infinity otherwise")
    F, M = world.gamma**0.5 * (world.A - world.B @ K), stage_cost(world, K)
    P = _scaled_sum(world, F, M) if isinstance(world, StateScaledNoise) else discounted_sum(F, M)
    return (P + P.mT) / 2


def _endless_value(world: LinearQuadratic, K: Tensor, k: Tensor | None) -> QuadraticValue:
    P, zero, stage = endless_cost(world, K), torch.zeros((), dtype=torch.float64), _stage(world, K, k)
    _, slope, _ = _value_step(world, stage, P, torch.zeros_like(world.q), zero)
    p = torch.linalg.solve(torch.eye(world.n, dtype=torch.float64) - world.gamma * stage.Phi.mT, slope)
    if world.gamma == 1:
        check_rest(k)
        return QuadraticValue(P, p, zero)
    _, _, cost = _value_step(world, stage, P, p, zero)
    return QuadraticValue(P, p, cost / (1 - world.gamma))


def _scaled_sum(world: StateScaledNoise, F: Tensor, M: Tensor) -> Tensor:
    """`P = M + F'PF + C'((R + gamma B'PB) o S_x) C`: linear in P, finite where the map that feeds P back contracts."""
    C, n = world.C, world.n
    basis = torch.eye(n * n, dtype=torch.float64).reshape(-1, n, n)
    fed_back = F.mT @ basis @ F + world.gamma * C.mT @ ((world.B.mT @ basis @ world.B) * world.S_x) @ C
    growth = fed_back.reshape(n * n, n * n).mT
    if spectral_radius(growth) >= 1:
        raise InputError("C makes the noise grow faster than the closed loop shrinks: no finite value for horizon=None")
    source = M + C.mT @ (world.R * world.S_x) @ C
    P: Tensor = torch.linalg.solve(torch.eye(n * n, dtype=torch.float64) - growth, source.reshape(-1))
    return P.reshape(n, n)


def mean_states(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], k: Float[Tensor, "*offset_time m"] | None = None
) -> Float[Tensor, "time n"]:
    """`m_t = E s_t` for t = 0..T under u = -K s - k: `m_{t+1} = Phi m_t - B k`. Finite horizon, additive noise.

    Args:
        world: one linear-quadratic system with a finite horizon.
        K: the gain, one for all steps or one for each.
        k: the offset, likewise; None for zero.

    Returns:
        The means at the times 0 ... T.

    Raises:
        InputError: K or k does not fit, the world is endless or does not keep this closed form.
    """
    K, k, world = _of_finite(world, K, k)
    means = [world.m_0]
    for t in range(world.horizon or 0):
        offset = offset_at(k, t)
        following = (world.A - world.B @ gain_at(K, t)) @ means[-1]
        means.append(following if offset is None else following - world.B @ offset)
    return torch.stack(means)


def second_moments(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], k: Float[Tensor, "*offset_time m"] | None = None
) -> Float[Tensor, "time n n"]:
    """`Sigma_t = E s_t s_t'` for t = 0..T under u = -K s - k.

    `Sigma_{t+1} = Phi Sigma_t Phi' + B S_x B' + S_w + h (Phi m_t)' + Phi m_t h' + h h'`, `h = -B k`, `m_t = E s_t`,
    `Sigma_0 = S_0 + m_0 m_0'`. Finite horizon, additive noise.

    Args:
        world: one linear-quadratic system with a finite horizon.
        K: the gain, one for all steps or one for each.
        k: the offset, likewise; None for zero.

    Returns:
        The second moments (not centred) at the times 0 ... T.

    Raises:
        InputError: K or k does not fit, the world is endless or does not keep this closed form.
    """
    K, k, world = _of_finite(world, K, k)
    Sigma = [world.S_0 + torch.outer(world.m_0, world.m_0)]
    means = None if k is None else mean_states(world, K, k)
    for t in range(world.horizon or 0):
        Phi = world.A - world.B @ gain_at(K, t)
        following = Phi @ Sigma[-1] @ Phi.mT + world.B @ world.S_x @ world.B.mT + world.S_w
        if means is not None:  # the difference of the outer products of both means is what h adds
            carried = Phi @ means[t]
            following = following + torch.outer(means[t + 1], means[t + 1]) - torch.outer(carried, carried)
        Sigma.append(following)
    return torch.stack(Sigma)


def _of_finite(world: LinearQuadratic, K: Tensor, k: Tensor | None) -> tuple[Tensor, Tensor | None, LinearQuadratic]:
    check_keeps(world, "state moments")
    if world.horizon is None:
        raise InputError("horizon must be finite here; discounted_second_moment serves the endless world")
    return check_gain(world, K), check_offset(world, k), world.to()


def discounted_mean(
    world: LinearQuadratic, K: Float[Tensor, "m n"], k: Float[Tensor, "m"] | None = None
) -> Float[Tensor, "n"]:
    """`y = sum_t gamma^t E s_t` of the endless world: `y = m_0 + gamma (Phi y - B k / (1 - gamma))`.

    Args:
        world: an endless linear-quadratic world.
        K: a stable gain.
        k: the offset; None for zero.

    Returns:
        y, of n numbers.

    Raises:
        InputError: the sum is infinite: gamma rho(Phi)^2 >= 1, or gamma = 1 with an offset.
    """
    check_keeps(world, "state moments")
    K, k, world = check_gain(world, K), check_offset(world, k), world.to()
    check_stable(world, K)
    source = world.m_0
    if world.gamma == 1:
        check_rest(k)
    elif k is not None:
        source = source - world.gamma / (1 - world.gamma) * world.B @ k
    inverse = torch.eye(world.n, dtype=torch.float64) - world.gamma * (world.A - world.B @ K)
    mean: Tensor = torch.linalg.solve(inverse, source)
    return mean


def discounted_second_moment(
    world: LinearQuadratic, K: Float[Tensor, "m n"], k: Float[Tensor, "m"] | None = None, *, known_stable: bool = False
) -> Float[Tensor, "n n"]:
    """`X = sum_t gamma^t E s_t s_t'` of the endless world.

    `X = Sigma_0 + gamma (Phi X Phi' + (B S_x B' + S_w + h h')/(1-gamma) + Phi y h' + h (Phi y)')`, `h = -B k`, y the
    discounted mean.

    Args:
        world: an endless linear-quadratic world.
        K: a stable gain.
        k: the offset; None for zero.
        known_stable: whether the caller has checked that the gain is stable.

    Returns:
        X, symmetric.

    Raises:
        InputError: the sum is infinite: gamma rho(Phi)^2 >= 1, or gamma = 1 with noise or an offset.
    """
    check_keeps(world, "state moments")
    K, k, world = check_gain(world, K), check_offset(world, k), world.to()
    if not known_stable:
        check_stable(world, K)
    Phi, noise = world.A - world.B @ K, world.B @ world.S_x @ world.B.mT + world.S_w
    if world.gamma == 1 and bool(noise.any()):
        raise InputError("gamma must be < 1 for horizon=None with noise: the sum over time diverges otherwise")
    source = world.S_0 + torch.outer(world.m_0, world.m_0)
    if world.gamma < 1:
        source = source + world.gamma / (1 - world.gamma) * noise
    if k is not None:
        h, carried = -world.B @ k, Phi @ discounted_mean(world, K, k)
        constant = torch.outer(h, h) / (1 - world.gamma) if world.gamma < 1 else 0.0
        source = source + world.gamma * (torch.outer(carried, h) + torch.outer(h, carried) + constant)
    return discounted_sum(world.gamma**0.5 * Phi.mT, source)
