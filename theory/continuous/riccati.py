"""Optimal control of a linear-quadratic world: the Riccati equation, finite and infinite, one system or a batch.

Theory page, section 1: "Value and value gradient".
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from envs.linear_quadratic import LinearQuadratic
from envs.record import short_repr
from envs.world import InputError
from theory.continuous.gains import check_keeps, check_steps

_MAX_DOUBLINGS = 60  # covers 2^60 steps; a stabilisable system needs far fewer
_OF_ENDLESS = ("A", "B", "Q", "R", "N")  # what the quadratic part of an endless optimum depends on
_FREE = "R must be positive definite where B'PB is not: this action is free and useless"


@short_repr
@dataclass(frozen=True)
class Optimum:
    """Optimal policy `u = -K s - k` and its cost-to-go `s'P s + 2 p's` (+ a constant).

    All carry a leading time dimension when the horizon is finite. k and p are zero where the cost has no linear term.

    Attributes:
        K: optimal gain.
        P: quadratic part of the cost-to-go, symmetric.
        k: optimal offset.
        p: linear part of the cost-to-go.
    """

    K: Float[Tensor, "*steps m n"]
    P: Float[Tensor, "*times n n"]
    k: Float[Tensor, "*steps m"]
    p: Float[Tensor, "*times n"]


def riccati(world: LinearQuadratic) -> Optimum:
    """Policy that maximises the expected return, `u_t = -K_t s_t - k_t`, certainty equivalent for any noise of zero mean.

    With `D = R + gamma B'P_{t+1}B`: `K_t = D^{-1} (N' + gamma B'P_{t+1}A)`, `k_t = D^{-1} (q_a + gamma B'p_{t+1})`,
    `P_t = Q - N K_t + gamma A'P_{t+1}(A - B K_t)`, `p_t = q - K_t'q_a + gamma (A - B K_t)'p_{t+1}`, `P_T = Q_f`,
    `p_T = q_f`; endless: the fixed point of the same equations. Finite: K (T, ..., m, n), P (T+1, ..., n, n). Endless:
    K (..., m, n), P (..., n, n); one system goes through scipy, a batch, or a system in which a gradient is asked for,
    through doubling, which autograd differentiates. Assumes D invertible and, endless, (sqrt(gamma) A, sqrt(gamma) B)
    stabilisable and, after `a = v - R^{-1}N's` has removed the cross term, detectable through `Q - N R^{-1}N'`.

    Source: Bertsekas, Dynamic Programming and Optimal Control I, ch. 3.

    Args:
        world: a linear-quadratic world; its matrices may carry leading dimensions, one system each.

    Returns:
        The optimal policy and its cost-to-go.

    Raises:
        InputError: no optimal gain exists, or the variant does not keep this closed form.
    """
    check_keeps(world, "optimal gain")
    world = world.to(str(world.A.device)) if isinstance(world.A, Tensor) else world.to()
    world = _expanded(world)
    if world.horizon is None:
        alone = world.A.ndim == 2 and not any(getattr(world, name).requires_grad for name in _OF_ENDLESS)
        return _endless(world, _solve_one(world) if alone else _solve_batch(world))
    check_steps(world)
    gains: list[tuple[Tensor, Tensor]] = []
    values = [(world.Q_f, world.q_f)]
    for _ in range(world.horizon):
        P, p = values[-1]
        K, k = _gain(world, P), _offset(world, P, p)
        gains.append((K, k))
        values.append((_cost_before(world, K, P), _slope_before(world, K, p)))
    K, k = (torch.stack(parts[::-1]) for parts in zip(*gains, strict=True))
    P, p = (torch.stack(parts[::-1]) for parts in zip(*values, strict=True))
    return Optimum(K, P, k, p)


def _endless(world: LinearQuadratic, P: Tensor) -> Optimum:
    """The optimum whose cost-to-go has the matrix P: `p = (I - gamma Phi')^{-1} (q - K'q_a)`."""
    K = _gain(world, P)
    p = torch.zeros_like(P[..., 0])
    if world.has_linear:
        eye = torch.eye(world.n, dtype=P.dtype, device=P.device)
        p = torch.linalg.solve(eye - world.gamma * (world.A - world.B @ K).mT, _slope_before(world, K, p))
    return Optimum(K, P, _offset(world, P, p).clone(), p)


def _expanded(world: LinearQuadratic) -> LinearQuadratic:
    """The same world with the batch dimensions that some matrices carry on all of them."""
    sizes = dict.fromkeys(("A", "B", "Q", "R", "Q_f", "N"), 2) | dict.fromkeys(("q", "q_a", "q_f"), 1)
    arrays = {name: getattr(world, name) for name in sizes}
    systems = torch.broadcast_shapes(*(x.shape[: -sizes[name]] for name, x in arrays.items()))
    expanded = {name: x.expand(*systems, *x.shape[-sizes[name] :]) for name, x in arrays.items()}
    return world.replace(**expanded) if systems else world


def _cost_before(world: LinearQuadratic, K: Tensor, P: Tensor) -> Tensor:
    """P of the step before."""
    before = world.Q + world.gamma * world.A.mT @ P @ (world.A - world.B @ K)
    return _symmetric(before - world.N @ K if world.has_cross else before)


def _slope_before(world: LinearQuadratic, K: Tensor, p: Tensor) -> Tensor:
    """p of the step before."""
    if not world.has_linear:
        return p
    before: Tensor = world.q - _times(K.mT, world.q_a) + world.gamma * _times((world.A - world.B @ K).mT, p)
    return before


def _gain(world: LinearQuadratic, P: Tensor) -> Tensor:
    """K for the cost-to-go P of the next step."""
    weighted = world.gamma * world.B.mT @ P
    wanted = weighted @ world.A + world.N.mT if world.has_cross else weighted @ world.A
    return _solved(world.R + weighted @ world.B, wanted, _FREE)


def _offset(world: LinearQuadratic, P: Tensor, p: Tensor) -> Tensor:
    """k for the cost-to-go `s'P s + 2 p's` of the next step."""
    if not world.has_linear:
        zero: Tensor = world.q_a
        return zero
    curved = world.R + world.gamma * world.B.mT @ P @ world.B
    return _solved(curved, (world.q_a + world.gamma * _times(world.B.mT, p))[..., None], _FREE)[..., 0]


def _times(A: Tensor, x: Tensor) -> Tensor:
    """`A x` for one system or a batch."""
    product: Tensor = (A @ x[..., None])[..., 0]
    return product


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
    matrices = [np.asarray(x.cpu()) for x in (root * world.A, root * world.B, world.Q, world.R)]
    N = np.asarray(world.N.cpu()) if world.has_cross else None
    try:
        P = scipy.linalg.solve_discrete_are(*matrices, s=N)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise InputError(f"A, B, Q, R have no stabilising optimal gain for horizon=None: {error}") from None
    return _symmetric(torch.as_tensor(P, dtype=world.A.dtype, device=world.A.device))


def _solve_batch(world: LinearQuadratic) -> Tensor:
    """Structure-preserving doubling: i rounds make the Riccati recursion of 2^i steps. Needs R positive definite.

    A cross term is removed first, by the command `a = v - R^{-1}N's`.
    """
    eye, A, H = torch.eye(world.n, dtype=world.A.dtype, device=world.A.device), world.A, world.Q
    refusal = "R must be positive definite in every system of a batch, and where a gradient is asked for"
    if world.has_cross:
        shift = _solved(world.R, world.N.mT, refusal)
        A, H = A - world.B @ shift, _symmetric(H - world.N @ shift)
    F, G = world.gamma**0.5 * A, world.gamma * world.B @ _solved(world.R, world.B.mT, refusal)
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
