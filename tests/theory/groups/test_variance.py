"""Variances of a group's update: against all ordered groups, draws, and the two parts that Hoeffding gives."""

import math

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from agents.recipes.learners import build_learner
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from tests.envs.refusals import refused
from tests.theory.groups.enumeration import Enumeration, policy_of, two_prompts
from tests.typecheck import unchecked
from theory.groups.expected_update import expected_update
from theory.groups.variance import group_variance, hoeffding, word_scores
from theory.tokens.completions import completions, words
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close
WORLDS = {
    "dense": garnet(V=2, states=3, horizon=2, gamma=0.8, seed=3),
    "when to stop": sum_and_stop(1, 3, gamma=0.7),
    "lock": combination_lock(2, 2),
}
RECIPES = {
    "rloo": ("rloo", {}),
    "reinforce": ("reinforce", {}),
    "dr_grpo": ("dr_grpo", {}),
    "grpo": ("grpo", {}),
    "sample std, row sum": ("grpo", {"std": "sample", "length": "row sum"}),
    "dapo": ("dapo", {"drop_truncated": True}),
    "gspo": ("gspo", {}),
}


def case(place, seed=1):
    world = WORLDS[place]
    policy = policy_of(world, seed)
    tree = grow(world, policy)
    return world, policy, tree, word_scores(tree, policy)


def build(name, world):
    kind, options = RECIPES[name]
    return build_learner(kind, **options if world.end is not None or kind != "dapo" else {})


