"""A linear field as critic: its update is VGL's, its curl dies at the exact rate, and an actor on it reaches the optimum."""

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.policies.linear_field import LinearField, field_loss
from agents.sampling.pathwise import critic_gradient
from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import path_targets
from envs.linear_quadratic import random_system
from envs.noise import draw_noise
from envs.world import InputError
from tests.theory.cases import stable_gain
from theory.continuous.lyapunov import linear_value
from theory.continuous.riccati import riccati
from theory.continuous.value_gradient_targets import mean_target


def test_the_slope_of_the_loss_is_the_update_of_vgl(rng):
    field = LinearField(3, 5)
    states, targets = (torch.randn(7, 5, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    root = torch.randn(5, 3, 3, generator=rng, dtype=torch.float64)
    with torch.no_grad():
        field.X += torch.randn(5, 3, 3, generator=rng, dtype=torch.float64)
    for Omega in (None, root @ root.mT, root[0] @ root[0].mT):
        loss = field_loss(field.along(states), targets, Omega)
        slope, offset = torch.autograd.grad(loss, (field.X, field.c))
        weights = torch.eye(3).double().expand(5, 3, 3) if Omega is None else Omega.expand(5, 3, 3)
        exact = torch.zeros(5, 3, 3).double()
        for t in range(5):
            e = (targets[:, t] - field(states[:, t], t)).detach()
            exact[t] = weights[t] @ e.mT @ states[:, t] / 7
            torch.testing.assert_close(-offset[t], weights[t] @ e.mean(0))
        torch.testing.assert_close(-slope, exact)


def test_the_curl_is_that_of_the_matrix():
    field = LinearField(2, 3)
    with torch.no_grad():
        field.X[1] = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        field.X[2] = torch.tensor([[1.0, 2.0], [2.0, 3.0]])
    torch.testing.assert_close(field.curl, torch.tensor([0.0, 2.0, 0.0]).double())


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_a_field_that_is_fitted_comes_to_the_value_gradient(lam, rng):
    """Least squares sweep by sweep on paths, from a field with a curl: after T + 1 sweeps only noise is left."""
    world = random_system(2, 1, seed=3, horizon=4, gamma=0.9, action_noise=0.05)
    K = stable_gain(world)
    policy, noise = LinearPolicy(K), draw_noise(world, 4000, 4, rng)
    states, field = rollout(world, policy, noise).states.detach(), LinearField(2, 5)
    with torch.no_grad():
        field.X += torch.tensor([[0.0, 3.0], [-3.0, 0.0]]).double()
    first = path_targets(world, policy, states, noise, field, lam)
    for sweep in range(6):
        targets = path_targets(world, policy, states, noise, field, lam)
        with torch.no_grad():
            for t in range(5):
                ones = torch.cat([states[:, t], torch.ones(len(states), 1)], 1)
                fitted = torch.linalg.lstsq(ones, targets[:, t]).solution.mT
                field.X[t], field.c[t] = fitted[:, :2], fitted[:, 2]
        if sweep == 0:
            exact = mean_target(world, K, torch.tensor([[0.0, 3.0], [-3.0, 0.0]]).double(), lam)
            torch.testing.assert_close(field.X.detach(), exact, rtol=0.05, atol=0.05)
    P = linear_value(world, K).P
    torch.testing.assert_close(field.X.detach(), -2 * P, rtol=0.05, atol=0.05)
    assert float(field.curl.max()) < 0.05
    assert lam == 1 or not torch.allclose(first, targets, atol=0.5)


def test_an_actor_on_a_learned_field_reaches_the_optimum(rng):
    """VGL(0.7) as a critic and the pathwise actor on it, both by Adam; with a field that learns nothing it does not."""
    world = random_system(2, 1, seed=3, horizon=4, gamma=0.9)

    def J(policy):
        P, p, c = linear_value(world, policy.K.detach()).at(0)
        m = torch.as_tensor(world.m_0)
        return -float(m @ P @ m + (P * torch.as_tensor(world.S_0)).sum() + 2 * p @ m + c)

    def trained(learns):
        policy, field = LinearPolicy(torch.zeros(4, 1, 2)), LinearField(2, 5)
        actor, critic = (torch.optim.Adam(net.parameters(), lr=0.1) for net in (policy, field))
        for _ in range(80):
            noise = draw_noise(world, 32, 4, rng)
            trajectory = rollout(world, policy, noise)
            states = trajectory.states.detach()
            if learns:
                critic.zero_grad()
                field_loss(field.along(states), path_targets(world, policy, states, noise, field, 0.7)).backward()
                critic.step()
            policy.K.grad = -critic_gradient(world, policy, trajectory, field)["K"].mean(0)
            actor.step()
        return J(policy)

    best, start = J(LinearPolicy(riccati(world).K)), J(LinearPolicy(torch.zeros(4, 1, 2)))
    assert trained(True) > best - 0.05 * (best - start)
    assert trained(False) < best - 0.3 * (best - start)


def test_a_weight_that_does_not_fit_is_refused(unchecked):
    error = torch.zeros(2, 3, 2).double()
    with pytest.raises(InputError, match=r"^Omega must be positive semidefinite"):
        field_loss(error, error, -torch.eye(2).double())
    with pytest.raises(InputError, match=r"^Omega must have shape \(2, 2\) or \(3, 2, 2\); got \(3, 3\)"):
        field_loss(error, error, torch.eye(3).double())
    with pytest.raises(InputError, match=r"^times must be a whole number >= 1; got 0"):
        LinearField(2, 0)
