"""The transformer against a plain loop, its cache against whole contexts, causality, probes at every site."""

import math

import numpy as np
import pytest
import torch

from agents.policies.transformer import Transformer
from tests.agents.cases import draws

V, D, LENGTH = 5, 8, 7
TOKENS = torch.tensor([[0, 3, 1, 4, 4, 2], [2, 2, 0, 1, 3, 0], [4, 1, 1, 0, 2, 3]])
SHAPES = {"small": {}, "deep": {"layers": 3}, "one head": {"heads": 1}, "tied": {"tied": True}}
every_shape = pytest.mark.parametrize("settings", SHAPES.values(), ids=SHAPES)


def small(**settings):
    return Transformer(V, **({"width": D, "layers": 2, "heads": 2, "length": LENGTH} | settings))


def normed(x, norm):
    centred = x - x.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-5) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def linear(x, layer):
    return layer.weight.detach().numpy() @ x + (0 if layer.bias is None else layer.bias.detach().numpy())


def gelu(x):
    return np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])


def plain_logits(net, tokens, temperature=1.0, offset=0.0):
    """Every position, head and key in plain loops over vectors."""
    heads = net.blocks[0].attention.heads
    size = D // heads
    x = [(net.embedding.weight[t] + net.position[i]).detach().numpy() for i, t in enumerate(tokens)]
    for block in net.blocks:
        qkv = [linear(normed(v, block.norm1), block.attention.inward) for v in x]
        seen = [np.zeros(D) for _ in x]
        for t in range(len(x)):
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                q, ks, vs = qkv[t][:D][part], [r[D : 2 * D][part] for r in qkv], [r[2 * D :][part] for r in qkv]
                scores = np.exp([q @ ks[j] / math.sqrt(size) for j in range(t + 1)])
                seen[t][part] = sum(w * vs[j] for j, w in enumerate(scores / scores.sum()))
        x = [v + linear(s, block.attention.outward) for v, s in zip(x, seen, strict=True)]
        x = [v + linear(gelu(linear(normed(v, block.norm2), block.mlp[0])), block.mlp[2]) for v in x]
    out = np.stack([linear(normed(v, net.norm), net.head) for v in x])
    out[:, 0] += offset
    return torch.from_numpy(out / temperature)


@every_shape
@pytest.mark.parametrize("layers", [1, None])
def test_whole_contexts_equal_a_plain_loop(settings, layers):
    net = small(**(settings | ({"layers": layers} if layers else {})))
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):  # norms with other weights than 1 and 0 as well
            parameter += 0.3 * draws(*parameter.shape, seed=i)
        ours = net(net.embed(TOKENS))
    for row, tokens in zip(ours, TOKENS, strict=True):
        torch.testing.assert_close(row, plain_logits(net, tokens), rtol=1e-10, atol=1e-12)


@every_shape
@pytest.mark.parametrize("first", [1, 3])
def test_extending_token_by_token_equals_whole_contexts(settings, first):
    net = small(**settings)
    whole = net(net.embed(TOKENS))
    logits, cache = net.extend(net.embed(TOKENS[:, :first]))
    torch.testing.assert_close(logits, whole[:, first - 1], rtol=1e-12, atol=1e-13)
    for t in range(first, TOKENS.shape[1]):
        logits, cache = net.extend(net.embed(TOKENS[:, t : t + 1]), cache)
        torch.testing.assert_close(logits, whole[:, t], rtol=1e-12, atol=1e-13)


def prefixes(prompts, branching, levels):
    """All nodes of a tree, children next to each other, as whole contexts."""
    rows = [row.tolist() for row in prompts]
    for _ in range(levels):
        yield torch.tensor(rows)
        rows = [[*row, token] for row in rows for token in range(branching)]
    yield torch.tensor(rows)


@pytest.mark.parametrize("branching", [1, 2, 5])
def test_shared_chunks_of_a_tree_equal_whole_contexts_and_stay_valid(branching):
    net, cache, kept = small(layers=3), None, []
    for nodes in prefixes(TOKENS[:2, :3], branching, 3):
        x = net.embed(nodes if cache is None else nodes[:, -1:])
        logits, longer = net.extend(x, cache)
        torch.testing.assert_close(logits, net(net.embed(nodes))[:, -1], rtol=1e-12, atol=1e-13)
        kept.append((x, cache, logits))
        cache = longer
    for x, before, logits in kept:  # growing on did not change what came before
        assert torch.equal(net.extend(x, before)[0], logits)
    assert [k.shape[0] for k, _ in cache[0]] == ([2] if branching == 1 else [2 * branching**i for i in range(4)])