def scores_by_rows(world, policy):
    """`grad sum_t log pi(c_t)` over a completion's own steps, one backward pass each through whole contexts."""
    every, scores = Enumeration(world), []
    total = (every.evaluate(policy)[0] * every.mask).sum(1)
    for x in total:
        slopes = torch.autograd.grad(
            x, policy.parameters(), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        scores.append(parameters_to_vector(slopes))
    return every, torch.stack(scores)


@unchecked()
def by_all_groups(recipe, world, policy, G):
    """Mean and variance of `sum_i sum_t w_it grad log pi(c_it)`, the weights of every ordered group one by one."""
    every, s = scores_by_rows(world, policy)
    mean, square = torch.zeros_like(s[0]), 0.0
    for group, chance in every.groups(policy, G):
        ended = {} if world.end is None else {"ended": every.ended[group]}
        weights = recipe(every.rewards[group], every.mask[group], torch.zeros(G, dtype=torch.int64), **ended)[0]
        update = weights[:, 0] @ s[group]
        mean, square = mean + chance * update, square + chance * float(update @ update)
    return square - float(mean @ mean), mean


@pytest.mark.parametrize("place", WORLDS)
def test_a_completions_score_is_its_own_backward_pass_through_whole_contexts(place):
    world, policy, tree, s = case(place)
    every, rows = scores_by_rows(world, policy)
    tokens = words(tree).tokens[0]
    for i, (_, word, n) in enumerate(every.words):
        same = (tokens[:, :n] == torch.tensor(word[:n])).all(1)
        close(s[same], rows[i].expand(int(same.sum()), -1), rtol=1e-9, atol=1e-12)
    assert len(s) == world.V**world.horizon


@pytest.mark.parametrize(
    ("place", "name"),
    [("when to stop", name) for name in RECIPES] + [("dense", "grpo"), ("dense", "rloo"), ("lock", "gspo")],
)
def test_a_recipes_variance_and_mean_are_those_of_all_ordered_groups(place, name):
    (world, policy, tree, s), G = case(place), 3
    recipe = build(name, world)
    variance, mean = group_variance(tree, s, recipe, G)
    brute, its_mean = by_all_groups(recipe, world, policy, G)
    assert variance == pytest.approx(brute, rel=1e-9)
    close(mean, its_mean, rtol=1e-9, atol=1e-12)
    exact = expected_update(world, policy, recipe, G)
    close(mean, parameters_to_vector(exact.mean.parameters), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("G", [2, 3, 6])
@pytest.mark.parametrize("place", WORLDS)
def test_the_two_parts_of_hoeffding_add_up_to_the_variance_of_rloo(place, G):
    world, _, tree, s = case(place)
    rows = completions(tree)
    oracle, rest = hoeffding(rows.p[0], rows.returns[0], s[rows.word], G)
    variance, _ = group_variance(tree, s, build("rloo", world), G)
    assert oracle + rest == pytest.approx(variance, rel=1e-9)
    assert min(oracle, rest) > 0
    biased, _ = group_variance(tree, s, build("dr_grpo", world), G)
    assert biased == pytest.approx(variance * ((G - 1) / G) ** 2, rel=1e-9), "the own row in the mean only shrinks it"


def test_the_oracle_term_is_what_the_exact_value_would_leave_as_a_baseline():
    _, _, tree, s = case("dense")
    rows = completions(tree)
    p, R, G, s = rows.p[0].numpy(), rows.returns[0].numpy(), 4, s[rows.word]
    updates = (R - p @ R)[:, None] * s.numpy()
    variance = sum(p @ (updates[:, d] - p @ updates[:, d]) ** 2 for d in range(updates.shape[1]))
    oracle, rest = hoeffding(rows.p[0], rows.returns[0], s, G)
    assert oracle == pytest.approx(variance / G, rel=1e-9)
    larger = hoeffding(rows.p[0], rows.returns[0], s, 3 * G)
    assert larger[0] == pytest.approx(oracle / 3, rel=1e-12)
    assert larger[1] == pytest.approx(rest * G * (G - 1) / (3 * G * (3 * G - 1)), rel=1e-12)


@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_drawn_groups_have_that_variance_in_standard_errors(name):
    """Completions are drawn by their probabilities and weighed in one batch of many groups."""
    (world, _, tree, s), G, groups = case("when to stop"), 4, 20_000
    s = s[:, -20:]  # the head's own part: what is drawn below is (80 000, parameters)
    drawn, recipe = completions(tree), build(name, world)
    rows = torch.as_tensor(np.random.default_rng(3).choice(len(s), (groups, G), p=drawn.p[0].numpy())).flatten()
    group = torch.arange(groups).repeat_interleave(G)
    weights = groups * recipe(drawn.rewards[0][rows], drawn.mask[0][rows], group)[0][:, 0]
    updates = (weights[:, None] * s[rows]).unflatten(0, (groups, G)).sum(1)
    square = (updates - updates.mean(0)).square().sum(1)
    variance, mean = group_variance(tree, s, recipe, G)
    error = float(square.std()) / math.sqrt(groups)
    assert abs(float(square.mean()) - variance) < 5 * error
    gaps = (updates.mean(0) - mean).abs() * math.sqrt(groups) / (updates.std(0) + 1e-12)
    assert float(gaps.max()) < 5
    other, _ = group_variance(tree, s, build({"rloo": "grpo", "grpo": "rloo"}[name], world), G)
    assert abs(float(square.mean()) - other) > 8 * error, "the control: the other recipe's"


@pytest.mark.parametrize(
    ("argument", "recipe"),
    [
        ("recipe", ("reinforce", {"to_go": True})),  # changes along a row
        ("recipe", ("grpo", {"length": "token mean"})),  # mixes the groups of a batch
    ],
)
def test_recipes_without_one_number_a_row_or_that_mix_groups_are_refused(argument, recipe):
    _, _, tree, s = case({"to_go": "dense"}.get(next(iter(recipe[1])), "when to stop"))
    with refused(argument):
        group_variance(tree, s, build_learner(recipe[0], **recipe[1]), 3)


def test_what_has_no_such_variance_is_refused(monkeypatch):
    world = two_prompts()
    policy = policy_of(world)
    with refused("world"):
        word_scores(grow(world, policy), policy)
    world, policy, tree, s = case("lock")
    rows = completions(tree)
    with refused("group"):
        hoeffding(rows.p[0], rows.returns[0], s, 1)
    with refused("group=90"):
        group_variance(tree, s, build("rloo", world), 90, budget=2**10)
    monkeypatch.setattr(torch.autograd, "grad", lambda *arguments, **options: pytest.fail("allocated"))
    with refused("4 words"):
        word_scores(tree, policy, budget=2**10)
