"""Noise of sampled tokens as an argument: matched, from a generator, in any precision; and what sampling leaves behind."""

import torch

from agents.sampling.tokens import sample_tokens
from tests.agents.sampling.test_tokens import MORE, ONE, V, close, every_network, rng_of, small, uniforms
from tests.theory.token_cases import Recomputing, Recurrent


@every_network
def test_matched_noise_gives_matched_tokens(build):
    policy, u = build(), uniforms(8, 7)
    both = sample_tokens(policy, MORE, 7, u, 2)
    assert torch.equal(both.tokens, sample_tokens(policy, MORE, 7, u, 2).tokens)
    assert torch.equal(both.tokens, sample_tokens(policy, MORE.repeat_interleave(2, 0), 7, u).tokens)
    assert torch.equal(both.tokens[2:4], sample_tokens(policy, MORE[1:2], 7, u[2:4], 2).tokens)
    assert torch.equal(both.tokens[:, :4], sample_tokens(policy, MORE, 4, u[:, :4], 2).tokens)
    assert not torch.equal(both.tokens, sample_tokens(policy, MORE, 7, uniforms(8, 7, seed=1), 2).tokens)
    assert not torch.equal(both.tokens[::2], both.tokens[1::2])  # copies have noise of their own


def test_a_small_step_of_the_parameters_moves_few_matched_tokens():
    policy, u = small(), uniforms(4000, 1)
    before = sample_tokens(policy, MORE, 1, u, 1000).tokens
    with torch.no_grad():
        policy.head.bias[0] += 0.01
    moved = (sample_tokens(policy, MORE, 1, u, 1000).tokens != before).double().mean()
    assert 0 < moved < 0.01
    fresh = (sample_tokens(policy, MORE, 1, uniforms(4000, 1, seed=1), 1000).tokens != before).double().mean()
    assert fresh > 0.3  # the control: unmatched


def test_the_generator_decides():
    one, same, other = (sample_tokens(small(), MORE, 6, rng_of(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.tokens, same.tokens)
    assert not torch.equal(one.tokens, other.tokens)
    rng = rng_of(1)
    first, second = (sample_tokens(small(), MORE, 6, rng) for _ in range(2))
    assert torch.equal(first.tokens, one.tokens)
    assert not torch.equal(second.tokens, one.tokens)  # it goes on
    assert torch.equal(one.tokens, sample_tokens(small(), MORE, 6, uniforms(4, 6, seed=1)).tokens)


def test_single_precision_stays_single_and_says_the_same_tokens():
    double, single = small(), small().to(torch.float32)
    u = uniforms(200, 6)
    ours, theirs = (sample_tokens(policy, MORE, 6, u, 50) for policy in (double, single))
    assert theirs.log_probs.dtype == torch.float32
    assert torch.equal(ours.tokens, theirs.tokens)
    close(theirs.log_probs.double(), ours.log_probs, rtol=1e-4, atol=1e-5)
    assert torch.equal(theirs.tokens, sample_tokens(single, MORE, 6, rng_of(0), 50).tokens)  # drawn in float64


@every_network
def test_the_record_is_constant_and_fit_for_training(build):
    policy = build()
    sample = sample_tokens(policy, MORE, 4, rng_of(0))
    assert not sample.log_probs.requires_grad
    assert torch.is_grad_enabled()
    logits = policy(policy.embed(torch.cat([MORE, sample.tokens], 1)))[:, 2:-1]
    live = torch.log_softmax(logits, -1).gather(-1, sample.tokens[..., None])[..., 0]
    ((live - sample.log_probs).exp() * sample.log_probs).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())


class Keeping(Recomputing):
    """A network that keeps a table for every length that it has met, as many do."""

    def __init__(self, network):
        super().__init__(network)
        self.tables = {}

    def forward(self, embeddings, probes=None):
        table = self.tables.setdefault(embeddings.shape[1], torch.ones_like(embeddings[0]))
        return super().forward(embeddings * table, probes)

    def extend(self, x, cache=None, probes=None):
        seen = x if cache is None else torch.cat([cache, x], 1)
        return self(seen)[:, -1], seen


def test_a_network_that_keeps_something_of_a_run_can_still_be_trained():
    policy = Keeping(Recurrent(V))
    sample_tokens(policy, ONE, 3, rng_of(0))
    assert list(policy.tables) == [1, 2, 3]
    policy(policy.embed(MORE)).square().sum().backward()
    assert policy.network.E.grad.abs().sum() > 0
