"""Sampled rollouts: means over batches, costates by autograd and by central differences, moments of residuals."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from agents.sampling.rollout import Trajectory, rollout
from envs.linear_quadratic import LinearQuadratic
from envs.lq_variants import ChaoticMap
from envs.noise import Noise, draw_noise
from envs.policy import Policy
from envs.world import World
from figures.harness.statistics import Estimate, batches, estimate, pooled
from theory.continuous.costates import autograd_costates
from theory.differences import central_gradient

_NUMBERS = 2**22  # noise numbers of one batch: with autograd's graph some hundred MB


def sampled(
    world: World, steps: int, samples: int, rng: torch.Generator, device: str, measure: Callable[[Noise], Tensor]
) -> Estimate:
    """Return the mean of per-sample values and its standard error, drawn in batches so that memory stays bounded.

    Args:
        world: its noise is drawn.
        steps: length of the noise.
        samples: number of draws in all, >= 2.
        rng: a generator on the CPU.
        device: where the noise is moved to.
        measure: noise of one batch -> values (batch, ...).
    """
    largest = max(2, _NUMBERS // (steps * (world.n + world.m)))
    return pooled(
        estimate(measure(draw_noise(world, size, steps, rng).to(device))) for size in batches(samples, largest)
    )


def fixed_start(noise: Noise, start: Tensor) -> Noise:
    """Return the same noise with every path starting at the state `start`, (n,)."""
    first = start.to(noise.s_0.device).expand_as(noise.s_0)
    return Noise(first.contiguous(), noise.xi, noise.w)


def costates_of(world: World, policy: Policy, noise: Noise) -> tuple[Tensor, Trajectory]:
    """Return autograd's costates (batch, times, n) and the rollout that they belong to."""
    trajectory = rollout(world, policy, noise)
    return autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma), trajectory


def residual_moments(residual: Tensor, state: Tensor, rms: Tensor) -> Tensor:
    """Return products of a residual e with 1 and with each state component over its root mean square.

    For a residual that is linear in the future noise and affine in s, `E[e | s] = 0` exactly when all of these have
    mean zero.

    Args:
        residual: (batch, n).
        state: (batch, states).
        rms: (states,).

    Returns:
        (batch, n, 1 + states).
    """
    regressors = torch.cat([torch.ones_like(state[:, :1]), state / rms], 1)
    return residual[:, :, None] * regressors[:, None, :]


def difference_costates(
    world: LinearQuadratic | ChaoticMap, policy: Policy, states: Tensor, noise: Noise, step: float
) -> Tensor:
    """Return `lambda_t = dR_t/ds_t` by central differences: each path restarts at `s_t +- h e_i` on the rest of its noise.

    Args:
        world: of finite horizon T.
        policy: one that reads the current state only.
        states: of the paths, (batch, T + 1, n).
        noise: that made these paths.
        step: h; the error is `eps |R| / h` from rounding and `h^2 / 6` times the third derivative of R.
    """
    world, T = world.to(str(states.device), states.dtype), noise.xi.shape[1]
    columns = [central_gradient(_return_from(world, policy, noise, t), states[:, t], step) for t in range(T)]
    return torch.stack([*columns, central_gradient(world.terminal_reward, states[:, T], step)], 1)


def _return_from(
    world: LinearQuadratic | ChaoticMap, policy: Policy, noise: Noise, t: int
) -> Callable[[Tensor], Tensor]:
    """The function s_t -> R_t on the noise from t on."""
    rest, later = noise.after(t), replace(world, horizon=noise.xi.shape[1] - t)

    def rewards_to_go(state: Tensor) -> Tensor:
        with torch.no_grad():
            return rollout(later, _Later(policy, t), Noise(state, rest.xi, rest.w)).returns

    return rewards_to_go


@dataclass(frozen=True)
class _Later:
    """A policy whose clock starts at `start`."""

    policy: Policy
    start: int

    @property
    def window(self) -> int | None:
        return self.policy.window

    def __call__(self, history: Tensor, t: int) -> Tensor:
        return self.policy(history, t + self.start)
