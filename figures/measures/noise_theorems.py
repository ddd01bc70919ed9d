"""Bonnet's and Price's theorems on sampled noise: derivatives of `E f(mu + sigma eps)` in mean and variance."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.noise import noise_family
from figures.harness.rows import Row, equals
from figures.harness.statistics import Estimate, estimate
from theory.continuous.noise_derivatives import noise_derivatives

Function = Callable[[Tensor], Tensor]
FUNCTIONS: dict[str, Function] = {"a^2": torch.square, "a^4": lambda a: a**4, "cos a": torch.cos}
BONNET, PATHWISE = "Bonnet, every noise", "pathwise in the variance, every noise"
GAUSSIAN, QUADRATIC = "Price, Gaussian noise", "Price, quadratic f, every noise"
OTHER = "Price, other noise, a^4 and cos a"
_POINTS = ((1.0, 0.5), (-0.5, 1.5))  # mean and standard deviation of the action
_ROUNDING = 1e-6  # of the quadrature's central differences, relative


@dataclass(frozen=True)
class NoiseSlopes:
    """Sampled slopes of `E f(mu + sigma eps)`: f' in the mean, f''/2 and `f' eps / (2 sigma)` in the variance."""

    bonnet: Estimate
    price: Estimate
    pathwise: Estimate


def noise_slopes(
    f: Function, noise: str, mu: float, sigma: float, samples: int, rng: torch.Generator, device: str
) -> NoiseSlopes:
    """The three estimators on the same draws, with f's derivatives by autograd."""
    eps = noise_family(noise).sample((samples,), rng).to(device)
    a = (mu + sigma * eps).requires_grad_()
    (slope,) = torch.autograd.grad(f(a).sum(), a, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), a)
    return NoiseSlopes(estimate(slope), estimate(curvature / 2), estimate(slope * eps / (2 * sigma)))


def theorem_rows(noise: str, samples: int, margin: float, rng: torch.Generator, device: str) -> list[Row]:
    """Sampled slopes of all functions at all points against exact derivatives, for one family of noise."""
    rows = list[Row]()
    for name, f in FUNCTIONS.items():
        price = GAUSSIAN if noise == "gaussian" else QUADRATIC if name == "a^2" else OTHER
        for mu, sigma in _POINTS:
            labels: Row = {"case": noise, "function": name, "mean": mu}
            exact = noise_derivatives(f, noise, mu, sigma)
            found = noise_slopes(f, noise, mu, sigma, samples, rng, device)
            for part, measured, truth in (
                (BONNET, found.bonnet, float(exact.in_mean)),
                (PATHWISE, found.pathwise, float(exact.in_variance)),
                (price, found.price, float(exact.in_variance)),
            ):
                scale = abs(truth) + float(measured.standard_error) * samples**0.5
                tolerance = _ROUNDING * scale
                rows += equals(part, measured, truth, scale, tolerance=tolerance, margin=margin, labels=labels)
    return rows
