"""Mean costates of attention policies: split by path, with attention closed, and their sizes, against autograd's."""

import numpy as np
import pytest
import torch

from agents.policies.linear import ClosedPath, LinearPolicy, PositionAttention
from agents.sampling.rollout import rollout
from envs.linear_quadratic import random_system
from envs.noise import Noise, draw_noise
from envs.stacked_history import stack_history
from tests.oracles import assert_mean_within, differs_by
from tests.theory.cases import tensor
from theory.continuous.attention import (
    attention_offsets,
    attention_split,
    history_gain,
    mean_costate_norm,
    mean_costate_size,
    stacked_noise,
)
from theory.continuous.costates import autograd_costates
from theory.continuous.lyapunov import linear_value
from theory.continuous.quadrature import quadrature_value_gradient

PATHS = 20_000


def costates_of(world, policy, noise, start):
    trajectory = rollout(world, policy, noise, start.expand(len(noise.xi), world.n))
    return autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma), trajectory.states.detach()


ATTENTION = {
    "two_heads": PositionAttention([[0.3, -0.2, 0.5], [0.0, 1.0, -1.0]], [[[0.5, 0.2]], [[-0.3, 0.4]]]),
    "long_memory": PositionAttention([[0.1, 0.4, -0.3, 0.2, 0.9]], [[[0.6, 0.3]]]),
    "no_memory": PositionAttention([[0.0]], [[[0.5, 0.2]]]),
}
WORLD = random_system(2, 1, seed=2, horizon=5, gamma=0.9)


class HiddenLater:
    """The policy, with s_k a constant for autograd wherever a later token looks back at it."""

    def __init__(self, policy, k):
        self.policy, self.k, self.window = policy, k, policy.window

    def __call__(self, history, t):
        first = t + 1 - history.shape[1]
        parts = [s.detach() if first + i == self.k < t else s for i, s in enumerate(history.unbind(1))]
        return self.policy(torch.stack(parts, 1), t)


def given_history(rng, t, paths):
    """Noise that is the same on every path before t, and free afterwards: s_t and its history are then given."""
    noise = draw_noise(WORLD, paths, 5, rng)
    for part in (noise.xi, noise.w):
        part[:, :t] = part[:1, :t].clone()
    return noise


def stacked(states, t, window):
    """`[s_t, s_{t-1}, ...]` with zeros before the start, of the first path."""
    back = [states[0, t - j] if j <= t else torch.zeros_like(states[0, 0]) for j in range(window)]
    return torch.cat(back)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("t", [0, 2, 4])
