"""Value-gradient learning under a greedy policy: the mean update is affine in what is learned, so its stability is a matrix's.

The critic is `V_t(s) = -s'C_t s + w_t's` at the times 1 ... T of a finite horizon, C fixed and w learned, and the action is
greedy: `u_t = argmax_a r(s, a) + gamma V_{t+1}(A s + B a)`. Noise of zero mean has no effect on mean updates.

Source: M. Fairbank and E. Alonso, arXiv:1107.4606.

Theory page, section 6: "Value-gradient learning with a greedy policy".
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import check_bytes, check_semidefinite, takes_numbers
from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from theory.continuous.gains import check_keeps, check_one_system
from theory.continuous.value_gradient_targets import check_lam


@takes_numbers("C", "w")
def greedy_policy(
    world: LinearQuadratic, C: Float[Tensor, "*critic_time n n"], w: Float[Tensor, "*batch T n"]
) -> tuple[Float[Tensor, "T m n"], Float[Tensor, "*batch T m"]]:
    """Gain and offset of the greedy policy, `u_t = -K_t s - k_t`.

    With `H_t = R + gamma B'C_{t+1}B`: `K_t = H_t^{-1} (N' + gamma B'C_{t+1}A)`, `k_t = H_t^{-1} (q_a - gamma B'w_{t+1} / 2)`.

    Args:
        world: one linear-quadratic system with a finite horizon T.
        C: quadratic part of the critic, one matrix or one for each time 1 ... T; its antisymmetric part has no effect.
        w: linear part of the critic at the times 1 ... T, or a batch of them.

    Returns:
        K, and k for each w.

    Raises:
        InputError: the world is endless, C or w does not fit, or some `H_t` is not positive definite: then no action is best.
    """
    world, C, w = _fitting(world, C, w)
    H, K = _curvature(world, C), []
    for t in range(len(C)):
        K.append(torch.linalg.solve(H[t], world.N.mT + world.gamma * world.B.mT @ C[t] @ world.A))
    slope = world.q_a - world.gamma * w @ world.B / 2
    return torch.stack(K), torch.linalg.solve(H, slope[..., None])[..., 0]


class GreedyPath(NamedTuple):
    """The mean path of the greedy policy.

    Attributes:
        states: means at the times 0 ... T.
        actions: means at the times 0 ... T-1.
    """

    states: Float[Tensor, "*batch times n"]
    actions: Float[Tensor, "*batch T m"]


@takes_numbers("C", "w")
def greedy_path(
    world: LinearQuadratic, C: Float[Tensor, "*critic_time n n"], w: Float[Tensor, "*batch T n"]
) -> GreedyPath:
    """Mean states and actions under the greedy policy, from the mean first state.

    Args:
        world: one linear-quadratic system with a finite horizon T.
        C: quadratic part of the critic, one matrix or one for each time 1 ... T.
        w: linear part of the critic at the times 1 ... T, or a batch of them.

    Returns:
        The path, or one for each w.

    Raises:
        InputError: as in `greedy_policy`.
    """
    world, C, w = _fitting(world, C, w)
    K, k = greedy_policy(world, C, w)
    states, actions = [world.m_0.expand(*w.shape[:-2], world.n)], []
    for t in range(len(K)):
        actions.append(-states[-1] @ K[t].mT - k[..., t, :])
        states.append(states[-1] @ world.A.mT + actions[-1] @ world.B.mT)
    return GreedyPath(torch.stack(states, -2), torch.stack(actions, -2))


@takes_numbers("C", "w", "Omega")
def greedy_update(
    world: LinearQuadratic,
    C: Float[Tensor, "*critic_time n n"],
    w: Float[Tensor, "*batch T n"],
    lam: float,
    Omega: Float[Tensor, "*weight_time n n"],
) -> Float[Tensor, "*batch T n"]:
    """Mean update of VGL(lam) in the critic's linear part, `dw_t = Omega_t E[g_t - grad V_t(s_t)]` for t = 1 ... T.

    `g_T = d r_T/d s_T`, `g_t = Dr_t + gamma Phi_t' (lam g_{t+1} + (1 - lam) grad V_{t+1})`, with total derivatives through the
    greedy policy. With lam = 1 and the weight of `greedy_weight` it is dJ/dw: backpropagation through the return.

    Args:
        world: one linear-quadratic system with a finite horizon T.
        C: quadratic part of the critic, one matrix or one for each time 1 ... T.
        w: linear part of the critic at the times 1 ... T, or a batch of them.
        lam: lambda, in [0, 1].
        Omega: weight, positive semidefinite, one matrix or one for each time 1 ... T.

    Returns:
        dw at the times 1 ... T.

    Raises:
        InputError: lam lies outside [0, 1], Omega does not fit or is not positive semidefinite, or as in `greedy_policy`.
    """
    check_lam(lam)
    world, C, w = _fitting(world, C, w)
    Omega = _of_times(world, "Omega", Omega)
    check_semidefinite("Omega", Omega)
    (K, _), (states, actions) = greedy_policy(world, C, w), greedy_path(world, C, w)
    critic = w - 2 * torch.einsum("tij,...tj->...ti", C, states[..., 1:, :])
    targets = [-2 * (states[..., -1, :] @ world.Q_f + world.q_f)]
    for t in reversed(range(1, len(K))):
        s, a, ahead = states[..., t, :], actions[..., t, :], lam * targets[-1] + (1 - lam) * critic[..., t, :]
        r_s, r_a = -2 * (s @ world.Q + a @ world.N.mT + world.q), -2 * (a @ world.R + s @ world.N + world.q_a)
        targets.append(r_s - r_a @ K[t] + world.gamma * ahead @ (world.A - world.B @ K[t]))
    return torch.einsum("tij,...tj->...ti", Omega, torch.stack(targets[::-1], -2) - critic)


@takes_numbers("C", "Omega")
def greedy_update_matrix(
    world: LinearQuadratic, C: Float[Tensor, "*critic_time n n"], lam: float, Omega: Float[Tensor, "*weight_time n n"]
) -> tuple[Float[Tensor, "numbers numbers"], Float[Tensor, "numbers"]]:
    """D and b of the mean update `dw = D w + b`, w as one vector of T n numbers, time by time.

    Learning with shared weights, `w = F p`, follows `dp = F'(D F p + b)`: it diverges for small steps where `F'D F` has an
    eigenvalue with a positive real part, which some F has if and only if the symmetric part of D has one. With lam = 1 and the
    weight of `greedy_weight`, D is the Hessian of the return in w, symmetric and negative semidefinite, and no F diverges.

    Args:
        world: one linear-quadratic system with a finite horizon T.
        C: quadratic part of the critic, one matrix or one for each time 1 ... T.
        lam: lambda, in [0, 1].
        Omega: weight, positive semidefinite, one matrix or one for each time 1 ... T.

    Returns:
        D and b.

    Raises:
        InputError: D would be too large, or as in `greedy_update`.
    """
    numbers = world.n * _steps(world)
    check_bytes(16 * numbers**2, f"horizon={world.horizon} and n={world.n} make matrices", "take a shorter horizon")
    unit = torch.eye(numbers, dtype=torch.float64).reshape(numbers, -1, world.n)
    b = greedy_update(world, C, torch.zeros_like(unit[0]), lam, Omega)
    columns = greedy_update(world, C, unit, lam, Omega) - b
    return columns.reshape(numbers, numbers).mT, b.flatten()


@takes_numbers("C")
def greedy_weight(world: LinearQuadratic, C: Float[Tensor, "*critic_time n n"]) -> Float[Tensor, "T n n"]:
    """The weight with which VGL(1) is the gradient of the return: `Omega_t = gamma^{t+1} B (2 H_{t-1})^{-1} B'`, t = 1 ... T.

    Args:
        world: one linear-quadratic system with a finite horizon T.
        C: quadratic part of the critic, one matrix or one for each time 1 ... T.

    Returns:
        Omega at the times 1 ... T, each positive semidefinite.

    Raises:
        InputError: as in `greedy_policy`.
    """
    world, C, _ = _fitting(world, C, torch.zeros(_steps(world), world.n))
    weights = world.B @ torch.linalg.solve(2 * _curvature(world, C), world.B.mT.expand(len(C), -1, -1))
    discount = world.gamma ** torch.arange(2, len(C) + 2, dtype=torch.float64)
    symmetric: Tensor = discount[:, None, None] * (weights + weights.mT) / 2
    return symmetric


def _curvature(world: LinearQuadratic, C: Tensor) -> Float[Tensor, "T m m"]:
    """`H_t`, half the curvature of the greedy problem in the action."""
    H: Tensor = world.R + world.gamma * world.B.mT @ C @ world.B
    lowest = float(torch.linalg.eigvalsh(H).min())
    if not lowest > 0:
        raise InputError(
            f"C must make R + gamma B'C B positive definite, else no action is best; its smallest eigenvalue is {lowest:.3g}"
        )
    return H


def _steps(world: LinearQuadratic) -> int:
    if world.horizon is None:
        raise InputError("horizon must be finite here: the critic's linear part is learned at the times 1 ... T")
    return world.horizon


def _of_times(world: LinearQuadratic, name: str, given: Tensor) -> Tensor:
    """Matrices at the times 1 ... T in float64, refused where they do not fit."""
    T = _steps(world)
    shapes = [(world.n, world.n), (T, world.n, world.n)]
    if tuple(given.shape) not in shapes or not bool(given.isfinite().all()):
        raise InputError(f"{name} must be finite, of shape {shapes[0]} or {shapes[1]}; got {tuple(given.shape)}")
    return given.double().expand(T, -1, -1)


def _fitting(world: LinearQuadratic, C: Tensor, w: Tensor) -> tuple[LinearQuadratic, Tensor, Tensor]:
    check_keeps(world, "value")
    check_one_system(world)
    C = _of_times(world, "C", C)
    if tuple(w.shape[-2:]) != (len(C), world.n) or not bool(w.isfinite().all()):
        raise InputError(f"w must be finite, of shape {(len(C), world.n)}, times 1 ... T; got {tuple(w.shape)}")
    return world.to(), (C + C.mT) / 2, w.double()
