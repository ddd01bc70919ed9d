"""Stochastic value gradients SVG(k): k sampled steps are differentiated, then a critic; in the world or in a model of it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from agents.sampling.pathwise import command_costates, critic_costates
from agents.sampling.rollout import Trajectory, rollout
from envs.noise import Noise
from envs.policy import Policy
from envs.world import InputError, World

Critic = Callable[..., Tensor]


def svg_costates(
    world: World, policy: Policy, trajectory: Trajectory, steps: int | None, critic: Critic | None = None
) -> Float[Tensor, "batch T m"]:
    """Action costates by SVG(steps), discounted to time 0: `contract_commands` makes gradients of the parameters of them.

    SVG(0) is `gamma^t grad_a Q(s_t, a_t)`. SVG(k) follows k sampled steps and ends with `grad V(s_{t+k})`, or with the
    path's own end. None takes all steps: `command_costates`, without a critic. With exact critics all have the mean of
    `command_costates`; their spread grows with k (`theory.continuous.model_gradients.svg_covariance`). Assumes additive
    noise.

    Source: N. Heess et al., "Learning Continuous Control Policies by Stochastic Value Gradients" (2015).

    Args:
        world: whose rewards and steps are differentiated; a model stands in the world's place after `replay`.
        policy: that sampled the paths; for 2 steps or more one that reads the last state alone.
        trajectory: the paths; for all steps attached to autograd's graph.
        steps: k, or None for all.
        critic: for k = 0 (states, actions, t) -> grad_a Q, else (states, t) -> grad V; without effect for all steps.

    Returns:
        One vector for each command.

    Raises:
        InputError: steps is no whole number >= 0, a critic is missing, or the policy reads more than the last state.
    """
    if steps is None:
        return command_costates(trajectory)
    if not isinstance(steps, int) or steps < 0:
        raise InputError(f"steps must be a whole number >= 0, or None for all steps; got {steps!r}")
    if critic is None:
        raise InputError(f"critic is missing: SVG({steps}) ends with the slope of a value")
    states, actions, T = trajectory.states.detach(), trajectory.actions.detach(), trajectory.actions.shape[1]
    if steps == 0:
        slopes = torch.stack([critic(states[:, t], actions[:, t], t) for t in range(T)], 1).detach()
        discount = world.gamma ** torch.arange(T, dtype=states.dtype, device=states.device)
        return discount[:, None] * slopes
    if steps > 1 and policy.window != 1:
        raise InputError(f"policy must read the last state alone for SVG({steps}); its window is {policy.window}")
    ahead = torch.stack([critic(states[:, t + 1], t + 1) for t in range(T)], 1).detach()
    world = world.to(str(states.device), states.dtype)
    for _ in range(min(steps, T + 1) - 1):
        ahead = _one_step_more(world, policy, trajectory, ahead)
    return critic_costates(world, trajectory, ahead)


def _one_step_more(world: World, policy: Policy, trajectory: Trajectory, ahead: Tensor) -> Tensor:
    """`Dr_t + gamma Df_t' ahead_t` at t = 1 ... T-1, and at T the slope of the terminal reward, if there is one."""
    xi = (trajectory.actions - trajectory.commands).detach()
    slopes = []
    for t in range(1, xi.shape[1] + 1):
        state = trajectory.states[:, t].detach().requires_grad_()
        if t == xi.shape[1]:
            if world.horizon is None:
                slopes.append(ahead[:, -1])
                break
            total = world.terminal_reward(state)
        else:
            action = world.act(state, policy(state[:, None], t), xi[:, t])
            following = world.transition(state, action, torch.zeros_like(state))
            total = world.reward(state, action) + world.gamma * (following * ahead[:, t]).sum(-1)
        slopes.append(torch.autograd.grad(total.sum(), state)[0])
    return torch.stack(slopes, 1)


def replay(model: World, policy: Policy, trajectory: Trajectory) -> Trajectory:
    """The same real paths, with every derivative taken of a model at their states.

    The process noise is inferred, `w_t = s_{t+1} - f(s_t, a_t)` with the model's f, and the paths are run again in the model:
    states, commands and actions are the real ones, and rewards are the model's. Assumes additive noise.

    Args:
        model: of the world that the paths were sampled in, right or wrong.
        policy: that sampled them.
        trajectory: the paths.

    Returns:
        The paths, attached to autograd's graph through the model.

    Raises:
        InputError: as in `agents.sampling.rollout.rollout`.
    """
    states = trajectory.states.detach()
    xi = (trajectory.actions - trajectory.commands).detach()
    model = model.to(str(states.device), states.dtype)
    none = torch.zeros_like(states[:, 1:])
    w = states[:, 1:] - model.transition(states[:, :-1], trajectory.actions.detach(), none)
    return rollout(model, policy, Noise(states[:, 0], xi, w))
