"""Ratios of noise densities and clamped noise: closed forms against sums over the noise."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.soft_thoughts import CLAMP
from figures.harness.rows import Row, equals, vanishes
from theory.tokens.noise_scores import clamped_score, noise_ratio

MOMENTS, TOKEN_KL = "noise ratio: KL and second moment", "KL of the noise = KL of the token"
CLAMPED, WHOLE, CHANCES = "clamped noise: mean score 0", "whole noise: mean score 0", "clamped noise: closed mean score"
_ROUNDING, _QUADRATURE = 1e-10, 1e-6


def ratio_rows() -> list[Row]:
    """Closed moments of noise ratios against sums; clamped noise."""
    rows = list[Row]()
    for laws, (old, new) in law_pairs().items():
        kl, second = noise_ratio(old.log(), new.log())
        summed = noise_moments((new / old).log())
        for moment, closed, found in (("KL", kl, summed[0]), ("second moment", second, summed[1])):
            at = {"laws": laws, "moment": moment}
            rows += equals(
                MOMENTS, found, float(closed), float(closed), tolerance=_QUADRATURE * float(closed), labels=at
            )
        token = float(old @ (old / new).log())
        rows += equals(TOKEN_KL, float(kl), token, token, tolerance=_ROUNDING, labels={"laws": laws})
    found, whole = clamped_mean(*CLAMP), clamped_mean(-math.inf, math.inf)
    rows += vanishes(CLAMPED, found, _QUADRATURE, labels={"laws": "any"}) + vanishes(WHOLE, whole, _QUADRATURE)
    return rows + equals(CHANCES, found, clamped_score(*CLAMP).mean, tolerance=_QUADRATURE)


def noise_moments(d: Float[Tensor, "V"], points: int = 4000) -> tuple[float, float]:
    """KL divergence and second moment of the ratio of two noise densities, by sums over `E = e^t` for each token.

    `log rho = d - E (e^d - 1)` for each token, E exponential with mean 1; the tokens' noises are independent.
    """
    E, log_weight = _exponential(points, d)
    log_rho = d[:, None] - E * torch.expm1(d)[:, None]
    second = torch.logsumexp(log_weight + 2 * log_rho, 1).sum().exp()
    return float(-(log_weight.exp() * log_rho).sum()), float(second)


def clamped_mean(low: float, high: float, points: int = 200_000) -> float:
    """The mean of `1 - e^-g` for clamped Gumbel noise g, by the same sum."""
    E, log_weight = _exponential(points, torch.zeros(1, dtype=torch.float64))
    return float((log_weight.exp() * (1 - E.clamp(math.exp(-high), math.exp(-low)))).sum())


def _exponential(points: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Points of an exponential variable with mean 1, and the logarithms of their weights."""
    t = torch.linspace(-45.0, 8.0, points, dtype=torch.float64, device=like.device)
    E = t.exp()
    return E, (t[1] - t[0]).log() + t - E


def law_pairs() -> dict[str, tuple[Tensor, Tensor]]:
    """Laws before and after an update, by name; no log-probability falls by ln 2 or more."""
    rng = torch.Generator().manual_seed(0)
    moved = torch.rand(5, generator=rng, dtype=torch.float64)
    five = torch.softmax(2 * torch.randn(5, generator=rng, dtype=torch.float64), -1)
    tail = torch.cat([torch.tensor([0.9]), torch.full((1000,), 0.1 / 1000)]).double()
    sign = torch.cat([torch.zeros(1), torch.ones(500), -torch.ones(500)]).double()
    pairs = {
        "3 tokens": (torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.66, 0.28, 0.06]).double()),
        "5 tokens": (five, five * (0.8 + 0.4 * moved)),
        "tail of 1000 tokens": (tail, tail * (1 + 0.1 * sign)),
    }
    return {name: (old, new / new.sum()) for name, (old, new) in pairs.items()}
