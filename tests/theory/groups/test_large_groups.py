"""Limits of kappa and of the objective: the rests of Riemann sums, plain integrals, and the orders of what is left."""

import math

import pytest
import torch

from theory.groups.binary_rewards import grpo_kappa
from theory.groups.large_groups import (
    ZETA_HALF,
    approximate_objective_gap,
    kappa_gap_correction,
    kappa_gap_ratio,
    leading_objective_gap,
    objective_gap,
)

P = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)


def test_zeta_is_the_rest_of_riemann_sums():
    N = 10**6
    sums = float(torch.arange(1, N + 1, dtype=torch.float64).rsqrt().sum())
    assert sums - 2 * N**0.5 - 0.5 / N**0.5 == pytest.approx(ZETA_HALF, abs=1e-9)


def integral(P, G):
    """F_G as the plain integral of its definition, by the trapezoidal rule."""
    grid = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    at = (P[:, None] * grid).clamp(min=1e-300)
    kappa = torch.zeros_like(at)
    for j in range(1, G):
        log_C = math.lgamma(G + 1) - math.lgamma(j + 1) - math.lgamma(G - j + 1)
        term = (log_C + (j - 1) * at.log() + (G - j - 1) * (-at).log1p()).exp()
        kappa += term * math.sqrt(j / G * (1 - j / G))
    return P * torch.trapezoid(kappa, grid, dim=1)


@pytest.mark.parametrize("G", [64, 256])
def test_the_objectives_gap_is_its_first_two_terms_up_to_the_third(G):
    gap = 2 * P.sqrt().asin() - integral(P, G)
    torch.testing.assert_close(objective_gap(P, G), gap, rtol=0, atol=1e-6)
    assert float((gap - approximate_objective_gap(P, G)).abs().max()) < 0.5 / G**1.5
    assert float((gap - leading_objective_gap(G)).abs().max()) > 0.5 / G**1.5, "the control: one term is not enough"


def test_kappas_gap_is_its_first_two_terms_up_to_the_third():
    rests = [(kappa_gap_ratio(P, G) - 1 - kappa_gap_correction(P, G)).abs() * G**2 for G in (128, 256, 512)]
    torch.testing.assert_close(rests[1], rests[2], rtol=0.1, atol=0)
    sizes = [(kappa_gap_ratio(P, G) - 1).abs() * G**2 for G in (256, 512)]
    assert float((sizes[1] / sizes[0]).min()) > 1.8, "the control: without the second term the rest falls like 1/G"


def test_kappas_gap_in_its_own_units():
    sd = (P * (1 - P)).sqrt()
    torch.testing.assert_close(1 / sd - kappa_gap_ratio(P, 100) / (800 * sd**3), grpo_kappa(P, 100))
