"""The noise families against scipy's laws."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from envs.noise import FAMILIES, noise_family
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within

_BETA = math.sqrt(6) / math.pi
ORACLES = {
    "gaussian": stats.norm(),
    "laplace": stats.laplace(scale=math.sqrt(0.5)),
    "logistic": stats.logistic(scale=math.sqrt(3) / math.pi),
    "gumbel": stats.gumbel_r(loc=-np.euler_gamma * _BETA, scale=_BETA),
    "uniform": stats.uniform(loc=-math.sqrt(3), scale=2 * math.sqrt(3)),
}
every_family = pytest.mark.parametrize("name", FAMILIES)
either_library = pytest.mark.parametrize(
    "make", [np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)]
)


def density(name, x):
    return math.exp(float(FAMILIES[name].log_density(torch.tensor(x, dtype=torch.float64))))


def integral(f, name):
    """Over the support, split at 0 where the Laplace density has its kink."""
    low, high = (max(-60.0, ORACLES[name].support()[0]), min(60.0, ORACLES[name].support()[1]))
    return sum(integrate.quad(f, *ends, epsabs=1e-12, limit=200)[0] for ends in ((low, 0), (0, high)))


def test_every_family_has_an_oracle_with_mean_0_and_variance_1():
    assert set(FAMILIES) == set(ORACLES)
    for oracle in ORACLES.values():
        np.testing.assert_allclose(oracle.stats("mv"), [0, 1], atol=1e-14)


@every_family
def test_log_densities_equal_scipys(name):
    x = np.linspace(-5, 5, 201)
    ours = FAMILIES[name].log_density(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, ORACLES[name].logpdf(x), rtol=1e-12, atol=1e-12)


@every_family
def test_densities_have_mass_1_mean_0_and_variance_1(name):
    moments = [integral(lambda x, k=k: x**k * density(name, x), name) for k in range(3)]
    np.testing.assert_allclose(moments, [1, 0, 1], atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"gaussian"}))
def test_quantiles_invert_the_integrated_density(name):
    p = np.array([1e-9, 0.001, 0.1, 0.5, 0.73, 0.999])
    quantile = FAMILIES[name].quantile(p)
    np.testing.assert_allclose(quantile, ORACLES[name].ppf(p), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(FAMILIES[name].quantile(torch.from_numpy(p)), quantile, rtol=1e-13)
    low = max(-60.0, ORACLES[name].support()[0])
    for probability, x in zip(p[1:], quantile[1:], strict=True):
        cut = min(x, 0.0)
        mass = (
            integrate.quad(lambda t: density(name, t), low, cut)[0]
            + integrate.quad(lambda t: density(name, t), cut, x)[0]
        )
        assert mass == pytest.approx(probability, abs=1e-8)


@every_family
@either_library
def test_samples_have_mean_0_variance_1_and_the_right_law(name, make):
    sample = torch.as_tensor(FAMILIES[name].sample((40_000,), make(1)))
    assert_mean_within(torch.stack([sample, sample**2], 1), torch.tensor([0.0, 1.0]))
    assert stats.kstest(sample.numpy(), ORACLES[name].cdf).pvalue > 1e-6
    for other in set(FAMILIES) - {name}:
        assert stats.kstest(sample.numpy(), ORACLES[other].cdf).pvalue < 1e-6


@every_family
@either_library
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(name, make):
    one, same, other = (torch.as_tensor(FAMILIES[name].sample((5, 2), make(seed))) for seed in (3, 3, 4))
    assert one.shape == (5, 2)
    assert one.dtype == torch.float64
    assert torch.equal(one, same)
    assert not (one == other).any()


@every_family
def test_a_uniform_draw_of_exactly_zero_gives_a_finite_sample(name, monkeypatch):
    class Zeros(np.random.Generator):
        def random(self, shape):
            return np.zeros(shape)

    assert np.isfinite(FAMILIES[name].sample((3,), Zeros(np.random.PCG64(0)))).all()
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape, dtype=torch.float64))
    assert FAMILIES[name].sample((3,), torch.Generator().manual_seed(0)).isfinite().all()


def mean_slope_by_score(name):
    """`d/dmu E[mu + eps] = E[-eps score(eps)]`, which is 1 if the density vanishes smoothly or not at all."""

    def integrand(x):
        eps = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        (score,) = torch.autograd.grad(FAMILIES[name].log_density(eps), eps)
        return -x * float(score) * density(name, x)

    return integral(integrand, name)


@every_family
def test_the_score_identity_holds_exactly_for_the_families_called_differentiable(name):
    slope = mean_slope_by_score(name)
    assert FAMILIES[name].differentiable == (abs(slope - 1) < 1e-8)
    assert FAMILIES[name].differentiable or slope == 0  # the uniform score sees nothing of its edges


def test_unknown_families_are_refused_with_the_known_ones():
    with refused("noise"):
        noise_family("cauchy")
    for name in FAMILIES:
        assert noise_family(name).name == name
        with pytest.raises(ValueError, match=name):
            noise_family("cauchy")
