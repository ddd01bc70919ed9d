"""The bias of GAE with a wrong critic against loops over completions, and against the exact mean of the product's recipe."""

import itertools

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import ppo
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from envs.world import InputError
from tests.theory.speech_cases import talking
from tests.theory.token_cases import several_prompts, transformer, with_readout
from theory.groups.expected_update import expected_update
from theory.tokens.gae_bias import bias_terms, gae_bias
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close
WORLDS = {
    "several prompts": several_prompts(3),
    "stop": sum_and_stop(2, 4),
    "speech": talking(),
    "lock": combination_lock(2, 3),
    "garnet": garnet(V=2, horizon=3, seed=1, gamma=0.9),
}


def random_errors(tree, seed=3):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(V.shape, generator=rng).double() for V in tree.V]


def slope(scalar, policy):
    parts = torch.autograd.grad(
        scalar, list(policy.parameters()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([x.flatten() for x in parts])


def term_by_loops(world, policy, errors, j):
    """`sum_t E[grad log pi(c_t) gamma^{t+j} d(s_{t+j})]` of a table, over all words, in a world without speech."""
    V, law = world.V, torch.softmax(policy.logits.detach(), -1)
    total, offsets = torch.zeros_like(law), [len(world.prompts) * (V**k - 1) // (V - 1) for k in range(world.horizon)]
    for prompt, word in itertools.product(range(len(world.prompts)), itertools.product(range(V), repeat=world.horizon)):
        node, nodes, chance, length = prompt, [], float(world.weights[prompt]), world.horizon
        for k, token in enumerate(word):
            nodes.append(node)
            chance *= float(law[offsets[k] + node, token])
            length = min(length, k + 1) if token == world.end else length
            node = node * V + token
        for t in range(length - j):
            weight = chance * world.gamma ** (t + j) * float(errors[t + j][nodes[t + j]])
            row = offsets[t] + nodes[t]
            total[row] -= weight * law[row]
            total[row, word[t]] += weight
    return total.flatten()


@pytest.mark.parametrize("name", ["several prompts", "stop", "lock", "garnet"])
def test_every_term_is_its_sum_over_completions(name):
    world = WORLDS[name]
    policy = PrefixTable(world, seed=0)
    tree = grow(world, policy)
    errors = random_errors(tree)
    terms = bias_terms(tree, errors)
    assert len(terms) == world.horizon - 1
    for j, term in enumerate(terms, 1):
        expected = term_by_loops(world, policy, errors, j)
        close(slope(term, policy), expected)
        assert float(expected.norm()) > 1e-3


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.9, 1.0])
def test_the_polynomial_is_the_bias_of_the_recipes_exact_mean(name, lam):
    world = WORLDS[name]
    policy = transformer(world, seed=1)
    tree = grow(world, policy)
    errors = random_errors(tree)
    values = [V + e for V, e in zip(tree.V, errors, strict=True)]
    update = expected_update(world, policy, ppo(lam=lam), 1, values=values)
    bias = update.mean.flat - update.truth.flat
    close(slope(gae_bias(tree, errors, lam), policy), bias, rtol=1e-9, atol=1e-12)
    assert (float(bias.norm()) > 1e-2) == (lam < 1)


def test_a_constant_biases_where_an_end_token_exists_and_there_alone():
    sizes = {}
    for name in ("garnet", "lock", "several prompts", "stop"):
        tree = grow(WORLDS[name], policy := PrefixTable(WORLDS[name], seed=0))
        sizes[name] = float(slope(gae_bias(tree, [torch.ones_like(V) for V in tree.V], 0.0), policy).norm())
    assert max(sizes[name] for name in sizes if name != "stop") < 1e-15
    assert sizes["stop"] > 0.1


def test_what_is_said_after_the_end_does_not_count():
    world = WORLDS["stop"]
    tree = grow(world, policy := PrefixTable(world, seed=0))
    errors = random_errors(tree)
    other = [e.clone() for e in errors]
    other[1][world.end] += 5.0
    close(slope(gae_bias(tree, errors, 0.5), policy), slope(gae_bias(tree, other, 0.5), policy))
    other[1][1 - world.end if world.end < 2 else 0] += 5.0
    assert not torch.allclose(slope(gae_bias(tree, errors, 0.5), policy), slope(gae_bias(tree, other, 0.5), policy))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda e: (e[:-1], 0.5), "^errors must have one number for each prefix, level by level: shapes"),
        (lambda e: ([x * torch.nan for x in e], 0.5), "^errors hold NaN or infinity"),
        (lambda e: (e, 1.5), r"^lam must lie in \[0, 1\]; got 1.5"),
        (lambda e: (e, True), r"^lam must lie in \[0, 1\]; got True"),
    ],
)
def test_refusals(change, text):
    tree = grow(WORLDS["lock"], PrefixTable(WORLDS["lock"]))
    with pytest.raises(InputError, match=text):
        gae_bias(tree, *change(random_errors(tree)))


def test_a_hidden_readout_is_refused():
    world = with_readout(several_prompts(2))
    tree = grow(world, transformer(world))
    with pytest.raises(InputError, match=r"^world pays a hidden readout"):
        bias_terms(tree, random_errors(tree))
