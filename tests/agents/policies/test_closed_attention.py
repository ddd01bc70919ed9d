"""Closed attention edges: the forward pass is untouched, and derivatives are those of copies frozen by hand."""

import pytest
import torch

from agents.policies.closed_attention import ClosedAttention, beyond, everything, in_head, in_layer
from agents.policies.transformer import Transformer
from envs.token_tasks import copy, garnet
from envs.world import InputError
from tests.theory.token_cases import with_readout
from theory.tokens.prefix_tree import grow, one_token
from theory.tokens.tree_gradients import node_gradients, total_surrogate

close = torch.testing.assert_close
V, D, HEADS, T = 4, 8, 2, 5
TOKENS = torch.tensor([[0, 3, 1, 2, 0], [2, 2, 0, 1, 3]])


def network():
    return Transformer(V, width=D, heads=HEADS, layers=2, length=8, seed=3)


CLOSED = {
    "all": everything,
    "beyond 1": beyond(1),
    "beyond 2": beyond(2),
    "layer 0": in_layer(0),
    "layer 1": in_layer(1),
    "head 0": in_head(0, HEADS),
    "mixed": lambda layer, distance: [layer == 0 and distance == 2, distance > 2],
}


def by_hand(net, x, closed):
    """Logits at the last position: whole contexts, one explicit score matrix per head, constants where an edge is closed."""
    x = x + net.position[: x.shape[1]]
    steps = x.shape[1]
    for layer, block in enumerate(net.blocks):
        q, k, v = block.attention.inward(block.norm1(x)).unflatten(-1, (3, HEADS, -1)).unbind(2)
        rows = []
        for t in range(steps):
            heads = []
            for h in range(HEADS):
                shut = [closed(layer, t - j) if j < t else False for j in range(t + 1)]
                shut = [s if isinstance(s, bool) else s[h] for s in shut]
                keys, values = (
                    torch.stack([y[:, j, h].detach() if s else y[:, j, h] for j, s in enumerate(shut)], 1)
                    for y in (k, v)
                )
                weights = torch.softmax((keys @ q[:, t, h, :, None])[..., 0] / (D // HEADS) ** 0.5, -1)
                heads.append((weights[..., None] * values).sum(1))
            rows.append(torch.cat(heads, -1))
        x = x + block.attention.outward(torch.stack(rows, 1))
        x = x + block.mlp(block.norm2(x))
    return net.head(net.norm(x))[:, -1]


def slopes(logits, x):
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
    return torch.autograd.grad((weights * logits).sum(), x)[0]


@pytest.mark.parametrize("first", [1, 3, 5])
@pytest.mark.parametrize("name", CLOSED)
def test_logits_are_untouched_and_slopes_are_those_of_constants_by_hand(name, first):
    net, closed = network(), CLOSED[name]
    policy, x = ClosedAttention(net, closed), net.embed(TOKENS).detach().requires_grad_()
    logits, cache = policy.extend(x[:, :first])
    for t in range(first, T):
        logits, cache = policy.extend(x[:, t : t + 1], cache)
    close(logits, net(x)[:, -1])
    gradient = slopes(logits, x)
    close(gradient, slopes(by_hand(net, x, closed), x))
    assert float((gradient - slopes(net(x)[:, -1], x)).norm()) > 1e-4, "the control: open edges give other slopes"


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_nothing_closed_is_the_policy_itself_in_a_tree(alpha):
    world = with_readout(garnet(V=V, states=3, horizon=3, gamma=0.9, seed=1), D)
    net = network()
    ways = (net, ClosedAttention(net, beyond(9)), ClosedAttention(net, everything))
    trees = [grow(world, policy, alpha, net.sites) for policy in ways]
    plain, open_, shut = ([node_gradients(tree, total_surrogate(tree), site) for site in net.sites] for tree in trees)
    for a, b in zip(plain, open_, strict=True):
        for x, y in zip(a, b, strict=True):
            close(x, y)
    assert float((plain[0][0] - shut[0][0]).norm()) > 1e-3
    close(trees[0].J, trees[2].J)


def test_sampled_trees_whose_chunks_merge_are_gated_position_by_position():
    world = copy(3, 2)
    net = Transformer(3, width=D, heads=HEADS, length=8, seed=3)
    grown = [
        grow(world, policy, 1.0, ("embedding",), one_token(torch.Generator().manual_seed(1)), copies=50)
        for policy in (net, ClosedAttention(net, beyond(4)), ClosedAttention(net, beyond(1)))
    ]
    plain, longest, short = (node_gradients(tree, total_surrogate(tree), "embedding")[0] for tree in grown)
    close(plain, longest)
    assert float((plain - short).norm()) > 1e-3


def test_an_answer_that_does_not_fit_the_heads_is_refused():
    policy = ClosedAttention(network(), lambda layer, distance: [True, False, True])
    with pytest.raises(InputError, match=r"one of them per head \(2\); got"):
        policy.extend(network().embed(TOKENS))


@pytest.mark.parametrize("name", ["beyond 1", "beyond 2", "mixed"])
def test_distances_count_across_the_chunks_of_a_branching_tree(name):
    """Rows double at every step, so that each step's keys are a chunk of their own."""
    net, closed = network(), CLOSED[name]
    policy, x = ClosedAttention(net, closed), net.embed(TOKENS[:1]).detach().requires_grad_()
    _, cache = policy.extend(x[:, :2])
    for t, rows in ((2, 2), (3, 4), (4, 8)):
        logits, cache = policy.extend(x[:, t : t + 1].expand(rows, -1, -1), cache)
    assert len(cache[0]) == 4
    close(slopes(logits, x), slopes(by_hand(net, x, closed).expand(8, -1), x))
