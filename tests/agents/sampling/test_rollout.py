"""The sampler against a plain loop, its probes against finite differences, and the record that it returns."""

import dataclasses

import numpy as np
import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from envs.lq_variants import quantised_action
from envs.noise import Noise, draw_noise
from envs.stacked_history import stack_history
from envs.world import InputError
from tests.agents.cases import POLICIES, T, attention, draws, plain_path, return_from, sample, small, world
from tests.oracles import numerical_gradient
from theory.continuous.attention import history_gain

ENDLESS = {"horizon": None}


def loop(lq, K, noise):
    """States, commands, actions, rewards of u = -K_t s in plain numpy, all samples at once."""
    A, B, Q, R, Q_f = (np.asarray(getattr(lq, name)) for name in ("A", "B", "Q", "R", "Q_f"))
    xi, w = noise.xi.numpy(), noise.w.numpy()
    s, commands, actions, rewards = [noise.s_0.numpy()], [], [], []
    for t in range(xi.shape[1]):
        commands.append(-s[t] @ K[t].T)
        a = commands[t] + xi[:, t]
        actions.append(a)
        rewards.append(-np.einsum("bi,ij,bj->b", s[t], Q, s[t]) - np.einsum("bi,ij,bj->b", a, R, a))
        s.append(s[t] @ A.T + a @ B.T + w[:, t])
    rewards.append(-np.einsum("bi,ij,bj->b", s[-1], Q_f, s[-1]) * (lq.horizon is not None))
    return [np.stack(part, 1) for part in (s, commands, actions, rewards)]


@pytest.mark.parametrize("changes", [{}, ENDLESS])
def test_paths_equal_a_plain_loop_on_the_same_noise(changes, rng):
    lq, K = world(**changes), 0.4 * draws(T, 2, 3)
    noise, path = sample(lq, LinearPolicy(K), 6, rng, steps=T)
    expected = loop(lq, K.numpy(), noise)
    for mine, theirs in zip((path.states, path.commands, path.actions, path.rewards), expected, strict=True):
        np.testing.assert_allclose(mine.detach(), theirs, rtol=1e-11, atol=1e-13)
    discounts = lq.gamma ** np.arange(T + 1)
    np.testing.assert_allclose(path.returns.detach(), expected[3] @ discounts, rtol=1e-12)
    assert path.rewards[:, -1].any() == (lq.horizon is not None)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_sees_the_history_it_asks_for(name, rng):
    lq, policy = world(), POLICIES[name]()
    noise, path = sample(lq, policy, 3, rng)
    for i in range(3):
        states, commands, actions, rewards = plain_path(lq, policy, noise, i)
        for mine, plain in zip(
            (path.states, path.commands, path.actions, path.rewards), (states, commands, actions, rewards), strict=True
        ):
            torch.testing.assert_close(mine[i], torch.stack(plain), rtol=1e-11, atol=1e-13)


