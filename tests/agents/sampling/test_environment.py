"""Completions where the environment speaks: their law, their turns, what is paid, and training on them."""

from dataclasses import replace

import pytest
import torch

from agents.recipes.advantages import gae
from agents.recipes.batch import Batch
from agents.recipes.learners import build_learner
from agents.sampling.completions import context_log_probs, sample_completions
from agents.sampling.token_rewards import drawn_rewards, token_rewards
from agents.training.copies import Copies
from agents.training.token_task import TokenTask
from envs.token_tasks import sum_and_stop
from envs.tool_tasks import ask_oracle
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.speech_cases import WORLDS, Conversations, policy_of, talking, world_of
from tests.theory.tokens.test_environment import true_gradient
from tests.typecheck import unchecked

close = torch.testing.assert_close
EACH = pytest.mark.parametrize("name", WORLDS)


def drawn(world, rows=4000, seed=0):
    which = torch.arange(len(world.prompts))
    return sample_completions(world, policy_of(world), which, rows, torch.Generator().manual_seed(seed))


@EACH
def test_completions_are_drawn_by_their_law_and_paid_what_happens(name):
    world = world_of(name)
    every, sample = Conversations(world), drawn(world)
    p, tokens = every.p(policy_of(world)).detach(), sample.contexts[:, world.prompts.shape[1] :]
    for q in range(len(world.prompts)):
        here, mine = every.prompt == q, sample.prompt == q
        law = {}
        for i in here.nonzero()[:, 0].tolist():
            key = (*(every.tokens[i] * every.span[i]).tolist(), *every.mask[i].tolist())
            law[key] = law.get(key, 0.0) + float(p[i])
        seen = [
            (*word, *own)
            for word, own in zip((tokens * sample.span)[mine].tolist(), sample.mask[mine].tolist(), strict=True)
        ]
        assert set(seen) <= set(law)
        likely = sorted(law, key=law.get)[-5:]
        for key in likely:
            assert_mean_within(torch.tensor([float(row == key) for row in seen]), law[key])
        R = sample.rewards[mine].sum(1)
        assert_mean_within(R, float(p[here] @ every.rewards[here].sum(1)))
        assert differs_by(R + 0.2 * R.std(), float(p[here] @ every.rewards[here].sum(1)))


@EACH
def test_the_mean_reward_given_the_tokens_is_an_inference_from_what_the_environment_said(name):
    world = world_of(name)
    every, p = Conversations(world), Conversations(world).p(policy_of(world)).detach()
    mean = (
        token_rewards(world, every.prompt, every.tokens)
        * world.gamma ** torch.arange(world.horizon, dtype=torch.float64)
        * every.span
    )
    for i in range(0, len(p), 7):
        for k in range(world.horizon):
            same = (every.prompt == every.prompt[i]) & (every.tokens[:, : k + 1] == every.tokens[i, : k + 1]).all(1)
            assert float(mean[i, k]) == pytest.approx(
                float(p[same] @ every.rewards[same, k] / p[same].sum()), abs=1e-12
            )


def test_log_probabilities_are_those_of_whole_contexts_whoever_speaks():
    world = talking()
    sample = drawn(world, 50)
    log_probs, _ = context_log_probs(policy_of(world), sample.contexts, world.horizon)
    close(sample.log_probs, log_probs.detach(), rtol=1e-9, atol=1e-12)
    assert bool((sample.mask != sample.span).any())


@pytest.mark.parametrize("copies", [1, 2])
def test_training_rows_are_the_samplers_and_their_mean_update_is_exact(copies):
    """RLOO's sampled gradient, the mask with holes, and both ways to sample."""
    world = talking()
    policies = [policy_of(world, seed) for seed in range(copies)]
    noise = [torch.Generator().manual_seed(seed) for seed in range(copies)]
    rows = TokenTask(world).draw(Copies.of(policies), 300, 4, noise)
    alone = TokenTask(world).draw(Copies.of(policies[-1:]), 300, 4, [torch.Generator().manual_seed(copies - 1)])
    for name in ("rewards", "mask", "span", "ended", "prompt"):
        assert torch.equal(getattr(rows, name)[-1], getattr(alone, name)[0])
    every, policy, learner = Conversations(world), policies[-1], build_learner("rloo")
    log_probs, _ = TokenTask(world).log_probs(policy, alone.seen[0][0])
    weights = -learner.row_losses(log_probs, None, alone.batch(0))
    truth = true_gradient(every, policy)
    groups = 300 * weights.unflatten(0, (300, 4)).sum(1)[:150]
    per_group = torch.autograd.grad(groups, list(policy.parameters()), torch.eye(150).double(), is_grads_batched=True)
    per_group = torch.cat([g.flatten(1) for g in per_group], 1) @ truth
    assert_mean_within(per_group, float(truth @ truth))


def test_a_critic_that_is_off_meets_one_factor_for_every_step_of_the_policy():
    """Rewards 1, 2, 4, 8 on steps policy, environment, environment, policy, by hand."""
    rewards = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, False, True, False]])
    values = torch.tensor([[0.5, 9.0, 9.0, 0.25, 9.0]], dtype=torch.float64)
    advantages = gae(values, 0.5)(rewards, mask, torch.zeros(1, dtype=torch.int64))
    last = 8 + 16 - 0.25
    assert advantages.tolist() == [[1 + 2 + 4 + 0.25 - 0.5 + 0.5 * last, 0, 0, last, 0]]


@unchecked()
def test_a_mask_with_holes_needs_a_span_that_holds_it():
    rewards, group = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    all_steps = torch.ones_like(mask)
    Batch(rewards, mask, group, span=all_steps)
    for span in (None, mask, torch.tensor([[True, True, False]] * 2), all_steps[:, :2]):
        with refused("mask must"):
            Batch(rewards, mask, group, span=span)
    with refused("mask disagrees"):
        Batch(rewards + 1, mask, group, span=torch.tensor([[True] * 3, [True, True, False]]))


def test_tokens_that_the_environment_cannot_say_are_refused():
    world, prompt = ask_oracle(2, noise=0.0), torch.tensor([0])
    asked = torch.tensor([[2, 3, 0, 3]])  # ask, and the answer is the end token
    with refused("tokens"):
        token_rewards(world, prompt, asked)
    with refused("tokens"):
        drawn_rewards(world, prompt, asked, torch.full((1, 4), 0.5))


def test_a_speaking_environment_that_is_silent_changes_no_number():
    """Rows of zeros for all states: the same completions as without `speech`."""
    plain = sum_and_stop(2, 3)
    silent = replace(plain, speech=torch.zeros(plain.S, plain.V))
    one, other = drawn(plain, 20), drawn(silent, 20)
    for name in ("contexts", "rewards", "mask", "span", "ended"):
        assert torch.equal(getattr(one, name), getattr(other, name))
