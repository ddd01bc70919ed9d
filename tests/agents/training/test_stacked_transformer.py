"""Several plain Transformers in one pass, against each network alone; rows of a group share what comes before their answers."""

import pytest
import torch

from agents.policies.transformer import Transformer
from agents.training.copies import Copies
from agents.training.stacked_transformer import can_be_stacked

V, PROMPTS, PLACES = 5, 3, 6


def networks(**changed):
    return [Transformer(V, None, 8, 2, 2, PLACES, temperature=0.7, offset=1.0, seed=i, **changed) for i in range(3)]


def contexts(group, known):
    """Rows of every copy, whose first `known` tokens are the same within a group."""
    rng = torch.Generator().manual_seed(0)
    starts = torch.randint(V, (3, PROMPTS, known), generator=rng).repeat_interleave(group, 1)
    return torch.cat([starts, torch.randint(V, (3, PROMPTS * group, PLACES - known), generator=rng)], -1)


def alone(nets, tokens, steps):
    """Logits of every network by its own forward pass."""
    return torch.stack([net(net.embed(x))[:, -steps:] for net, x in zip(nets, tokens, strict=True)])


@pytest.mark.parametrize(("group", "steps"), [(1, PLACES), (1, 3), (1, 1), (4, 4), (4, PLACES), (4, 1)])
def test_logits_and_their_gradient_are_those_of_each_network(group, steps):
    nets, tokens = networks(), contexts(group, PLACES - steps + 1)
    copies, weights = (
        Copies.of(nets),
        torch.randn(3, PROMPTS * group, steps, V, generator=torch.Generator().manual_seed(1)),
    )
    wanted, logits = alone(nets, tokens, steps), copies.logits(tokens, steps, group)
    torch.testing.assert_close(logits, wanted, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad((logits * weights).sum(), copies.parameters)
    for i, net in enumerate(nets):
        own = torch.autograd.grad((wanted[i] * weights[i]).sum(), list(net.parameters()), retain_graph=True)
        for all_copies, one in zip(gradients, own, strict=True):
            torch.testing.assert_close(all_copies[i], one, rtol=1e-10, atol=1e-12)


def test_a_group_that_does_not_share_its_start_is_seen_in_the_logits():
    nets, tokens = networks(), contexts(1, PLACES - 2)
    wrong = Copies.of(nets).logits(tokens, 3, group=PROMPTS)
    assert (wrong - alone(nets, tokens, 3)).abs().max() > 1e-2


def test_other_networks_take_the_way_round_and_give_the_same():
    hooked = networks()
    for net in hooked:
        net.head.register_forward_hook(lambda module, given, z: 2 * z)
    assert not can_be_stacked(hooked[0])
    tied, tokens = networks(tied=True), contexts(4, 3)
    assert not can_be_stacked(tied[0])
    for nets in (hooked, tied):
        torch.testing.assert_close(Copies.of(nets).logits(tokens, 4, 4), alone(nets, tokens, 4))
