"""Networks run together against each of them alone: outputs, gradients, updates, and what a frozen copy keeps."""

import copy

import pytest
import torch
from torch import nn

from agents.policies.linear import LinearPolicy
from agents.policies.transformer import Transformer
from agents.training.copies import Copies
from envs.world import InputError
from tests.agents.cases import Network, draws
from tests.envs.refusals import refused

close = torch.testing.assert_close
TOKENS = torch.tensor([[[0, 1, 2, 1], [2, 2, 0, 1]], [[1, 1, 0, 0], [0, 2, 1, 2]], [[2, 0, 0, 1], [1, 0, 2, 2]]])
COUNT = pytest.mark.parametrize("count", [1, 3])


def transformer(seed, **own):
    return Transformer(3, width=8, heads=2, length=4, temperature=0.7, offset=0.3, seed=seed, **own)


def transformers(count):
    return [transformer(seed) for seed in range(count)]


class Backwards(Transformer):
    """The same parameters, another function of them."""

    def embed(self, tokens):
        return super().embed(tokens.flip(-1))


def logits(network, tokens):
    return network(network.embed(tokens))


def step(optimiser, loss):
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


@COUNT
def test_together_they_give_what_each_gives_alone(count):
    copies, alone = Copies(transformers(count)), transformers(count)
    outputs = copies.run(logits, TOKENS[:count])
    assert outputs.shape == (count, 2, 4, 3)
    for i, network in enumerate(alone):
        close(outputs[i], logits(network, TOKENS[i]), rtol=1e-12, atol=1e-13)
    assert count == 1 or float((outputs[0] - outputs[1]).detach().abs().max()) > 0.1


@COUNT
def test_the_gradient_of_each_is_its_own(count):
    copies, alone = Copies(transformers(count)), transformers(count)
    weights = draws(count, 2, 4, 3)
    gradients = torch.autograd.grad((copies.run(logits, TOKENS[:count]) * weights).sum(), copies.parameters)
    for i, network in enumerate(alone):
        truth = torch.autograd.grad((logits(network, TOKENS[i]) * weights[i]).sum(), list(network.parameters()))
        for mine, theirs in zip(gradients, truth, strict=True):
            close(mine if count == 1 else mine[i], theirs, rtol=1e-10, atol=1e-12)
    rows = copies.flattened(list(gradients))
    assert not copies.flattened(copies.parameters).requires_grad
    assert rows.shape == (count, sum(p.numel() for p in alone[0].parameters()))
    close(rows[-1], torch.cat([x.flatten() for x in truth]), rtol=1e-10, atol=1e-12)


@COUNT
def test_three_adam_steps_are_those_of_each_alone(count):
    copies, alone = Copies(transformers(count)), transformers(count)
    together = torch.optim.Adam(copies.parameters, lr=0.01)
    each = [torch.optim.Adam(network.parameters(), lr=0.01) for network in alone]
    for _ in range(3):
        step(together, copies.run(logits, TOKENS[:count]).square().sum())
        for i, network in enumerate(alone):
            step(each[i], logits(network, TOKENS[i]).square().sum())
    for i, network in enumerate(alone):
        for p, q in zip(copies.network_of(i).parameters(), network.parameters(), strict=True):
            close(p, q, rtol=1e-9, atol=1e-9)  # Adam blows the rounding of a slope that is 0 (the keys' bias) up


def test_several_tensors_come_back_as_a_tuple_with_the_copies_first():
    for count in (1, 3):
        pair = Copies(transformers(count)).run(lambda n, x: (logits(n, x), logits(n, x).sum()), TOKENS[:count])
        assert isinstance(pair, tuple)
        assert pair[0].shape == (count, 2, 4, 3)
        close(pair[1], pair[0].sum((1, 2, 3)))


