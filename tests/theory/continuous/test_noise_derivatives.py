"""Derivatives in mean and variance of the noise: moments, characteristic functions and sampled numbers."""

import math

import pytest
import torch

from envs.noise import FAMILIES, noise_family
from envs.world import InputError
from tests.oracles import assert_mean_within, differs_by
from theory.continuous.noise_derivatives import expectation, noise_derivatives

ZETA_3 = 1.2020569031595942
SKEWNESS = {"gumbel": 12 * math.sqrt(6) * ZETA_3 / math.pi**3}
KURTOSIS = {"gaussian": 3.0, "laplace": 6.0, "logistic": 4.2, "gumbel": 5.4, "uniform": 1.8}
MU = torch.tensor([[0.7, -1.2, 0.0]], dtype=torch.float64)
SIGMA = torch.tensor([[0.3], [1.0], [2.0]], dtype=torch.float64)


@pytest.mark.parametrize("noise", FAMILIES)
def test_moments(noise):
    moments = [float(expectation(lambda a, j=j: a**j, noise, 0.0, 1.0)) for j in range(5)]
    assert moments == pytest.approx([1, 0, 1, SKEWNESS.get(noise, 0.0), KURTOSIS[noise]], abs=1e-11)


@pytest.mark.parametrize("noise", FAMILIES)
def test_the_fourth_power_by_its_moments(noise):
    d, k3, k4 = noise_derivatives(lambda a: a**4, noise, MU, SIGMA), SKEWNESS.get(noise, 0.0), KURTOSIS[noise]
    near = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(d.in_mean, 4 * MU**3 + 12 * MU * SIGMA**2 + 4 * k3 * SIGMA**3, **near)
    torch.testing.assert_close(d.bonnet, d.in_mean, **near)
    torch.testing.assert_close(d.in_variance, 6 * MU**2 + 6 * MU * k3 * SIGMA + 2 * k4 * SIGMA**2, **near)
    torch.testing.assert_close(d.price, 6 * MU**2 + 6 * SIGMA**2, **near)
    assert torch.allclose(d.price, d.in_variance, rtol=1e-3) == (noise == "gaussian")


def characteristic(noise, x):
    """E exp(i x eps) of the symmetric families, in closed form."""
    return {
        "gaussian": lambda: (-(x**2) / 2).exp(),
        "laplace": lambda: 1 / (1 + x**2 / 2),
        "logistic": lambda: math.sqrt(3) * x / torch.sinh(math.sqrt(3) * x),
        "uniform": lambda: torch.sin(math.sqrt(3) * x) / (math.sqrt(3) * x),
    }[noise]()


@pytest.mark.parametrize("noise", [name for name in FAMILIES if name != "gumbel"])
def test_the_cosine_by_the_characteristic_function(noise):
    d = noise_derivatives(torch.cos, noise, MU, SIGMA)
    s = SIGMA.clone().requires_grad_()
    phi = characteristic(noise, s)
    (slope,) = torch.autograd.grad(phi.sum(), s)
    phi, half = phi.detach(), MU.cos() * slope / (2 * SIGMA)
    torch.testing.assert_close(d.in_mean, -MU.sin() * phi, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(d.bonnet, -MU.sin() * phi, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(d.in_variance, half, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(d.price, -MU.cos() * phi / 2, rtol=1e-8, atol=1e-10)
    if noise == "laplace":
        torch.testing.assert_close(d.price / d.in_variance, (1 + SIGMA**2 / 2).expand(3, 3), rtol=1e-7, atol=0)


@pytest.mark.parametrize("noise", FAMILIES)
@pytest.mark.parametrize("f", [lambda a: 2 * a**2 - 3 * a + 1, lambda a: 3 * a, lambda a: torch.ones_like(a)])
def test_a_quadratic_function_obeys_price_under_every_noise(f, noise):
    d = noise_derivatives(f, noise, MU, SIGMA)
    torch.testing.assert_close(d.price, d.in_variance, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(d.bonnet, d.in_mean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", FAMILIES)
def test_sampled_slopes_have_these_means(noise):
    """`f'(a)` in the mean and `f'(a) eps / (2 sigma)` in the variance, on the sampler's own draws."""
    eps = noise_family(noise).sample((100_000,), torch.Generator().manual_seed(0))
    d, a = noise_derivatives(torch.sin, noise, 0.4, 0.9), 0.4 + 0.9 * eps
    assert_mean_within(a.cos(), d.in_mean)
    assert_mean_within(a.cos() * eps / 1.8, d.in_variance)
    assert_mean_within(-a.sin() / 2, d.price)
    assert noise == "gaussian" or differs_by(-a.sin() / 2, d.in_variance)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: noise_derivatives(torch.sin, "cauchy", 0.0, 1.0), "^noise must be one of"),
        (lambda: noise_derivatives(torch.sin, "laplace", 0.0, 0.0), "^sigma must be a standard deviation > 0"),
        (lambda: noise_derivatives(torch.sin, "laplace", float("nan"), 1.0), "mu and sigma finite"),
        (lambda: expectation(torch.exp, "laplace", 0.0, 2.0), "^f must have a finite expectation under laplace noise"),
        (lambda: expectation(lambda a: a / 0, "uniform", 1.0, 2.0), "^f must have a finite expectation"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(InputError, match=text):
        call()


def test_exponential_functions_within_reach():
    assert float(expectation(torch.exp, "gaussian", 0.3, 1.5)) == pytest.approx(math.exp(0.3 + 1.5**2 / 2), rel=1e-12)
    assert float(expectation(torch.exp, "laplace", 0.3, 0.7)) == pytest.approx(math.exp(0.3) / (1 - 0.49 / 2), rel=1e-9)
