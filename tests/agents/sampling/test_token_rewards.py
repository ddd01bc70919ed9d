"""Rewards and returns of sampled tokens: step by step, by brute force, against the exact value; what is not rewarded."""

import inspect
import itertools

import pytest
import torch

from agents.sampling.token_rewards import token_returns, token_rewards
from agents.sampling.tokens import sample_tokens
from envs.token_mdp import TokenMDP
from tests.agents.sampling.test_tokens import close, rng_of
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import Recomputing, Recurrent, enumerate_rollouts, several_prompts, transformer, worlds
from theory.tokens.prefix_tree import grow

WORLDS = worlds()


@pytest.mark.parametrize("name", WORLDS)
def test_rewards_and_returns_are_those_of_the_world_step_by_step(name):
    world = WORLDS[name]
    sample = sample_tokens(transformer(world, seed=2), world.prompts, world.horizon, rng_of(0), 20)
    rewards = token_rewards(world, sample.prompt, sample.tokens)
    returns = token_returns(world, sample.prompt, sample.tokens)
    for i, (prompt, tokens) in enumerate(zip(sample.prompt.tolist(), sample.tokens, strict=True)):
        belief, total = world.start_belief(prompt), 0.0
        for k, u in enumerate(torch.eye(world.V, dtype=torch.float64)[tokens]):
            reward, belief = world.reward(k, belief, u), world.step(belief, u)
            close(rewards[i, k], reward)
            total += world.gamma**k * float(reward)
        assert float(returns[i]) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("name", WORLDS)
def test_returns_of_all_sequences_are_those_of_brute_force(name):
    world = WORLDS[name]
    brute = enumerate_rollouts(world, transformer(world), 1.0)
    words = torch.tensor(list(itertools.product(range(len(world.prompts)), *[range(world.V)] * world.horizon)))
    assert torch.equal(words[:, 1:], brute.tokens)
    returns = token_returns(world, words[:, 0], brute.tokens)
    close(returns, brute.returns(0)[0])
    other = torch.cat([brute.tokens[:, :-1], (brute.tokens[:, -1:] + 1) % world.V], 1)
    assert (returns - token_returns(world, words[:, 0], other)).abs().max() > 0.1


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("kind", ["plain", "recurrent"])
def test_the_mean_return_is_the_exact_value(name, kind, rng):
    world, copies = WORLDS[name], 4000
    policy = transformer(world, seed=2) if kind == "plain" else Recomputing(Recurrent(world.V))
    exact = grow(world, policy).V[0]
    sample = sample_tokens(policy, world.prompts, world.horizon, rng, copies)
    returns = token_returns(world, sample.prompt, sample.tokens).reshape(-1, copies)
    assert_mean_within(returns.T, exact)
    assert_mean_within(len(exact) * world.weights @ returns / len(exact), world.weights @ exact)
    assert differs_by(returns.T, exact + 0.2)


def test_rewards_keep_the_precision_of_the_world_and_the_past_of_the_prompt():
    world = several_prompts()
    tokens, prompt = torch.tensor([[0, 1], [0, 1]]), torch.tensor([0, 1])
    rewards = token_rewards(world, prompt, tokens)
    assert rewards.dtype == torch.float64
    assert rewards[0, 0] != rewards[1, 0]
    assert torch.equal(token_rewards(world, prompt.flip(0), tokens), rewards.flip(0))


@pytest.mark.parametrize(
    ("argument", "prompt", "tokens"),
    [
        ("token", [0, 1], [[0, 1], [2, 3]]),
        ("token", [0, 1], [[0, 1], [-1, 0]]),
        ("tokens", [0, 1], [[0, 1, 0], [1, 1, 1]]),
        ("tokens", [0, 1], [[0], [1]]),
        ("prompt", [0, 2], [[0, 1], [1, 1]]),
        ("prompt", [-1, 1], [[0, 1], [1, 1]]),
        ("prompt", [0], [[0, 1], [1, 1]]),
    ],
)
def test_tokens_that_the_world_does_not_know_are_not_rewarded(argument, prompt, tokens):
    unchecked = inspect.unwrap(token_rewards)  # the checks are for those who run without the hook on annotations
    with refused(argument):
        unchecked(several_prompts(), torch.tensor(prompt), torch.tensor(tokens))


def test_a_hidden_readout_is_not_paid_for_tokens():
    world = several_prompts()
    world = TokenMDP(world.P, world.r, world.prompts, world.starts, world.horizon, readout=[1.0, 0.0])
    with refused("world"):
        token_returns(world, torch.tensor([0]), torch.tensor([[0, 1]]))
