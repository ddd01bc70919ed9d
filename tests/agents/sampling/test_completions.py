"""Completions against a loop in plain Python: rewards with their discount, masks, groups, log-probabilities."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from agents.recipes.advantages import full_return
from agents.recipes.batch import Batch
from agents.sampling.completions import completed, context_log_probs, sample_completions, step_rewards
from agents.sampling.token_rewards import drawn_rewards, token_returns
from envs.token_tasks import garnet, sum_and_stop
from envs.world import InputError
from tests.agents.sampling.test_tokens import close, rng_of
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import several_prompts, transformer
from theory.tokens.prefix_tree import grow

WORLDS = {
    "garnet": garnet(V=3, states=4, horizon=4, gamma=0.5, seed=1),
    "end token": sum_and_stop(3, 4, gamma=0.5),
    "several prompts": replace(several_prompts(3), gamma=0.5),
}
EACH = pytest.mark.parametrize("name", WORLDS)


def by_hand(world, prompt, tokens, uniforms, gamma=None):
    """Rewards `gamma^k r_k` along drawn states, mask, and whether the row ended, with lists and loops only."""
    P, r, gamma = world.P.tolist(), world.r.tolist(), world.gamma if gamma is None else gamma
    state, rewards, mask, ended = int(world.starts[prompt]), [], [], False
    for k, token in enumerate(tokens):
        rewards.append(0.0 if ended else gamma**k * r[k][state][token])
        mask.append(not ended)
        ended = ended or token == world.end
        chances, z = P[state][token], 0
        while uniforms[k] >= sum(chances[: z + 1]):
            z += 1
        state = z
    return rewards, mask, ended or world.end is None


def numbers(world, rows, seed=0):
    """The uniforms that a generator of this seed gives: those of the tokens, then those of the states."""
    rng = rng_of(seed)
    return [torch.rand(rows, world.horizon, generator=rng, dtype=torch.float64) for _ in range(2)]


def draw(world, seed=0, group=5, dtype=torch.float64):
    """Six groups, the world's prompts in another order than its own."""
    policy = transformer(world, temperature=0.5, seed=2, dtype=dtype)
    which = torch.arange(6).flip(0) % len(world.prompts)
    return policy, which, sample_completions(world, policy, which, group, rng_of(seed))


@EACH
def test_sampled_rows_are_those_of_a_plain_loop(name):
    world = WORLDS[name]
    _, which, sample = draw(world)
    assert torch.equal(sample.group, torch.arange(6).repeat_interleave(5))
    assert torch.equal(sample.prompt, which.repeat_interleave(5))
    length, undiscounted, of_states = world.prompts.shape[1], [], numbers(world, 30)[1].tolist()
    for i, prompt in enumerate(sample.prompt.tolist()):
        assert torch.equal(sample.contexts[i, :length], world.prompts[prompt])
        tokens = sample.contexts[i, length:].tolist()
        rewards, mask, ended = by_hand(world, prompt, tokens, of_states[i])
        assert sample.rewards[i].tolist() == pytest.approx(rewards, abs=1e-14)
        assert (sample.mask[i].tolist(), bool(sample.ended[i])) == (mask, ended)
        undiscounted.append(by_hand(world, prompt, tokens, of_states[i], gamma=1.0)[0])
    assert (sample.rewards - torch.tensor(undiscounted)).abs().max() > 0.1
    assert bool(sample.ended.all()) == (world.end is None)
    assert bool(sample.mask.all()) == (world.end is None)


@EACH
def test_step_rewards_of_all_sequences_are_those_of_a_plain_loop(name):
    world = WORLDS[name]
    words = torch.tensor(list(itertools.product(range(len(world.prompts)), *[range(world.V)] * world.horizon)))
    prompt, tokens = words[:, 0], words[:, 1:]
    uniforms = numbers(world, len(words))[1]
    plain = [by_hand(world, word[0], word[1:], u) for word, u in zip(words.tolist(), uniforms.tolist(), strict=True)]
    paid = step_rewards(world, prompt, tokens, uniforms)
    close(paid, torch.tensor([rewards for rewards, _, _ in plain], dtype=torch.float64))
    mask, ended = completed(world, tokens)
    assert mask.tolist() == [row for _, row, _ in plain]
    assert ended.tolist() == [row for _, _, row in plain]
    rows = zip(words.tolist(), uniforms.tolist(), strict=True)
    undiscounted = torch.tensor([by_hand(world, word[0], word[1:], u, 1.0)[0] for word, u in rows])
    assert (paid - undiscounted).abs().max() > 0.1


