"""SVG(k) on sampled paths: residuals from the exact slope of Q at the command, their products and their squared length."""

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from agents.sampling.stochastic_value_gradients import svg_costates
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise
from figures.harness.statistics import Estimate
from figures.measures.rollouts import residual_moments, sampled
from theory.continuous.endless import cut_endless
from theory.continuous.lyapunov import linear_value
from theory.continuous.model_gradients import action_value_gradient


@dataclass(frozen=True)
class SvgMoments:
    """Estimates for every time, number of steps and component of the action.

    Attributes:
        mean: the residual's products with 1 and with each state over its root mean square, (times, steps, m, 1 + n).
        covariance: products of two residuals, (times, steps, m, m).
        added: squared length of the residual less that of the first number of steps on the same path, (times, steps).
    """

    mean: Estimate
    covariance: Estimate
    added: Estimate


def svg_moments(
    endless: LinearQuadratic,
    K: Tensor,
    k: Tensor | None,
    times: list[int],
    steps: list[int | None],
    samples: int,
    rng: torch.Generator,
    device: str,
) -> SvgMoments:
    """Residuals of SVG(k) from the slope of Q at the command, sampled in the world itself with exact critics."""
    world, policy = cut_endless(endless, K, max(times), k=k), LinearPolicy(K, k).to(device)
    value, T, n, m = linear_value(endless, K, k), world.horizon or 1, world.n, world.m

    def at_action(states: Tensor, actions: Tensor, t: int) -> Tensor:
        return action_value_gradient(endless, K, states.cpu(), actions.cpu(), t, k).to(device)

    def residuals(noise: Noise) -> Tensor:
        path = rollout(world, policy, noise)
        states, commands, parts = path.states.detach(), path.commands.detach(), list[Tensor]()
        for count in steps:
            critic = at_action if count == 0 else lambda s, t: value.gradient(s.cpu(), t).to(device)
            slopes = svg_costates(world, policy, path, count, critic)
            for t in times:
                e = slopes[:, t] / world.gamma**t - at_action(states[:, t], commands[:, t], t)
                rms = states[:, t].square().mean(0).sqrt().clamp(min=1e-300)
                moments, products = residual_moments(e, states[:, t], rms), e[:, :, None] * e[:, None]
                length = e.square().sum(-1, keepdim=True)
                parts.append(torch.cat([moments.flatten(1), products.flatten(1), length], 1))
        whole: Tensor = torch.stack(parts, 1).unflatten(1, (len(steps), len(times)))
        whole[..., -1] = whole[..., -1] - whole[:, :1, :, -1]
        return whole

    both = sampled(world, T, samples, rng, device, residuals)
    cut = m * (1 + n)
    mean, covariance = _shaped(both[..., :cut], (m, 1 + n)), _shaped(both[..., cut:-1], (m, m))
    return SvgMoments(mean, covariance, _shaped(both[..., -1:], ()))


def _shaped(found: Estimate, shape: tuple[int, ...]) -> Estimate:
    """The last axis in another shape; times come before steps then."""
    mean, error = (x.reshape(*x.shape[:2], *shape).swapaxes(0, 1) for x in (found.mean, found.standard_error))
    return Estimate(mean, error, found.samples)