def test_a_user_network_and_a_tied_transformer_run_together_as_well():
    networks = [Network(), Network()]
    with torch.no_grad():
        networks[1].inner += 1
    history = draws(2, 5, 3, 3)
    outputs = Copies(networks).run(lambda network, x: network(x, 2), history)
    for i in range(2):
        close(outputs[i], networks[i](history[i], 2), rtol=1e-12, atol=1e-13)
    tied = [transformer(seed, tied=True) for seed in (4, 5)]
    outputs = Copies(tied).run(logits, TOKENS[:2])
    for i in range(2):
        close(outputs[i], logits(tied[i], TOKENS[i]), rtol=1e-12, atol=1e-13)


@COUNT
def test_network_of_is_the_copy_as_it_is_now(count):
    copies = Copies(transformers(count))
    with torch.no_grad():
        for p in copies.parameters:
            p *= 1.5
    for i in range(count):
        single = copies.network_of(i)
        close(logits(single, TOKENS[i]), copies.run(logits, TOKENS[:count])[i], rtol=1e-12, atol=1e-13)
        with torch.no_grad():
            own = transformer(i).head.weight * 1.5
        assert torch.equal(single.head.weight, own)
    assert (copies.network_of(0) is copies.network) == (count == 1)


@COUNT
def test_a_frozen_copy_is_constant_and_no_later_update_reaches_it(count):
    copies = Copies(transformers(count))
    frozen, before = copies.frozen(), copies.run(logits, TOKENS[:count]).detach().clone()
    with torch.no_grad():
        for p in copies.parameters:
            p += 1
    after = frozen.run(logits, TOKENS[:count])
    close(after, before, rtol=1e-12, atol=1e-13)
    assert not after.requires_grad
    assert not any(p.requires_grad for p in frozen.parameters)
    assert all(p.requires_grad for p in copies.parameters)
    assert not torch.equal(copies.run(logits, TOKENS[:count]), before)


@COUNT
def test_frozen_in_another_precision_is_the_rounded_policy(count):
    copies = Copies(transformers(count))
    frozen = copies.frozen(torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in frozen.parameters)
    assert all(p.dtype == torch.float64 for p in copies.parameters)
    for p, q in zip(copies.parameters, frozen.parameters, strict=True):
        assert torch.equal(p.detach().bfloat16(), q)
    gap = frozen.run(logits, TOKENS[:count]).double() - copies.run(logits, TOKENS[:count]).detach()
    assert 0 < float(gap.abs().max()) < 0.5


def test_the_leaves_follow_the_networks_own_order():
    copies = Copies(transformers(3))
    assert [p.shape for p in copies.parameters] == [(3, *p.shape) for p in transformer(0).parameters()]
    alone = Copies(transformers(1))
    assert all(p is q for p, q in zip(alone.parameters, alone.network.parameters(), strict=True))
    assert alone.like is alone.parameters[0]


def test_networks_that_cannot_share_a_call_are_refused():
    for networks in (
        [],
        [nn.Identity(), nn.Identity()],
        [transformer(0), Transformer(3, width=8, heads=2, length=5)],
        [transformer(0), LinearPolicy([[1.0]])],
        [transformer(0), Transformer(3, width=8, heads=2, length=4, temperature=0.8, offset=0.3)],
        [Transformer(3, width=8, heads=2, length=4, dtype=dtype) for dtype in (torch.float64, torch.float32)],
        [transformer(0), Backwards(3, width=8, heads=2, length=4, temperature=0.7, offset=0.3)],
    ):
        with refused("networks"):
            Copies(networks)


def test_networks_that_differ_in_a_buffer_are_run_as_they_are_or_refused():
    """The offset of a policy is a buffer, no parameter: the first network's must not be lent to the others."""
    networks = [transformer(0), copy.deepcopy(transformer(0))]
    networks[1].offset += torch.tensor([0.0, 3.0, 0.0])
    alone = logits(networks[1], TOKENS[1])
    told = ""
    try:
        output = Copies(networks).run(logits, TOKENS[:2])[1]
    except InputError as error:
        output, told = alone, str(error)
    assert told.startswith("networks ") or not told
    close(output, alone, rtol=1e-12, atol=1e-13)
