"""Sampling shared by the claims: batched rollouts, residual moments, and their pooled estimates."""

from collections.abc import Callable

import torch
from torch import Tensor

from agents.sampling.rollout import Trajectory, rollout
from envs.noise import Noise, draw_noise
from envs.policy import Policy
from envs.world import World
from figures.harness.statistics import Estimate, batches, estimate, pooled
from theory.continuous.costates import autograd_costates

_NUMBERS = 2**22  # noise numbers of one batch: with autograd's graph some hundred MB


def sampled(
    world: World, steps: int, samples: int, rng: torch.Generator, device: str, measure: Callable[[Noise], Tensor]
) -> Estimate:
    """Mean and error of per-sample values `measure(noise)`, drawn in batches so that memory stays bounded."""
    largest = max(2, _NUMBERS // (steps * (world.n + world.m)))
    return pooled(
        estimate(measure(draw_noise(world, size, steps, rng).to(device))) for size in batches(samples, largest)
    )


def fixed_start(noise: Noise, start: Tensor) -> Noise:
    """The same noise with every path starting at `start`."""
    first = start.to(noise.s_0.device).expand_as(noise.s_0)
    return Noise(first.contiguous(), noise.xi, noise.w)


def costates_of(world: World, policy: Policy, noise: Noise) -> tuple[Tensor, Trajectory]:
    """Autograd costates (batch, times, n) and the rollout that they came from."""
    trajectory = rollout(world, policy, noise)
    return autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma), trajectory


def residual_moments(residual: Tensor, state: Tensor, rms: Tensor) -> Tensor:
    """Products of a residual e (batch, n) with 1 and with each state component over its rms: (batch, n, 1 + states).

    `E[e | s] = 0` for a residual that is linear in the future noise and affine in s, exactly when all of these vanish
    in the mean.
    """
    regressors = torch.cat([torch.ones_like(state[:, :1]), state / rms], 1)
    return residual[:, :, None] * regressors[:, None, :]
