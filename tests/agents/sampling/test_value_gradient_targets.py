"""VGL targets are total derivatives of TD(lambda) returns, path by path."""

import pytest
import torch

from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import path_targets, vgl_targets
from envs.linear_quadratic import random_system
from envs.lq_variants import ChaoticMap
from envs.noise import draw_noise
from envs.world import InputError
from theory.continuous.costates import costate_recursion, path_derivatives


class Policy:
    """Non-linear, and different at every time."""

    window = 1

    def __init__(self, m):
        self.m = m

    def command(self, state, t):
        return (0.1 * t - torch.tanh((0.8 + 0.1 * t) * state.sum(-1, keepdim=True))).expand(*state.shape[:-1], self.m)

    def __call__(self, history, t):
        return self.command(history[:, -1], t)


def value(state, t):
    """A critic that is no quadratic."""
    return torch.sin(state.sum(-1) + 0.3 * t) + (state**3).sum(-1)


def paths(world, rng, batch=3):
    policy, noise = Policy(world.m), draw_noise(world, batch, world.horizon, rng)
    trajectory = rollout(world, policy, noise)
    return policy, noise, trajectory


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("world", [random_system(3, 2, seed=1, horizon=4, gamma=0.8), ChaoticMap(horizon=4, gamma=0.7)])
def test_targets_are_derivatives_of_the_td_lambda_return(world, lam, rng):
    policy, noise, trajectory = paths(world, rng)
    states = trajectory.states.detach()
    free = states.clone().requires_grad_()
    G = torch.autograd.grad(sum(value(free[:, t], t).sum() for t in range(5)), free)[0]
    found = vgl_targets(*path_derivatives(world, policy.command, states, noise.xi, noise.w), G, world.gamma, lam)
    total = trajectory.rewards[:, -1]
    for t in reversed(range(4)):  # the return is computed on the path that is attached to the probes
        ahead = lam * total + (1 - lam) * value(trajectory.states[:, t + 1], t + 1)
        total = trajectory.rewards[:, t] + world.gamma * ahead
        (slope,) = torch.autograd.grad(total.sum(), trajectory.state_probe, retain_graph=True)
        torch.testing.assert_close(found[:, t], slope[:, t], rtol=1e-10, atol=1e-12)
    critic = lambda s, t: torch.autograd.grad(value(x := s.clone().requires_grad_(), t).sum(), x)[0]  # noqa: E731
    one_pass = path_targets(world, policy, states, noise, critic, lam)
    torch.testing.assert_close(one_pass, found, rtol=1e-10, atol=1e-12)
    partial = path_derivatives(world, lambda s, t: policy.command(s.detach(), t), states, noise.xi, noise.w)
    assert not torch.allclose(vgl_targets(*partial, G, world.gamma, lam)[:, 0], found[:, 0], rtol=1e-3), "the control"


def test_one_is_the_costate_and_zero_needs_the_next_state_alone(rng):
    gen = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    Dr, Df, terminal, G = gen(2, 3, 4), gen(2, 3, 4, 4), gen(2, 4), gen(2, 4, 4)
    torch.testing.assert_close(vgl_targets(Dr, Df, terminal, G, 0.9, 1.0), costate_recursion(Dr, Df, terminal, 0.9))
    bootstrapped = Dr + 0.9 * (Df.mT @ G[:, 1:, :, None])[..., 0]
    torch.testing.assert_close(vgl_targets(Dr, Df, terminal, G, 0.9, 0.0)[:, :-1], bootstrapped)
    assert not torch.allclose(vgl_targets(Dr, Df, terminal, G, 0.9, 0.5)[:, 0], bootstrapped[:, 0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lam": 1.1}, "lam must lie in [0, 1]; got 1.1"),
        ({"gamma": 0.0}, "gamma must lie in (0, 1]"),
        ({"terminal": torch.zeros(2, 3)}, "terminal must have shape (2, 4) beside Dr of (2, 3, 4); got (2, 3)"),
        ({"critic_gradients": torch.zeros(2, 3, 4)}, "critic_gradients must have shape (2, 4, 4)"),
        ({"Df": torch.zeros(2, 3, 4, 5)}, "Df must have shape (2, 3, 4, 4)"),
    ],
)
def test_what_does_not_fit_is_refused(change, says, unchecked):
    given = {"Dr": torch.zeros(2, 3, 4), "Df": torch.zeros(2, 3, 4, 4), "terminal": torch.zeros(2, 4)}
    given |= {"critic_gradients": torch.zeros(2, 4, 4), "gamma": 0.9, "lam": 0.5}
    with pytest.raises(InputError) as error:
        vgl_targets(**{**given, **change})
    assert str(error.value).startswith(says)


def test_targets_of_a_policy_with_memory_are_refused(rng):
    world = random_system(2, 1, seed=1, horizon=4)
    policy, noise, trajectory = paths(world, rng)
    policy.window = 2
    with pytest.raises(InputError, match=r"^policy must read the current state only"):
        path_targets(world, policy, trajectory.states, noise, lambda s, t: s, 0.5)


def test_an_endless_path_ends_without_a_reward(rng):
    world = random_system(2, 1, seed=1)
    policy, noise = Policy(1), draw_noise(world, 3, 4, rng)
    states = rollout(world, policy, noise).states.detach()
    found = path_targets(world, policy, states, noise, lambda s, t: 2 * s, 0.3)
    exact = vgl_targets(
        *path_derivatives(world, policy.command, states, noise.xi, noise.w), 2 * states, world.gamma, 0.3
    )
    torch.testing.assert_close(found, exact)
    assert not found[:, -1].any()
