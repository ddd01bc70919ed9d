"""Sampled tokens against whole contexts and brute force; the fast way, the ordinary one and other networks."""

import math

import pytest
import torch
from torch import nn

from agents.policies.module_policy import ModulePolicy
from agents.policies.transformer import Linear, Transformer
from agents.sampling.tokens import TokenSample, sample_tokens
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import (
    Recomputing,
    Recurrent,
    enumerate_rollouts,
    several_prompts,
)

V, LENGTH = 5, 12
ONE, MORE = torch.tensor([[3], [0]]), torch.tensor([[0, 3, 1], [2, 2, 4], [4, 1, 1], [0, 0, 0]])
close = torch.testing.assert_close


class Ordinary(Transformer):
    """Not quite the class itself: it is sampled through `extend` and its growing cache."""


def small(kind=Transformer, **settings):
    net = kind(V, **({"width": 8, "layers": 2, "heads": 2, "length": LENGTH} | settings))
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):  # norms with other weights than 1 and 0 as well
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng_of(i)).to(parameter)
    return net


def rng_of(seed):
    return torch.Generator().manual_seed(seed)


def uniforms(*shape, seed=0):
    return torch.rand(shape, generator=rng_of(seed), dtype=torch.float64)


NETWORKS = {
    "plain": small,
    "ordinary": lambda: small(Ordinary),
    "tied": lambda: small(tied=True, temperature=4.0),  # at 1 it says one token again and again
    "tied, ordinary": lambda: small(Ordinary, tied=True, temperature=4.0),
    "deep, one head, both knobs": lambda: small(layers=3, heads=1, temperature=0.7, offset=[0.0, 1.0, 0.0, -1.0, 0.5]),
    "one layer": lambda: small(layers=1),
    "recurrent": lambda: Recomputing(Recurrent(V)),
    "module": lambda: module_policy(),
}
every_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)


def module_policy():
    network = Recurrent(V)
    return ModulePolicy(network, network.E, temperature=2.0)


def log_probs_of_whole_contexts(policy, prompts, sample):
    """One forward pass over prompt and tokens together, no cache."""
    context = torch.cat([prompts[sample.prompt], sample.tokens], 1)
    with torch.no_grad():
        logits = policy(policy.embed(context))[:, prompts.shape[1] - 1 : -1]
    return torch.log_softmax(logits, -1).gather(-1, sample.tokens[..., None])[..., 0]


@every_network
@pytest.mark.parametrize("prompts", [ONE, MORE], ids=["one", "more"])
@pytest.mark.parametrize("copies", [1, 3])
def test_log_probs_are_those_of_whole_contexts(build, prompts, copies):
    policy = build()
    sample = sample_tokens(policy, prompts, 6, rng_of(1), copies)
    assert sample.prompt.tolist() == [i for i in range(len(prompts)) for _ in range(copies)]
    assert sample.tokens.shape == sample.log_probs.shape == (len(prompts) * copies, 6)
    whole = log_probs_of_whole_contexts(policy, prompts, sample)
    close(sample.log_probs, whole, rtol=1e-11, atol=1e-12)
    for wrong in (
        TokenSample(sample.tokens.roll(1, 1), sample.log_probs, sample.prompt, sample.own),
        TokenSample(sample.tokens, sample.log_probs, sample.prompt.roll(copies), sample.own),
    ):
        assert (log_probs_of_whole_contexts(policy, prompts, wrong) - sample.log_probs).abs().max() > 0.01


