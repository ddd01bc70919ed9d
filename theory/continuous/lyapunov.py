"""Value of a fixed linear policy and the moments of its states: Lyapunov equations, finite and infinite."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers
from envs.linear_quadratic import LinearQuadratic
from envs.lq_variants import StateScaledNoise
from envs.world import InputError

_MAX_DOUBLINGS = 64  # sums 2^64 terms
MOST_STEPS = 100_000  # of a finite horizon


@dataclass(frozen=True)
class QuadraticValue:
    """`V_t(s) = -(s'P_t s + 2 q_t's + c_t)`; a leading time dimension T+1 when the horizon is finite, none when endless.

    q is zero except where the noise depends on the state.
    """

    P: Float[Tensor, "*time n n"]
    q: Float[Tensor, "*time n"]
    c: Float[Tensor, "*time"]

    def at(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """P, q, c at time t; the same at every t when endless. Raises InputError for a time outside 0 ... T."""
        if self.P.ndim == 2:
            return self.P, self.q, self.c
        if not 0 <= t < len(self.P):
            raise InputError(f"t must lie in 0 ... {len(self.P) - 1}; got {t!r}")
        return self.P[t], self.q[t], self.c[t]

    @takes_numbers("state")
    def value(self, state: Float[Tensor, "*batch n"], t: int = 0) -> Float[Tensor, "*batch"]:
        """V_t(s)."""
        P, q, c = self.at(t)
        return -(((state @ P) * state).sum(-1) + 2 * state @ q + c)

    @takes_numbers("state")
    def gradient(self, state: Float[Tensor, "*batch n"], t: int = 0) -> Float[Tensor, "*batch n"]:
        """The value gradient `grad V_t(s) = -2 (P_t s + q_t)`."""
        P, q, _ = self.at(t)
        return -2 * (state @ P + q)


def gain_at(K: Float[Tensor, "*time m n"], t: int) -> Float[Tensor, "m n"]:
    """K_t of a gain that may or may not change with time."""
    return K[t] if K.ndim == 3 else K


def check_one_system(world: LinearQuadratic) -> None:
    """Refuse a batch of systems, and a horizon that closed forms, which go step by step, would take too long for."""
    dims = {"A": 2, "B": 2, "Q": 2, "R": 2, "Q_f": 2, "S_w": 2, "S_x": 2, "S_0": 2, "m_0": 1}
    for name, ndim in dims.items():
        shape = tuple(getattr(world, name).shape)
        if len(shape) > ndim:
            raise InputError(
                f"{name} must describe one system here, shape {shape[-ndim:]}; got {shape}: only riccati takes a batch"
            )
    check_steps(world)


def check_steps(world: LinearQuadratic) -> None:
    """Refuse a horizon beyond `MOST_STEPS`."""
    if world.horizon is not None and world.horizon > MOST_STEPS:
        raise InputError(
            f"horizon={world.horizon} is too long for closed forms, which go step by step: at most {MOST_STEPS}, or None "
            "for an endless world"
        )


def check_gain(world: LinearQuadratic, K: Tensor) -> Tensor:
    """K as a float64 tensor of shape (m, n) or (T, m, n), or an InputError that says what does not fit."""
    check_one_system(world)
    K = torch.as_tensor(K, dtype=torch.float64)
    shapes = [(world.m, world.n)] + ([(world.horizon, world.m, world.n)] if world.horizon else [])
    if tuple(K.shape) not in shapes:
        raise InputError(f"K must have shape {' or '.join(map(str, shapes))}; got {tuple(K.shape)}")
    if not bool(K.isfinite().all()):
        raise InputError("K holds NaN or infinity; every entry must be a finite number")
    return K


def check_keeps(world: LinearQuadratic, form: str) -> None:
    """Refuse a world variant that does not say that it keeps this closed form (`LinearQuadratic.keeps`)."""
    if form not in world.keeps:
        name, kept = type(world).__name__, ", ".join(sorted(world.keeps)) or "none"
        raise InputError(
            f"{name} has no such closed form: {form} (kept: {kept}); see theory/continuous/broken_assumptions.py"
        )


def spectral_radius(Phi: Float[Tensor, "n n"]) -> float:
    """Largest absolute eigenvalue."""
    return float(torch.linalg.eigvals(Phi).abs().max())


def check_stable(world: LinearQuadratic, K: Tensor) -> None:
    """Refuse an endless world whose closed loop has no finite value: needs gamma rho(A - B K)^2 < 1."""
    here = world.to()
    radius = spectral_radius(here.A - here.B @ K)
    if not radius < world.gamma**-0.5:
        raise InputError(
            f"K leaves the closed loop A - B K unstable for horizon=None: spectral radius {radius:.6g}, "
            f"needs < {world.gamma**-0.5:.6g} = 1/sqrt(gamma)"
        )


def discounted_sum(F: Float[Tensor, "n n"], M: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """`X = M + F'X F = sum_k (F^k)'M F^k` by doubling (k rounds sum 2^k terms); raises InputError where rho(F) >= 1."""
    X = M
    for _ in range(_MAX_DOUBLINGS):
        before, X, F = X, X + F.mT @ X @ F, F @ F
        if torch.equal(X, before) and bool(X.isfinite().all()):
            return X
    raise InputError("F must have spectral radius < 1: the sum does not converge otherwise")


def linear_value(world: LinearQuadratic, K: Float[Tensor, "*time m n"]) -> QuadraticValue:
    """Value of the policy `u_t = -K_t s_t` with the world's additive noise.

    `P_T = Q_f`, `P_t = M + gamma Phi'P_{t+1}Phi`, `c_t = tr(R S_x) + gamma (c_{t+1} + tr(P_{t+1}(B S_x B' + S_w)))`,
    `M = Q + K'RK`, `Phi = A - BK`; endless: the fixed point. With noise scaled by `1 + C s` (StateScaledNoise):
    `W = (R + gamma B'P_{t+1}B) o S_x` (entrywise), `P_t` gains `C'W C`, `q_t = gamma Phi'q_{t+1} + C'W 1`.

    Assumes noise of zero mean. K is (m, n), or (T, m, n) for a finite horizon.

    Raises:
        InputError: K does not fit, or the value of an endless world is infinite: gamma rho(Phi)^2 >= 1 (the error names
            the radius), or gamma = 1 with noise.
    """
    check_keeps(world, "value")
    K, world = check_gain(world, K), world.to()
    if world.horizon is None:
        return _within_range(_endless_value(world, K))
    P, q, c = world.Q_f, torch.zeros_like(world.m_0), torch.zeros((), dtype=torch.float64)
    steps = [(P, q, c)]
    for t in reversed(range(world.horizon)):
        P, q, c = _value_step(world, gain_at(K, t), P, q, c)
        steps.append((P, q, c))
    return _within_range(QuadraticValue(*(torch.stack(parts) for parts in zip(*reversed(steps), strict=True))))


def _within_range(value: QuadraticValue) -> QuadraticValue:
    if not bool(value.P.isfinite().all() and value.q.isfinite().all() and value.c.isfinite().all()):
        raise InputError("K makes values beyond floating-point range: take a smaller gain or a shorter horizon")
    return value


def _value_step(world: LinearQuadratic, K: Tensor, P: Tensor, q: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(P, q, c) one step earlier."""
    gamma, Phi, C = world.gamma, world.A - world.B @ K, _noise_slope(world)
    W = (world.R + gamma * world.B.mT @ P @ world.B) * world.S_x
    P_before = world.Q + K.mT @ world.R @ K + gamma * Phi.mT @ P @ Phi + C.mT @ W @ C
    return P_before, gamma * Phi.mT @ q + C.mT @ W.sum(-1), W.sum() + gamma * (c + (P @ world.S_w).trace())


