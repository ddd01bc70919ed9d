"""Train any recipe in any world from Python, with exact answers along the way."""

from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import torch

from agents.recipes.learner import Learner
from agents.recipes.learners import build_learner
from agents.training.settings import TrainingSettings
from envs.arguments import short, whole
from envs.registry import make_world
from envs.world import InputError, unknown
from figures.commands.progress_bar import progress_bar
from figures.commands.training_run import Run, assemble, log_rows, log_table, records

_SIZES = ("width", "layers", "heads", "top_p", "dtype", "device")
_SETTINGS = tuple(field.name for field in fields(TrainingSettings) if field.name != "steps")


@dataclass(frozen=True)
class TrainingRun:
    """A training run that has ended.

    Attributes:
        log: one row for each step and seed; `agents/README.md` explains the columns. The last row of a seed is
            the trained policy.
        policies: the trained ones, in the order of the seeds.
        recipe: the learner's name.
        reason: why nothing exact was recorded; "" where it was.
    """

    log: pd.DataFrame
    policies: list[Any]
    recipe: str
    reason: str

    def __repr__(self) -> str:
        last = self.log[self.log["step"] == self.log["step"].max()]
        exact = "nothing exact" if self.reason else f"J={last['J'].mean():.4g} in the end"
        return f"TrainingRun({self.recipe}, {last['step'].max()} steps, {len(self.policies)} seeds, {exact})"

    def frame(self) -> pd.DataFrame:
        """The log.

        Returns:
            One row for each step and seed.
        """
        return self.log


def recipe(name: str, **options: Any) -> Learner:
    """A recipe by its name.

    Args:
        name: one that `costate list learners` shows, "grpo" for instance.
        options: of the recipe, and those of all: `kl_loss=costate.Penalty("k3", 0.1)`, `kl_reward`, `entropy`.

    Returns:
        The recipe, which `train` and `expected_update` take.

    Raises:
        InputError: the recipe or an option is unknown, or a value is refused.
    """
    return build_learner(name, **options)


def train(
    world: Any,
    recipe: Learner | str,
    seeds: int = 1,
    steps: int = 200,
    *,
    first_seed: int = 0,
    policies: Any = None,
    progress: bool = True,
    **settings: Any,
) -> TrainingRun:
    """Train `seeds` policies at once.

    Args:
        world: a world, or the name of one.
        recipe: `costate.grpo()`, `costate.rloo()`, ..., one of your own, or a name ("grpo").
        seeds: how many policies, each with noise of its own.
        steps: updates.
        first_seed: the seed of the first policy; the others follow.
        policies: networks to begin with, one for each seed (or one alone); they stay as they are. By default a small
            transformer, or for a linear-quadratic world the gain 0.
        progress: whether a bar shows how far it is.
        settings: `prompts`, `group`, `epochs`, `minibatches`, `rate`, `optimiser`, `max_norm`, `every` and the other fields of
            `TrainingSettings`; `width`, `layers`, `heads`, `dtype` and `device` of the networks of our own; `top_p`, the mass
            of the likeliest tokens that rows are drawn from and trained within.

    Returns:
        The log as a DataFrame, and the trained policies.

    Raises:
        InputError: a name is unknown, a value is refused, or the recipe needs exact answers that are not known.
        DivergedError: numbers were no longer finite; its `log` holds what was before (`figures.commands.training_run`).
    """
    world = make_world(world) if isinstance(world, str) else world
    learner = build_learner(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(learner, Learner):
        raise InputError(
            f"recipe must be a learner, costate.grpo() for instance, or its name; got {short(recipe)} (for an advantage of "
            "your own costate.Learner('mine', function))"
        )
    for name in settings:
        if name not in (*_SIZES, *_SETTINGS):
            raise unknown("setting", name, (*_SIZES, *_SETTINGS))
    seeds = whole("seeds", seeds, 1)
    policies = [policies] if isinstance(policies, torch.nn.Module) else policies
    if policies is not None and len(policies) != seeds:
        raise InputError(f"policies must be one for each of the {seeds} seeds; got {len(policies)}")
    sizes = {name: value for name, value in settings.items() if name in _SIZES}
    rest = {name: value for name, value in settings.items() if name in _SETTINGS}
    setting = TrainingSettings(steps=whole("steps", steps, 1), **rest)
    run = Run(learner.name, type(world).__name__, seeds=seeds, seed=first_seed, setting=setting, **sizes)
    trainer, reason = assemble(run, world, learner, policies)
    rows: list[dict[str, Any]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the numbers of `costate train`
    try:
        with progress_bar(learner.name, steps, disable=not progress) as bar:
            for record in records(trainer, lambda: log_table(rows)):
                rows.extend(log_rows(record, run))
                bar.update(min(1, steps - bar.n))
    finally:
        torch.set_num_threads(threads)
    return TrainingRun(log_table(rows), trainer.policies, learner.name, reason)
