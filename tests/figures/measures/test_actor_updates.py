"""Kappa of every recipe against its definition, and the numbers by which mean updates are compared with it."""

import itertools
import math

import pytest
import torch

from agents.recipes.learners import build_learner
from figures.measures.actor_updates import exact_case, parameter_deviation, prompt_scales, recipes, worst_deviation
from figures.measures.token_systems import build_policy, build_world
from tests.typecheck import unchecked
from theory.groups.expected_update import expected_update
from theory.tokens.prefix_tree import grow


@unchecked()
def by_hand(learner, G, P, L):
    """kappa = Cov(A_1, R_1) / Var(R_1), over all 2^G rewards of a group; rows of L steps, paid at the last."""
    mean = 0.0
    for bits in itertools.product((0.0, 1.0), repeat=G):
        rewards = torch.zeros(G, L, dtype=torch.float64)
        rewards[:, -1] = torch.tensor(bits, dtype=torch.float64)
        weights, _ = learner(rewards, torch.ones(G, L, dtype=torch.bool), torch.zeros(G, dtype=torch.int64))
        chance = P ** sum(bits) * (1 - P) ** (G - sum(bits))
        mean += chance * G * float(weights[0, 0]) * (bits[0] - P)  # weights are of the groups' mean over rows
    return mean / (P * (1 - P))


@pytest.mark.parametrize("P", [0.03, 0.5, 0.9])
@pytest.mark.parametrize(
    "recipe", [r for r in recipes(8) if r.learner.critic is None], ids=lambda r: f"{r.name} {r.group}"
)
def test_every_kappa_is_the_slope_of_the_advantage_in_the_own_reward(recipe, P):
    kappa = recipe.kappa(torch.tensor([P], dtype=torch.float64), 3)
    assert float(kappa[0]) == pytest.approx(by_hand(recipe.learner, recipe.group, P, 3), rel=1e-10)


def test_the_worst_deviation_is_that_of_the_worst_prompt_in_its_own_size():
    truth = [torch.tensor([[3.0, 4.0], [0.3, 0.4]]), torch.ones(4, 2) / 100]
    kappa = torch.tensor([1.0, 2.0])
    children = [g * k for g, k in zip(truth[1], (1, 1, 2, 2), strict=True)]
    costates = [torch.stack([truth[0][0], 2 * truth[0][1]])[:, None], torch.stack(children)[:, None]]
    assert worst_deviation(costates, truth, kappa) == 0
    costates[1][3, 0, 0] += 0.1
    assert worst_deviation(costates, truth, kappa) == pytest.approx(0.1)
    costates[1][1, 0, 0] += 0.1
    assert worst_deviation(costates, truth, kappa) == pytest.approx(0.1)


def test_scales_are_those_of_a_known_multiple():
    truth = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    costates = torch.stack([torch.zeros_like(truth), torch.tensor([[1.0], [2.0], [-3.0]]) * truth], 1)
    assert prompt_scales([costates], [truth]) == pytest.approx([1, 2, -3])


def test_the_parameter_deviation_counts_direction_and_size():
    world = build_world("garnet (2,3)")
    update = expected_update(world, build_policy(world, 0), build_learner("grpo", length="row sum"), 3)
    mean, truth = update.mean.flat, update.truth.flat
    for kappa in (0.5, 2.0):
        gap = float((mean - kappa * truth).norm() / (kappa * truth).norm())
        assert parameter_deviation(update, kappa) == pytest.approx(gap)


def test_an_exact_case_leaves_out_length_factors_where_lengths_vary():
    one_length, many = (build_world(name) for name in ("lock (2,3)", "stop (2,4)"))
    case, varied = (exact_case(world, build_policy(world, 0)) for world in (one_length, many))
    assert {r.name for r in case.recipes(4)} - {r.name for r in varied.recipes(4)} == {"DAPO", "GSPO", "CISPO"}
    assert max(r.group for r in case.recipes(4)) == 4
    with torch.no_grad():
        tree = grow(one_length, case.policy)
    assert case.entropy == pytest.approx(-float((tree.levels[0].pi * tree.levels[0].pi.log()).sum(-1).mean()))
    assert float(case.P[0]) == pytest.approx(float(tree.V[0][0]))
    assert 1e-3 < case.deviation_without_past("layer1") < math.inf, "earlier positions carry a part of the gradient"
