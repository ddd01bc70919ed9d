"""The numbers behind "is this a bug?", each by another road, and the page that shows them."""

import itertools
import math
import re

import pytest
import torch

from agents.sampling.token_rewards import token_returns
from agents.sampling.tokens import sample_tokens
from figures.measures.token_systems import build_policy, build_world
from figures.report.questions import questions
from tests.oracles import assert_mean_within


@pytest.fixture(scope="module")
def asked():
    """Question -> {what: value}."""
    return {q.question: dict(q.numbers) for q in questions()}


def numbers(asked, start, what):
    """All numbers in the value of one line of a question."""
    (table,) = [table for question, table in asked.items() if question.startswith(start)]
    (value,) = [value for name, value in table.items() if name == what or (name.startswith(what) and what not in table)]
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", value)]


def test_every_symptom_of_the_list_has_its_question(asked):
    for word in ("loss is 0", "not moved", "equal", "standard deviation", "accumulation", "clip", "bfloat16", "KL"):
        assert any(word in question for question in asked), word
    assert all(table for table in asked.values())


def test_the_loss_is_zero_with_a_length_factor_and_not_without(asked):
    assert numbers(asked, "The loss is 0", "loss of a group") == [0]
    # a success of 2 tokens and a failure of n, A = 1 and -1: row sums give (n - 2) / 2, the token mean (n - 2) / (n + 2)
    (row_sum, tokens) = numbers(asked, "The loss is 0", "the same with row sums")
    n = 2 + 2 * row_sum
    assert n == int(n)
    assert tokens == pytest.approx((n - 2) / (n + 2), abs=1e-3)
    (cosine, scale) = numbers(asked, "The loss is 0", "its cosine")
    (update, truth) = numbers(asked, "The loss is 0", "parity")
    assert cosine == pytest.approx(1, abs=1e-6)
    assert update / truth == pytest.approx(scale, rel=1e-3)


def test_the_chance_of_a_signal_is_that_of_drawn_groups(asked, rng):
    world = build_world("lock (3,4)")
    (P,) = numbers(asked, "The reward", "success probability")
    sample = sample_tokens(build_policy(world, 1, spread=1.0), world.prompts, world.horizon, rng, copies=64 * 4000)
    R = token_returns(world, sample.prompt, sample.tokens)
    assert_mean_within(R, P, floor=1e-6)
    groups = R.reshape(4000, 64)
    (share,) = numbers(asked, "The reward", "share of groups with a signal, G = 64")
    assert_mean_within((groups.amax(1) > groups.amin(1)).double(), share, floor=1e-4)


def test_silent_groups_by_counting_all_rewards_of_eight(asked):
    for P in (0.5, 0.9, 0.99):
        equal = sum(
            math.prod(P if r else 1 - P for r in rewards)
            for rewards in itertools.product((0, 1), repeat=8)
            if len(set(rewards)) == 1
        )
        (share,) = numbers(asked, "All rewards", f"share of silent groups, G = 8, P = {P:g}")[-1:]
        assert share == pytest.approx(equal, rel=1e-3)
    (G,) = numbers(asked, "All rewards", "group size")
    assert 0.99**G <= 0.5 < 0.99 ** (G - 1)
    assert numbers(asked, "All rewards", "largest weight") == [0]


def test_advantages_by_hand(asked):
    assert numbers(asked, "Dividing", "advantage of the better") == [1]
    assert numbers(asked, "Dividing", "the same with eps")[-1] == pytest.approx(5e-10 / (5e-10 + 1e-4), rel=1e-3)
    lone, bound = numbers(asked, "Dividing", "advantage of one success")
    assert lone == bound == pytest.approx((1 - 1 / 64) / math.sqrt(1 / 64 * 63 / 64), rel=1e-3)
    rare, even = numbers(asked, "Dividing", "c_64")
    sums = sum(math.comb(64, k) * 0.5**64 * math.sqrt(k * (64 - k)) / 64 for k in range(65)) / 0.25
    assert even == pytest.approx(sums, rel=1e-3)
    assert rare == pytest.approx(math.sqrt(63), rel=1e-3)


def test_the_token_mean_couples_rows_and_its_bias_falls_with_the_batch(asked):
    assert numbers(asked, "Gradient accumulation", "weight of a token") == [0.2, 0.5, 0.125]
    biases = [numbers(asked, "Gradient accumulation", f"{groups} groups")[-1] for groups in (1, 8, 64)]
    assert biases[0] > 4 * biases[1] > 16 * biases[2] > 0


def test_the_ratio_is_one_before_the_first_step_and_leaves_the_clip_after_it(asked):
    assert numbers(asked, "The clip fraction", "ratio before") == [1]
    largest, outside = numbers(asked, "The clip fraction", "after inner step 1")[-2:]
    assert largest > 1.2
    assert 0 < outside <= 1


def test_bfloat16_moves_the_ratio_by_its_precision_and_float32_by_its_own(asked):
    coarse, fine = numbers(asked, "The rows were drawn", "largest")[-2:]
    assert 2**-9 < coarse < 0.2
    assert 2**-26 < fine < 1e-4
    assert numbers(asked, "The rows were drawn", "share of rows")[-1] > 0.5


def test_the_kl_estimates_against_sampled_completions(asked, rng):
    world = build_world("stop (2,4)")
    policy, reference = build_policy(world, 1), build_policy(world, 2)
    sample = sample_tokens(policy, world.prompts, world.horizon, rng, copies=40_000)
    contexts = torch.cat([world.prompts[sample.prompt], sample.tokens], 1)
    with torch.no_grad():
        logits = reference(reference.embed(contexts[:, :-1]))[:, -world.horizon :]
    theirs = torch.log_softmax(logits, -1).gather(-1, sample.tokens[..., None])[..., 0]
    log_ratio = (sample.log_probs - theirs) * world.mask(sample.tokens)
    one, three = numbers(asked, "The KL", "KL(pi || pi_ref)")[-2:]
    assert_mean_within(log_ratio.sum(1), one, floor=1e-3)
    assert_mean_within(((-log_ratio).exp() - 1 + log_ratio).sum(1), three, floor=1e-3)
    (chance,) = numbers(asked, "The KL", "chance")[-1:]
    assert_mean_within((log_ratio.sum(1) < 0).double(), chance, floor=1e-4)
