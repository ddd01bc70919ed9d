"""What a trainer refuses before anything is drawn."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from agents.recipes.advantages import mean_normalised
from agents.recipes.learner import Learner
from agents.training.settings import Oracle, TrainingSettings
from agents.training.tasks import Task
from envs.world import InputError


def check_rows_of(task: Task, learner: Learner, setting: TrainingSettings, copies: int) -> None:
    """Refuse rows that the learner cannot use, or the task not draw; the learner itself is tried on the smallest batch.

    Args:
        task: the world as the loop sees it.
        learner: the recipe.
        setting: steps, sizes, rates.
        copies: number of policies.

    Raises:
        InputError: the rows have soft thoughts and the learner has not, or the other way round; groups are too small, the
            world lacks a signal, a precision is asked for where there is none to choose, returns may be negative where they
            are divided by their mean, rows would need too much memory, or the learner refuses the smallest batch.
    """
    if getattr(task, "soft", None) != learner.soft:
        raise InputError(
            f"learner {learner.name!r} does not fit the task: one of them has soft thoughts, the other has none"
        )
    if setting.group < learner.least:
        raise InputError(f"group must be >= {learner.least}: learner {learner.name!r} compares the rows of a group")
    setting.check_size(task.steps, task.features, copies)
    for name in learner.signals:
        if name not in task.signals:
            raise InputError(f"signals of the world lack {name!r}, which learner {learner.name!r} asks for")
    if setting.sampler and not task.any_precision:
        raise InputError("sampler must be left out in a linear-quadratic world: its rows are drawn in double precision")
    if learner.advantage is mean_normalised and (task.may_cost or learner.kl_reward is not None):
        raise InputError(
            f"rewards must be >= 0: learner {learner.name!r} divides by their mean (a KL penalty belongs in the loss)"
        )
    if learner.pathwise is not None:
        return
    groups = 1 if learner.exact else setting.prompts // setting.minibatches
    none = torch.zeros(groups * setting.group, 1, dtype=torch.float64)
    index = torch.arange(groups).repeat_interleave(setting.group)
    every = replace(learner, select=None)
    extras = {name: none[:, 0] for name in every.signals}
    every(none, none == 0, index, none, reference=none, values=none, ended=none[:, 0] == 0, **extras)


def check_answers(
    learner: Learner,
    policies: Sequence[nn.Module],
    seeds: Sequence[int],
    oracle: Oracle | None,
    critics: Sequence[nn.Module] | None,
) -> None:
    """Refuse seeds that do not fit the policies, and a learner without the oracle or the critics that it needs.

    Args:
        learner: the recipe.
        policies: the networks.
        seeds: of their noise.
        oracle: what is exact, where it is known.
        critics: networks that learn values.

    Raises:
        InputError: seeds are not one for each policy and different, or an oracle or critics are missing that the
            learner needs.
    """
    if len(seeds) != len(policies) or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds must be {len(policies)} different numbers, one per policy; got {list(seeds)}")
    if oracle is None and (learner.exact or learner.critic == "exact"):
        raise InputError(f"oracle is missing: learner {learner.name!r} needs exact answers")
    if learner.critic == "exact" and learner.kl_reward is not None and learner.lam < 1:
        raise InputError(
            "critic must be learned, or lam 1, with a KL penalty in the reward: the exact one knows the world's alone"
        )
    if learner.critic == "learned" and (critics is None or len(critics) != len(policies)):
        raise InputError(f"critics must be {len(policies)} networks: learner {learner.name!r} learns its values")
