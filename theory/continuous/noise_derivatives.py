"""Derivatives of `E f(mu + sigma eps)` in mean and variance, by quadrature, beside Bonnet's and Price's theorems.

Theory page, section 6: "Stochastic value gradients".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import as_numbers
from envs.noise import noise_family
from envs.record import short_repr
from envs.world import InputError

_REACH, _NODES = 40, 24  # standard deviations on either side; nodes of a panel, which is one of them wide
_TAIL = 1e-9  # largest share of the outermost panels that is taken for nothing
_STEP = 1e-3  # of the central differences; their error is of order step^4

Function = Callable[[Tensor], Tensor]


@short_repr
@dataclass(frozen=True)
class NoiseDerivatives:
    """Derivatives of `F(mu, sigma^2) = E f(mu + sigma eps)`, and what two theorems say of them.

    Attributes:
        in_mean: dF/dmu.
        bonnet: `E f'`, which is dF/dmu for every law.
        in_variance: dF/dsigma^2.
        price: `E f'' / 2`, which is dF/dsigma^2 for Gaussian noise, or for a quadratic f.
    """

    in_mean: Float[Tensor, "..."]
    bonnet: Float[Tensor, "..."]
    in_variance: Float[Tensor, "..."]
    price: Float[Tensor, "..."]


def noise_derivatives(
    f: Function, noise: str, mu: Float[Tensor, "..."] | float, sigma: Float[Tensor, "..."] | float
) -> NoiseDerivatives:
    """Both derivatives by central differences of a quadrature over the noise, and both theorems by f's own derivatives.

    For `f = a^4` and noise of skewness k3 and kurtosis k4 the derivative in the variance is
    `6 mu^2 + 6 mu k3 sigma + 2 k4 sigma^2`, against `6 mu^2 + 6 sigma^2` of Price's theorem. For `f = cos a` and Laplace noise
    theorem over derivative is `1 + sigma^2 / 2`. Price's theorem: R. Price (1958); both as used by D. Rezende, S. Mohamed and
    D. Wierstra, "Stochastic Backpropagation and Approximate Inference in Deep Generative Models" (2014).

    Args:
        f: acts on every number of a tensor by itself, and is twice differentiable by autograd.
        noise: name of a family of `envs.noise.FAMILIES`, of mean 0 and variance 1.
        mu: the mean; a tensor of any shape.
        sigma: the standard deviation, > 0, of a shape that broadcasts with that of mu.

    Returns:
        All four, in the common shape of mu and sigma.

    Raises:
        InputError: the family is unknown, sigma is not > 0, or f grows so fast that the expectation is not finite.
    """
    mu, sigma = _numbers(mu, sigma)
    variance, slope, curvature = sigma.square(), _derivative(f), _derivative(_derivative(f))
    return NoiseDerivatives(
        _difference(lambda h: expectation(f, noise, mu + h, sigma), _STEP * sigma),
        expectation(slope, noise, mu, sigma),
        _difference(lambda h: expectation(f, noise, mu, (variance + h).sqrt()), _STEP * variance),
        expectation(curvature, noise, mu, sigma) / 2,
    )


def expectation(
    f: Function, noise: str, mu: Float[Tensor, "..."] | float, sigma: Float[Tensor, "..."] | float
) -> Float[Tensor, "..."]:
    """`E f(mu + sigma eps)` by Gauss-Legendre quadrature against the density of eps, in panels that end where it has kinks.

    Args:
        f: acts on every number of a tensor by itself; smooth, and of at most polynomial growth or a slow exponential one.
        noise: name of a family of `envs.noise.FAMILIES`.
        mu: the mean; a tensor of any shape.
        sigma: the standard deviation, > 0, of a shape that broadcasts with that of mu.

    Returns:
        The expectation, in the common shape of mu and sigma.

    Raises:
        InputError: the family is unknown, sigma is not > 0, or f grows so fast that the expectation is not finite.
    """
    mu, sigma = _numbers(mu, sigma)
    eps, weights = _grid(noise)
    terms = weights * f(mu[..., None] + sigma[..., None] * eps).detach()
    total, sizes = terms.sum(-1), terms.abs()
    tails = (sizes * (eps.abs() > _REACH - 1)).sum(-1)
    if not bool((tails <= _TAIL * sizes.sum(-1)).all()):  # NaN and infinity fail too
        raise InputError(f"f must have a finite expectation under {noise} noise: its values grow too fast")
    return total


def _numbers(mu: Tensor | float, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
    """Both in float64 and in their common shape; sigma is positive."""
    own, spread = (torch.as_tensor(as_numbers(name, x)).double() for name, x in (("mu", mu), ("sigma", sigma)))
    if not bool((spread > 0).all() and spread.isfinite().all() and own.isfinite().all()):
        raise InputError("sigma must be a standard deviation > 0, and mu and sigma finite numbers")
    first, second = torch.broadcast_tensors(own, spread)
    return first, second


@cache
def _grid(noise: str) -> tuple[Tensor, Tensor]:
    """Nodes of eps, and weights that hold the density; where it is zero there are none."""
    edges = sorted({*map(float, range(-_REACH, _REACH + 1)), -math.sqrt(3), math.sqrt(3)})
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(_NODES))
    left, right = torch.tensor([edges[:-1], edges[1:]], dtype=torch.float64)
    half = ((right - left) / 2)[:, None]
    eps = (left[:, None] + half * (1 + nodes)).flatten()
    own = (half * weights).flatten() * noise_family(noise).log_density(eps).exp()
    kept = own > 0
    return eps[kept], own[kept]


def _derivative(f: Function) -> Function:
    """f' of a function that acts on every number by itself."""

    def slope(x: Tensor) -> Tensor:
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            value = f(at)
            if not value.requires_grad:  # a constant
                return torch.zeros_like(x)
            (out,) = torch.autograd.grad(value.sum(), at, create_graph=True, allow_unused=True)
        return torch.zeros_like(x) if out is None else out

    return slope


def _difference(F: Callable[[Tensor], Tensor], step: Tensor) -> Tensor:
    """`(8 (F(h) - F(-h)) - (F(2h) - F(-2h))) / 12h`."""
    return (8 * (F(step) - F(-step)) - (F(2 * step) - F(-2 * step))) / (12 * step)
