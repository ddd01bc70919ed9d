"""Soft thoughts against sampled noise, one-dimensional integrals, central differences, trees, and by hand; refusals."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from agents.policies.transformer import Transformer
from envs.token_mdp import TokenMDP
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.typecheck import unchecked
from theory.tokens.prefix_tree import grow
from theory.tokens.soft_thoughts import (
    discrete_success,
    drawn_rules,
    mean_success,
    soft_success,
    soft_token_success,
    think,
)
from theory.tokens.tree_gradients import score_surrogate, total_surrogate

close = torch.testing.assert_close


def network(V=2, seed=1, width=4, spread=2.0, length=6):
    policy = Transformer(V, width=width, layers=2, heads=2, length=length, seed=seed)
    with torch.no_grad():
        policy.head.weight *= spread
    return policy


def gumbels(*shape, seed=0):
    uniforms = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -(-uniforms.log()).log()


def by_hand(policy, prompt, y):
    """Log-probabilities of every next token after thoughts y (rows, N, V), whole contexts; and those of the thoughts' laws."""
    start = policy.embed(torch.tensor([prompt])).expand(len(y), -1, -1)
    log_pi = torch.log_softmax(policy(torch.cat([start, policy.embed(y)], 1)), -1)
    return log_pi[:, len(prompt) - 1 : -1], log_pi[:, -1]


