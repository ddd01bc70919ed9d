"""Targets of value-gradient learning, VGL(lambda), along sampled paths: what a critic of the value gradient is fitted to."""

import torch
from jaxtyping import Float
from torch import Tensor

from agents.sampling.pathwise import StateGradient
from envs.arguments import check_gamma, short
from envs.noise import Noise
from envs.policy import Policy
from envs.world import InputError, World


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
    _check_lam(lam)
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


def path_targets(
    world: World,
    policy: Policy,
    states: Float[Tensor, "batch times n"],
    noise: Noise,
    state_gradient: StateGradient,
    lam: float,
) -> Float[Tensor, "batch times n"]:
    """The targets of `vgl_targets` for a policy without memory, by one backward pass a step and without Jacobians.

    Args:
        world: where the paths were sampled.
        policy: that sampled them; one that reads the current state only.
        states: of the paths, times 0 ... T.
        noise: that made them.
        state_gradient: the critic G, (states (batch, n), t) -> (batch, n).
        lam: lambda, in [0, 1].

    Returns:
        g_t for t = 0 ... T, constants; the last is zero in an endless world, whose path was cut.

    Raises:
        InputError: the policy has memory, or lam is out of its range.
    """
    _check_lam(lam)
    if policy.window != 1:
        raise InputError("policy must read the current state only (window 1): the recursion has no path through memory")
    world, last = world.to(str(states.device), states.dtype), states[:, -1].detach().requires_grad_()
    target = torch.zeros_like(last)
    if world.horizon is not None:
        (target,) = torch.autograd.grad(world.terminal_reward(last).sum(), last)
    targets = [target.detach()]
    for t in reversed(range(noise.xi.shape[1])):
        bootstrapped = state_gradient(states[:, t + 1].detach(), t + 1).detach()
        ahead, s = lam * targets[-1] + (1 - lam) * bootstrapped, states[:, t].detach().requires_grad_()
        action = world.act(s, policy(s[:, None], t), noise.xi[:, t])
        carried = (world.transition(s, action, noise.w[:, t]) * ahead).sum(-1)
        (slope,) = torch.autograd.grad((world.reward(s, action) + world.gamma * carried).sum(), s)
        targets.append(slope)
    return torch.stack(targets[::-1], 1)


def _check_lam(lam: float) -> None:
    if isinstance(lam, bool) or not isinstance(lam, int | float) or not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {short(lam)}")
