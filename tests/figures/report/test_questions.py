"""The numbers behind "is this a bug?", each by another road, and the page that shows them."""

import itertools
import math
import re

import pytest
import torch

from agents.sampling.token_rewards import token_returns
from figures.measures.token_systems import build_policy, build_world
from figures.report.questions import questions
from tests.oracles import assert_mean_within


@pytest.fixture(scope="module")
def tables():
    """Question -> {what: value}."""
    return {q.question: dict(q.numbers) for q in questions()}


def numbers(tables, start, what):
    """All numbers in the value of one line of a question."""
    (table,) = [table for question, table in tables.items() if question.startswith(start)]
    (value,) = [value for name, value in table.items() if name == what or (name.startswith(what) and what not in table)]
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", value)]


def all_words(world):
    """Every word of the world's horizon, (words, H)."""
    return torch.tensor(list(itertools.product(range(world.V), repeat=world.horizon)))


def log_probs(world, policy):
    """Log-probability of every token of every word after the first prompt, by the network on whole contexts."""
    words = all_words(world)
    contexts = torch.cat([world.prompts[:1].expand(len(words), -1), words], 1)
    with torch.no_grad():
        logits = policy(policy.embed(contexts[:, :-1]))[:, -world.horizon :]
    return torch.log_softmax(logits, -1).gather(-1, words[..., None])[..., 0]


def test_every_symptom_of_the_list_has_its_question(tables):
    for word in ("loss is 0", "not moved", "equal", "standard deviation", "accumulation", "clip", "bfloat16", "KL"):
        assert any(word in question for question in tables), word
    assert all(table for table in tables.values())


def test_the_loss_is_zero_with_a_length_factor_and_not_without(tables):
    assert numbers(tables, "The loss is 0", "loss of a group") == [0]
    # a success of 2 tokens and a failure of n, A = 1 and -1: row sums give (n - 2) / 2, the token mean (n - 2) / (n + 2)
    (row_sum, tokens) = numbers(tables, "The loss is 0", "the same with row sums")
    n = 2 + 2 * row_sum
    assert n == int(n)
    assert tokens == pytest.approx((n - 2) / (n + 2), abs=1e-3)
    (cosine, scale) = numbers(tables, "The loss is 0", "its cosine")
    (update, truth) = numbers(tables, "The loss is 0", "parity")
    assert cosine == pytest.approx(1, abs=1e-6)
    assert update / truth == pytest.approx(scale, rel=1e-3)


def test_the_chance_of_a_signal_is_that_of_drawn_groups(tables, rng):
    world = build_world("lock (3,4)")
    words = all_words(world)
    R = token_returns(world, torch.zeros(len(words), dtype=torch.int64), words)
    success = float(log_probs(world, build_policy(world, 1, spread=1.0)).sum(1).exp() @ R)
    (rare,) = numbers(tables, "The reward", "success probability")
    assert rare == pytest.approx(success, rel=1e-3)
    drawn = (torch.rand(40_000, 64, generator=rng, dtype=torch.float64) < success).double()
    (share,) = numbers(tables, "The reward", "share of groups with a signal, G = 64")
    assert_mean_within((drawn.amax(1) > drawn.amin(1)).double(), share, floor=1e-4)
    eight = drawn.reshape(-1, 8)
    (share,) = numbers(tables, "The reward", "share of groups with a signal, G = 8")
    assert_mean_within((eight.amax(1) > eight.amin(1)).double(), share, floor=1e-4)


def test_silent_groups_by_counting_all_rewards_of_eight(tables):
    for P in (0.5, 0.9, 0.99):
        equal = sum(
            math.prod(P if r else 1 - P for r in rewards)
            for rewards in itertools.product((0, 1), repeat=8)
            if len(set(rewards)) == 1
        )
        (share,) = numbers(tables, "All rewards", f"share of groups without a signal, G = 8, P = {P:g}")[-1:]
        assert share == pytest.approx(equal, rel=1e-3)
    (G,) = numbers(tables, "All rewards", "group size")
    assert 0.99**G <= 0.5 < 0.99 ** (G - 1)
    assert numbers(tables, "All rewards", "largest weight") == [0]


def test_advantages_by_hand(tables):
    assert numbers(tables, "Dividing", "advantage of the better") == [1]
    assert numbers(tables, "Dividing", "the same with eps")[-1] == pytest.approx(5e-10 / (5e-10 + 1e-4), rel=1e-3)
    lone, bound = numbers(tables, "Dividing", "advantage of one success")
    assert lone == bound == pytest.approx((1 - 1 / 64) / math.sqrt(1 / 64 * 63 / 64), rel=1e-3)
    rare, even = numbers(tables, "Dividing", "c_64")
    sums = sum(math.comb(64, k) * 0.5**64 * math.sqrt(k * (64 - k)) / 64 for k in range(65)) / 0.25
    assert even == pytest.approx(sums, rel=1e-3)
    assert rare == pytest.approx(math.sqrt(63), rel=1e-3)


def test_the_token_mean_couples_rows_and_its_bias_falls_with_the_batch(tables):
    assert numbers(tables, "Gradient accumulation", "weight of a token") == [0.2, 0.5, 0.125]
    biases = [numbers(tables, "Gradient accumulation", f"{groups} groups")[-1] for groups in (1, 8, 64)]
    assert biases[0] > 4 * biases[1] > 16 * biases[2] > 0


def test_the_ratio_is_one_before_the_first_step_and_leaves_the_clip_after_it(tables):
    assert numbers(tables, "The clip fraction", "ratio before") == [1]
    largest, outside = numbers(tables, "The clip fraction", "after inner step 1")[-2:]
    assert largest > 1.2
    assert 0 < outside <= 1


def test_bfloat16_moves_the_ratio_by_its_precision_and_float32_by_its_own(tables):
    coarse, fine = numbers(tables, "The rows were drawn", "largest")[-2:]
    assert 2**-9 < coarse < 0.2
    assert 2**-26 < fine < 1e-4
    assert numbers(tables, "The rows were drawn", "share of rows")[-1] > 0.5


def test_the_kl_estimates_of_all_words_one_by_one(tables):
    """Words that differ only after their end token add up to the probability of one completion."""
    world = build_world("stop (2,4)")
    own, other = (log_probs(world, build_policy(world, seed)) for seed in (1, 2))
    p, log_ratio = own.sum(1).exp(), (own - other) * world.mask(all_words(world))
    assert float(p.sum()) == pytest.approx(1, rel=1e-12)
    for name, i, tokens in (("k1", -2, log_ratio), ("k3", -1, (-log_ratio).exp() - 1 + log_ratio)):
        rows = tokens.sum(1)
        mean = float(p @ rows)
        assert numbers(tables, "The KL", "KL(pi || pi_ref)")[i] == pytest.approx(mean, rel=1e-3), name
        assert numbers(tables, "The KL", "standard deviation")[i] == pytest.approx(
            float(p @ (rows - mean) ** 2) ** 0.5, rel=1e-3
        )
    chance = float(p @ (log_ratio.sum(1) < 0).double())
    assert numbers(tables, "The KL", "chance")[-1] == pytest.approx(chance, rel=1e-3)
