"""Targets of value-gradient learning on sampled paths: their moments, and bias and variance by pairs of paths."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import vgl_targets
from envs.linear_quadratic import LinearQuadratic
from envs.noise import Noise
from figures.harness.rows import Row, report
from figures.harness.statistics import Estimate
from figures.measures.linear_systems import MemorylessSystem
from figures.measures.rollouts import residual_moments, sampled
from theory.continuous.costates import path_derivatives
from theory.continuous.lyapunov import linear_value
from theory.continuous.value_gradient_targets import mean_target, target_covariance

SMALL, SMALLER, TWISTED = "10 % too small", "30 % too small", "with a curl"
BIAS, SPREAD, CURVE = "bias^2", "variance", "exact "  # parts of the picture; the last goes before the others
_POINTS = 41  # of a curve


def critics(P: Float[Tensor, "*times n n"]) -> dict[str, Float[Tensor, "*times n n"]]:
    """Wrong critics of the value gradient `-2 P s`; the last is not symmetric, or with one state too large."""
    twist = (
        torch.triu(torch.ones_like(P), 1) - torch.tril(torch.ones_like(P), -1) if P.shape[-1] > 1 else P / P.abs().max()
    )
    return {SMALL: -1.8 * P, SMALLER: -1.4 * P, TWISTED: -2 * P + P.abs().amax((-2, -1), keepdim=True) * twist}


@dataclass(frozen=True)
class TargetLaw:
    """The exact law of targets at time 0 for every lambda and critic.

    Attributes:
        mean: matrix of the mean target.
        covariance: of the target given the state.
        bias: mean of `|E[target | s] - value gradient|^2` over first states.
        variance: trace of the covariance.
    """

    mean: Float[Tensor, "lams critics n n"]
    covariance: Float[Tensor, "lams critics n n"]
    bias: Float[Tensor, "lams critics"]
    variance: Float[Tensor, "lams critics"]


def target_law(world: LinearQuadratic, K: Tensor, lams: Sequence[float], critic: Sequence[Tensor]) -> TargetLaw:
    """Means, covariances, bias and variance by the formulas, in a world with or without a horizon."""
    cases = [(X, lam) for lam in lams for X in critic]
    shape = (len(lams), len(critic), world.n, world.n)
    first = [mean_target(world, K, X, lam) for X, lam in cases]
    mean = torch.stack([Y[0] if Y.ndim == 3 else Y for Y in first]).reshape(shape)
    covariance = torch.stack([target_covariance(world, K, X, lam) for X, lam in cases]).reshape(shape)
    D, Sigma = mean + 2 * linear_value(world, K).at(0)[0], world.S_0 + torch.outer(world.m_0, world.m_0)
    bias = torch.einsum("lcij,jk,lcik->lc", D, Sigma, D)
    return TargetLaw(mean, covariance, bias, covariance.diagonal(dim1=-2, dim2=-1).sum(-1))


def curve_rows(world: LinearQuadratic, K: Tensor, wrong: Mapping[str, Tensor], unit: float, labels: Row) -> list[Row]:
    """Exact bias and variance on a fine grid of lambda, reported."""
    grid, rows = [i / (_POINTS - 1) for i in range(_POINTS)], list[Row]()
    law = target_law(world, K, grid, list(wrong.values()))
    for (i, lam), (j, critic) in itertools.product(enumerate(grid), enumerate(wrong)):
        for part, exact in ((BIAS, law.bias[i, j]), (SPREAD, law.variance[i, j])):
            rows += report(CURVE + part, exact, exact, unit, labels={**labels, "lam": lam, "critic": critic})
    return rows


@dataclass(frozen=True)
class TargetMoments:
    """Estimates at time 0 for every lambda and critic, with e the target minus the value gradient.

    Attributes:
        residual: of (target - its exact mean) with 1 and the components of the state.
        covariance: products of two components of the same residual.
        error: of e with 1 and the components of the state.
        square: `|e|^2`.
        bias: `e'e'` of two paths from one state, which has the mean `|E[e | s]|^2`.
        spread: half the squared distance of two paths' targets, with the trace of the covariance as mean.
    """

    residual: Estimate
    covariance: Estimate
    error: Estimate
    square: Estimate
    bias: Estimate
    spread: Estimate


def target_moments(
    system: MemorylessSystem,
    lams: Sequence[float],
    critic: Sequence[Float[Tensor, "*times n n"]],
    mean: Float[Tensor, "lams critics n n"],
    gradient: Float[Tensor, "n n"],
    rms: Float[Tensor, "n"],
    samples: int,
    rng: torch.Generator,
    device: str,
    partial: bool = False,
) -> TargetMoments:
    """Sample pairs of paths from one state each and take all moments at once.

    Args:
        system: world of finite horizon and policy.
        lams: every lambda.
        critic: the matrices of every critic, one for all times or one for each.
        mean: the exact matrix of the mean target at time 0.
        gradient: matrix of the value gradient at time 0.
        rms: root mean square of the components of the first state.
        samples: number of paths, two for a pair.
        rng: a generator on the CPU.
        device: where the paths are sampled.
        partial: take partial derivatives, the policy's slope left out.
    """
    n, T = system.world.n, system.world.horizon or 1
    targets = _targets(system, lams, critic, partial)
    mean, gradient, rms = (x.to(device) for x in (mean, gradient, rms))

    def columns(noise: Noise) -> Tensor:
        noise = _in_pairs(noise)
        found, state = targets(noise)  # (paths, lams, critics, n), (paths, n)
        residual = found - torch.einsum("lcij,pj->plci", mean, state)
        e = found - (state @ gradient.mT)[:, None, None]
        (first, second), half = e.chunk(2), len(e) // 2
        parts = [
            _moments(residual, state, rms),
            (residual[..., :, None] * residual[..., None, :]).flatten(-2),
            _moments(e, state, rms),
            e.square().sum(-1, keepdim=True),
        ]
        paired = [(part[:half] + part[half:]) / 2 for part in parts]
        product, distance = (first * second).sum(-1, keepdim=True), (first - second).square().sum(-1, keepdim=True) / 2
        return torch.cat([*paired, product, distance], -1)

    every = sampled(system.world, T, samples, rng, device, columns)
    sizes, shapes = [n * (n + 1), n * n, n * (n + 1), 1, 1, 1], [(n, n + 1), (n, n), (n, n + 1), (), (), ()]
    cuts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    cases = (len(lams), len(critic))
    return TargetMoments(*(_slice(every, a, b, cases + s) for a, b, s in zip(cuts[:-1], cuts[1:], shapes, strict=True)))


def _slice(every: Estimate, start: int, end: int, shape: tuple[int, ...]) -> Estimate:
    part = every[..., start:end]
    return Estimate(part.mean.reshape(shape), part.standard_error.reshape(shape), part.samples)


def _moments(values: Tensor, state: Tensor, rms: Tensor) -> Tensor:
    """`residual_moments` for every lambda and critic, flat."""
    paths, lams, count, _ = values.shape
    repeated = state[:, None, None].expand(paths, lams, count, -1).flatten(0, 2)
    return residual_moments(values.flatten(0, 2), repeated, rms).reshape(paths, lams, count, -1)


def _in_pairs(noise: Noise) -> Noise:
    """An even number of paths, those of the second half from the states of the first."""
    half = len(noise.s_0) // 2
    start = noise.s_0[:half]
    return Noise(torch.cat([start, start]), noise.xi[: 2 * half], noise.w[: 2 * half])


def _targets(
    system: MemorylessSystem, lams: Sequence[float], critic: Sequence[Tensor], partial: bool
) -> Callable[[Noise], tuple[Tensor, Tensor]]:
    """Noise -> targets at time 0, (paths, lams, critics, n), and the states there."""
    command = (lambda s, t: system.command(s.detach(), t)) if partial else system.command

    def of(noise: Noise) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            states = rollout(system.world, system.policy.to(noise.xi.device), noise).states
        Dr, Df, terminal = path_derivatives(system.world, command, states, noise.xi, noise.w)
        own = [
            torch.einsum("...ij,b...j->b...i", X.to(states), states) if X.ndim == 3 else states @ X.to(states).mT
            for X in critic
        ]
        found = [[vgl_targets(Dr, Df, terminal, G, system.world.gamma, lam)[:, 0] for G in own] for lam in lams]
        return torch.stack([torch.stack(row, 1) for row in found], 1), states[:, 0]

    return of