class Uncached(nn.Module):
    """A Transformer that runs whole contexts for every token."""

    sites = ()

    def __init__(self, network):
        super().__init__()
        self.network, self.embed = network, network.embed

    def extend(self, x, cache, probes):
        seen = x if cache is None else torch.cat([cache.repeat_interleave(len(x) // len(cache), 0), x], 1)
        return self.network(seen)[:, -1], seen


@pytest.mark.parametrize("settings", [{}, {"tied": True}, {"layers": 3, "temperature": 0.3}, {"heads": 4}])
@pytest.mark.parametrize("copies", [1, 4])
def test_the_cached_and_the_uncached_ways_agree(settings, copies):
    u = uniforms(4 * copies, 9)
    ways = [small(**settings), small(Ordinary, **settings), Uncached(small(**settings))]
    fast, *others = (sample_tokens(policy, MORE, 9, u, copies) for policy in ways)
    for other in others:
        assert torch.equal(fast.tokens, other.tokens)
        close(fast.log_probs, other.log_probs, rtol=1e-11, atol=1e-12)
    assert not torch.equal(fast.tokens, sample_tokens(small(seed=1, **settings), MORE, 9, u, copies).tokens)


def test_a_plain_transformer_is_sampled_without_its_own_extend_and_no_other_is(monkeypatch):
    def forbidden(*given):
        raise AssertionError("extend was called")

    monkeypatch.setattr(Transformer, "extend", forbidden)
    assert sample_tokens(small(), MORE, 3, rng_of(0)).tokens.shape == (4, 3)
    with pytest.raises(AssertionError, match="extend was called"):
        sample_tokens(small(Ordinary), MORE, 3, rng_of(0))


class LowRank(Linear):
    """A part exchanged by its user: a linear map and a correction."""

    def forward(self, x):
        return super().forward(x) + x.flip(-1)


def exchanged(net):
    part = LowRank(8, 8).double()
    part.load_state_dict(net.blocks[1].attention.outward.state_dict())
    net.blocks[1].attention.outward = part


def hooked(net):
    net.blocks[0].register_forward_hook(lambda module, given, out: (out[0] + out[0].flip(-1), out[1]))


def hooked_before(net):
    net.head.register_forward_pre_hook(lambda module, given: (2 * given[0],))


@pytest.mark.parametrize("change", [exchanged, hooked, hooked_before])
def test_a_transformer_that_was_changed_is_sampled_as_it_now_is(change):
    net, u = small(), uniforms(4, 6)
    before = sample_tokens(net, MORE, 6, u)
    change(net)
    after = sample_tokens(net, MORE, 6, u)
    close(after.log_probs, log_probs_of_whole_contexts(net, MORE, after), rtol=1e-11, atol=1e-12)
    assert (after.log_probs - before.log_probs).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [Transformer, Ordinary, Recurrent])
def test_frequencies_of_all_sequences_are_their_exact_probabilities(kind, rng):
    world, copies = several_prompts(horizon=3), 40_000  # resolves 3 % of a probability of 1/27 in one standard error
    policy = uneven(world, kind)
    exact, sharper = chances(world, policy), chances(world, policy, 0.8)
    assert exact.min() * copies > 30
    sample = sample_tokens(policy, world.prompts, 3, rng, copies)
    words = sample.tokens @ torch.tensor([9, 3, 1])
    for i in range(len(world.prompts)):
        seen = torch.nn.functional.one_hot(words[sample.prompt == i], 27)
        assert len(seen) == copies
        assert_mean_within(seen, exact[i])
        assert differs_by(seen, sharper[i]), "the control: another temperature"
        assert differs_by(seen, exact[1 - i]), "the control: another prompt"


def uneven(world, kind):
    """A policy whose sequences are unlike in probability, but none so rare that it could be missed."""
    if kind is not Recurrent:
        return kind(world.V, width=8, heads=2, length=8, seed=2)
    network = Recurrent(world.V)
    network.outward.data *= 0.3
    return Recomputing(network)


def chances(world, policy, temperature=1.0):
    """Exact probability of every sequence after every prompt, (prompts, V^H), whole contexts one by one."""
    brute = enumerate_rollouts(world, policy, 1.0)
    log_pi = torch.log_softmax(brute.logits[0] / temperature, -1).gather(-1, brute.tokens[..., None])[..., 0]
    exact = log_pi.sum(-1).exp().reshape(len(world.prompts), -1)
    close(exact.sum(1), torch.ones(2, dtype=torch.float64))
    return exact


class Fixed(nn.Module):
    """The same logits always."""

    sites = ()

    def __init__(self, *probabilities):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities, dtype=torch.float64).log())

    def embed(self, tokens):
        return torch.zeros(*tokens.shape, 1, dtype=torch.float64)

    def extend(self, x, cache, probes):
        return self.logits.expand(len(x), -1), cache


LAST = 1 - 2**-53  # the largest uniform there is


@pytest.mark.parametrize(
    ("probabilities", "u", "tokens"),
    [
        ((0.25, 0.25, 0.5), (0, 0.2499, 0.25, 0.4999, 0.5, LAST), (0, 0, 1, 1, 2, 2)),
        ((0.0, 0.5, 0.0, 0.5, 0.0), (0, 0.4999, 0.5, LAST), (1, 1, 3, 3)),  # never one of probability 0
        ((1.0, 0.0), (0, LAST), (0, 0)),
        ((*(0.1,) * 10, 0.0), (0, LAST), (0, 9)),  # these sum to a little less than 1
    ],
)
def test_the_token_is_the_first_whose_cumulative_probability_exceeds_the_uniform(probabilities, u, tokens):
    sample = sample_tokens(Fixed(*probabilities), [[0]], len(u), torch.tensor([u], dtype=torch.float64))
    assert sample.tokens.tolist() == [list(tokens)]
    close(sample.log_probs[0], torch.tensor([math.log(probabilities[c]) for c in tokens], dtype=torch.float64))
