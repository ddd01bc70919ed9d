"""Cuts of a sampled batch, gradients of their parts and steps after each part, by second roads."""

from dataclasses import replace

import pytest
import torch

from agents.recipes.learners import build_learner
from agents.recipes.surrogates import importance, score
from agents.sampling.tokens import sample_tokens
from figures.measures.micro_batches import (
    ADVANTAGES_KEPT,
    ALL_KEPT,
    ANEW,
    BY_GROUPS,
    BY_TOKENS,
    CUTS,
    EVEN_CUTS,
    UNWEIGHTED,
    accumulated,
    equal_parts,
    gap,
    gradient,
    gradients_by_cut,
    halved_groups,
    sample_batch,
    shares,
    stepwise,
    whole_groups,
)
from figures.measures.token_systems import build_policy, build_world


@pytest.fixture(scope="module")
def sampled():
    world = build_world("stop (3,3)")
    return sample_batch(world, build_policy(world, 1, spread=1.0), 8, 8, torch.Generator().manual_seed(1))


def test_log_probs_of_a_sampled_batch_are_those_it_was_drawn_with(sampled):
    world = build_world("stop (3,3)")
    drawn = sample_tokens(sampled.policy, world.prompts[[0, 1] * 4], 3, torch.Generator().manual_seed(1), copies=8)
    log_probs = sampled.log_probs(slice(None))
    assert torch.allclose(log_probs, drawn.log_probs * sampled.batch.mask)
    assert not torch.allclose(log_probs, drawn.log_probs)  # some rows end early


def test_cuts_are_partitions_of_the_sizes_asked_for(sampled):
    batch = sampled.batch
    halves, uneven, pairs = halved_groups(batch), whole_groups(batch, 5, 3), equal_parts(batch, 4)
    assert [len(part) for part in uneven] == [40, 24]
    assert [len(part) for part in pairs] == [16] * 4
    assert all(torch.equal(torch.bincount(batch.group[half]), torch.full((8,), 4)) for half in halves)
    for parts in (halves, uneven, pairs):
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(64))
    assert all(len(batch.group[part].unique()) == 2 for part in pairs)
    assert shares(batch, uneven, "groups") == [5 / 8, 3 / 8]
    tokens = batch.mask.sum(1)
    assert shares(batch, uneven, "tokens")[0] == pytest.approx(float(tokens[:40].sum() / tokens.sum()))


def test_a_part_of_its_own_is_a_batch_that_never_saw_the_rest(sampled):
    learner = build_learner("grpo")
    parts = whole_groups(sampled.batch, 5, 3)
    alone = replace(sampled, contexts=sampled.contexts[parts[1]], batch=sampled.batch.rows(parts[1]))
    assert gap(gradient(sampled, learner, parts[1]), gradient(alone, learner)) < 1e-12
    both = accumulated(sampled, learner, parts, [0.25, 0.75])
    rest = gradient(sampled, learner, parts[0])
    assert gap(both, 0.25 * rest + 0.75 * gradient(alone, learner)) < 1e-12
    assert gap(both, 0.75 * rest + 0.25 * gradient(alone, learner)) > 1e-3


def loop_gradient(sampled, learner, parts, weights_of, advantages):
    """`sum w_it A_it grad log pi(c_it)` over the rows of all parts, with `weights_of(part)` for the rows of a part."""
    total = torch.zeros_like(sampled.batch.rewards)
    for part in parts:
        total[part] += weights_of(part) * advantages[part]
    log_probs = sampled.log_probs(slice(None))
    parameters = list(sampled.policy.parameters())
    slopes = torch.autograd.grad((total * log_probs).sum(), parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([slope.flatten() for slope in slopes])


def test_gradients_by_cut_are_those_of_weights_written_out(sampled):
    """REINFORCE with the token mean: `A = R`, so every cut changes only the number that a token's term is divided by."""
    learner = replace(build_learner("reinforce"), normalise=build_learner("grpo", length="token mean").normalise)
    batch, cuts = sampled.batch, gradients_by_cut(sampled, learner)
    assert tuple(cuts) == CUTS
    A, tokens = batch.rewards.sum(1, keepdim=True) * batch.mask, float(batch.mask.sum())
    uneven, halves = whole_groups(batch, 5, 3), halved_groups(batch)
    own = lambda part: float(batch.mask[part].sum())  # noqa: E731
    written = {
        EVEN_CUTS[1]: (equal_parts(batch, 4), lambda part: 1 / 4 / own(part)),
        UNWEIGHTED: (uneven, lambda part: 1 / 2 / own(part)),
        BY_GROUPS: (uneven, lambda part: len(part) / 64 / own(part)),
        BY_TOKENS: (uneven, lambda part: 1 / tokens),
        ANEW: (halves, lambda part: 1 / 2 / own(part)),
        ADVANTAGES_KEPT: (halves, lambda part: 1 / 2 / own(part)),
        ALL_KEPT: (halves, lambda part: 1 / tokens),
    }
    for cut, (parts, weights_of) in written.items():
        by_hand = loop_gradient(sampled, learner, parts, weights_of, A)
        assert gap(cuts[cut], by_hand) < 1e-10, cut
    assert gap(cuts[UNWEIGHTED], cuts[BY_TOKENS]) > 1e-3


def test_advantages_of_a_half_differ_from_those_kept(sampled):
    """GRPO with the row sum: a half's own advantages are those of its four rows of each group."""
    learner = build_learner("grpo", std="none", length="row sum")
    cuts, halves = gradients_by_cut(sampled, learner), halved_groups(sampled.batch)
    R, group = sampled.batch.rewards.sum(1), sampled.batch.group
    kept, anew = torch.zeros_like(R), torch.zeros_like(R)
    for g in range(8):
        kept[group == g] = R[group == g] - R[group == g].mean()
        for half in halves:
            rows = half[group[half] == g]
            anew[rows] = R[rows] - R[rows].mean()
    for cut, A in ((ANEW, anew), (ADVANTAGES_KEPT, kept), (ALL_KEPT, kept)):
        by_hand = loop_gradient(sampled, learner, halves, lambda part: 1 / 64, A[:, None] * sampled.batch.mask)
        assert gap(cuts[cut], by_hand) < 1e-10, cut
    assert gap(cuts[ANEW], cuts[ALL_KEPT]) > 1e-3


def test_one_step_is_the_gradient_and_two_small_ones_commute_to_second_order(sampled):
    learner = build_learner("grpo", length="row sum")
    parts, before = whole_groups(sampled.batch, 4, 4), [p.clone() for p in sampled.policy.parameters()]
    assert gap(stepwise(sampled, learner, parts[:1], 0.01), 0.01 * gradient(sampled, learner, parts[0])) < 1e-10
    gaps = [gap(stepwise(sampled, learner, parts[::-1], h), stepwise(sampled, learner, parts, h)) for h in (2e-3, 1e-3)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    plain, ratio = (replace(learner, surrogate=surrogate) for surrogate in (score, importance))
    assert gap(stepwise(sampled, ratio, parts[:1], 0.1), stepwise(sampled, plain, parts[:1], 0.1)) < 1e-12
    assert gap(stepwise(sampled, ratio, parts, 0.1), stepwise(sampled, plain, parts, 0.1)) > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(before, sampled.policy.parameters(), strict=True))