@EACH
def test_a_return_of_the_batch_is_the_plain_sum_of_its_rewards(name):
    world = WORLDS[name]
    policy, _, sample = draw(world, group=2000)
    batch, tokens = sample.batch(), sample.contexts[:, -world.horizon :]
    assert isinstance(batch, Batch)
    assert batch.old is None
    returns, uniforms = batch.rewards.sum(1), numbers(world, len(tokens))[1]
    paid = drawn_rewards(world, sample.prompt, tokens, uniforms)
    close(returns, paid @ world.gamma ** torch.arange(world.horizon, dtype=torch.float64))
    close(full_return(batch.rewards, batch.mask, batch.group)[:, 0], returns)
    value = grow(world, policy).V[0].detach()[sample.prompt]
    assert_mean_within(returns - value, 0.0)
    undiscounted = paid.sum(1)
    assert differs_by(undiscounted - value, 0.0)


@EACH
def test_log_probs_of_whole_contexts_are_the_samplers_own(name):
    world = WORLDS[name]
    policy, _, sample = draw(world)
    log_probs, entropy = (x.detach() for x in context_log_probs(policy, sample.contexts, world.horizon))
    close(log_probs, sample.log_probs, rtol=1e-10, atol=1e-12)
    assert (log_probs - sample.log_probs.roll(1, 1)).abs().max() > 0.01
    places = range(world.prompts.shape[1] - 1, sample.contexts.shape[1] - 1)
    for i in (0, 7):
        logits = policy(policy.embed(sample.contexts[i : i + 1]))[0].tolist()
        for k, place in enumerate(places):
            total = sum(math.exp(z) for z in logits[place])
            p = [math.exp(z) / total for z in logits[place]]
            assert float(entropy[i, k]) == pytest.approx(-sum(x * math.log(x) for x in p), rel=1e-9)
            assert float(log_probs[i, k]) == pytest.approx(math.log(p[int(sample.contexts[i, place + 1])]), rel=1e-9)


def test_log_probs_and_entropies_carry_the_gradient_and_probes_are_added():
    world = WORLDS["end token"]
    policy, _, sample = draw(world)
    probe = torch.zeros_like(policy.embed(sample.contexts[:, :-1])).requires_grad_()
    log_probs, entropy = context_log_probs(policy, sample.contexts, world.horizon, {"layer1": probe})
    assert not sample.log_probs.requires_grad
    close(log_probs.detach(), sample.log_probs, rtol=1e-10, atol=1e-12)
    for table in (log_probs, entropy):
        (slope,) = torch.autograd.grad(table[3, 2], probe, retain_graph=True)
        last = world.prompts.shape[1] + 1  # the position whose logits belong to step 2
        assert float(slope[3, last].norm()) > 0
        assert float(slope[3, last + 1 :].norm()) == 0 == float(slope[:3].norm())


@EACH
def test_a_policy_of_single_precision_gets_the_rewards_in_double_precision(name):
    world = WORLDS[name]
    policy, _, sample = draw(world, dtype=torch.float32)
    double = draw(world)[2]
    assert (sample.log_probs.dtype, sample.rewards.dtype) == (torch.float32, torch.float64)
    assert torch.equal(sample.contexts, double.contexts)  # the same noise in float64 gives the same tokens
    assert torch.equal(sample.rewards, double.rewards)
    close(sample.log_probs.double(), double.log_probs, rtol=1e-4, atol=1e-5)
    log_probs, _ = context_log_probs(policy, sample.contexts, world.horizon)
    assert log_probs.dtype == torch.float32
    close(log_probs.detach(), sample.log_probs, rtol=1e-4, atol=1e-5)


def test_uniforms_in_the_place_of_a_generator_give_the_same_rows():
    world = WORLDS["garnet"]
    policy, which, sample = draw(world)
    uniforms = torch.cat(numbers(world, 30), 1)
    again = sample_completions(world, policy, which, 5, uniforms)
    assert torch.equal(again.contexts, sample.contexts)
    assert torch.equal(again.rewards, sample.rewards)
    with pytest.raises(InputError, match="uniforms must have shape"):
        sample_completions(world, policy, which, 5, uniforms[:, : world.horizon])
    other = sample_completions(world, policy, which, 5, uniforms.flip(0))
    assert not torch.equal(other.contexts, sample.contexts)


@pytest.mark.parametrize("name", ["garnet", "several prompts"])
def test_drawn_rewards_have_the_mean_given_the_tokens_and_not_its_spread(name):
    """Every word many times over: where tokens lead by chance, what is paid scatters around its mean given the tokens."""
    world = WORLDS[name]
    tokens = torch.tensor([[0, 1, 2, 1][: world.horizon]]).expand(20_000, -1)
    prompt = torch.zeros(20_000, dtype=torch.int64)
    uniforms = torch.rand(tokens.shape, generator=rng_of(3), dtype=torch.float64)
    discount = world.gamma ** torch.arange(world.horizon, dtype=torch.float64)
    returns = drawn_rewards(world, prompt, tokens, uniforms) @ discount
    mean = token_returns(world, prompt[:1], tokens[:1])
    assert_mean_within(returns - mean, 0.0)
    assert float(returns.std()) > 0.01
    assert differs_by(returns - 1.05 * mean, 0.0)
