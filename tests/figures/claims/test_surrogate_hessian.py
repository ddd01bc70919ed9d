"""The claim on second derivatives: planted defects that turn its parts, and its objectives on a tree."""

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from agents.recipes.dice import dice
from figures.claims.systems import surrogate_hessian as claim
from figures.measures import second_order
from figures.measures.token_systems import build_world
from tests.figures.claims.test_systems import outcomes
from theory.tokens.prefix_tree import grow
from theory.tokens.second_order import differentiable_return
from theory.tokens.tree_gradients import score_surrogate


def setting(policy=claim.TABLE, world="lock (2,3)"):
    return claim.SurrogateHessianSetting(world, policy, 0)


@pytest.mark.parametrize("policy", [claim.TABLE, claim.NETWORK])
def test_what_is_documented(policy):
    found = outcomes(claim, setting(policy))
    expected = {part.name: part.documented for part in claim.CLAIM.parts}
    if policy == claim.NETWORK:
        expected[claim.ZERO] = "undecided"  # no rows: it is said of tables
    assert found == expected


def test_a_box_without_the_past_is_seen_in_the_hessian_and_a_baseline_of_the_token_too(monkeypatch):
    monkeypatch.setitem(second_order.OBJECTIVES, second_order.DICE, second_order.sampled_mean(second_order.OWN_BOX))
    wrong = outcomes(claim, setting())
    assert wrong[claim.EXACT] == wrong[claim.GRADIENTS] == "fails"
    monkeypatch.setitem(second_order.ROWS, second_order.DICE_PAST, lambda l, r, m, v: dice(l, r, m, r))
    assert outcomes(claim, setting())[claim.GRADIENTS] == "fails"


def test_a_surrogate_that_were_the_return_would_be_seen(monkeypatch):
    monkeypatch.setitem(second_order.OBJECTIVES, second_order.BASELINED, differentiable_return)
    wrong = outcomes(claim, setting())
    assert wrong[claim.TWICE_BASELINED] == "holds"
    assert wrong[claim.ZERO] == "fails"
    half = lambda tree: (score_surrogate(tree) + score_surrogate(tree, baseline=False)) / 2  # noqa: E731
    monkeypatch.setitem(second_order.OBJECTIVES, second_order.BASELINED, half)
    assert outcomes(claim, setting())[claim.ZERO] == "fails"


def test_one_choice_needs_no_box_of_the_past():
    found = outcomes(claim, setting(world="one choice of 3"), setting())  # reported there, judged here
    assert found[claim.OWN] == "fails"


def test_the_spread_is_that_of_the_rows_of_a_tree():
    world = build_world("garnet (2,3)")
    policy = PrefixTable(world, seed=0)
    sizes = [second_order.hessian_spread(world, policy, name) for name in list(second_order.ROWS)[:3]]
    assert sizes[0] > 1.2 * sizes[1] > 2 * sizes[2]
    terms, p = second_order.row_objectives(grow(world, policy), second_order.DICE)
    assert float(p.sum()) == pytest.approx(1.0)
    assert torch.allclose((p * terms.detach()).sum(), grow(world, policy).J)
