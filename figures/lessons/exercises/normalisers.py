"""Exercises of lesson 8: the part of a loss that has a silent bug, and kappa of the repaired loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agents.recipes.learners import dr_grpo, grpo
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from figures.lessons.checking import Exercise
from figures.lessons.exercises.policies import first_policy
from theory.groups.expected_update import expected_update
from theory.groups.outcomes import Recipe

EPS = 1e-6
GROUP = 4


def lesson_world() -> TokenMDP:
    """The world of the lesson."""
    world: TokenMDP = make_world("TokenSumAndStop", modulus=2, horizon=4)
    return world


def planted(rewards: Tensor, mask: Tensor, group: Tensor, **fields: Tensor) -> tuple[Tensor, None]:
    """Weights of the loss with its bug: the baseline is a mean over tokens, so that long rows count more in it."""
    R, length, groups = rewards.sum(1), mask.sum(1).to(rewards), int(group.max()) + 1
    of_group = torch.zeros(4, groups, dtype=rewards.dtype)
    of_group = of_group.index_add_(1, group, torch.stack([R * length, length, R, torch.ones_like(R)]))
    by_tokens, size = of_group[0] / of_group[1], of_group[3]
    mean = (of_group[2] / size)[group]
    spread = (torch.zeros_like(size).index_add_(0, group, (R - mean) ** 2) / size).sqrt()
    advantage = (R - by_tokens[group]) / (spread[group] + EPS)
    return mask * (advantage / (size[group] * groups))[:, None], None


def kappa_of(recipe: Recipe) -> Callable[..., Any]:
    """A function that computes the scale of a recipe's mean update, with the lesson's own world as default."""

    def kappa(world: TokenMDP | None = None, group: int = GROUP) -> Any:
        world = world or lesson_world()
        return expected_update(world, first_policy(world), recipe, group).alignment.scale

    return kappa


def letter(name: str) -> Callable[[], str]:
    """The answer that names a part of the loss."""
    return lambda: name


EXERCISES = {
    "8a": Exercise(
        "Which part of the loss has the bug, A to G?",
        letter("B"),
        {
            "part A is right: a row's reward is the sum of what its tokens are paid": letter("A"),
            "part C is right: every row counts once in this standard deviation": letter("C"),
            "part D is right: but look at what goes into it": letter("D"),
            "part E does nothing here: at the first step every ratio is 1, and nothing is clipped": letter("E"),
            "part F is right: this is the row sum, which is on the gradient in the picture above": letter("F"),
            "part G is right: every group has the same number of rows": letter("G"),
        },
    ),
    "8b": Exercise(
        "What is kappa of the repaired loss?",
        kappa_of(grpo(length="row sum", eps=EPS)),
        {
            "this is the loss with its bug": kappa_of(planted),
            "the standard deviation has been lost": kappa_of(dr_grpo()),
            "this divides by the row's length, which bends the update again": kappa_of(grpo(eps=EPS)),
            "this divides by the lengths of the group, which bends the update again": kappa_of(
                grpo(length="group token mean", eps=EPS)
            ),
            "this divides by the sample's standard deviation (by G - 1)": kappa_of(grpo("sample", "row sum", eps=EPS)),
        },
    ),
}
