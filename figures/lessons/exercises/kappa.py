"""Exercise of lesson 6: kappa of RLOO's baseline with GRPO's division, from the exact mean of such an update."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agents.recipes.learner import Learner
from agents.recipes.learners import dr_grpo, grpo, rloo
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from figures.lessons.checking import Exercise
from figures.lessons.exercises.policies import first_policy
from theory.groups.expected_update import expected_update

GROUP = 4


def lesson_world() -> TokenMDP:
    """The world of the lesson."""
    world: TokenMDP = make_world("TokenParity", V=3, horizon=3)
    return world


def mixture(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    """`A = (R - mean of the others) / std`, 0 where all rewards of a group are equal."""
    R, rows = rewards.sum(1), torch.bincount(group)
    mean = torch.zeros(len(rows), dtype=R.dtype).index_add_(0, group, R) / rows
    std = (torch.zeros(len(rows), dtype=R.dtype).index_add_(0, group, (R - mean[group]) ** 2) / rows).sqrt()
    others = (rows[group] * mean[group] - R) / (rows[group] - 1)
    spread = std[group] > 1e-12
    advantage = torch.where(spread, (R - others) / torch.where(spread, std[group], 1.0), 0.0)
    return torch.where(mask, advantage[:, None], 0.0)


def kappa_of(learner: Learner) -> Callable[..., Any]:
    """A function that computes kappa of a recipe, with the lesson's own world and group size as defaults."""

    def kappa(world: TokenMDP | None = None, group: int = GROUP) -> Any:
        world = world or lesson_world()
        return expected_update(world, first_policy(world), learner, group).alignment.scale

    return kappa


def _limit(world: TokenMDP | None = None, group: int = GROUP) -> Any:
    """The limit of large groups."""
    world = world or lesson_world()
    p = float(expected_update(world, first_policy(world), rloo(), group).J)
    return float((p * (1 - p)) ** -0.5)


def _inverse(world: TokenMDP | None = None, group: int = GROUP) -> Any:
    return (group - 1) / group * kappa_of(grpo(length="row sum"))(world, group)


def _twice(world: TokenMDP | None = None, group: int = GROUP) -> Any:
    return group / (group - 1) * kappa_of(grpo("sample", "row sum"))(world, group)


EXERCISES = {
    "6": Exercise(
        "What is kappa of an advantage with RLOO's baseline and GRPO's division at G = 4 in this world?",
        kappa_of(Learner("mixture", mixture)),
        {
            "this is GRPO: the row's own reward is still in the baseline": kappa_of(grpo(length="row sum")),
            "the division by the standard deviation is missing": kappa_of(rloo()),
            "this is Dr. GRPO: its own reward is in the baseline, and the division is missing": kappa_of(dr_grpo()),
            "the factor between the two baselines is the wrong way round": _inverse,
            "this divides by the sample's standard deviation (by G - 1): the population's divides by G": _twice,
            "this is the limit of large groups: here the group is small": _limit,
        },
    ),
}
