"""Exact mean costates of a policy that is linear in the last states it has seen, split by the path they come through.

Theory page, section 1: "Position attention".
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from envs.arguments import takes_numbers
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise
from envs.stacked_history import stack_history
from theory.continuous.lyapunov import linear_value


class AttentionSplit(NamedTuple):
    """Mean costates as maps of the stacked history `S_t = [s_t, s_{t-1}, ...]`: the mean is `-2 map_t S_t`.

    Where the cost is linear too, `attention_offsets` says what comes on top.

    Attributes:
        total: the map of the whole costate, which is the value gradient; one matrix for every time 0 ... T.
        attention: the part that reaches s_t through later actions, which look back at it.
        closed: the map of the costate when attention to the past is cut from autograd at every step.
    """

    total: Float[Tensor, "times n wn"]
    attention: Float[Tensor, "times n wn"]
    closed: Float[Tensor, "times n wn"]


@takes_numbers("gains")
def history_gain(gains: Float[Tensor, "T window m n"]) -> Float[Tensor, "T m window*n"]:
    """The gain on the stacked history `[s_t, s_{t-1}, ...]` of a policy `u_t = -sum_j K_{t,j} s_{t-j}`.

    Args:
        gains: K_{t,j} for step t and lag j (lag 0 is the current state).

    Returns:
        One gain for each step, with the lags side by side in the columns.
    """
    return gains.transpose(1, 2).reshape(gains.shape[0], gains.shape[2], -1)


class AttentionOffsets(NamedTuple):
    """What a linear cost adds to the mean costates: the mean is `-2 (map_t S_t + offset_t)`.

    Attributes:
        total: the offset of the whole costate; one vector for every time 0 ... T.
        attention: the part that comes through later actions.
        closed: the offset of the costate when attention to the past is cut from autograd.
    """

    total: Float[Tensor, "times n"]
    attention: Float[Tensor, "times n"]
    closed: Float[Tensor, "times n"]


@takes_numbers("gains")
def attention_split(world: LinearQuadratic, gains: Float[Tensor, "T window m n"]) -> AttentionSplit:
    """Mean costates of the policy `u_t = -sum_j K_{t,j} s_{t-j}`.

    `total_t` is the first block row of the stacked world's P_t. Its attention part is `gamma [P_{t+1}]_{row 1} Phi_t`:
    row 1 belongs to the memory of s_t; the rest came through the dynamics. With attention to the past closed,
    `C_t = [Q 0] - K_0'[N' 0] - (N - K_0'R) K + gamma (A - B K_0)' C_{t+1} Phi_t`.

    Args:
        world: a linear-quadratic world with a finite horizon T.
        gains: K_{t,j} for step t and lag j.

    Returns:
        The maps at the times 0 ... T.
    """
    window, n = gains.shape[1], world.n
    stacked, world = stack_history(world, window).to(), world.to()
    K = history_gain(gains)
    P = linear_value(stacked, K).P
    total, closed, attention = P[:, :n], [P[-1, :n]], [torch.zeros_like(P[-1, :n])]
    for t in reversed(range(gains.shape[0])):
        Phi, K_0 = stacked.A - stacked.B @ K[t], gains[t, 0]
        own = stacked.Q[:n] + K_0.mT @ world.R @ K[t]
        if world.has_cross:
            own = own - world.N @ K[t] - K_0.mT @ stacked.N.mT
        closed.insert(0, own + world.gamma * (world.A - world.B @ K_0).mT @ closed[0] @ Phi)
        seen_later = P[t + 1, n : 2 * n] if window > 1 else torch.zeros_like(P[t + 1, :n])
        attention.insert(0, world.gamma * seen_later @ Phi)
    return AttentionSplit(total, torch.stack(attention), torch.stack(closed))


@takes_numbers("gains")
def attention_offsets(world: LinearQuadratic, gains: Float[Tensor, "T window m n"]) -> AttentionOffsets:
    """What the linear costs q, q_a and q_f add to the mean costates of `attention_split`.

    `total_t` is the first block of the stacked world's p_t, its attention part `gamma [p_{t+1}]_{row 1}`. With
    attention to the past closed, `d_t = q - K_0'q_a + gamma (A - B K_0)' d_{t+1}`, `d_T = q_f`.

    Args:
        world: a linear-quadratic world with a finite horizon T.
        gains: K_{t,j} for step t and lag j.

    Returns:
        The offsets at the times 0 ... T.
    """
    window, n = gains.shape[1], world.n
    stacked, world = stack_history(world, window).to(), world.to()
    p = linear_value(stacked, history_gain(gains)).p
    later = world.gamma * p[1:, n : 2 * n] if window > 1 else torch.zeros_like(p[1:])
    closed = [world.q_f]
    for K_0 in gains[:, 0].flip(0):
        closed.insert(0, world.q - K_0.mT @ world.q_a + world.gamma * (world.A - world.B @ K_0).mT @ closed[0])
    return AttentionOffsets(p[:, :n], torch.cat([later, torch.zeros_like(p[:1, :n])]), torch.stack(closed))


def stacked_noise(noise: Noise, size: int) -> Noise:
    """The same noise for the stacked history of `size` numbers: it enters the newest block, older blocks start at 0.

    Args:
        noise: start, action noise and process noise of the world itself.
        size: numbers in the stacked history, window times n.

    Returns:
        Noise for the world of `envs.stacked_history.stack_history`.
    """
    older = (0, size - noise.s_0.shape[-1])
    return Noise(pad(noise.s_0, older), noise.xi, pad(noise.w, older))


@takes_numbers("P", "Sigma")
def mean_costate_size(
    P: Float[Tensor, "*times n wn"], Sigma: Float[Tensor, "*times wn wn"]
) -> Float[Tensor, "*times n"]:
    """Root mean square of each component of `-2 P S`, where `Sigma = E S S'`.

    Args:
        P: maps from the stacked history to half the mean costate, with the opposite sign.
        Sigma: second moments of the stacked history.

    Returns:
        One number for each component of the state, in return units per unit of that component.
    """
    return 2 * (P @ Sigma @ P.mT).diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).sqrt()


@takes_numbers("P", "Sigma")
def mean_costate_norm(P: Float[Tensor, "n wn"], Sigma: Float[Tensor, "wn wn"]) -> Float[Tensor, ""]:
    """Root mean square of the norm of `-2 P S`, where `Sigma = E S S'`.

    Args:
        P: map from the stacked history to half the mean costate, with the opposite sign.
        Sigma: second moment of the stacked history.

    Returns:
        One number, in return units per unit of state.
    """
    return mean_costate_size(P, Sigma).square().sum().sqrt()
