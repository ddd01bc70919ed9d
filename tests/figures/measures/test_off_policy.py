"""Weights of whole rows, silenced tokens, distances and angles of updates on rows of another policy, by second roads."""

from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch

from agents.recipes.learners import dr_grpo
from figures.measures.off_policy import (
    LOCK,
    WORLDS,
    costate_gap,
    describe,
    inner_steps,
    learners,
    relative_gap,
    silenced,
    sine,
    stale_policies,
    total_variation,
)
from figures.measures.policy_pairs import between
from figures.measures.token_systems import build_policy
from theory.differences import flat_parameters
from theory.groups.expected_update import expected_update
from theory.tokens.completions import completions
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow


@pytest.fixture(scope="module")
def shifted():
    world = WORLDS[LOCK]()
    old = build_policy(world, 1, 2.0)
    return world, old, between(old, build_policy(world, 2, 2.0), 0.2)


def test_whole_row_weights_are_exact_and_token_weights_are_not(shifted):
    world, old, now = shifted
    recipes = learners()
    gaps = {
        name: relative_gap(expected_update(world, now, recipes[name], 2, behaviour=old))
        for name in ("whole row", "importance")
    }
    assert gaps["whole row"] < 1e-12
    assert gaps["importance"] > 1e-2


def test_token_weights_are_exact_at_the_last_token_alone(shifted):
    world, old, now = shifted
    update = expected_update(world, now, learners()["importance"], 2, ("layer1",), behaviour=old)
    assert costate_gap(world, now, old, update, -1) < 1e-12
    assert costate_gap(world, now, old, update, 0) > 1e-2
    assert costate_gap(world, now, now, update, -1) > 1e-2  # without the prefixes' own ratio


def test_silenced_tokens_counted_group_by_group(shifted):
    world, old, now = shifted
    drawn = completions(grow(world, old))
    ratio = (completions(grow(world, now)).log_probs - drawn.log_probs)[0].exp()
    p, R, silent, all_tokens = drawn.p[0], drawn.returns[0], 0.0, 0.0
    for i, j in product(range(len(p)), repeat=2):
        for row, other in ((i, j), (j, i)):
            A = float(R[row] - R[other])
            gone = (ratio[row] > 1.2) if A > 0 else (ratio[row] < 0.8)
            silent += float(p[i] * p[j] * gone.sum() * (A != 0))
            all_tokens += float(p[i] * p[j]) * len(gone) * (A != 0)
    assert silent > 0
    assert silenced(world, now, old, dr_grpo(), 2) == pytest.approx(silent / all_tokens)
    assert silenced(world, now, old, learners()["importance"], 2) == 0


def test_total_variation_is_the_largest_gap_of_an_event(shifted):
    world, old, now = shifted
    p, q = (completions(grow(world, policy)).p[0] for policy in (old, now))
    assert total_variation(world, old, now) == pytest.approx(float((p - q).clamp(min=0).sum()))
    assert total_variation(world, now, now) == 0


def test_sine_is_0_for_multiples_and_1_for_updates_that_vanish_or_point_away(shifted):
    world, old, _ = shifted
    update = expected_update(world, old, dr_grpo(), 2)
    assert sine(update) < 1e-12
    for factor in (0.0, -1.0):
        mean = replace(update.mean, parameters=tuple(factor * x for x in update.mean.parameters))
        assert sine(replace(update, mean=mean)) == 1
    assert describe(replace(update, mean=mean))["cosine"] == pytest.approx(-1)
    truth = flat_parameters(update.truth.parameters)
    away = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=truth.dtype)
    away = away - truth * (away @ truth) / truth.square().sum()
    tilted = replace(update.mean, parameters=(truth + away * truth.norm() / away.norm(),))
    assert sine(replace(update, mean=tilted)) == pytest.approx(0.5**0.5)
    assert relative_gap(replace(update, mean=tilted)) == pytest.approx(1)
    assert describe(replace(update, mean=tilted)) == pytest.approx({"scale": 1, "bias": 1, "cosine": 0.5**0.5})


def test_an_update_that_vanishes_has_cosine_0(shifted):
    world, old, _ = shifted
    update = expected_update(world, old, dr_grpo(), 2)
    none = replace(update.mean, parameters=tuple(0.0 * x for x in update.mean.parameters))
    assert describe(replace(update, mean=none)) == {"scale": 0, "bias": 0, "cosine": 0}


def test_inner_steps_move_along_the_update_at_one_rate_and_the_first_by_the_stride(shifted):
    world, old, _ = shifted
    before = flat_parameters(old.parameters())
    steps = list(inner_steps(world, old, learners()["grpo"], 2, 3, 0.01))
    places = [flat_parameters(policy.parameters()) for _, policy, _ in steps]
    assert [step for step, _, _ in steps] == [0, 1, 2]
    assert torch.equal(places[0], before)
    assert float((places[1] - places[0]).norm()) == pytest.approx(0.01)
    moves = [b - a for a, b in pairwise(places)]
    directions = [update.mean.flat for _, _, update in steps]
    rate = float(moves[0].norm() / directions[0].norm())
    for move, direction in zip(moves, directions, strict=False):
        torch.testing.assert_close(move, rate * direction, rtol=1e-6, atol=1e-12)
    assert float(moves[1].norm()) != pytest.approx(0.01)
    again = expected_update(world, steps[1][1], learners()["grpo"], 2, behaviour=old)
    torch.testing.assert_close(again.mean.flat, steps[1][2].mean.flat)
    assert torch.equal(flat_parameters(old.parameters()), before)


def test_stale_policies_are_the_ones_so_many_steps_before_the_last(shifted):
    world, start, _ = shifted
    now, older = stale_policies(world, start, (1, 3), 0.01)
    path = exact_ascent(world, start, (0, 1, 2, 3), 0.01)
    flat = lambda policy: flat_parameters(policy.parameters())  # noqa: E731
    assert list(older) == [3, 1]
    for policy, expected in ((now, path[3]), (older[3], path[0]), (older[1], path[2])):
        assert torch.equal(flat(policy), flat(expected))
    assert not torch.equal(flat(older[1]), flat(path[1]))
