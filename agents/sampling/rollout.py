"""The batched, differentiable rollout and its record."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from envs.noise import Noise
from envs.policy import Policy
from envs.record import short_repr
from envs.world import InputError, World


@short_repr
@dataclass(frozen=True)
class Trajectory:
    """A batch of noisy paths of T steps; every tensor is still attached to autograd's graph.

    Attributes:
        states: s_0 ... s_T.
        commands: u_t, what the policy returned.
        actions: a_t, what the world executed.
        rewards: r_0 ... r_{T-1}, and the terminal reward at index T (zero where the world is endless).
        state_probe: zeros that were added to the states; a derivative in it is a costate.
        command_probe: zeros that were added to the commands, likewise.
        gamma: the discount.
    """

    states: Float[Tensor, "batch times n"]
    commands: Float[Tensor, "batch T m"]
    actions: Float[Tensor, "batch T m"]
    rewards: Float[Tensor, "batch times"]
    state_probe: Float[Tensor, "batch times n"]
    command_probe: Float[Tensor, "batch T m"]
    gamma: float

    @property
    def returns(self) -> Float[Tensor, "batch"]:
        """`R_0 = sum_t gamma^t r_t`."""
        return self.rewards_to_go()[:, 0]

    def rewards_to_go(self) -> Float[Tensor, "batch times"]:
        """`R_t = sum_{k>=t} gamma^{k-t} r_k` for every t.

        Returns:
            One number for each path and time 0 ... T.
        """
        total, out = torch.zeros_like(self.rewards[:, 0]), []
        for t in reversed(range(self.rewards.shape[1])):
            total = self.rewards[:, t] + self.gamma * total
            out.append(total)
        return torch.stack(out[::-1], 1)


def rollout(world: World, policy: Policy, noise: Noise, start: Float[Tensor, "batch n"] | None = None) -> Trajectory:
    """Run `policy` in `world` on the given noise: `u_t = mu(history)`, `a_t = act(s_t, u_t, xi_t)`, `s_{t+1} = f(...)`.

    The probes require grad whenever autograd is on, so that costates can be read from every rollout. The same noise gives
    the same paths. Device and dtype are those of the noise.

    Args:
        world: where the policy acts.
        policy: a differentiable map from the states so far to a command.
        noise: of T steps; T must be the horizon of a finite world.
        start: takes the place of the noise's first states.

    Returns:
        The paths, attached to autograd's graph.

    Raises:
        InputError: the noise or the start does not fit the world, or the policy's commands have another shape.
    """
    batch, T, _ = noise.xi.shape
    first = noise.s_0 if start is None else start
    _check_noise(world, noise, first)
    like: dict[str, Any] = {
        "dtype": noise.xi.dtype,
        "device": noise.xi.device,
        "requires_grad": torch.is_grad_enabled(),
    }
    world = world.to(str(noise.xi.device), noise.xi.dtype)
    state_probe = torch.zeros(batch, T + 1, world.n, **like)
    command_probe = torch.zeros(batch, T, world.m, **like)
    states = [first + state_probe[:, 0]]
    commands, actions, rewards = [], [], []
    for t in range(T):
        seen = states[-policy.window :] if policy.window else states
        command = _checked_command(policy(torch.stack(seen, 1), t), batch, world.m) + command_probe[:, t]
        action = world.act(states[-1], command, noise.xi[:, t])
        rewards.append(world.reward(states[-1], action))
        states.append(world.transition(states[-1], action, noise.w[:, t]) + state_probe[:, t + 1])
        commands.append(command)
        actions.append(action)
    rewards.append(torch.zeros_like(rewards[-1]) if world.horizon is None else world.terminal_reward(states[-1]))
    return Trajectory(
        torch.stack(states, 1),
        torch.stack(commands, 1),
        torch.stack(actions, 1),
        torch.stack(rewards, 1),
        state_probe,
        command_probe,
        gamma=world.gamma,
    )


def _checked_command(command: Tensor, batch: int, m: int) -> Tensor:
    if command.shape != (batch, m):
        raise InputError(f"policy must return commands of shape {(batch, m)}; got {tuple(command.shape)}")
    return command


def _check_noise(world: World, noise: Noise, first: Tensor) -> None:
    batch, T, _ = noise.xi.shape
    if world.horizon is not None and world.horizon != T:
        raise InputError(f"noise has {T} steps but the world's horizon is {world.horizon}: draw one step per action")
    if noise.xi.shape[2] != world.m or noise.w.shape[2] != world.n:
        raise InputError(
            f"noise has sizes m={noise.xi.shape[2]}, n={noise.w.shape[2]}; the world needs m={world.m}, n={world.n}"
        )
    if noise.w.shape[:2] != (batch, T) or first.shape != (batch, world.n):
        raise InputError(
            f"noise or start does not fit: xi {tuple(noise.xi.shape)}, w {tuple(noise.w.shape)}, s_0 {tuple(first.shape)}"
        )
