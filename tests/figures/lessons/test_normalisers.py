"""Lesson 8: the planted bug, found by changing one part of the notebook's own loss at a time; kappa by listing groups."""

import numpy as np
import pytest
import torch

import costate
from figures.lessons.exercises.normalisers import EXERCISES, lesson_world, planted
from tests.figures.lessons.listed_groups import kappa_by_listing
from tests.figures.lessons.notebook_cells import run_cells

BUGGY = "baseline = (R * mask).sum((1, 2), keepdim=True) / mask.sum((1, 2), keepdim=True)"
# part -> the same part, written otherwise and meant to do the same, or left out
CHANGES = {
    "B": (BUGGY, "baseline = R.mean(1, keepdim=True)"),
    "C": ("spread = R.std(1, correction=0, keepdim=True)", "spread = torch.ones_like(R)"),
    "E": ("ratio.clamp(1 - clip, 1 + clip) * advantage", "ratio * advantage"),
    "F": ("rows = (terms * mask).sum(2)", "rows = (terms * mask).sum(2) / mask.sum(2)"),
    "G": ("return -rows.mean()", "return -rows.sum() / rows.numel()"),
}


@pytest.fixture(scope="module")
def names():
    return run_cells(8)


def updated(names, part):
    """The mean update of the notebook's loss with one part changed."""
    old, new = CHANGES[part]
    change = lambda source: source.replace(old, new)  # noqa: E731
    changed = run_cells(8, change)
    return changed["mean_update"](changed["grpo_loss"], names["world"], names["policy"]).alignment


@pytest.fixture(scope="module")
def repaired(names):
    return updated(names, "B")


def test_the_repaired_part_alone_puts_the_update_on_the_gradient(names, repaired):
    assert names["mean_update"](names["grpo_loss"], names["world"], names["policy"]).alignment.cosine < 0.999
    assert repaired.cosine == pytest.approx(1, abs=1e-9)
    for part in ("C", "E", "G"):
        assert updated(names, part).cosine < 0.999
    assert costate.check("8a", "b")
    assert costate.check("8b", repaired.scale)


def test_kappa_is_that_of_a_list_of_all_groups(names):
    p = float(costate.exact(names["world"], names["policy"]).J)
    value = kappa_by_listing(p, 4, lambda R: (R[0] - R.mean()) / (R.std() + 1e-6))
    assert costate.check("8b", value)
    assert costate.check("8b", 0.99 * value).said == "not yet: too small"
    assert (
        "sample"
        in costate.check("8b", kappa_by_listing(p, 4, lambda R: (R[0] - R.mean()) / (R.std(ddof=1) + 1e-6))).said
    )
    assert (
        "standard deviation has been lost"
        in costate.check("8b", kappa_by_listing(p, 4, lambda R: R[0] - R.mean())).said
    )


def test_the_loss_with_its_bug_and_a_division_by_length_get_their_own_words(names):
    buggy = names["mean_update"](names["grpo_loss"], names["world"], names["policy"]).alignment.scale
    assert "with its bug" in costate.check("8b", buggy).said

    def divided(log_probs, old, rewards, mask):
        R = rewards.sum(1).reshape(-1, 4)
        A = ((R - R.mean(1, keepdim=True)) / (R.std(1, correction=0, keepdim=True) + 1e-6)).reshape(-1, 1)
        return -((log_probs - old).exp() * A * mask / mask.sum(1, keepdim=True)).sum() / len(rewards)

    value = names["mean_update"](divided, names["world"], names["policy"]).alignment.scale
    assert "the row's length" in costate.check("8b", value).said


@pytest.mark.parametrize("wrong", ["A", "C", "D", "E", "F", "G"])
def test_each_other_letter_is_told_why_it_is_right(wrong):
    assert f"part {wrong} " in costate.check("8a", wrong).said
    assert not costate.check("8a", wrong)


def test_the_planted_weights_are_those_of_the_notebook(names):
    rng = np.random.default_rng(0)
    length = torch.tensor(rng.integers(1, 5, 24))
    mask = torch.arange(4) < length[:, None]
    rewards = torch.zeros(24, 4, dtype=torch.float64)
    rewards[torch.arange(24), length - 1] = torch.tensor(rng.integers(0, 2, 24)).double()
    log_probs = torch.zeros_like(rewards, requires_grad=True)
    loss = names["grpo_loss"](log_probs, log_probs.detach(), rewards, mask)
    slopes = -torch.autograd.grad(loss, log_probs)[0]
    assert torch.allclose(planted(rewards, mask, torch.arange(6).repeat_interleave(4))[0], slopes)


def test_another_world_is_taken():
    world = costate.world("TokenSumAndStop", modulus=2, horizon=3)
    (policy,) = costate.random_policies(world).values()
    p = float(costate.exact(world, policy).J)
    value = kappa_by_listing(p, 5, lambda R: (R[0] - R.mean()) / (R.std() + 1e-6))
    assert costate.check("8b", value, world=world, group=5)
    assert not costate.check("8b", value)
    assert len(EXERCISES) == 2
    assert lesson_world().horizon == 4
