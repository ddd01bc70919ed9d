"""The pathwise gradient and the critic's: sample by sample against plain autograd, in the mean against the closed form."""

import numpy as np
import pytest
import torch

from agents.policies.linear import ClosedPath, ConstantPolicy, LinearPolicy
from agents.sampling.pathwise import command_costates, contract_commands, critic_gradient, pathwise_gradient
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.lq_variants import step_reward
from envs.world import InputError
from tests.agents import cases
from tests.agents.cases import K_SMALL, MANY, MEANS, POLICIES, T, attention, draws, same, sample, world
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from theory.continuous.broken_assumptions import step_reward_gradient
from theory.continuous.lq_gradients import policy_gradient


@pytest.mark.parametrize("changes", [{}, {"horizon": None}])
@pytest.mark.parametrize("name", POLICIES)
def test_each_sample_equals_plain_autograd_of_its_return(name, changes, rng):
    lq, policy = world(**changes), POLICIES[name]()
    noise, path = sample(lq, policy, 3, rng, steps=T)
    mine = pathwise_gradient(policy, path)
    for i in range(3):
        rewards = cases.plain_path(lq, policy, noise, i)[3]
        same({k: g[i] for k, g in mine.items()}, cases.autograd_of(cases.return_from(rewards, lq.gamma), policy))


@pytest.mark.parametrize("path", ["past", "all"])
def test_closing_a_path_changes_the_gradient(path, rng):
    """Negative control of the plain autograd: the attention and the dynamics path are there to be lost."""
    lq, policy = world(), attention()
    _, full = sample(lq, policy, 20, rng)
    closed = ClosedPath(policy, path)
    _, part = sample(lq, closed, 20, torch.Generator().manual_seed(20261123))
    assert torch.equal(full.states, part.states)
    mine, cut = pathwise_gradient(policy, full), pathwise_gradient(closed, part)
    for name in ("scores", "W"):
        assert ((mine[name] - cut[f"policy.{name}"]).abs() > 1e-6).flatten(1).any(1).all()


@pytest.mark.parametrize("case", MEANS)
def test_the_mean_is_the_exact_policy_gradient(case, rng):
    lq, K, steps = MEANS[case]
    policy, truth = LinearPolicy(K), policy_gradient(lq, K)
    gradient = pathwise_gradient(policy, sample(lq, policy, MANY, rng, steps)[1])["K"]
    assert gradient.shape == (MANY, *K.shape)
    assert_mean_within(gradient, truth)
    assert differs_by(gradient, 1.1 * truth)


def test_the_mean_is_wrong_when_the_costate_cannot_pass_through_the_policy(rng):
    lq, K, _ = MEANS["finite"]
    closed = ClosedPath(LinearPolicy(K), "all")
    gradient = pathwise_gradient(closed, sample(lq, closed, MANY, rng)[1])["policy.K"]
    assert differs_by(gradient, policy_gradient(lq, K), errors=10)


def test_command_costates_are_the_backward_recursion(rng):
    lq, K = world(), 0.3 * draws(2, 3)
    _, path = sample(lq, LinearPolicy(K), 5, rng)
    A, B, Q, R, Q_f = (torch.as_tensor(x) for x in (lq.A, lq.B, lq.Q, lq.R, lq.Q_f))
    s, a = path.states.detach(), path.actions.detach()
    costate, Phi = -2 * s[:, T] @ Q_f, A - B @ K
    for t in reversed(range(T)):
        expected = lq.gamma**t * (-2 * a[:, t] @ R + lq.gamma * costate @ B)
        torch.testing.assert_close(command_costates(path)[:, t], expected, rtol=1e-10, atol=1e-12)
        costate = -2 * s[:, t] @ Q + 2 * a[:, t] @ R @ K + lq.gamma * costate @ Phi


def test_a_step_reward_gives_an_exactly_zero_gradient_though_the_true_one_is_not(rng):
    lq, K = step_reward(horizon=3), K_SMALL
    policy = LinearPolicy(K)
    gradient = pathwise_gradient(policy, sample(lq, policy, 50, rng)[1])["K"]
    value = lambda k: step_reward_gradient(lq, torch.as_tensor(k), torch.tensor([1.0]).double())[0]  # noqa: E731
    assert not gradient.any()
    assert abs(numerical_gradient(value, K)).item() > 0.05


class Cut(LinearPolicy):
    """Its command does not reach back to its parameters."""

    def forward(self, history, t):
        return super().forward(history, t).detach()


class Bare:
    """A policy without parameters."""

    window = 1
    named_parameters = staticmethod(lambda: iter(()))

    def __call__(self, history, t):
        return -history[:, -1] @ torch.ones(3, 2).double()


@pytest.mark.parametrize("policy", [Cut(0.3 * draws(2, 3)), Bare()])
def test_no_estimator_returns_a_zero_gradient_without_a_word(policy, rng):
    lq = world()
    _, path = sample(lq, policy, 4, rng)
    for estimate in (
        lambda: pathwise_gradient(policy, path),
        lambda: score_function_gradient(lq, policy, path),
        lambda: critic_gradient(lq, policy, path, lambda s, t: s),
        lambda: contract_commands(policy, path.states, torch.ones(4, T, 2).double()),
    ):
        with pytest.raises(InputError, match=r"^policy [^\n]+$"):
            estimate()


def test_without_autograd_there_is_no_pathwise_gradient(rng):
    lq, policy = world(), POLICIES["linear"]()
    noise, path = sample(lq, policy, 4, rng)
    with torch.no_grad():
        for given in (path, rollout(lq, policy, noise)):
            with pytest.raises(InputError, match=r"^trajectory carries no gradient[^\n]+$"):
                pathwise_gradient(policy, given)


def test_frozen_parameters_do_not_change_the_gradient(rng):
    lq, policy = world(), POLICIES["attention"]()
    noise, path = sample(lq, policy, 4, rng)
    expected = pathwise_gradient(policy, path)
    same(pathwise_gradient(policy.requires_grad_(False), rollout(lq, policy, noise)), expected)


def test_the_contraction_is_linear_and_takes_the_histories_as_given(rng):
    policy, states, v = POLICIES["network"](), draws(4, T + 1, 3).requires_grad_(), draws(4, T, 2, seed=1)
    out = contract_commands(policy, states, v)
    same(contract_commands(policy, states, 3 * v), {k: 3 * g for k, g in out.items()})
    assert not any(g.requires_grad for g in out.values())
    theta = ConstantPolicy([0.5, -0.2])
    torch.testing.assert_close(contract_commands(theta, states, v)["theta"], v.sum(1), rtol=1e-13, atol=0)


def test_the_scores_of_attention_move_only_differences_between_lags():
    """Adding a constant to a head's scores changes nothing, so its gradient sums to zero."""
    slope = contract_commands(attention(), draws(4, T + 1, 3), draws(4, T, 2, seed=1))["scores"]
    assert slope.shape == (4, *np.shape(cases.SCORES))
    assert slope.abs().min() > 1e-6
    assert slope.sum(-1).abs().max() < 1e-13
