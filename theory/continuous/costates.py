"""Costates `lambda_t = dR_t/ds_t` along sampled paths: by autograd and by the backward recursion.

Theory page, section 1: "The costate and its mean".
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jacrev, vmap

from envs.world import InputError, World

Command = Callable[[Tensor, int], Tensor]


def autograd_costates(
    returns: Float[Tensor, "batch"], probe: Float[Tensor, "batch steps k"], gamma: float
) -> Float[Tensor, "batch steps k"]:
    """`lambda_t = gamma^{-t} dR_0/d delta_t`, with delta a zero tensor added to the states (or commands) of the rollout.

    R_0 also counts rewards before t, which do not depend on s_t; the factor gamma^{-t} turns R_0's derivative into
    R_t's. One backward pass gives all t and all samples.

    Args:
        returns: R_0 of every sample, attached to autograd's graph.
        probe: the zero tensor delta that was added at every step of the same rollout.
        gamma: the discount.

    Returns:
        lambda_t of every sample and step, in return units per unit of what the probe was added to.

    Raises:
        InputError: no path of autograd's graph leads from the probe to the returns.
    """
    if not (returns.requires_grad and probe.requires_grad):
        raise InputError("returns and probe must require grad: roll out with autograd switched on")
    (slope,) = torch.autograd.grad(returns.sum(), probe, retain_graph=True, allow_unused=True)
    if slope is None:
        raise InputError("probe does not lead to these returns: take both from the same rollout")
    times = torch.arange(probe.shape[1], dtype=probe.dtype, device=probe.device)
    return slope / (gamma**times)[:, None]


def costate_recursion(
    Dr: Float[Tensor, "batch T n"],
    Df: Float[Tensor, "batch T n n"],
    terminal: Float[Tensor, "batch n"],
    gamma: float,
) -> Float[Tensor, "batch times n"]:
    """`lambda_t = Dr_t + gamma Df_t' lambda_{t+1}`, `lambda_T = d r_T/d s_T`: the adjoint equation, run backwards.

    Args:
        Dr: total derivatives of the rewards in the states, step by step.
        Df: total derivatives of the next states in the states; rows are components of the next state.
        terminal: lambda_T, the derivative of the last reward.
        gamma: the discount.

    Returns:
        lambda_t for t = 0 ... T.
    """
    costates = [terminal]
    for t in reversed(range(Dr.shape[1])):
        costates.insert(0, Dr[:, t] + gamma * torch.einsum("bij,bi->bj", Df[:, t], costates[0]))
    return torch.stack(costates, 1)


def path_costates(
    world: World,
    command: Command,
    states: Float[Tensor, "batch times n"],
    xi: Float[Tensor, "batch T m"],
    w: Float[Tensor, "batch T n"],
) -> Float[Tensor, "batch times n"]:
    """Costates of given paths by the recursion, with total derivatives taken one step at a time.

    The derivatives are those of `path_derivatives`, of any differentiable world. The terminal costate of an endless world,
    whose path was cut, is zero.

    Args:
        world: where the paths were sampled.
        command: a policy without memory, (one state (n,), t) -> (m,).
        states: of the paths, times 0 ... T.
        xi: their action noise.
        w: their process noise.

    Returns:
        lambda_t of every path for t = 0 ... T.
    """
    return costate_recursion(*path_derivatives(world, command, states, xi, w), world.gamma)


def path_derivatives(
    world: World,
    command: Command,
    states: Float[Tensor, "batch times n"],
    xi: Float[Tensor, "batch T m"],
    w: Float[Tensor, "batch T n"],
) -> tuple[Float[Tensor, "batch T n"], Float[Tensor, "batch T n n"], Float[Tensor, "batch n"]]:
    """Total derivatives along given paths, step by step: `Dr = r_s + mu_s' r_a`, `Df = f_s + f_a mu_s`, and `d r_T/d s_T`.

    Args:
        world: where the paths were sampled.
        command: a policy without memory, (one state (n,), t) -> (m,); a constant one leaves the partial derivatives.
        states: of the paths, times 0 ... T.
        xi: their action noise.
        w: their process noise.

    Returns:
        Dr, Df (rows are components of the next state), and the derivative of the last reward: zero in an endless world.
    """
    world, slopes, jacobians = world.to(str(states.device), states.dtype), [], []
    for t in range(xi.shape[1]):
        Dr, Df = _step_derivatives(world, command, t)(states[:, t], xi[:, t], w[:, t])
        slopes.append(Dr)
        jacobians.append(Df)
    last = states[:, -1]
    terminal = vmap(grad(world.terminal_reward))(last) if world.horizon else torch.zeros_like(last)
    return torch.stack(slopes, 1), torch.stack(jacobians, 1), terminal


def _step_derivatives(world: World, command: Command, t: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """(Dr, Df) of step t as a batched function of state and noise."""

    def reward(state: Tensor, xi: Tensor) -> Tensor:
        return world.reward(state, world.act(state, command(state, t), xi))

    def transition(state: Tensor, xi: Tensor, w: Tensor) -> Tensor:
        return world.transition(state, world.act(state, command(state, t), xi), w)

    def both(state: Tensor, xi: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return grad(reward)(state, xi), jacrev(transition)(state, xi, w)

    return vmap(both)