def test_matched_noise_gives_matched_paths(rng):
    lq, policy = world(), POLICIES["network"]()
    noise, path = sample(lq, policy, 8, rng)
    again, part = rollout(lq, policy, noise), rollout(lq, policy, noise[2:5])
    assert torch.equal(path.states, again.states)
    torch.testing.assert_close(path.states[2:5], part.states, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(path.returns[2:5], part.returns, rtol=1e-12, atol=1e-14)
    assert not torch.isclose(path.states[2:5], path.states[3:6]).any()


def test_the_executed_action_is_the_one_of_the_world(rng):
    policy, variant = LinearPolicy([[0.8]]), quantised_action(quantum=0.5, horizon=3)
    noise, path = sample(variant, policy, 20, rng)
    torch.testing.assert_close(path.actions, 0.5 * torch.round((path.commands + noise.xi) / 0.5), rtol=1e-14, atol=0)
    assert not torch.equal(path.actions, path.commands + noise.xi)


def test_start_replaces_the_first_states_only(rng):
    lq, policy = world(), POLICIES["linear"]()
    noise, start = draw_noise(lq, 5, T, rng), draws(5, 3, seed=9)
    path = rollout(lq, policy, noise, start)
    assert torch.equal(path.states, rollout(lq, policy, Noise(start, noise.xi, noise.w)).states)
    assert torch.equal(path.states[:, 0], start)


def test_position_attention_is_a_linear_policy_in_the_stacked_world(rng):
    lq, policy = world(), attention()
    noise, path = sample(lq, policy, 6, rng)
    pad = lambda x: torch.nn.functional.pad(x, (0, 6))  # noqa: E731  (the older blocks start at 0 and get no noise)
    memory = LinearPolicy(history_gain(policy.gains(T)))
    lifted = rollout(stack_history(lq, 3), memory, Noise(pad(noise.s_0), noise.xi, pad(noise.w)))
    for name in ("commands", "actions", "rewards", "returns"):
        torch.testing.assert_close(getattr(lifted, name), getattr(path, name), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(lifted.states[..., :3], path.states, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(lifted.states[:, 2:, 6:], path.states[:, :-2], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("changes", [{}, ENDLESS])
def test_rewards_to_go_equal_a_brute_force_sum(changes, rng):
    lq = world(**changes)
    _, path = sample(lq, POLICIES["linear"](), 5, rng, steps=T)
    sums = path.rewards_to_go()
    assert sums.shape == (5, T + 1)
    for t in range(T + 1):
        torch.testing.assert_close(sums[:, t], return_from(path.rewards.T, 0.8, t), rtol=1e-13, atol=0)
    assert torch.equal(path.returns, sums[:, 0])


@pytest.mark.parametrize("name", ["network", "attention"])
def test_the_probes_read_costates_at_their_place(name, rng):
    """A push on s_0, or on the process noise that makes s_{t+1}, moves R_0 as the probe of that state says."""
    lq, policy = world(), POLICIES[name]()
    noise, path = sample(lq, policy, 1, rng)
    (slope,) = torch.autograd.grad(path.returns.sum(), path.state_probe)

    def pushed(shift):
        first, w = noise.s_0 + torch.as_tensor(shift[0]), noise.w + torch.as_tensor(shift[1:])
        return rollout(lq, policy, Noise(first, noise.xi, w)).returns[0].detach()

    np.testing.assert_allclose(slope[0], numerical_gradient(pushed, np.zeros((T + 1, 3))), rtol=1e-6, atol=1e-8)


def test_the_command_probe_is_a_push_on_the_command(rng):
    lq, policy = world(), POLICIES["network"]()
    noise, path = sample(lq, policy, 1, rng)
    (slope,) = torch.autograd.grad(path.returns.sum(), path.command_probe)

    def pushed(shift):
        pushed_noise = Noise(noise.s_0, noise.xi + torch.as_tensor(shift), noise.w)
        return rollout(lq, policy, pushed_noise).returns[0].detach()

    np.testing.assert_allclose(slope[0], numerical_gradient(pushed, np.zeros((T, 2))), rtol=1e-6, atol=1e-8)


def test_without_autograd_the_numbers_are_the_same(rng):
    lq, policy = world(), POLICIES["network"]()
    noise, path = sample(lq, policy, 5, rng)
    with torch.no_grad():
        quiet = rollout(lq, policy, noise)
    for field in dataclasses.fields(quiet):
        if isinstance(value := getattr(quiet, field.name), torch.Tensor):
            assert torch.equal(value, getattr(path, field.name))
            assert not value.requires_grad
    assert path.state_probe.requires_grad
    assert path.command_probe.requires_grad
    assert path.returns.requires_grad


def test_precision_follows_the_noise(rng):
    lq, policy = world(), POLICIES["linear"]()
    noise, path = sample(lq, policy, 5, rng)
    single = rollout(lq, policy.float(), Noise(noise.s_0.float(), noise.xi.float(), noise.w.float()))
    for name in ("states", "commands", "actions", "rewards", "state_probe", "command_probe", "returns"):
        assert getattr(single, name).dtype == torch.float32
        torch.testing.assert_close(getattr(single, name).double(), getattr(path, name), rtol=1e-4, atol=1e-5)
    assert not torch.equal(single.returns.double(), path.returns)


def a_noise(batch=4, steps=T, n=3, m=2):
    return Noise(draws(batch, n), draws(batch, steps, m), draws(batch, steps, n))


def test_an_endless_world_takes_noise_of_any_length():
    for steps in (1, 7):
        assert rollout(world(**ENDLESS), POLICIES["linear"](), a_noise(steps=steps)).rewards.shape == (4, steps + 1)


@pytest.mark.parametrize("wrong", [{"steps": T - 1}, {"steps": T + 1}, {"m": 1}, {"n": 2}, {"n": 1}, {"m": 3}])
def test_noise_that_does_not_fit_the_world_is_refused(wrong):
    with pytest.raises(InputError, match=r"^noise has [^\n]+$"):
        rollout(world(), POLICIES["linear"](), a_noise(**wrong))


@pytest.mark.parametrize("start", [draws(1, 3), draws(3, 3), draws(4, 1)])
def test_a_start_of_another_shape_is_refused_not_broadcast(start):
    with pytest.raises(InputError, match="start"):
        rollout(world(), POLICIES["linear"](), a_noise(), start)


@pytest.mark.parametrize("shape", [(1, 3), (3, 3)])
def test_commands_of_another_size_are_refused_not_broadcast(shape):
    with pytest.raises(InputError, match=rf"^policy must return commands of shape \(4, 2\); got \(4, {shape[0]}\)"):
        rollout(world(), LinearPolicy(draws(*shape)), a_noise())


@pytest.mark.parametrize("changes", [{"B": [[0.51]]}, {"Q_f": [[1.01]]}, {"gamma": 0.71}])
def test_a_slightly_different_world_gives_different_returns(changes, rng):
    """Negative control of the plain loop."""
    noise, path = sample(small(), LinearPolicy([[0.8]]), 4, rng)
    other = rollout(small().replace(**changes), LinearPolicy([[0.8]]), noise)
    assert not torch.isclose(other.returns, path.returns, rtol=1e-9, atol=0).any()
