"""Mean weights of outcomes and the multisets that they are summed over, against loops over all ordered groups."""

import itertools
import math

import pytest
import torch

from tests.envs.refusals import refused
from tests.theory.groups.recipes import RECIPES, build
from tests.typecheck import unchecked
from theory.groups import outcomes
from theory.groups.outcomes import distinct_outcomes, expected_weights, group_multisets

close = torch.testing.assert_close


def test_multisets_are_all_groups_with_their_multinomial_chances():
    p, G = torch.tensor([0.2, 0.0, 0.5, 0.3], dtype=torch.float64), 4
    multisets, log_chance = group_multisets(p, G)
    loop = {}
    for group in itertools.product((0, 2, 3), repeat=G):
        key = tuple(sorted(group))
        loop[key] = loop.get(key, 0.0) + math.prod(float(p[i]) for i in group)
    enumerated = {tuple(sorted(m.tolist())): float(x.exp()) for m, x in zip(multisets, log_chance, strict=True)}
    assert len(enumerated) == len(multisets)
    assert enumerated == pytest.approx(loop, rel=1e-12)


def outcomes_case():
    lengths = torch.tensor([2, 1, 3, 2])
    rewards = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.5], [0.0, 2.0, 0.0]]
    fields = {"rewards": torch.tensor(rewards, dtype=torch.float64), "mask": torch.arange(3) < lengths[:, None]}
    return torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), fields


@unchecked()
def weights_by_loop(recipe, p, fields, G):
    """Mean over all ordered groups of G times the first row's weight, given its outcome."""
    weights = torch.zeros_like(fields["rewards"])
    for group in itertools.product(range(len(p)), repeat=G):
        chance = math.prod(float(p[j]) for j in group[1:])
        rows = {name: x[list(group)] for name, x in fields.items()}
        weights[group[0]] += G * chance * recipe(group=torch.zeros(G, dtype=torch.int64), **rows)[0][0]
    return weights


@pytest.mark.parametrize("name", [name for name in RECIPES if "truncated" not in name])
@pytest.mark.parametrize("G", [2, 3])
def test_mean_weights_of_outcomes_are_those_of_all_ordered_groups(name, G):
    """These lengths are such that a few groups alone do not tell that the token mean mixes them."""
    p, fields = outcomes_case()
    recipe = build(name)
    close(expected_weights(recipe, p, fields, G)[0], weights_by_loop(recipe, p, fields, G), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["grpo", "grpo, eps, token mean"])
def test_mean_weights_do_not_depend_on_how_many_groups_are_weighed_at_once(name, monkeypatch):
    p, fields = outcomes_case()
    whole = expected_weights(build(name), p, fields, 3)[0]
    monkeypatch.setattr(outcomes, "_CHUNK", 30)
    close(expected_weights(build(name), p, fields, 3)[0], whole)


def test_an_outcome_without_chance_weighs_nothing_and_changes_nothing():
    p, fields = outcomes_case()
    alive = torch.tensor([0, 2, 3])
    p = torch.tensor([0.2, 0.0, 0.5, 0.3], dtype=torch.float64)
    weights = expected_weights(build("grpo"), p, fields, 3)[0]
    close(weights[alive], expected_weights(build("grpo"), p[alive], {n: x[alive] for n, x in fields.items()}, 3)[0])
    assert bool((weights[1] == 0).all())


@pytest.mark.parametrize(
    ("column", "count"),
    [
        ([-1.0, -2.0, -math.inf], 3),
        ([0.0, 1e-4, -1e9, 1e-4], 3),
        ([1e-300, 2e-300, 0.0], 3),
        ([0.1 + 0.2, 0.3, 0.3 + 1e-12], 2),
        ([math.inf, -math.inf, math.inf, 1e308], 3),
        ([5.0], 1),
    ],
)
def test_outcomes_are_equal_to_the_rounding_of_each_entry_and_infinities_are_values(column, count):
    old = torch.tensor(column, dtype=torch.float64)[:, None]
    fields = {"rewards": torch.zeros_like(old), "old": old}
    of, outcomes = distinct_outcomes(fields)
    assert len(outcomes["old"]) == count == int(of.max()) + 1
    close(outcomes["old"][of, 0], fields["old"][:, 0], rtol=1e-13, atol=0)


def test_a_reward_far_from_the_others_merges_none_of_them():
    p, G = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 3
    fields = {
        "rewards": torch.tensor([[0.0], [1e-4], [-1e9]], dtype=torch.float64),
        "mask": torch.ones(3, 1, dtype=torch.bool),
    }
    of, outcomes = distinct_outcomes(fields)
    weights = expected_weights(build("grpo"), p[torch.argsort(of)], outcomes, G)[0][of]
    close(weights, weights_by_loop(build("grpo"), p, fields, G), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_recipe_that_gives_no_numbers_is_refused(bad):
    p, fields = outcomes_case()
    with refused("recipe"):
        expected_weights(lambda rewards, mask, group, **others: (rewards * bad, None), p, fields, 2)


def test_weights_that_carry_a_graph_are_constants():
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def recipe(rewards, mask, group):
        return scale * rewards, None

    p, outcomes = torch.tensor([0.3, 0.7]).double(), {"rewards": torch.tensor([[1.0], [3.0]]).double()}
    weights, _ = expected_weights(recipe, p, {**outcomes, "mask": torch.ones(2, 1, dtype=torch.bool)}, 2)
    assert not weights.requires_grad
