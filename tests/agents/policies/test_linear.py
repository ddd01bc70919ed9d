"""Policies: the commands they promise, by a second road, and what they refuse."""

import numpy as np
import pytest
import torch

from agents.policies.linear import ClosedPath, ConstantPolicy, LinearPolicy, PositionAttention
from envs.policy import Policy
from envs.world import InputError
from tests.agents.cases import POLICIES, SCORES, attention, draws
from tests.envs.refusals import refused


def test_the_linear_policy_answers_the_last_state_alone():
    K, history = draws(2, 3), draws(5, 4, 3, seed=1)
    policy = LinearPolicy(K)
    for t in (0, 7):
        expected = np.einsum("mn,bn->bm", -K.numpy(), history[:, -1].numpy())
        np.testing.assert_allclose(policy(history, t).detach(), expected, rtol=1e-13)


def test_a_gain_that_changes_with_time_uses_its_own_row():
    K, history = draws(4, 2, 3), draws(5, 1, 3, seed=1)
    for t in range(4):
        expected = LinearPolicy(K[t])(history, 0)
        torch.testing.assert_close(LinearPolicy(K)(history, t), expected, rtol=1e-13, atol=0)
    assert not torch.allclose(LinearPolicy(K)(history, 0), LinearPolicy(K)(history, 1))


@pytest.mark.parametrize("changes", [(False, False), (True, False), (False, True), (True, True)])
def test_an_offset_is_taken_off_the_command_and_is_a_parameter(changes):
    K, k, history = draws(4, 2, 3), draws(4, 2, seed=3), draws(5, 1, 3, seed=1)
    policy = LinearPolicy(K if changes[0] else K[0], k if changes[1] else k[0])
    for t in range(4):
        gain, offset = (x[t if own else 0].numpy() for x, own in zip((K, k), changes, strict=True))
        expected = -history[:, -1].numpy() @ gain.T - offset
        np.testing.assert_allclose(policy(history, t).detach(), expected, rtol=1e-12)
    assert [name for name, _ in policy.named_parameters()] == ["K", "k"]
    assert [name for name, _ in LinearPolicy(K).named_parameters()] == ["K"]
    policy(history, 1).sum().backward()
    assert float(policy.k.grad.sum()) == -5 * 2


@pytest.mark.parametrize("k", [[[0.0, 1.0, 2.0]], [np.nan, 0.0], 1.0, [1.0]])
def test_an_offset_that_does_not_fit_is_refused(k):
    with refused("k"):
        LinearPolicy(draws(2, 3), k)


def naive_attention(scores, W, history, window):
    """Causal attention as a transformer computes it: a full score matrix, minus infinity where it may not look."""
    times, out = history.shape[1], 0.0
    query, key = np.arange(times)[:, None], np.arange(times)[None, :]
    lag = query - key
    for b, values in zip(scores, W, strict=True):
        allowed = (lag >= 0) & (lag < window)
        logits = np.where(allowed, b[np.clip(lag, 0, window - 1)], -np.inf)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        out = out - np.einsum("qk,mn,bkn->bqm", weights, values, history)
    return out  # (batch, times, m)


def test_position_attention_is_a_masked_softmax_over_the_states_that_exist():
    policy, states = attention(), draws(5, 7, 3, seed=2)
    expected = naive_attention(np.array(SCORES), policy.W.detach().numpy(), states.numpy(), 3)
    for t in range(7):
        np.testing.assert_allclose(policy(states[:, : t + 1], t).detach(), expected[:, t], rtol=1e-12)


def test_position_attention_equals_its_gains():
    policy, states = attention(), draws(5, 7, 3, seed=2)
    gains = policy.gains(7).detach()
    assert gains.shape == (7, 3, 2, 3)
    for t in range(7):
        past = [j for j in range(3) if t - j >= 0]
        command = -sum(states[:, t - j] @ gains[t, j].T for j in past)
        torch.testing.assert_close(policy(states[:, : t + 1], t).detach(), command, rtol=1e-12, atol=1e-13)
        assert not gains[t, len(past) :].any()


