"""What the token sampler refuses, and the last cases that it takes."""

import math

import pytest
import torch
from torch import nn

from agents.policies.transformer import Transformer
from agents.sampling.tokens import sample_tokens
from tests.agents.sampling.test_tokens import LENGTH, MORE, NETWORKS, Fixed, Ordinary, V, close, rng_of, small, uniforms
from tests.envs.refusals import refused


@pytest.mark.parametrize(
    ("argument", "request_"),
    [
        ("steps", {"steps": 0}),
        ("steps", {"steps": -2}),
        ("copies", {"copies": 0}),
        ("prompts", {"prompts": [[0, V]]}),
        ("prompts", {"prompts": [[0, 1], [-1, 0]]}),
        ("prompts", {"prompts": [0, 1]}),
        ("prompts", {"prompts": [[0.0, 1.0]]}),
        ("prompts", {"prompts": [[0, 1], [2]]}),
        ("prompts", {"prompts": [[]]}),
        ("prompts", {"prompts": torch.zeros(2, 0, dtype=torch.int64)}),
        ("prompts", {"prompts": torch.zeros(0, 3, dtype=torch.int64)}),
        ("prompts", {"prompts": "01"}),
        ("noise", {"noise": uniforms(4, 3)}),
        ("noise", {"noise": uniforms(3, 4)}),
        ("noise", {"noise": uniforms(4, 4) - 0.5}),
        ("noise", {"noise": torch.ones(4, 4)}),
        ("noise", {"noise": torch.full((4, 4), math.nan)}),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "recurrent"])
def test_requests_that_do_not_fit_are_refused(argument, request_, kind):
    with refused(argument):
        sample_tokens(NETWORKS[kind](), **({"prompts": MORE, "steps": 4, "noise": rng_of(0)} | request_))


@pytest.mark.parametrize("kind", [Transformer, Ordinary])
def test_contexts_as_long_as_the_policy_will_do_and_longer_ones_are_refused(kind):
    policy = small(kind)
    fitting = LENGTH - MORE.shape[1] + 1  # the last token is said, not read
    sample = sample_tokens(policy, MORE, fitting, rng_of(0))
    context = torch.cat([MORE, sample.tokens[:, :-1]], 1)
    last = torch.log_softmax(policy(policy.embed(context))[:, -1], -1).gather(1, sample.tokens[:, -1:])
    close(sample.log_probs[:, -1:], last.detach(), rtol=1e-11, atol=1e-12)
    with refused(f"steps={fitting + 1}"):
        sample_tokens(policy, MORE, fitting + 1, rng_of(0))


@pytest.mark.parametrize("give", [lambda z: z[:, None], lambda z: z[:-1], lambda z: z[0]])
def test_logits_of_the_wrong_shape_are_refused(give):
    policy = Fixed(0.5, 0.5)
    policy.extend = lambda x, cache, probes: (give(policy.logits.expand(len(x), -1)), cache)
    with refused("policy"):
        sample_tokens(policy, [[0], [1]], 2, rng_of(0))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", [Transformer, Ordinary])
def test_logits_that_are_nan_or_infinite_are_refused(value, kind):
    policy = small(kind)
    with torch.no_grad():
        policy.head.bias[2] = value
    with refused("policy"):
        sample_tokens(policy, MORE, 3, rng_of(0))
    with torch.no_grad():
        policy.head.bias[2] = -math.inf  # this one only forbids a token
    assert 2 not in sample_tokens(policy, MORE, 6, rng_of(0), 10).tokens


@pytest.mark.parametrize("change", ["eps", "gelu", "longer mlp"])
def test_a_transformer_with_other_settings_is_sampled_by_its_own_forward_pass(change):
    policy = Transformer(4, width=8, heads=2, length=8)
    if change == "eps":
        policy.norm.eps = 0.5
    elif change == "gelu":
        policy.blocks[0].mlp[1] = nn.GELU("tanh")
    else:
        policy.blocks[1].mlp.append(nn.GELU())
    sample = sample_tokens(policy, [[0, 1]], 4, torch.Generator().manual_seed(0), copies=3)
    context = torch.cat([torch.tensor([[0, 1]] * 3), sample.tokens], 1)
    whole = torch.log_softmax(policy(policy.embed(context))[:, 1:-1], -1).gather(-1, sample.tokens[..., None])[..., 0]
    torch.testing.assert_close(sample.log_probs, whole.detach(), rtol=1e-12, atol=1e-12)
