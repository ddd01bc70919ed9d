"""The common mean of GAE and VGL: exact sums over two-point noise, sampled paths, and the policy gradient as its limits."""

import itertools

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.lambda_returns import gae_gradient
from agents.sampling.pathwise import critic_gradient
from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import vgl_targets
from envs.linear_quadratic import LinearQuadratic, random_system
from envs.noise import Noise, draw_noise
from envs.world import InputError
from tests.oracles import assert_mean_within
from theory.continuous.costates import path_derivatives
from theory.continuous.endless import cut_endless
from theory.continuous.lambda_gradient import lambda_gradient
from theory.continuous.lq_gradients import policy_gradient
from theory.continuous.lyapunov import QuadraticValue, linear_value

close = torch.testing.assert_close
LAMS = (0.0, 0.4, 1.0)


def general(horizon=2, noise="gaussian"):
    """Two states, one action, every kind of cost, a start that is not 0."""
    return LinearQuadratic(
        A=[[0.9, 0.4], [-0.2, 0.7]],
        B=[[0.3], [1.0]],
        Q=[[1.0, 0.2], [0.2, 0.5]],
        R=[[0.8]],
        Q_f=[[2.0, 0.0], [0.0, 1.0]],
        N=[[0.1], [0.2]],
        q=[0.3, -0.1],
        q_a=[0.2],
        q_f=[0.5, 0.1],
        S_w=[[0.04, 0.01], [0.01, 0.02]],
        S_x=[[0.25]],
        m_0=[1.0, -0.5],
        gamma=0.9,
        horizon=horizon,
        noise=noise,
    ).to()


K, OFFSET = torch.tensor([[0.3, 0.5]]).double(), torch.tensor([0.4]).double()


def wrong(world, seed=0):
    """A critic whose matrix and slope are wrong at every time."""
    rng, T = torch.Generator().manual_seed(seed), (world.horizon or 0) + 1
    X = torch.randn(T, world.n, world.n, generator=rng).double()
    shapes = (X + X.mT, torch.randn(T, world.n, generator=rng).double(), torch.randn(T, generator=rng).double())
    return QuadraticValue(*shapes) if world.horizon else QuadraticValue(*(x[0] for x in shapes))


def both(world, policy, noise, critic, lam, command):
    """Per-path gradients of GAE and of VGL."""
    trajectory = rollout(world, policy, noise)
    states = trajectory.states.detach()
    values = torch.stack([critic.value(s, t) for t, s in enumerate(states.unbind(1))], 1)
    gradients = torch.stack([critic.gradient(s, t) for t, s in enumerate(states.unbind(1))], 1)
    targets = vgl_targets(*path_derivatives(world, command, states, noise.xi, noise.w), gradients, world.gamma, lam)
    ahead = lam * targets + (1 - lam) * gradients
    pathwise = critic_gradient(world, policy, trajectory, lambda s, t: ahead[:, t])
    return gae_gradient(world, policy, trajectory, values, lam)["K"], pathwise["K"]


def two_point_noise(world):
    """All signs of the standard noise: its mean and covariance are right, so means of quadratic functions are exact."""
    n, m, T = world.n, world.m, world.horizon
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=n + T * (n + m)))).double()
    s_0, xi, w = signs.split([n, T * m, T * n], 1)
    return Noise(world.m_0 + s_0 @ world.L_0, xi.reshape(-1, T, m) @ world.L_x, w.reshape(-1, T, n) @ world.L_w)


@pytest.mark.parametrize("lam", LAMS)
def test_vgl_has_this_mean_to_rounding_over_two_point_noise(lam):
    world = general()
    critic, policy = wrong(world), LinearPolicy(K, OFFSET)
    command = lambda s, t: -s @ K.mT - OFFSET  # noqa: E731
    _, pathwise = both(world, policy, two_point_noise(world), critic, lam, command)
    found = lambda_gradient(world, K, critic, lam, OFFSET)
    close(pathwise.mean(0), found)
    if lam < 1:
        assert float((found - lambda_gradient(world, K, wrong(world, 1), lam, OFFSET)).norm()) > 0.1


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "logistic", "gumbel"])
def test_gae_and_vgl_have_this_mean_on_sampled_paths(noise):
    world = general(horizon=3, noise=noise)
    critic, policy = wrong(world), LinearPolicy(K, OFFSET)
    sample = draw_noise(world, 40_000, 3, torch.Generator().manual_seed(0))
    for lam in (0.0, 0.6):
        found = lambda_gradient(world, K, critic, lam, OFFSET)
        for each in both(world, policy, sample, critic, lam, lambda s, t: -s @ K.mT - OFFSET):
            assert_mean_within(each, found)
            error = each.std(0) / len(each) ** 0.5
            assert float(((found - policy_gradient(world, K, OFFSET)).abs() / error).max()) > 6


@pytest.mark.parametrize("horizon", [4, None])
@pytest.mark.parametrize("lam", LAMS)
def test_the_exact_value_and_lambda_1_give_the_policy_gradient(horizon, lam):
    world = random_system(size=3, actions=2, seed=4, horizon=horizon, gamma=0.9).to()
    gain = 0.1 * torch.ones(2, 3).double()
    truth = policy_gradient(world, gain)
    close(lambda_gradient(world, gain, linear_value(world, gain), lam), truth)
    off = lambda_gradient(world, gain, wrong(world), lam)
    assert torch.allclose(off, truth) == (lam == 1)


def test_linear_costs_and_offsets_too_with_and_without_an_end():
    for horizon in (4, None):
        world = general(horizon)
        value = linear_value(world, K, OFFSET)
        for lam in LAMS:
            close(lambda_gradient(world, K, value, lam, OFFSET), policy_gradient(world, K, OFFSET))


@pytest.mark.parametrize("lam", LAMS)
def test_an_endless_world_is_the_limit_of_long_ones(lam):
    world = general(None)
    critic = wrong(world)
    long = cut_endless(world, K, 250, k=OFFSET)
    P, p, c = (x.expand(long.horizon + 1, *x.shape) for x in (critic.P, critic.p, critic.c))
    found = lambda_gradient(world, K, critic, lam, OFFSET)
    close(found, lambda_gradient(long, K, QuadraticValue(P, p, c), lam, OFFSET), rtol=1e-8, atol=1e-8)


def test_a_gain_that_changes_with_time_keeps_its_terms_apart():
    world = general(3)
    gains = K + 0.2 * torch.randn(3, 1, 2, generator=torch.Generator().manual_seed(1)).double()
    terms = lambda_gradient(world, gains, linear_value(world, gains, OFFSET), 0.3, OFFSET)
    close(terms, policy_gradient(world, gains, OFFSET))
    same = lambda_gradient(world, K.expand(3, 1, 2), wrong(world), 0.3, OFFSET)
    close(same.sum(0), lambda_gradient(world, K, wrong(world), 0.3, OFFSET))


def zeros(times, p=0.0):
    return QuadraticValue(
        *(torch.full((times, *size), x).double() for size, x in (((2, 2), 0.0), ((2,), p), ((), 0.0)))
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lam": 1.2}, r"^lam must lie in \[0, 1\]"),
        ({"critic": zeros(5)}, "^X must have shape"),
        ({"critic": zeros(3, torch.nan)}, "^critic must have p of shape .* finite"),
        ({"K": torch.zeros(2, 2).double()}, "^K must have shape"),
    ],
)
def test_refusals(change, text):
    world = general()
    with pytest.raises(InputError, match=text):
        lambda_gradient(world, **{"K": K, "critic": wrong(world), "lam": 0.5} | change)
