"""The noise of a rollout: its covariances are the world's, and its log density is scipy's."""

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy import stats

from envs.linear_quadratic import LinearQuadratic, random_system
from envs.lq_variants import ChaoticMap
from envs.noise import FAMILIES, draw_noise, log_density
from tests.envs.refusals import refused
from tests.envs.test_noise import ORACLES, every_family
from tests.oracles import assert_mean_within, differs_by


def products(x, y):
    """Per-sample products x_i y_j, one column for each entry of the covariance matrix."""
    return (x[..., :, None] * y[..., None, :]).reshape(-1, x.shape[-1] * y.shape[-1])


@every_family
def test_draws_have_the_covariances_of_the_world(name):
    world = random_system(size=3, noise=name, seed=2)
    noise = draw_noise(world, 15_000, 3, torch.Generator().manual_seed(1))
    assert (noise.s_0.shape, noise.xi.shape, noise.w.shape) == ((15_000, 3), (15_000, 3, 2), (15_000, 3, 3))
    assert_mean_within(noise.s_0, world.m_0)
    assert_mean_within(torch.cat([noise.xi, noise.w], 2).reshape(15_000, -1), torch.zeros(15))
    centred = noise.s_0 - torch.from_numpy(world.m_0)
    for draws, S in ((centred, world.S_0), (noise.xi, world.S_x), (noise.w, world.S_w)):
        assert_mean_within(products(draws, draws), S.reshape(-1))
        assert differs_by(products(draws, draws), 1.2 * S.reshape(-1))
    for x, y in ((noise.xi[:, 0], noise.xi[:, 1]), (noise.w[:, 0], noise.w[:, 2]), (noise.xi, noise.w)):
        assert_mean_within(products(x, y), 0.0)
    assert_mean_within(products(centred, noise.xi[:, 0]), 0.0)


@every_family
def test_action_noise_has_the_law_of_the_world_and_all_other_noise_is_normal(name, rng):
    world = random_system(size=3, noise=name, seed=2)
    noise = draw_noise(world, 8_000, 2, rng)
    s_0, xi, w = noise.s_0.numpy(), noise.xi.numpy(), noise.w.numpy()
    eps, normal, first = xi @ np.linalg.inv(world.L_x), w @ np.linalg.inv(world.L_w), (s_0 - world.m_0) / 0.5
    for draws, family in ((eps, name), (normal, "gaussian"), (first, "gaussian")):
        assert stats.kstest(draws.ravel(), ORACLES[family].cdf).pvalue > 1e-6
        for other in set(FAMILIES) - {family}:
            assert stats.kstest(draws.ravel(), ORACLES[other].cdf).pvalue < 1e-6


@every_family
def test_draws_depend_on_the_seed_alone_not_on_the_library_of_the_world(name):
    world = random_system(noise=name)
    one, same, torchs, other = (
        draw_noise(w, 4, 2, torch.Generator().manual_seed(seed))
        for w, seed in ((world, 1), (world, 1), (world.to(), 1), (world, 2))
    )
    for field in ("s_0", "xi", "w"):
        assert getattr(one, field).dtype == torch.float64
        assert torch.equal(getattr(one, field), getattr(same, field))
        torch.testing.assert_close(getattr(one, field), getattr(torchs, field), rtol=1e-12, atol=1e-14)
        assert not (getattr(one, field) == getattr(other, field)).any()


def test_noise_is_cut_by_batch_and_by_time(rng):
    noise = draw_noise(random_system(), 6, 5, rng)
    part, later = noise[1:3], noise.after(2)
    assert torch.equal(part.s_0, noise.s_0[1:3])
    assert torch.equal(part.xi, noise.xi[1:3])
    assert torch.equal(part.w, noise.w[1:3])
    assert torch.equal(later.s_0, noise.s_0)
    assert torch.equal(later.xi, noise.xi[:, 2:])
    assert torch.equal(later.w, noise.w[:, 2:])
    assert torch.equal(noise.to("cpu").xi, noise.xi)


def full_covariance_world(name):
    S = np.array([[0.5, 0.3, 0.0], [0.3, 0.4, -0.1], [0.0, -0.1, 0.2]])
    return LinearQuadratic(A=np.eye(1), B=np.ones((1, 3)), Q=np.eye(1), R=np.eye(3), S_x=S, noise=name)


def test_the_gaussian_log_density_with_a_full_covariance_equals_scipys(rng):
    world = full_covariance_world("gaussian")
    xi = torch.randn((4, 5, 3), generator=rng, dtype=torch.float64)
    oracle = stats.multivariate_normal(np.zeros(3), world.S_x).logpdf(xi.numpy())
    np.testing.assert_allclose(log_density(world, xi), oracle, rtol=1e-12)
    np.testing.assert_allclose(log_density(world.to(), xi), oracle, rtol=1e-12)


@every_family
def test_log_densities_with_a_full_covariance_are_a_change_of_variables(name, rng):
    world = full_covariance_world(name)
    eps = FAMILIES[name].sample((50, 3), rng)
    root = scipy.linalg.sqrtm(world.S_x).real
    oracle = ORACLES[name].logpdf(eps.numpy()).sum(1) - np.log(np.linalg.det(world.S_x)) / 2
    np.testing.assert_allclose(log_density(world, torch.from_numpy(eps.numpy() @ root)), oracle, rtol=1e-10)


@every_family
def test_the_score_of_the_log_density_is_its_derivative(name, rng):
    xi = (0.1 * torch.randn((6, 3), generator=rng, dtype=torch.float64)).requires_grad_()
    world = full_covariance_world(name)
    assert torch.autograd.gradcheck(lambda x: log_density(world, x), (xi,), eps=1e-7, atol=1e-5)


def test_the_chaotic_map_has_a_density_too():
    xi = torch.tensor([[0.2], [-0.1]], dtype=torch.float64)
    np.testing.assert_allclose(log_density(ChaoticMap(sd=0.3), xi), stats.norm(scale=0.3).logpdf(xi[:, 0]))


@pytest.mark.parametrize("S_x", [np.zeros((2, 2)), np.ones((2, 2)), np.diag([1.0, 0.0]), np.diag([1.0, 1e-16])])
def test_a_singular_covariance_has_no_density(S_x):
    world = LinearQuadratic(A=np.eye(1), B=np.ones((1, 2)), Q=np.eye(1), R=np.eye(2), S_x=S_x)
    with refused("S_x"):
        log_density(world, torch.zeros(3, 2, dtype=torch.float64))
    assert log_density(world.replace(S_x=np.diag([1.0, 1e-6])), torch.zeros(3, 2, dtype=torch.float64)).isfinite().all()
