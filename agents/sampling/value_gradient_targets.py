"""Targets of value-gradient learning, VGL(lambda), along sampled paths: what a critic of the value gradient is fitted to."""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import check_gamma, short
from envs.world import InputError


def vgl_targets(
    Dr: Float[Tensor, "batch T n"],
    Df: Float[Tensor, "batch T n n"],
    terminal: Float[Tensor, "batch n"],
    critic_gradients: Float[Tensor, "batch times n"],
    gamma: float,
    lam: float,
) -> Float[Tensor, "batch times n"]:
    """`g_t = Dr_t + gamma Df_t' (lam g_{t+1} + (1 - lam) G_{t+1})`, `g_T = d r_T/d s_T`, run backwards along each path.

    lam = 0 is dual heuristic programming, lam = 1 the costate. With `G = grad V` of a critic V it is the total derivative in
    s_t of the TD(lam) return `r_t + gamma (lam R_{t+1} + (1 - lam) V(s_{t+1}))`. Where the last reward is known, pass it as the
    last of the critic's gradients.

    Source: M. Fairbank and E. Alonso, "Value-gradient learning" (2012).

    Args:
        Dr: total derivatives of the rewards in the states, step by step.
        Df: total derivatives of the next states in the states; rows are components of the next state.
        terminal: the derivative of the last reward.
        critic_gradients: G at every state of the paths, times 0 ... T; that of time 0 has no effect.
        gamma: the discount.
        lam: lambda, in [0, 1].

    Returns:
        g_t for t = 0 ... T.

    Raises:
        InputError: the shapes do not fit each other, or gamma or lam is out of its range.
    """
    check_gamma(gamma)
    if isinstance(lam, bool) or not isinstance(lam, int | float) or not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {short(lam)}")
    batch, T, n = Dr.shape
    wanted = {"Df": (Df, (batch, T, n, n)), "terminal": (terminal, (batch, n))}
    wanted["critic_gradients"] = (critic_gradients, (batch, T + 1, n))
    for name, (given, shape) in wanted.items():
        if tuple(given.shape) != shape:
            raise InputError(f"{name} must have shape {shape} beside Dr of {(batch, T, n)}; got {tuple(given.shape)}")
    targets = [terminal]
    for t in reversed(range(T)):
        ahead = lam * targets[-1] + (1 - lam) * critic_gradients[:, t + 1]
        back = torch.zeros_like(terminal)
        for i in range(n):  # with few states faster than a batched product of small matrices
            back = back + ahead[:, i, None] * Df[:, t, i]
        targets.append(Dr[:, t] + gamma * back)
    return torch.stack(targets[::-1], 1)
