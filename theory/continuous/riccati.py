"""Optimal control of a linear-quadratic world: the Riccati equation, finite and infinite, one system or a batch."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from theory.continuous.lyapunov import check_keeps, check_steps

_MAX_DOUBLINGS = 60  # covers 2^60 steps; a stabilisable system needs far fewer


@dataclass(frozen=True)
class Optimum:
    """Optimal gain K and cost-to-go P; both carry a leading time dimension when the horizon is finite."""

    K: Float[Tensor, "*steps m n"]
    P: Float[Tensor, "*times n n"]


def riccati(world: LinearQuadratic) -> Optimum:
    """Gain that maximises the expected return, `u_t = -K_t s_t`, certainty equivalent for any noise of zero mean.

    `K_t = (R + gamma B'P_{t+1}B)^{-1} gamma B'P_{t+1}A`, `P_t = Q + gamma A'P_{t+1}(A - B K_t)`, `P_T = Q_f`;
    endless: the fixed point of the same equation. Finite: K (T, ..., m, n), P (T+1, ..., n, n). Endless: K (..., m, n),
    P (..., n, n); one system goes through scipy, a batch through doubling. Assumes R + gamma B'PB invertible and,
    endless, (sqrt(gamma) A, sqrt(gamma) B) stabilisable and detectable through Q.

    Source: Bertsekas, Dynamic Programming and Optimal Control I, ch. 3.

    Raises:
        InputError: no optimal gain exists, or the variant does not keep this closed form.
    """
    check_keeps(world, "optimal gain")
    world = world.to(str(world.A.device)) if isinstance(world.A, Tensor) else world.to()
    world = _expanded(world)
    if world.horizon is None:
        P = _solve_one(world) if world.A.ndim == 2 else _solve_batch(world)
        return Optimum(_gain(world, P), P)
    check_steps(world)
    P = world.Q_f
    gains: list[Tensor] = []
    values = [P]
    for _ in range(world.horizon):
        K = _gain(world, P)
        P = _symmetric(world.Q + world.gamma * world.A.mT @ P @ (world.A - world.B @ K))
        gains.append(K)
        values.append(P)
    return Optimum(torch.stack(gains[::-1]), torch.stack(values[::-1]))


def _expanded(world: LinearQuadratic) -> LinearQuadratic:
    """The same world with the batch dimensions that some matrices carry on all of them."""
    matrices = {name: getattr(world, name) for name in ("A", "B", "Q", "R", "Q_f")}
    systems = torch.broadcast_shapes(*(x.shape[:-2] for x in matrices.values()))
    expanded = {name: x.expand(*systems, *x.shape[-2:]) for name, x in matrices.items()}
    return world.replace(**expanded) if systems else world


def _gain(world: LinearQuadratic, P: Tensor) -> Tensor:
    """K for the cost-to-go P of the next step."""
    weighted = world.gamma * world.B.mT @ P
    refusal = "R must be positive definite where B'PB is not: this action is free and useless"
    return _solved(world.R + weighted @ world.B, weighted @ world.A, refusal)


def _solved(A: Tensor, B: Tensor, refusal: str) -> Tensor:
    """`A^{-1} B`; where A has no inverse, an InputError with this text."""
    solution: Tensor
    solution, info = torch.linalg.solve_ex(A, B)
    if bool(info.any()):
        raise InputError(refusal)
    return solution


def _symmetric(P: Tensor) -> Tensor:
    return (P + P.mT) / 2


def _solve_one(world: LinearQuadratic) -> Tensor:
    """Scipy's algebraic Riccati solver on the discount-scaled system sqrt(gamma) (A, B)."""
    root = world.gamma**0.5
    matrices = [np.asarray(x.detach().cpu()) for x in (root * world.A, root * world.B, world.Q, world.R)]
    try:
        P = scipy.linalg.solve_discrete_are(*matrices)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise InputError(f"A, B, Q, R have no stabilising optimal gain for horizon=None: {error}") from None
    return _symmetric(torch.as_tensor(P, dtype=world.A.dtype, device=world.A.device))


def _solve_batch(world: LinearQuadratic) -> Tensor:
    """Structure-preserving doubling: k steps make the Riccati recursion of 2^k steps. Needs R positive definite."""
    eye = torch.eye(world.n, dtype=world.A.dtype, device=world.A.device)
    F, H = world.gamma**0.5 * world.A, world.Q
    G = world.gamma * world.B @ _solved(world.R, world.B.mT, "R must be positive definite in every system of a batch")
    for _ in range(_MAX_DOUBLINGS):
        X = torch.linalg.solve(eye + G @ H, torch.cat(torch.broadcast_tensors(F, G), -1))
        F_step, G_step = X[..., : world.n], X[..., world.n :]
        H_new = _symmetric(H + F.mT @ H @ F_step)
        G, F = _symmetric(G + F @ G_step @ F.mT), F @ F_step
        change = (H_new - H).abs().amax((-2, -1)) / H_new.abs().amax((-2, -1)).clamp(min=1e-300)
        H = H_new
        if bool((change <= 1e-15).all()):  # each system by its own size
            return H
    raise InputError("A, B, Q, R: at least one system of the batch has no stabilising optimal gain for horizon=None")
