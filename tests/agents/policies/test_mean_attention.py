"""The smallest policy with attention: its probabilities by hand, its knobs, its value gradient by differences, refusals."""

import itertools
import math

import pytest
import torch

from agents.policies.mean_attention import MeanAttention
from envs.token_mdp import TokenMDP
from tests.agents.cases import draws
from tests.envs.refusals import refused
from theory.tokens.costates import expected_costates

EMBEDDING, HEAD = draws(3, 2, seed=1), draws(3, 2, seed=2)
REWARDS = draws(3, 3, seed=3)


def by_hand(read, head, temperature, offset):
    """Probabilities of the next token after embeddings that are lists of numbers."""
    mean = [sum(x[d] for x in read) / len(read) for d in range(2)]
    logits = [
        (sum(float(w) * m for w, m in zip(row, mean, strict=True)) + o) / temperature
        for row, o in zip(head, offset, strict=True)
    ]
    weights = [math.exp(z) for z in logits]
    return [w / sum(weights) for w in weights]


def value(delta, prompt=0, temperature=0.7, offset=(0.5, 0.0, 0.0), reads=None):
    """Expected reward of two tokens after the prompt, delta added to its embedding, by all nine paths."""
    rows = EMBEDDING.tolist()
    first = [e + d for e, d in zip(rows[prompt], delta, strict=True)]
    total = 0.0
    for a, b in itertools.product(range(3), repeat=2):
        p = by_hand([first], HEAD, temperature, offset)[a]
        context = [first, rows[a]] if reads is None else [first, rows[a]][-reads:]
        total += p * by_hand(context, HEAD, temperature, offset)[b] * float(REWARDS[a, b])
    return total


def differences(reads=None, step=1e-5):
    return [
        (value(d, reads=reads) - value([-x for x in d], reads=reads)) / (2 * step) for d in ([step, 0.0], [0.0, step])
    ]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("offset", [[0.0, 0.0, 0.0], [2.0, 0.0, -1.0]])
def test_probabilities_are_those_of_the_mean_by_hand(temperature, offset):
    policy = MeanAttention(EMBEDDING, HEAD, temperature, offset)
    tokens = torch.tensor([[2, 0, 1]])
    pi = policy(policy.embed(tokens)).softmax(-1)[0]
    rows = EMBEDDING[tokens[0]].tolist()
    for k in range(3):
        assert pi[k].tolist() == pytest.approx(by_hand(rows[: k + 1], HEAD, temperature, offset), rel=1e-12)
    last = by_hand(rows[2:], HEAD, temperature, offset)
    assert pi[2].tolist() != pytest.approx(last, rel=1e-3)  # the past counts


def test_its_value_gradient_is_that_of_the_nine_paths():
    world = TokenMDP.from_rewards(REWARDS)
    policy = MeanAttention(EMBEDDING, HEAD, temperature=0.7, offset=0.5)
    gradient = expected_costates(world, policy, "total", "embedding")[0][0, -1].tolist()
    assert gradient == pytest.approx(differences(), rel=1e-7)
    assert gradient != pytest.approx(differences(reads=1), rel=1e-2)  # of a policy without attention


def test_the_head_is_the_only_parameter_and_the_embedding_unless_given():
    policy = MeanAttention(EMBEDDING)
    (head,) = policy.parameters()
    assert torch.equal(head, EMBEDDING)
    assert head.data_ptr() != EMBEDDING.data_ptr()
    assert policy.sites == ("embedding",)
    assert torch.equal(MeanAttention(EMBEDDING.tolist(), HEAD.numpy()).network.head, HEAD)


def test_tables_and_knobs_that_do_not_fit_are_refused():
    with refused("embedding"):
        MeanAttention([0.0, 1.0])
    with refused("embedding"):
        MeanAttention(EMBEDDING, HEAD[:2])
    with refused("embedding"):
        MeanAttention([[0.0, math.nan]])
    with refused("head"):
        MeanAttention(EMBEDDING, "x")
    with refused("temperature"):
        MeanAttention(EMBEDDING, temperature=0)
    with refused("offset"):
        MeanAttention(EMBEDDING, offset=[1.0, 2.0])