def _noise_slope(world: LinearQuadratic) -> Tensor:
    """C of `1 + C s`, zero where the noise does not depend on the state."""
    return world.C if isinstance(world, StateScaledNoise) else torch.zeros_like(world.B.mT)


def endless_cost(world: LinearQuadratic, K: Float[Tensor, "m n"]) -> Float[Tensor, "n n"]:
    """P of `linear_value` in an endless world, without q and c."""
    check_keeps(world, "value")
    K, world = check_gain(world, K), world.to()
    check_stable(world, K)
    if world.gamma == 1 and bool(world.S_x.any() or world.S_w.any()):
        raise InputError("gamma must be < 1 for horizon=None with noise: the value is minus infinity otherwise")
    F, M = world.gamma**0.5 * (world.A - world.B @ K), world.Q + K.mT @ world.R @ K
    P = _scaled_sum(world, F, M) if isinstance(world, StateScaledNoise) else discounted_sum(F, M)
    return (P + P.mT) / 2


def _endless_value(world: LinearQuadratic, K: Tensor) -> QuadraticValue:
    P, zero = endless_cost(world, K), torch.zeros((), dtype=torch.float64)
    _, slope, cost = _value_step(world, K, P, torch.zeros_like(world.m_0), zero)
    q = torch.linalg.solve(torch.eye(world.n, dtype=torch.float64) - world.gamma * (world.A - world.B @ K).mT, slope)
    return QuadraticValue(P, q, cost / (1 - world.gamma) if world.gamma < 1 else zero)


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


def second_moments(world: LinearQuadratic, K: Float[Tensor, "*time m n"]) -> Float[Tensor, "time n n"]:
    """`Sigma_t = E s_t s_t'` for t = 0..T under u = -K s.

    `Sigma_{t+1} = Phi Sigma_t Phi' + B S_x B' + S_w`, `Sigma_0 = S_0 + m_0 m_0'`. Finite horizon, additive noise.
    """
    check_keeps(world, "state moments")
    K, world = check_gain(world, K), world.to()
    if world.horizon is None:
        raise InputError("horizon must be finite here; discounted_second_moment serves the endless world")
    Sigma = [world.S_0 + torch.outer(world.m_0, world.m_0)]
    for t in range(world.horizon):
        Phi = world.A - world.B @ gain_at(K, t)
        Sigma.append(Phi @ Sigma[-1] @ Phi.mT + world.B @ world.S_x @ world.B.mT + world.S_w)
    return torch.stack(Sigma)


def discounted_second_moment(world: LinearQuadratic, K: Float[Tensor, "m n"]) -> Float[Tensor, "n n"]:
    """`sum_t gamma^t E s_t s_t'` of the endless world: `X = Sigma_0 + gamma (Phi X Phi' + N/(1-gamma))`, N the noise.

    Raises:
        InputError: the sum is infinite: gamma rho(Phi)^2 >= 1, or gamma = 1 with noise.
    """
    check_keeps(world, "state moments")
    K, world = check_gain(world, K), world.to()
    check_stable(world, K)
    noise = world.B @ world.S_x @ world.B.mT + world.S_w
    if world.gamma == 1 and bool(noise.any()):
        raise InputError("gamma must be < 1 for horizon=None with noise: the sum over time diverges otherwise")
    source = world.S_0 + torch.outer(world.m_0, world.m_0)
    if world.gamma < 1:
        source = source + world.gamma / (1 - world.gamma) * noise
    return discounted_sum(world.gamma**0.5 * (world.A - world.B @ K).mT, source)