@pytest.mark.parametrize("children", [[[3, 1], [0, 4]], [[3], [0]]])
def test_a_tree_and_whole_contexts_have_the_same_derivatives(children):
    net, gradients, count = small(), [], len(children[0])
    for road in ("tree", "whole"):
        x = net.embed(TOKENS[:2, :3]).detach().requires_grad_()
        tails = net.embed(torch.tensor(children)).reshape(2 * count, 1, D)
        if road == "tree":
            logits = net.extend(tails, net.extend(x)[1])[0]
        else:
            logits = net(torch.cat([x.repeat_interleave(count, 0), tails], 1))[:, -1]
        value = (logits * draws(2 * count, V)).sum()
        gradients.append(torch.autograd.grad(value, [x, *net.parameters()]))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)
    assert gradients[0][0].abs().min() > 0


def influence(net, x):
    """(from position, to position): largest slope of the logits at `to` in the embedding at `from`."""
    slopes = torch.autograd.functional.jacobian(lambda y: net(y[None])[0], x)  # (to, V, from, D)
    return slopes.abs().amax((1, 3)).T


def test_later_tokens_never_change_earlier_logits(monkeypatch):
    net = small()
    x = net.embed(TOKENS[0]).detach()
    reach = influence(net, x)
    assert (reach.tril(-1) == 0).all()
    assert (reach[torch.ones(6, 6).triu().bool()] > 0).all()
    plain = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "agents.policies.transformer.functional.scaled_dot_product_attention", lambda q, k, v, is_causal: plain(q, k, v)
    )
    assert (influence(net, x) > 0).all()  # the control: without the mask everything is seen


def test_relaxed_tokens_are_mixtures_of_embeddings():
    net = small()
    u = torch.softmax(draws(2, 3, V), -1)
    torch.testing.assert_close(net.embed(torch.eye(V)[TOKENS].double()), net.embed(TOKENS))
    by_hand = sum(u[..., a : a + 1] * net.embedding.weight[a] for a in range(V))
    torch.testing.assert_close(net.embed(u), by_hand)


@pytest.mark.parametrize("site", ["embedding", "layer1", "layer2"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_probe_moves_its_own_site_and_nothing_before_it(site, place):
    net, x = small(), small().embed(TOKENS[:, :5]).detach()
    probe = torch.zeros_like(x)
    probe[:, place] = draws(3, D)
    shifted, plain = residuals(net, x, {site: probe}), residuals(net, x, None)
    later = net.sites[net.sites.index(site) :]
    for name in net.sites:
        gap = shifted[name] - plain[name]
        if name == site:
            torch.testing.assert_close(gap, probe, rtol=1e-12, atol=1e-13)
        moved = gap.abs().amax((0, 2)) > 1e-9
        assert (
            moved.tolist() == [t == place or (t > place and name in later[1:]) for t in range(5)] or name not in later
        )
        assert name in later or not moved.any()
    reached = (net(x, {site: probe}) - net(x)).abs().amax((0, 2)) > 1e-9
    assert reached.tolist() == [t == place or (t > place and site != "layer2") for t in range(5)]


def residuals(net, x, probes):
    """Residual stream at every site: what each block, and at last the final norm, takes in."""
    seen = []
    hooks = [m.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for m in (*net.blocks, net.norm)]
    net(x, probes)
    for hook in hooks:
        hook.remove()
    return dict(zip(net.sites, seen, strict=True))


def test_probes_in_a_cached_step_are_those_of_the_whole_context():
    net, x = small(), small().embed(TOKENS).detach()
    probes = {site: 0.5 * draws(3, 6, D, seed=i) for i, site in enumerate(net.sites)}
    whole = net(x, probes)
    logits, cache = net.extend(x[:, :4], probes={k: p[:, :4] for k, p in probes.items()})
    for t in (4, 5):
        logits, cache = net.extend(x[:, t : t + 1], cache, {k: p[:, t : t + 1] for k, p in probes.items()})
        torch.testing.assert_close(logits, whole[:, t], rtol=1e-12, atol=1e-13)
    assert net.sites == ("embedding", "layer1", "layer2")
