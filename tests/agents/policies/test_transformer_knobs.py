"""The transformer's knobs, parameters, precision and refusals."""

import copy
import math

import numpy as np
import pytest
import torch

from agents.policies.transformer import Transformer
from tests.agents.policies.test_transformer import LENGTH, TOKENS, D, V, small
from tests.envs.refusals import refused


@pytest.mark.parametrize("temperature", [0.25, 3.0])
@pytest.mark.parametrize("offset", [0.0, 2.0, [0.0, 1.0, 0.0, -1.0, 0.5]])
def test_the_knobs_do_what_they_say_to_the_probabilities(temperature, offset):
    plain, turned = small(), small(temperature=temperature, offset=offset)
    z, shift = plain(plain.embed(TOKENS)).detach().numpy(), np.zeros(V)
    shift[: V if isinstance(offset, list) else 1] = offset
    weights = np.exp((z + shift) / temperature)
    pi = torch.softmax(turned(turned.embed(TOKENS)), -1).detach().numpy()
    np.testing.assert_allclose(pi, weights / weights.sum(-1, keepdims=True), rtol=1e-10)


def test_the_offset_leaves_the_slope_of_the_logits_alone_and_the_temperature_divides_it():
    x = small().embed(TOKENS[:1]).detach()
    nets = small(), small(offset=3.0), small(temperature=0.5)
    plain, lifted, sharp = (torch.autograd.functional.jacobian(lambda y, net=net: net(y)[0, -1], x) for net in nets)
    torch.testing.assert_close(lifted, plain, rtol=0, atol=0)
    torch.testing.assert_close(sharp, 2 * plain, rtol=1e-12, atol=1e-14)
    assert plain.abs().min() > 0


def test_parameters_follow_the_seed_alone():
    one, same, other = (small(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if "norm" not in name and name != "offset"]
    assert not any(torch.equal(one[name], other[name]) for name in drawn)
    assert len(drawn) == 2 + 2 * 8 + 2  # table, positions; 4 maps with biases in 2 blocks; the head


def test_parameters_follow_the_laws_that_the_source_states():
    net = Transformer(300, width=96, heads=4, layers=1, length=200).requires_grad_(False)
    assert net.embedding.weight.std() == pytest.approx(1, rel=0.03)
    assert net.position.std() == pytest.approx(0.1, rel=0.03)
    for layer in (net.blocks[0].attention.inward, net.blocks[0].mlp[2], net.head):
        bound = 1 / math.sqrt(layer.in_features)
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert 0 < layer.bias.abs().max() <= bound
    assert (net.norm.weight == 1).all()
    assert (net.norm.bias == 0).all()


def test_single_precision_stays_single_and_close_to_double():
    double, single = small(), small(dtype=torch.float32)
    ours = single(single.embed(TOKENS))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), double(double.embed(TOKENS)), rtol=1e-4, atol=1e-5)
    assert {p.dtype for p in single.parameters()} == {torch.float32}


def test_tied_weights_are_one_parameter():
    net = small(tied=True)
    assert net.head.weight is net.embedding.weight
    assert net.head.bias is None
    assert sum(p.shape == (V, D) for p in net.parameters()) == 1
    before = net(net.embed(TOKENS))
    copied = copy.deepcopy(net)
    with torch.no_grad():
        copied.embedding.weight *= 2.0
    assert copied.head.weight is copied.embedding.weight
    assert not torch.allclose(copied(net.embed(TOKENS)), before)
    assert small().head.weight is not small().embedding.weight


@pytest.mark.parametrize(
    ("argument", "settings"),
    [
        ("width", {"width": 9}),
        ("width", {"heads": 0}),
        ("temperature", {"temperature": 0.0}),
        ("temperature", {"temperature": -1.0}),
        ("temperature", {"temperature": math.nan}),
        ("temperature", {"temperature": math.inf}),
        ("offset", {"offset": [1.0, 2.0]}),
        ("offset", {"offset": math.nan}),
        ("offset", {"offset": [0.0, 0.0, math.inf, 0.0, 0.0]}),
        ("offset", {"offset": "high"}),
        ("tied", {"tied": True, "inputs": 2}),
    ],
)
def test_networks_that_do_not_fit_are_refused(argument, settings):
    with refused(argument):
        small(**settings)


def test_contexts_longer_than_the_network_are_refused():
    net = small()
    x = net.embed(torch.zeros(1, LENGTH + 1, dtype=torch.int64))
    with refused(f"length={LENGTH}"):
        net(x)
    cache = net.extend(x[:, :LENGTH])[1]
    with refused(f"length={LENGTH}"):
        net.extend(x[:, :1], cache)


@pytest.mark.parametrize("site", ["layer3", "layer0", "head", "Embedding"])
def test_a_site_that_does_not_exist_is_refused_with_those_that_do(site):
    net = small()
    x = net.embed(TOKENS)
    with refused(f"site {site!r} does not exist; there are embedding, layer1,"):
        net(x, {site: torch.zeros_like(x)})
    with refused("site"):
        net.extend(x, None, {site: torch.zeros_like(x)})


@pytest.mark.parametrize("branching", [1, 2])
def test_several_positions_on_top_of_a_cache_are_refused(branching):
    net = small()
    cache = net.extend(net.embed(TOKENS[:, :2]))[1]
    if branching == 2:
        cache = net.extend(net.embed(TOKENS[:, 2:3]).repeat_interleave(2, 0), cache)[1]
    with refused("extend"):
        net.extend(net.embed(TOKENS[:, 3:5]).repeat_interleave(branching, 0), cache)