def thoughts_by_hand(policy, prompt, g, tau):
    """Thoughts one after the other, each from the whole context before it."""
    y = torch.empty(len(g), 0, g.shape[2], dtype=torch.float64)
    for k in range(g.shape[1]):
        log_p = by_hand(policy, prompt, y)[1]
        y = torch.cat([y, torch.softmax((log_p + g[:, k]) / tau, -1)[:, None]], 1)
    return y


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_success_is_the_mean_over_sampled_noise_and_the_noises_own_score_has_its_gradient(tau):
    policy, prompt, g = network(), [1, 0], gumbels(40_000, 2, 2)
    exact = soft_success(policy, prompt, tau)
    with torch.no_grad():
        y = thoughts_by_hand(policy, prompt, g, tau)
        chance = by_hand(policy, prompt, y)[1][:, 1].exp()
    assert_mean_within(chance[:, None], exact.P[None])
    assert differs_by(chance[:, None], soft_success(policy, prompt, 3 * tau).P[None]), "the control: another tau"
    pieces = []
    for part in range(40):
        own = slice(1000 * part, 1000 * (part + 1))
        laws, log_pi = by_hand(policy, prompt, y[own])
        scores = ((1 - (-g[own]).exp()) * laws).sum((1, 2)) + log_pi[:, 1]
        slopes = torch.autograd.grad((chance[own] * scores).mean(), list(policy.parameters()))
        pieces.append(parameters_to_vector(slopes))
    found = torch.stack(pieces) @ exact.score / exact.score.square().sum()
    assert_mean_within(found[:, None], torch.ones(1, dtype=torch.float64))
    close(exact.score, exact.pathwise, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("tau", [0.02, 0.4, 2.0])
@pytest.mark.parametrize("spread", [2.0, 8.0])
def test_one_thought_is_an_integral_over_logistic_noise(tau, spread):
    policy = network(seed=2, width=8, spread=spread)
    with torch.no_grad():
        log_p = by_hand(policy, [0], torch.empty(1, 0, 2, dtype=torch.float64))[1][0]
        ell = float(log_p[1] - log_p[0])

        def at(s):
            y = torch.softmax(torch.tensor([[[0.0, s / tau]]]).double(), -1)
            density = 1 / (4 * math.cosh((s - ell) / 2) ** 2)
            return density * float(by_hand(policy, [0], y)[1][0, 1].exp())

        pieces = sorted([ell - 45, -20 * tau, 0.0, 20 * tau, ell, ell + 45])
        whole = sum(integrate.quad(at, a, b, limit=200)[0] for a, b in itertools.pairwise(pieces))
    assert float(soft_success(policy, [0], tau, thoughts=1).P) == pytest.approx(whole, abs=1e-7)


@pytest.mark.parametrize("kind", ["gumbel", "gaussian", "discrete", "mean"])
def test_both_gradients_are_central_differences_of_the_success(kind):
    policy = network(seed=1)
    run = {
        "gumbel": lambda: soft_success(policy, [0], 0.5, nodes=100),
        "gaussian": lambda: soft_token_success(policy, [0], 0.02, nodes=4),
        "discrete": lambda: discrete_success(policy, [0]),
        "mean": lambda: mean_success(policy, [0], answer=0),
    }[kind]
    at, found = parameters_to_vector(policy.parameters()).detach(), run()
    for seed in range(3):
        way, values = draws(len(at), seed=seed), []
        for sign in (1, -1):
            vector_to_parameters(at + sign * 1e-5 * way, policy.parameters())
            values.append(float(run()[0]))
        slope = (values[0] - values[1]) / 2e-5
        vector_to_parameters(at, policy.parameters())
        for gradient in found[1:]:
            assert float(gradient @ way) == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("V", [2, 3])
def test_the_two_limits_are_trees_of_sampled_and_of_mean_tokens(V):
    """A world that pays token 1 at its third step is the answer after two discrete thoughts; at alpha = 0 after two means."""
    rewards = torch.zeros(V, V, V)
    rewards[..., 1] = 1.0
    world, policy = TokenMDP.from_rewards(rewards), network(V)
    for success, alpha, surrogate in ((discrete_success, 1.0, score_surrogate), (mean_success, 0.0, total_surrogate)):
        P, gradient = success(policy, [0])
        tree = grow(world, policy, alpha)
        close(P, tree.J.detach(), rtol=1e-12, atol=1e-14)
        slopes = torch.autograd.grad(surrogate(tree), list(policy.parameters()))
        close(gradient, parameters_to_vector(slopes), rtol=1e-9, atol=1e-12)


def test_small_noise_tends_to_sampled_tokens_or_to_mean_embeddings():
    policy = network(seed=2)
    token, mean = discrete_success(policy, [0])[1], mean_success(policy, [0])[1]
    gaps = [float((soft_success(policy, [0], tau).pathwise - token).norm()) for tau in (0.04, 0.02, 0.01)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)
    off = [float((soft_token_success(policy, [0], s, nodes=3).pathwise - mean).norm()) for s in (0.004, 0.002)]
    assert off[0] / off[1] == pytest.approx(4, rel=0.05)
    assert float((token - mean).norm()) > 0.5 * float(token.norm())


def test_soft_tokens_are_the_mean_over_gaussian_noise():
    policy, sigma = network(seed=2), 0.1
    noise = draws(40_000, 2, 4)
    with torch.no_grad():
        x = policy.embed(torch.tensor([[0]])).expand(len(noise), -1, -1)
        for k in range(2):
            p = torch.softmax(policy(x)[:, -1], -1)
            x = torch.cat([x, (policy.embed(p) + sigma * noise[:, k])[:, None]], 1)
        chance = torch.softmax(policy(x)[:, -1], -1)[:, 1]
    exact = soft_token_success(policy, [0], sigma, nodes=4)
    assert_mean_within(chance[:, None], exact.P[None])
    assert differs_by(chance[:, None], mean_success(policy, [0])[0][None]), "the control: no noise"
    close(exact.score, exact.pathwise, rtol=1e-3, atol=1e-3 * float(exact.score.norm()))


def test_noise_that_was_drawn_before_gives_the_thoughts_by_hand_for_every_prompt():
    policy, g = network(3, seed=1), gumbels(5, 2, 3)
    with torch.no_grad():
        drawn = think(policy, policy.embed(torch.tensor([[0], [2]])), drawn_rules(0.7, g))
        for i, token in enumerate((0, 2)):
            y = thoughts_by_hand(policy, [token], g, 0.7)
            close(drawn.x[5 * i : 5 * i + 5, 1:], policy.embed(y))
            close(torch.log_softmax(drawn.logits[5 * i : 5 * i + 5], -1), by_hand(policy, [token], y)[1])
    close(drawn.weight, torch.full((10,), 0.2).double())


def test_weights_of_the_quadrature_sum_to_one_and_answers_to_one():
    for spread in (0.5, 8.0, 40.0):
        policy = network(seed=4, spread=spread)
        P = [float(soft_success(policy, [0], 0.25, nodes=120, answer=a).P) for a in (0, 1)]
        assert sum(P) == pytest.approx(1, abs=1e-7)


def test_float32_policies_and_numpy_prompts():
    wide, narrow = network(seed=1), network(seed=1).float()
    exact, found = (soft_success(p, np.array([0]), 0.5) for p in (wide, narrow))
    assert found.pathwise.dtype == torch.float32
    close(found.pathwise.double(), exact.pathwise, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda p: soft_success(p, [0], 0.0), "tau"),
        (lambda p: soft_success(p, [0], math.nan), "tau"),
        (lambda p: soft_success(p, [0], "1"), "tau"),
        (lambda p: soft_success(p, [0], 1.0, thoughts=0), "thoughts"),
        (lambda p: soft_success(p, [0], 1.0, nodes=1), "nodes"),
        (lambda p: soft_success(p, [0], 1.0, thoughts=5), "nodes=120"),
        (lambda p: soft_success(p, [], 1.0), "prompt"),
        (lambda p: soft_success(p, [0.5], 1.0), "prompt"),
        (lambda p: soft_success(p, [0], 1.0, answer=2), "answer"),
        (lambda p: soft_success(network(3), [0], 1.0), "policy"),
        (lambda p: soft_success(network(length=2), [0], 1.0), "length=2"),
        (lambda p: soft_token_success(p, [0], -1.0), "sigma"),
        (lambda p: soft_token_success(network(width=32), [0], 1.0), "nodes=5"),
        (lambda p: mean_success(p, [0], answer=-1), "answer"),
        (lambda p: discrete_success(p, [0], thoughts=True), "thoughts"),
    ],
)
def test_refusals(call, argument):
    with unchecked(), refused(argument):
        call(network())
