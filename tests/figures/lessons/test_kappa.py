"""Lesson 6: kappa of a mixture by listing all groups of rewards, through the mean of an own recipe, and by sampling."""

import itertools
import math

import numpy as np
import pytest
import torch

import costate
from figures.lessons.exercises.kappa import EXERCISES, lesson_world
from tests.figures.lessons.listed_groups import kappa_by_listing
from tests.figures.lessons.notebook_cells import run_cells


def mixture(R):
    return 0.0 if R.std() == 0 else (R[0] - R[1:].mean()) / R.std()


def policy_and_p(world):
    (policy,) = costate.random_policies(world).values()
    return policy, float(costate.exact(world, policy).J)


def mine(rewards, mask, group):
    """As a student would write it, group by group."""
    R, out = rewards.sum(1), torch.zeros_like(rewards)
    for g in group.unique():
        own = group == g
        others = (R[own].sum() - R[own]) / (own.sum() - 1)
        std = R[own].std(correction=0)
        out[own] = ((R[own] - others) / std if std > 0 else 0 * R[own])[:, None].expand_as(out[own])
    return out * mask


def test_the_answer_is_that_of_a_list_of_all_groups():
    _, p = policy_and_p(lesson_world())
    value = kappa_by_listing(p, 4, mixture)
    assert costate.check("6", value)
    assert not costate.check("6", 1.01 * value)
    assert costate.check("6", 1.01 * value).said == "not yet: too large"


def test_a_recipe_of_ones_own_leads_to_it():
    world = lesson_world()
    policy, _ = policy_and_p(world)
    learner = costate.Learner("mixture", mine)
    assert costate.check("6", costate.expected_update(world, policy, learner, 4).alignment.scale)


def test_sampled_groups_agree_within_their_standard_errors():
    _, p = policy_and_p(lesson_world())
    R = (np.random.default_rng(0).random((200_000, 4)) < p).astype(float)
    std = R.std(1)
    A = np.where(std > 0, (R[:, 0] - R[:, 1:].mean(1)) / np.where(std > 0, std, 1), 0)
    samples = (R[:, 0] - p) * A / (p * (1 - p))
    error = samples.std() / math.sqrt(len(samples))
    assert abs(samples.mean() - EXERCISES["6"].answer()) < 4 * error
    assert (
        abs(samples.mean() - EXERCISES["6"].mistakes["this is GRPO: the row's own reward is still in the baseline"]())
        > 4 * error
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda R: 0.0 if R.std() == 0 else (R[0] - R.mean()) / R.std(), "this is GRPO"),
        (lambda R: R[0] - R[1:].mean(), "division by the standard deviation is missing"),
        (lambda R: R[0] - R.mean(), "this is Dr. GRPO"),
        (lambda R: 0.0 if R.std() == 0 else 9 / 16 * (R[0] - R[1:].mean()) / R.std(), "wrong way round"),
        (lambda R: 0.0 if R.std() == 0 else (R[0] - R[1:].mean()) / R.std(ddof=1), "the sample's"),
    ],
)
def test_each_mistake_gets_its_own_words(wrong, words):
    _, p = policy_and_p(lesson_world())
    assert words in costate.check("6", kappa_by_listing(p, 4, wrong)).said


def test_the_limit_gets_its_own_words():
    _, p = policy_and_p(lesson_world())
    assert "limit of large groups" in costate.check("6", (p * (1 - p)) ** -0.5).said


def test_no_two_mistakes_are_alike():
    numbers = sorted([EXERCISES["6"].answer(), *(mistake() for mistake in EXERCISES["6"].mistakes.values())])
    assert min(b / a - 1 for a, b in itertools.pairwise(numbers)) > 0.005


def test_another_world_and_group_are_taken():
    world = costate.world("TokenLock", V=2, horizon=3)
    _, p = policy_and_p(world)
    assert costate.check("6", kappa_by_listing(p, 6, mixture), world=world, group=6)
    assert not costate.check("6", kappa_by_listing(p, 6, mixture), world=world)


def test_the_notebook_shows_what_it_says():
    names, groups = run_cells(6), (2, 4, 8, 16)
    _, p = policy_and_p(names["world"])
    assert names["table"]["RLOO"].tolist() == pytest.approx([1.0] * 4)
    assert names["table"]["Dr. GRPO"].tolist() == pytest.approx([1 - 1 / G for G in groups])
    of_grpo = [
        kappa_by_listing(p, G, lambda R: 0.0 if R.std() == 0 else (R[0] - R.mean()) / R.std()) for G in (2, 4, 8)
    ]
    assert names["table"]["GRPO"].tolist()[:3] == pytest.approx(of_grpo)
    assert len({round(kappa, 3) for kappa in names["table"].loc["G = 4"]}) == 3, "the control: each has its own"