def test_attention_looks_no_further_back_than_its_window():
    policy, states = attention(), draws(5, 6, 3, seed=2)
    torch.testing.assert_close(policy(states, 5), policy(states[:, -3:], 5), rtol=0, atol=0)
    assert not torch.allclose(policy(states, 5), policy(states[:, -2:], 5))


def test_the_attention_weights_of_each_head_sum_to_one():
    for seen in (1, 2, 3):
        weights = attention().weights(seen)
        assert weights.shape == (2, seen)
        torch.testing.assert_close(weights.sum(1), torch.ones(2, dtype=torch.float64), rtol=1e-14, atol=0)


def test_the_constant_policy_ignores_the_state():
    command = ConstantPolicy([0.5, -0.2])(draws(5, 4, 3), 2)
    np.testing.assert_array_equal(command.detach(), np.tile([0.5, -0.2], (5, 1)))


@pytest.mark.parametrize("path", ["past", "all"])
@pytest.mark.parametrize("name", ["linear", "attention", "network"])
def test_a_closed_path_gives_the_same_commands(name, path):
    policy, history = POLICIES[name](), draws(5, 3, 3, seed=3)
    closed = ClosedPath(policy, path)
    assert closed.window == policy.window
    torch.testing.assert_close(closed(history, 2), policy(history, 2), rtol=0, atol=0)


@pytest.mark.parametrize(("path", "open_states"), [(None, [True] * 3), ("past", [False, False, True]), ("all", None)])
def test_a_closed_path_hides_exactly_the_states_it_names(path, open_states):
    history = draws(5, 3, 3, seed=3).requires_grad_()
    policy = ClosedPath(attention(), path) if path else attention()
    weight = policy.get_parameter("policy.W" if path else "W")
    slopes = torch.autograd.grad(policy(history, 2).sum(), [history, weight], allow_unused=True)
    seen = None if slopes[0] is None else slopes[0].abs().sum((0, 2)).gt(0).tolist()
    assert seen == open_states
    assert slopes[1].abs().min() > 0


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_keeps_the_contract(name):
    policy = POLICIES[name]()
    assert isinstance(policy, Policy)
    assert policy(draws(5, 3, 3), 2).shape == (5, 2)
    assert {p.dtype for p in policy.parameters()} == {torch.float64}


def test_a_policy_keeps_its_own_copy_of_what_it_is_given():
    K, scores, W, theta = draws(2, 3), draws(1, 2), draws(1, 2, 3), draws(2)
    policies = [LinearPolicy(K), PositionAttention(scores, W), ConstantPolicy(theta)]
    before = [p.clone() for policy in policies for p in policy.parameters()]
    for given in (K, scores, W, theta):
        given.zero_()
    after = [p for policy in policies for p in policy.parameters()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


ONE = np.ones
BAD = {
    "gain without rows": lambda: LinearPolicy(ONE(3)),
    "gain with four dimensions": lambda: LinearPolicy(ONE((2, 2, 2, 2))),
    "gain with NaN": lambda: LinearPolicy([[np.nan]]),
    "scores without heads": lambda: PositionAttention(ONE(3), ONE((3, 2, 2))),
    "maps without heads": lambda: PositionAttention(ONE((1, 3)), ONE((2, 2))),
    "heads that differ": lambda: PositionAttention(ONE((2, 3)), ONE((3, 2, 2))),
    "an empty window": lambda: PositionAttention(ONE((2, 0)), ONE((2, 2, 2))),
    "infinite scores": lambda: PositionAttention([[0.0, np.inf]], ONE((1, 2, 2))),
    "maps with NaN": lambda: PositionAttention([[0.0, 1.0]], np.full((1, 2, 2), np.nan)),
    "theta as a number": lambda: ConstantPolicy(0.5),
    "theta as a matrix": lambda: ConstantPolicy(ONE((2, 2))),
    "theta with NaN": lambda: ConstantPolicy([np.nan]),
    "an unknown path": lambda: ClosedPath(attention(), "future"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_shapes_and_numbers_are_refused_in_one_line(case):
    with pytest.raises(InputError, match=r"^(K|scores|theta|path) [^\n]+$"):
        BAD[case]()
