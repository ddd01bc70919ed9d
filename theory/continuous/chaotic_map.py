"""Exact mean and variance of both gradient estimators for the map s' = beta sin(s) + theta + sd eps, reward cos(s_T).

Everything in this world has period 2 pi, so the state can be taken on a circle. An estimator accumulates a derivative along
the path; the moments of that accumulator, as functions of s, are carried forward by the wrapped Gaussian kernel on an even
grid, where the trapezoid rule converges faster than any power of the grid size.

Theory page, section 1: "Negative controls".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.lq_variants import ChaoticMap
from envs.record import short_repr
from envs.world import InputError

_REACH = 9.0  # standard deviations of the Gaussian that are wrapped around the circle; mass beyond: 1e-18


@short_repr
@dataclass(frozen=True)
class GradientMoments:
    """For horizons 1..T: expected return, true gradient in theta, sd of the pathwise and the score-function estimator.

    Attributes:
        expected_return: `E cos(s_T)`.
        gradient: its derivative in theta, as the mean of the pathwise estimator.
        score_gradient: the same, as the mean of the score-function estimator.
        pathwise_sd: standard deviation of one sample of the pathwise estimator.
        score_sd: standard deviation of one sample of the score-function estimator.
    """

    expected_return: Float[Tensor, "T"]
    gradient: Float[Tensor, "T"]
    score_gradient: Float[Tensor, "T"]
    pathwise_sd: Float[Tensor, "T"]
    score_sd: Float[Tensor, "T"]


def circle_moments(world: ChaoticMap, theta: float, grid: int = 512) -> GradientMoments:
    """Moments of `PD = -sin(s_T) D_T`, `D_{t+1} = beta cos(s_t) D_t + 1`, and `SF = cos(s_T) sum_t xi_t / sd^2`.

    PD is the pathwise and SF the score-function estimator. `m_k(s)`, the k-th moment of the accumulator at s, moves by
    `m_k'(s') = int p(s'|s) sum_j binom(k,j) ... m_j(s) ds`. `gradient` is E[PD], `score_gradient` is E[SF]; they agree.

    Args:
        world: the chaotic map with Gaussian noise; its horizon is the largest T.
        theta: the constant that is added at every step, the parameter of the policy.
        grid: points on the circle.

    Returns:
        The moments for every horizon 1 ... T.

    Raises:
        InputError: the noise is not Gaussian, gamma is not 1, or the grid is too coarse: grid sd < 8 sqrt(1 + beta^2).
    """
    s = _circle(world, grid)
    start = torch.tensor([world.start], dtype=torch.float64)
    first = _kernels(world, theta, start, s)
    density, path, score = first[0][:, 0], [first[0][:, 0]] * 2, [first[1][:, 0], first[2][:, 0]]
    kernels = [kernel * (2 * math.pi / grid) for kernel in _kernels(world, theta, s, s)]
    slope, rows = world.beta * torch.cos(s), []
    for t in range(int(world.horizon or 0)):
        if t:
            path = [
                kernels[0] @ (slope * path[0] + density),
                kernels[0] @ (slope**2 * path[1] + 2 * slope * path[0] + density),
            ]
            score = [
                kernels[0] @ score[0] + kernels[1] @ density,
                kernels[0] @ score[1] + 2 * kernels[1] @ score[0] + kernels[2] @ density,
            ]
            density = kernels[0] @ density
        rows.append(_row(s, density, path, score))
    mean_return, gradient, score_gradient, path_square, score_square = torch.stack(rows, 1) * (2 * math.pi / grid)
    return GradientMoments(
        mean_return,
        gradient,
        score_gradient,
        (path_square - gradient**2).sqrt(),
        (score_square - score_gradient**2).sqrt(),
    )


def _circle(world: ChaoticMap, grid: int) -> Tensor:
    """The even grid, or an InputError where the moments on it would be wrong."""
    if world.noise != "gaussian" or world.gamma != 1:
        raise InputError("noise must be gaussian and gamma 1 for the moments on the circle")
    needed = math.ceil(8 * math.hypot(1, world.beta) / world.sd)
    if grid < needed:
        raise InputError(f"grid must be >= {needed} for sd={world.sd} and beta={world.beta}; got {grid}")
    return torch.arange(grid, dtype=torch.float64) * (2 * math.pi / grid)


def _row(s: Tensor, density: Tensor, path: list[Tensor], score: list[Tensor]) -> Tensor:
    cos, sin = torch.cos(s), torch.sin(s)
    return torch.stack(
        [
            (cos * density).sum(),
            (-sin * path[0]).sum(),
            (cos * score[0]).sum(),
            (sin**2 * path[1]).sum(),
            (cos**2 * score[1]).sum(),
        ]
    )


def _kernels(world: ChaoticMap, theta: float, s: Tensor, to: Tensor) -> list[Tensor]:
    """`sum_wraps (xi / sd^2)^k N(xi; 0, sd^2)` for k = 0, 1, 2 with xi the noise that leads from s to `to`, wrapped."""
    gap = to[:, None] - (world.beta * torch.sin(s) + theta)[None, :]
    gap = torch.remainder(gap + math.pi, 2 * math.pi) - math.pi
    images = math.ceil(_REACH * world.sd / (2 * math.pi) + 0.5)
    wraps = 2 * math.pi * torch.arange(-images, images + 1, dtype=torch.float64)
    xi = gap[..., None] + wraps
    density = torch.exp(-0.5 * (xi / world.sd) ** 2) / (world.sd * math.sqrt(2 * math.pi))
    return [(density * (xi / world.sd**2) ** k).sum(-1) for k in range(3)]


def pathwise_growth_rate(world: ChaoticMap, theta: float, grid: int = 512) -> float:
    """Factor per step by which sd(PD) grows for long horizons: sqrt of the top eigenvalue of f -> E[(beta cos s)^2 f(s')].

    PD is the pathwise estimator. Above 1 its sd explodes. Rare, strongly stretched paths count in it, so it can exceed 1
    even where the typical path contracts.

    Args:
        world: the chaotic map with Gaussian noise.
        theta: the constant that is added at every step.
        grid: points on the circle.

    Returns:
        The factor, dimensionless.

    Raises:
        InputError: as in `circle_moments`.
    """
    s = _circle(world, grid)
    kernel = _kernels(world, theta, s, s)[0] * (2 * math.pi / grid)
    return math.sqrt(float(torch.linalg.eigvals(kernel * (world.beta * torch.cos(s)) ** 2).abs().max()))
