"""Second roads for what the claims on normalisers and batch cuts compute, and defects that turn the claims."""

import itertools
from dataclasses import replace

import pandas as pd
import pytest
import torch

import figures.claims.critic_free.batch_split as split
import figures.claims.critic_free.normalisation_breaks as breaks
from agents.recipes.learners import build_learner
from agents.recipes.surrogates import importance, score, token_mean
from agents.sampling.tokens import sample_tokens
from envs.world import InputError
from figures.harness.claim import judge
from figures.measures.micro_batches import (
    accumulated,
    expected_token_mean,
    gap,
    gradient,
    halved_groups,
    sample_batch,
    shares,
    stepwise,
    whole_groups,
)
from figures.measures.token_systems import build_policy, build_world
from theory.groups.expected_update import distinct_outcomes, expected_update
from theory.groups.kl import kl_at_prefixes
from theory.groups.objectives import (
    free_drift,
    frozen_objective,
    length_objective,
    mean_lengths,
    row_weights,
    trust_region_objective,
    win_rate,
)
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import grow


def system(name, seed=0):
    world = build_world(name)
    return world, build_policy(world, seed, spread=2.0)


def tree_of(name, seed=0):
    with torch.no_grad():
        return grow(*system(name, seed))


def direction(update, seed=3):
    v = torch.randn(len(update.truth.flat), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return v / v.norm()


def verdict(module, settings):
    rng = torch.Generator().manual_seed(0)
    rows = pd.DataFrame([row for setting in settings for row in module.measure(setting, rng, "cpu")])
    return judge(module.CLAIM, rows)


def test_row_weights_are_those_of_all_ordered_groups():
    world, policy = system("garnet (2,3)")
    update = expected_update(world, policy, build_learner("grpo", length="row sum"), 3)
    found = completions(grow(world, policy))
    R, p, W = found.returns[0], found.p[0], torch.zeros(8, dtype=torch.float64)
    for own, *others in itertools.product(range(8), repeat=3):
        returns = R[[own, *others]]
        A = (returns[0] - returns.mean()) / returns.std(unbiased=False) if len({own, *others}) > 1 else 0.0
        W[own] += p[others].prod() * A
    assert torch.allclose(row_weights(update, found), W, atol=1e-12)


def test_row_weights_of_dapo_divide_by_the_length_of_the_group():
    world, policy = system("stop (2,4)")
    found = completions(grow(world, policy))
    R, p, lengths = found.returns[0], found.p[0], found.mask[0].sum(1)
    A = (R[:, None] - R).sign()  # binary rewards, two rows
    W = (p * 2 * A / (lengths[:, None] + lengths)).sum(1)
    assert torch.allclose(row_weights(expected_update(world, policy, build_learner("dapo"), 2), found), W)


def test_the_win_rate_by_hand():
    R, p, wanted = torch.tensor(
        [[0.0, 1.0, 1.0 + 1e-12, 3.0], [0.1, 0.2, 0.3, 0.4], [-0.9, -0.3, -0.3, 0.6]], dtype=torch.float64
    )
    assert torch.allclose(win_rate(R, p), wanted)


@pytest.mark.parametrize("name", ["stop (2,4)", "garnet (2,3)"])
def test_slopes_of_J_and_of_the_trust_region_objective_at_its_own_policy_are_the_gradient(name):
    world, policy = system(name)
    update = expected_update(world, policy, build_learner("rloo"), 2)
    v = direction(update)
    drawn = tree_of(name)
    for objective in (
        lambda tree: tree.J,
        trust_region_objective(drawn, 1.0),
        frozen_objective(completions(drawn).returns[0]),
    ):
        assert float(directional_slope(policy, v, lambda moved, f=objective: f(grow(world, moved)))) == pytest.approx(
            float(update.truth.flat @ v), rel=1e-8
        )


def test_the_length_objective_by_hand():
    tree, V = tree_of("stop (2,4)"), 0.3
    found, total = completions(tree), 0.0
    for p, R, tokens in zip(found.p[0], found.returns[0], found.tokens[0].tolist(), strict=True):
        length = tokens.index(2) + 1 if 2 in tokens else 4
        total += float(p * (R - V)) / length
    assert float(length_objective(2.0, torch.tensor(V))(tree)) == pytest.approx(2 * total)


@pytest.mark.parametrize("name", ["stop (2,4)", "garnet (2,3)"])
def test_divergences_at_prefixes_add_up_to_that_of_whole_completions(name):
    pi, ref = tree_of(name, 0), tree_of(name, 1)
    at, to = completions(pi), completions(ref)
    whole = lambda a, b: float((a.p * ((a.log_probs - b.log_probs) * a.mask).sum(-1)).sum())  # noqa: E731
    assert float(kl_at_prefixes(pi, ref, pi, forward=False)) == pytest.approx(whole(at, to))
    assert float(kl_at_prefixes(pi, ref, ref, forward=True)) == pytest.approx(whole(to, at))


def test_free_drift_is_the_slope_along_tilted_completions():
    found = completions(tree_of("stop (2,4)"))
    W = torch.randn(len(found.p[0]), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tilted = lambda e: mean_lengths(replace(found, p=found.p * (e * W).exp()))  # noqa: E731
    assert torch.allclose(free_drift(W, found), (tilted(1e-5) - tilted(-1e-5)) / 2e-5, atol=1e-8)


def sampled():
    world = build_world("stop (3,3)")
    return sample_batch(world, build_policy(world, 1, spread=1.0), 8, 8, torch.Generator().manual_seed(1))


def test_log_probs_of_a_sampled_batch_are_those_it_was_drawn_with():
    world, found = build_world("stop (3,3)"), sampled()
    drawn = sample_tokens(found.policy, world.prompts[[0, 1] * 4], 3, torch.Generator().manual_seed(1), copies=8)
    assert torch.allclose(found.log_probs(slice(None)), drawn.log_probs * found.batch.mask)


def test_cuts_are_partitions_of_the_sizes_asked_for():
    batch = sampled().batch
    halves, uneven = halved_groups(batch), whole_groups(batch, 5, 3)
    assert [len(part) for part in uneven] == [40, 24]
    assert all(torch.equal(torch.bincount(batch.group[half]), torch.full((8,), 4)) for half in halves)
    for parts in (halves, uneven):
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(64))
    assert shares(batch, uneven, "groups") == [5 / 8, 3 / 8]
    tokens = batch.mask.sum(1)
    assert shares(batch, uneven, "tokens")[0] == pytest.approx(float(tokens[:40].sum() / tokens.sum()))


def test_a_part_of_its_own_is_a_batch_that_never_saw_the_rest():
    whole, learner = sampled(), build_learner("grpo")
    part = whole_groups(whole.batch, 5, 3)[1]
    alone = replace(whole, contexts=whole.contexts[part], batch=whole.batch.rows(part))
    assert gap(gradient(whole, learner, part), gradient(alone, learner)) < 1e-12
    both = accumulated(whole, learner, whole_groups(whole.batch, 5, 3), [0.25, 0.75])
    rest = gradient(whole, learner, whole_groups(whole.batch, 5, 3)[0])
    assert gap(both, 0.25 * rest + 0.75 * gradient(alone, learner)) < 1e-12


def test_one_step_is_the_gradient_and_two_small_ones_commute_to_second_order():
    batch, learner = sampled(), build_learner("grpo", length="row sum")
    parts, before = whole_groups(batch.batch, 4, 4), [p.clone() for p in batch.policy.parameters()]
    assert gap(stepwise(batch, learner, parts[:1], 0.01), 0.01 * gradient(batch, learner, parts[0])) < 1e-10
    gaps = [gap(stepwise(batch, learner, parts[::-1], h), stepwise(batch, learner, parts, h)) for h in (2e-3, 1e-3)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    plain, ratio = (replace(learner, surrogate=surrogate) for surrogate in (score, importance))
    assert gap(stepwise(batch, ratio, parts[:1], 0.1), stepwise(batch, plain, parts[:1], 0.1)) < 1e-12
    assert gap(stepwise(batch, ratio, parts, 0.1), stepwise(batch, plain, parts, 0.1)) > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(before, batch.policy.parameters(), strict=True))


def test_the_token_mean_of_one_group_is_the_group_token_mean():
    world, policy = system("stop (3,3)")
    plain = build_learner("grpo", length="group token mean")
    found = expected_token_mean(world, policy, build_learner("grpo"), 3, 1)
    assert torch.allclose(found.mean.flat, expected_update(world, policy, plain, 3).mean.flat, atol=1e-12)
    with pytest.raises(InputError, match="groups must be"):
        expected_token_mean(world, policy, build_learner("grpo"), 3, 0)


def test_the_token_mean_of_two_groups_is_that_of_all_pairs_of_groups():
    world, policy = system("stop (3,3)")
    learner = build_learner("grpo", std="none")
    found = completions(grow(world, policy))
    weigh, index = replace(learner, normalise=token_mean), torch.tensor([0, 0, 1, 1])
    cases = []
    for p, rewards, mask in zip(found.p, found.rewards, found.mask, strict=True):
        of, rows = distinct_outcomes({"rewards": rewards, "mask": mask})
        cases.append((of, rows, torch.zeros(len(rows["mask"]), dtype=torch.float64).index_add_(0, of, p)))
    of, mine, law = cases[0]
    expected = torch.zeros(len(law), dtype=torch.float64)
    for share, (_, theirs, other) in zip(world.weights, cases, strict=True):
        for own, beside, *rest in itertools.product((0, len(law) - 1), range(len(law)), *[range(len(other))] * 2):
            rewards, mask = (torch.cat([mine[x][[own, beside]], theirs[x][rest]]) for x in ("rewards", "mask"))
            expected[own] += share * law[beside] * other[rest].prod() * 4 * weigh(rewards, mask, index)[0][0, 0]
    update = expected_token_mean(world, policy, learner, 2, 2)
    steps = [w[: len(w) // 2].flatten().repeat_interleave(2 * len(of) // w.numel()) for w in update.weights]
    own = torch.stack(steps, -1).gather(1, found.mask[0].sum(1, keepdim=True) - 1)[:, 0]
    asked = (of == 0) | (of == len(law) - 1)
    assert float(expected.abs().min()) == 0 < float(expected[[0, -1]].abs().min())
    assert torch.allclose(own[asked], expected[of][asked], atol=1e-12)


FEW = [
    s
    for s in breaks.settings("quick")
    if (s.seed, s.ascended) == (0, 0) and s.group < 6 and (s.breaker, s.recipe) != (breaks.LENGTH, "GRPO")
]


def test_a_few_settings_come_out_as_documented():
    found = verdict(breaks, FEW)
    assert found.as_documented, found.reason
    found = verdict(split, split.settings("quick")[:1])
    assert found.as_documented, found.reason


def test_recipes_without_their_breaker_and_a_token_mean_that_keeps_groups_apart_would_be_seen(monkeypatch):
    real = breaks.recipes
    monkeypatch.setattr(breaks, "recipes", lambda setting: (real(setting)[1],) * 2)
    found = verdict(breaks, [s for s in FEW if s.breaker in (breaks.LENGTH, breaks.STD)])
    assert found.parts[breaks.LENGTH].outcome == found.parts[breaks.STD].outcome == "holds"
    monkeypatch.setattr(split, "learners", _with_row_sum)
    assert verdict(split, split.settings("quick")[:1]).parts[split.TOKENS].outcome == "holds"


def _with_row_sum():
    found = {name: build_learner("grpo", length=name) for name in ("row sum", "row mean", "group token mean")}
    return found | {
        "token mean": build_learner("grpo", length="row sum"),
        "batch baseline": build_learner("reinforce", baseline=True),
    }
