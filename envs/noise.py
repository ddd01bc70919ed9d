"""Additive-noise families of zero mean and unit variance, and the draw of a whole rollout's noise.

Every family is given by its quantile function (to sample) and its log density (for the score-function estimator).
`differentiable` is False where the density jumps: there, and only there, the score-function identity
E[score] = 0 fails (assumption A3 of envs/README.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from envs.record import short_repr
from envs.world import Array, InputError, World, namespace

EULER_GAMMA = float(np.euler_gamma)
_LAPLACE, _LOGISTIC, _GUMBEL, _UNIFORM = math.sqrt(0.5), math.sqrt(3) / math.pi, math.sqrt(6) / math.pi, math.sqrt(3)
_SMALLEST_UNIFORM = 2.0**-54  # generators return multiples of 2^-53 in [0, 1); 0 has no finite quantile


@dataclass(frozen=True)
class NoiseFamily:
    """A standardised law.

    Attributes:
        name: of the family.
        quantile: the quantile function; None for the normal, which is drawn directly.
        log_density: the logarithm of the density, as a function of a tensor.
        differentiable: whether the density is free of jumps.
    """

    name: str
    quantile: Callable[[Any], Any] | None
    log_density: Callable[[Tensor], Tensor]
    differentiable: bool = True

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator | torch.Generator) -> Any:
        """Independent draws, a numpy array or a torch tensor (float64, the generator's device) after the generator.

        Args:
            shape: of the answer.
            rng: numpy's or torch's generator.

        Returns:
            Numbers of mean 0 and variance 1.
        """
        if isinstance(rng, np.random.Generator):
            if self.quantile is None:
                return rng.standard_normal(shape)
            return self.quantile(np.maximum(rng.random(shape), _SMALLEST_UNIFORM))
        if self.quantile is None:
            return torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float64)
        uniforms = torch.rand(shape, generator=rng, device=rng.device, dtype=torch.float64)
        return self.quantile(uniforms.clamp(min=_SMALLEST_UNIFORM))


def _laplace_quantile(p: Array) -> Any:
    xp = namespace(p)
    tail = xp.where(p < 0.5, p, 1 - p)
    return -_LAPLACE * xp.sign(p - 0.5) * xp.log(2 * tail)


def _logistic_quantile(p: Array) -> Any:
    xp = namespace(p)
    return _LOGISTIC * (xp.log(p) - xp.log1p(-p))


def _gumbel_quantile(p: Array) -> Any:
    xp = namespace(p)
    return -_GUMBEL * (xp.log(-xp.log(p)) + EULER_GAMMA)


def _gumbel_log_density(eps: Tensor) -> Tensor:
    z = eps / _GUMBEL + EULER_GAMMA
    return -z - torch.exp(-z) - math.log(_GUMBEL)


def _uniform_log_density(eps: Tensor) -> Tensor:
    inside = eps.abs() <= _UNIFORM
    return torch.where(inside, -math.log(2 * _UNIFORM) + 0 * eps, -math.inf)


FAMILIES = {
    family.name: family
    for family in (
        NoiseFamily("gaussian", None, lambda eps: -0.5 * eps**2 - 0.5 * math.log(2 * math.pi)),
        NoiseFamily("laplace", _laplace_quantile, lambda eps: -eps.abs() / _LAPLACE - math.log(2 * _LAPLACE)),
        NoiseFamily(
            "logistic",
            _logistic_quantile,
            lambda eps: -eps / _LOGISTIC - 2 * torch.nn.functional.softplus(-eps / _LOGISTIC) - math.log(_LOGISTIC),
        ),
        NoiseFamily("gumbel", _gumbel_quantile, _gumbel_log_density),
        NoiseFamily("uniform", lambda p: _UNIFORM * (2 * p - 1), _uniform_log_density, differentiable=False),
    )
}


def noise_family(name: str) -> NoiseFamily:
    """The family called `name`.

    Args:
        name: of the family.

    Returns:
        The family.

    Raises:
        InputError: there is no such family; the error lists those that there are.
    """
    if name not in FAMILIES:
        raise InputError(f"noise must be one of {', '.join(FAMILIES)}; got {name!r}")
    return FAMILIES[name]


@short_repr
@dataclass(frozen=True)
class Noise:
    """All the randomness of a batch of rollouts: first state s_0, action noise xi_t and process noise w_t, scaled.

    Attributes:
        s_0: the first states themselves.
        xi: action noise of every step.
        w: process noise of every step.
    """

    s_0: Float[Tensor, "batch n"]
    xi: Float[Tensor, "batch steps m"]
    w: Float[Tensor, "batch steps n"]

    def __getitem__(self, index: slice) -> "Noise":
        """The same noise for a part of the batch."""
        return Noise(self.s_0[index], self.xi[index], self.w[index])

    def after(self, t: int) -> "Noise":
        """The noise that is still to come at time t.

        Args:
            t: the time.

        Returns:
            The noise of the steps from t on; s_0 is kept.
        """
        return Noise(self.s_0, self.xi[:, t:], self.w[:, t:])

    def to(self, device: str) -> "Noise":
        """The same numbers on another device.

        Args:
            device: name of a torch device.

        Returns:
            A copy.
        """
        return Noise(self.s_0.to(device), self.xi.to(device), self.w.to(device))


def draw_noise(world: World, batch: int, steps: int, rng: torch.Generator) -> Noise:
    """Draw `s_0 ~ (m_0, S_0)`, `xi_t ~ (0, S_x)` of the world's family and `w_t ~ N(0, S_w)` for `steps` steps.

    Drawn in float64 on the generator's device, so that a CPU generator gives the same numbers to every device.

    Args:
        world: whose laws are taken.
        batch: number of rollouts.
        steps: number of steps.
        rng: of all draws.

    Returns:
        The noise, scaled.
    """
    family, normal = noise_family(world.noise), FAMILIES["gaussian"]
    L_x, L_w = (torch.as_tensor(root, dtype=torch.float64, device=rng.device) for root in (world.L_x, world.L_w))
    first = world.to(str(rng.device)).initial(normal.sample((batch, world.n), rng))
    xi = family.sample((batch, steps, world.m), rng) @ L_x
    return Noise(first, xi, normal.sample((batch, steps, world.n), rng) @ L_w)


def log_density(world: World, xi: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch"]:
    """log p(xi) of `xi = L_x eps`, eps independent of the world's family; needs S_x invertible.

    `log p(xi) = sum_i log p_eps((L_x^{-1} xi)_i) - log det L_x`.

    Args:
        world: whose law is taken.
        xi: action noise, components last.

    Returns:
        The log density of each.

    Raises:
        InputError: S_x is singular.
    """
    L_x = torch.as_tensor(world.L_x, dtype=xi.dtype, device=xi.device)
    scales: Tensor = torch.linalg.eigvalsh(L_x)
    if bool(scales[0] <= 1e-7 * scales[-1]):
        raise InputError("S_x must be positive definite for a density: give every action component some noise")
    eps = xi @ torch.linalg.inv(L_x)
    return noise_family(world.noise).log_density(eps).sum(-1) - scales.log().sum()
