"""Value-gradient flow of a cloud of particles with a kernel between them, by plain steps or by Adam on the particles.

`phi_i = (1/N) sum_j [k(a_j, a_i) grad Q(a_j) / alpha + grad_{a_j} k(a_j, a_i)]`, the direction of Stein variational gradient
descent towards `prop exp(Q / alpha)`. The paper's steps are `a <- a + rate phi`. Its official code (ryanxhr/vgf@97465e5) hands
phi to Adam with N = 10 particles, 1 to 3 steps and a clip to [-1, 1]; both forms are here.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import takes_numbers, whole
from envs.world import InputError

Particles = Float[Tensor, "N n"]
Gradient = Callable[[Particles], Particles]
Optimiser = Literal["plain", "adam"]
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)
_BETAS, _EPS = (0.9, 0.999), 1e-8  # of Adam, as in the official code


@takes_numbers("particles")
def particle_flow(
    gradient: Gradient,
    particles: Particles,
    rate: float,
    steps: int,
    alpha: float = 1.0,
    bandwidth: float | Literal["median"] = "median",
    optimiser: Optimiser = "plain",
    clip: float | None = None,
) -> Float[Tensor, "steps N n"]:
    """Move the particles, and keep every step.

    Args:
        gradient: particles -> the value gradient at each.
        particles: where they begin, draws of the reference.
        rate: step size, > 0.
        steps: number of steps.
        alpha: weight of the repulsion against the value, > 0.
        bandwidth: of the kernel, as in `flow_direction`.
        optimiser: "plain" for `a + rate phi`; "adam" for Adam (betas 0.9 and 0.999, eps 1e-8) on the particles.
        clip: particles are cut to [-clip, clip] after every step; None for no cut.

    Returns:
        The particles from step 0 on.

    Raises:
        InputError: rate, alpha, bandwidth, clip or steps is out of its range, the optimiser is unknown, or particles or
            gradients are no table of finite numbers.
    """
    if optimiser not in OPTIMISERS:
        raise InputError(f"optimiser must be 'plain' or 'adam'; got {optimiser!r}")
    _check_positive(rate=rate, alpha=alpha, **({} if clip is None else {"clip": clip}))
    _check_cloud(particles)
    path, first, second = [particles], torch.zeros_like(particles), torch.zeros_like(particles)
    for k in range(whole("steps", steps, 1)):
        at = path[-1]
        phi = flow_direction(gradient(at).detach(), at, alpha, bandwidth)
        if optimiser == "adam":
            first, second = (
                b * moment + (1 - b) * x
                for b, moment, x in zip(_BETAS, (first, second), (phi, phi.square()), strict=True)
            )
            mean, square = (m / (1 - b ** (k + 1)) for m, b in zip((first, second), _BETAS, strict=True))
            phi = mean / (square.sqrt() + _EPS)
        moved = at + rate * phi
        path.append(moved if clip is None else moved.clamp(-clip, clip))
    return torch.stack(path)


def flow_direction(
    gradients: Particles, particles: Particles, alpha: float = 1.0, bandwidth: float | Literal["median"] = "median"
) -> Particles:
    """phi of every particle, with the kernel `k = exp(-|a - a'|^2 / (2 bandwidth^2))`.

    At bandwidth 0 a particle follows its own gradient over N, at an infinite one all follow the mean gradient. "median" takes
    `bandwidth^2 = median / (2 log(N + 1))` of the squared distances of all pairs, those of a particle with itself among them.

    Args:
        gradients: of the value at every particle.
        particles: the cloud.
        alpha: weight of the repulsion against the value, > 0.
        bandwidth: >= 0, infinite, or "median".

    Returns:
        The direction of every particle.

    Raises:
        InputError: the gradients have another shape than the particles or are not finite, or the bandwidth is no such number.
    """
    if gradients.shape != particles.shape or not bool(gradients.isfinite().all()):
        raise InputError(
            f"gradient must give finite numbers of shape {tuple(particles.shape)}; got {tuple(gradients.shape)}"
        )
    count, apart = len(particles), particles[:, None] - particles  # a_i - a_j
    square = apart.square().sum(-1)
    size = _bandwidth(bandwidth, square)
    if size == 0:
        return gradients / (alpha * count)
    kernel = torch.exp(-square / (2 * size**2))
    repulsion = (kernel[..., None] * apart).sum(1) / size**2  # grad_{a_j} k(a_j, a_i) = k (a_i - a_j) / bandwidth^2
    return (kernel @ gradients / alpha + repulsion) / count


def adam_reach(rate: float, steps: int) -> float:
    """The largest move of a coordinate that so many steps of Adam can make, whatever the gradients.

    A step is at most `rate sqrt(sum_i w_i^2 / u_i)`, w and u the weights of past gradients in the two running means: exactly
    `rate` in the first step, 1.0014 times that in the second. So alpha and the size of the value have no part in it.

    Args:
        rate: Adam's step size.
        steps: number of steps.

    Returns:
        The bound, in units of the particles.

    Raises:
        InputError: steps < 1.
    """
    total = 0.0
    for k in range(1, whole("steps", steps, 1) + 1):
        means = [torch.tensor([(1 - b) * b**i / (1 - b**k) for i in range(k)], dtype=torch.float64) for b in _BETAS]
        total += float((means[0].square() / means[1]).sum().sqrt())
    return rate * total


def _bandwidth(bandwidth: float | str, square: Float[Tensor, "N N"]) -> float:
    if bandwidth == "median":
        count = len(square)
        ordered = square.flatten().sort().values
        middle = (ordered[(count**2 - 1) // 2] + ordered[count**2 // 2]) / 2
        return math.sqrt(float(middle) / (2 * math.log(count + 1)))
    if isinstance(bandwidth, bool | str) or not bandwidth >= 0:
        raise InputError(f"bandwidth must be 'median' or a number >= 0, infinity among them; got {bandwidth!r}")
    return float(bandwidth)


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not 0 < value < math.inf:
            raise InputError(f"{name} must be a finite number > 0; got {value!r}")


def _check_cloud(particles: Tensor) -> None:
    if particles.ndim != 2 or not particles.numel() or not bool(particles.isfinite().all()):
        raise InputError(
            f"particles must be a table of finite numbers, one row for each; got shape {tuple(particles.shape)}"
        )