def test_attention_split_is_that_of_autograd_costates(name, t, rng):
    policy, start = ATTENTION[name], tensor([0.8, -0.5])
    noise = given_history(rng, t, PATHS)
    costates, states = costates_of(WORLD, policy, noise, start)
    history = stacked(states, t, policy.window)
    total, attention, closed = (-2 * part[t] @ history for part in attention_split(WORLD, policy.gains(5).detach()))
    without, _ = costates_of(WORLD, HiddenLater(policy, t), noise, start)
    cut, _ = costates_of(WORLD, ClosedPath(policy, "past"), noise, start)
    assert_mean_within(costates[:, t], total)
    assert_mean_within(costates[:, t] - without[:, t], attention)
    assert_mean_within(cut[:, t], closed)
    if policy.window > 1 and t < 4:
        assert differs_by(cut[:, t], total), "the control: closing attention changes the mean"
        assert differs_by(costates[:, t] - cut[:, t], attention), (
            "closing it at every step is not the attention part alone"
        )


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_split_is_exact_on_the_mean_path(name):
    """All three are linear in the noise, so one path without noise gives their means at every time."""
    policy, start = ATTENTION[name], tensor([0.8, -0.5])
    quiet = Noise(torch.zeros(1, 2).double(), torch.zeros(1, 5, 1).double(), torch.zeros(1, 5, 2).double())
    costates, states = costates_of(WORLD, policy, quiet, start)
    cut, _ = costates_of(WORLD, ClosedPath(policy, "past"), quiet, start)
    split = attention_split(WORLD, policy.gains(5).detach())
    assert all(part.shape == (6, 2, 2 * policy.window) for part in split)
    for t in range(6):
        total, attention, closed = (-2 * part[t] @ stacked(states, t, policy.window) for part in split)
        without, _ = costates_of(WORLD, HiddenLater(policy, t), quiet, start)
        torch.testing.assert_close(total, costates[0, t], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(attention, (costates - without)[0, t], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(closed, cut[0, t], rtol=1e-10, atol=1e-13)


def test_the_total_is_the_value_gradient_by_quadrature():
    policy, start = ATTENTION["two_heads"], tensor([0.8, -0.5])
    world = WORLD.replace(horizon=2)
    total, attention, _ = attention_split(world, policy.gains(2).detach())
    truth = quadrature_value_gradient(world, policy, start, nodes=2)
    torch.testing.assert_close(-2 * total[0, :, :2] @ start, truth, rtol=1e-7, atol=1e-9)
    assert attention[0].abs().max() > 1e-3


def test_without_memory_there_is_no_attention_part():
    total, attention, closed = attention_split(WORLD, ATTENTION["no_memory"].gains(5).detach())
    assert not attention.any()
    torch.testing.assert_close(total, closed, rtol=1e-12, atol=1e-14)
    plain = linear_value(WORLD, ATTENTION["no_memory"].W[0].detach())
    torch.testing.assert_close(total, plain.P, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("actions", [1, 2])
def test_history_gain_makes_the_stacked_linear_policy(actions, rng):
    """The gain on the stacked history gives the command of the attention policy, lag by lag."""
    maps = torch.randn(2, actions, 2, generator=rng, dtype=torch.float64)
    policy = PositionAttention([[0.3, -0.2, 0.5], [0.0, 1.0, -1.0]], maps)
    states, K = torch.randn(1, 5, 2, generator=rng, dtype=torch.float64), history_gain(policy.gains(5).detach())
    assert K.shape == (5, actions, 6)
    for t in range(5):
        command = policy(states[:, max(0, t - 2) : t + 1], t)
        torch.testing.assert_close(-K[t] @ stacked(states, t, 3), command[0].detach(), rtol=1e-12, atol=1e-14)
    assert np.allclose(stack_history(WORLD, 3).A[2:, :4], np.eye(4))


def test_stacked_noise_gives_the_same_paths_and_the_memory_of_each_state_its_attention_part(rng):
    """What reaches s_t through the older blocks of the stacked state is the attention part, path by path."""
    policy = ATTENTION["two_heads"]
    noise, memory = draw_noise(WORLD, 7, 5, rng), LinearPolicy(history_gain(policy.gains(5).detach()))
    lifted = rollout(stack_history(WORLD, 3), memory, stacked_noise(noise, 6))
    plain = rollout(WORLD, policy, noise)
    torch.testing.assert_close(lifted.states[..., :2], plain.states, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(lifted.states[:, 1:, 2:4], plain.states[:, :-1], rtol=1e-11, atol=1e-13)
    assert not lifted.states[:, 0, 2:].any()
    slots = autograd_costates(lifted.returns, lifted.state_probe, 0.9)
    costates = autograd_costates(plain.returns, plain.state_probe, 0.9)
    for t in (0, 2):
        without = rollout(WORLD, HiddenLater(policy, t), noise)
        hidden = autograd_costates(without.returns, without.state_probe, 0.9)
        torch.testing.assert_close(0.9 * slots[:, t + 1, 2:4], (costates - hidden)[:, t], rtol=1e-10, atol=1e-13)


def test_sizes_are_root_mean_squares_over_histories(rng):
    P, root = (torch.randn(2, 6, 6, generator=rng, dtype=torch.float64) for _ in range(2))
    P = P[:, :2]
    histories = torch.randn(200_000, 6, generator=rng, dtype=torch.float64) @ root[0].mT
    costates, Sigma = -2 * histories @ P[0].mT, root @ root.mT
    assert_mean_within(costates.square(), mean_costate_size(P, Sigma)[0].square())
    assert_mean_within(costates.square().sum(1), mean_costate_norm(P[0], Sigma[0]).square())
    assert differs_by(costates.square(), mean_costate_size(P, Sigma)[1].square())


PRICED = WORLD.replace(N=[[0.3], [-0.4]], q=[0.7, -0.2], q_a=[1.1], q_f=[-0.6, 0.9])


@pytest.mark.parametrize("name", ATTENTION)
def test_cross_term_and_linear_costs_enter_all_three_parts_exactly(name):
    policy, start = ATTENTION[name], tensor([0.8, -0.5])
    quiet = Noise(torch.zeros(1, 2).double(), torch.zeros(1, 5, 1).double(), torch.zeros(1, 5, 2).double())
    costates, states = costates_of(PRICED, policy, quiet, start)
    cut, _ = costates_of(PRICED, ClosedPath(policy, "past"), quiet, start)
    gains = policy.gains(5).detach()
    parts = list(zip(attention_split(PRICED, gains), attention_offsets(PRICED, gains), strict=True))
    for t in range(6):
        history = stacked(states, t, policy.window)
        total, attention, closed = (-2 * (split[t] @ history + offset[t]) for split, offset in parts)
        without, _ = costates_of(PRICED, HiddenLater(policy, t), quiet, start)
        torch.testing.assert_close(total, costates[0, t], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(attention, (costates - without)[0, t], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(closed, cut[0, t], rtol=1e-10, atol=1e-13)
    for dropped in ({"N": None}, {"q": None}, {"q_a": None}, {"q_f": None}):  # the control: each of them counts
        other = PRICED.replace(**dropped)
        gap = (attention_split(other, gains).closed - attention_split(PRICED, gains).closed).abs().max()
        gap += (attention_offsets(other, gains).closed - attention_offsets(PRICED, gains).closed).abs().max()
        assert float(gap) > 1e-2, dropped
    assert not attention_offsets(WORLD, gains).total.any()
