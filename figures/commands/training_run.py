"""One training run as a folder: settings.json, log.csv, checkpoint.pt, curves; the same command continues a stopped run."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from agents.policies.nucleus import Nucleus, checked_top_p
from agents.policies.transformer import Transformer
from agents.recipes.learners import Learner, Penalty, build_learner
from agents.recipes.value_gradient_learning import ValueGradientLearning
from agents.training.command_task import CommandTask
from agents.training.field_critics import build_field
from agents.training.settings import Record, TrainingSettings
from agents.training.trainer import Trainer
from envs.own_world import fingerprint
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.world import InputError, World
from figures.commands.run_checkpoint import PER_SEED, resume, save_checkpoint
from figures.commands.teachers import Named, read_teachers
from figures.harness.code import digest
from figures.harness.records import canonical, write_atomically
from figures.measures.oracles import task_and_oracle
from figures.measures.soft_oracle import soft_task_and_oracle

RHO = "rho-"  # before an estimator's name: the penalty is multiplied by pi / pi_old


class DivergedError(Exception):
    """A run whose numbers left the finite ones: at which update, why, and the log of before."""

    def __init__(self, update: int, reason: str, log: pd.DataFrame):
        super().__init__(f"the run diverged at update {update}: {reason}")
        self.update, self.log = update, log


@dataclass(frozen=True)
class Run:
    """Everything that decides a run's numbers."""

    learner: str
    world: str
    options: tuple[tuple[str, Any], ...] = ()  # of the learner's builder
    world_options: tuple[tuple[str, Any], ...] = ()
    kl_reward: tuple[str, float] | None = None
    kl_loss: tuple[str, float] | None = None
    entropy: float = 0.0
    seeds: int = 1
    seed: int = 0
    width: int = 32
    layers: int = 2
    heads: int = 2
    top_p: float = 1.0
    dtype: str = "float64"
    device: str = "cpu"
    setting: TrainingSettings = field(default_factory=TrainingSettings)
    teachers: tuple[Named, ...] = ()
    world_mark: str = ""  # fingerprint of a user's own world: a changed file is another run

    @property
    def name(self) -> str:
        """The folder's name: readable, and the hash of all settings."""
        unset = {
            "world_mark": ("",),
            "top_p": (1.0,),
            "teachers": ((), []),
        }  # came later: runs without them keep their names
        settings = {name: x for name, x in dataclasses.asdict(self).items() if x not in unset.get(name, ())}
        world = re.sub(r"[^\w.-]+", "-", Path(self.world).name)
        return f"{self.learner}-{world}-{digest(canonical(settings))[:8]}"


def build_policy(run: Run, world: TokenMDP | World, seed: int, thoughts: int = 0) -> Transformer | LinearPolicy:
    """A small transformer for a token world; for a linear-quadratic one the linear policy with gain K = 0.

    Where a cost is linear too, it has an offset, k = 0 at the start: the best policy there is not without one. The
    transformer's contexts have room for some thoughts beside the world's tokens.
    """
    if isinstance(world, TokenMDP):
        length = world.longest + thoughts
        return _transformer(run, world.V, None, length, seed)
    if run.dtype != "float64":
        raise InputError(
            "--dtype float32 is for token worlds: the gain of a linear policy is judged in double precision"
        )
    offset = torch.zeros(world.m) if getattr(world, "has_linear", False) else None
    return LinearPolicy(torch.zeros(world.m, world.n), offset).to(run.device)


def _transformer(run: Run, outputs: int, features: int | None, length: int, seed: int) -> Transformer:
    dtype, sizes = getattr(torch, run.dtype), (run.width, run.layers, run.heads)
    return Transformer(outputs, features, *sizes, length=length, seed=seed, dtype=dtype).to(run.device)


def build_trainer(run: Run) -> tuple[Trainer, TokenMDP | World, str]:
    """Return (trainer, world, reason); reason says why nothing exact is recorded, "" where exact answers are known.

    Raises:
        InputError: learner, world or options cannot be run, or the learner needs exact answers that are not known.
    """
    world = make_world(run.world, **dict(run.world_options))
    if run.world_mark and fingerprint(world) != run.world_mark:
        raise InputError(f"--world {run.world} builds another world at every call: it must always build the same")
    trainer, reason = assemble(run, world, learner_of(run))
    return trainer, world, reason


def assemble(
    run: Run, world: TokenMDP | World, learner: Learner, policies: Sequence[Any] | None = None
) -> tuple[Trainer, str]:
    """Trainer of a learner in a world, and why nothing exact is recorded, "" where exact answers are known.

    Args:
        run: sizes, seeds and settings.
        world: where rows are drawn.
        learner: the recipe.
        policies: the networks to begin with, one for each seed; by default small ones of our own.

    Raises:
        InputError: they do not fit, or the learner needs exact answers that are not known.
    """
    seeds = [run.seed + i for i in range(run.seeds)]
    soft = learner.soft
    thoughts = 0 if soft is None else soft.thoughts
    policies = [build_policy(run, world, seed, thoughts) for seed in seeds] if policies is None else policies
    if soft is not None and (run.top_p != 1 or run.teachers):
        raise InputError(f"top_p must be 1 and teachers must be left out with learner {learner.name!r}")
    if checked_top_p(run.top_p) < 1:
        if not isinstance(world, TokenMDP):
            raise InputError("top_p must be 1 (no truncation) in a world without tokens")
        policies = [Nucleus(policy, run.top_p) for policy in policies]
    if soft is None:
        task, oracle, reason = task_and_oracle(world, policies[0], run.seeds)
    else:
        task, oracle, reason = soft_task_and_oracle(world, soft, policies[0], run.seeds)
    if reason and (learner.exact or learner.critic == "exact"):
        raise InputError(f"learner {learner.name!r} needs exact answers, and there are none: {reason}")
    critics: list[Any] | None = None
    if isinstance(task, CommandTask) and isinstance(learner.pathwise, ValueGradientLearning):
        critics = [build_field(learner.pathwise, task, 1000 + seed).to(run.device) for seed in seeds]
    elif learner.critic == "learned":
        length = task.steps + (world.prompts.shape[1] if isinstance(world, TokenMDP) else 0)
        critics = [_transformer(run, 1, task.features, length, 1000 + seed) for seed in seeds]
    teachers = read_teachers(run.teachers, world, run.top_p, next(policies[0].parameters()))
    return Trainer(task, learner, policies, seeds, run.setting, oracle, critics, teachers), reason


def learner_of(run: Run) -> Learner:
    """The recipe with its options."""
    kl_reward, kl_loss = (None if kl is None else _penalty(*kl) for kl in (run.kl_reward, run.kl_loss))
    return build_learner(run.learner, kl_reward=kl_reward, kl_loss=kl_loss, entropy=run.entropy, **dict(run.options))


def _penalty(name: str, beta: float) -> Penalty:
    """The penalty k3 for "k3", rho k3 for "rho-k3"."""
    return Penalty(name.removeprefix(RHO), beta, importance=name.startswith(RHO))


def train(run: Run, out: Path, report: Callable[[Record, int], None]) -> pd.DataFrame:
    """Run to the end, from the last checkpoint where there is one, and return the log.

    A run that diverges keeps the log, and the checkpoint of before.

    Args:
        run: what is run; its checkpoint is written every `run.setting.every` steps.
        out: folder in which the run has its own folder, `run.name`.
        report: called with (record, steps done before this call) after every step.

    Raises:
        DivergedError: after some updates a number was not finite, or the exact answers are no longer defined.
        InputError: the checkpoint is damaged.
    """
    trainer, _, _ = build_trainer(run)
    folder = out / run.name
    rows = resume(folder, trainer, run.device)
    write_atomically(folder / "settings.json", json.dumps(dataclasses.asdict(run), indent=1))
    if rows and rows[-1]["step"] == run.setting.steps:
        return _written(folder, rows)
    before = trainer.taken
    for record in records(trainer, lambda: _written(folder, rows)):
        rows.extend(log_rows(record, run))
        if record.step % run.setting.every == 0 or record.step == run.setting.steps:
            save_checkpoint(folder, trainer, rows)
        report(record, before)
    return _written(folder, rows)


def records(trainer: Trainer, log: Callable[[], pd.DataFrame]) -> Iterator[Record]:
    """The records of the steps that are left, as long as all numbers are finite.

    Args:
        trainer: at any step.
        log: gives the log of what was before, for the error.

    Raises:
        DivergedError: after some updates a number was not finite, or the exact answers are no longer defined.
        InputError: the run could not begin.
    """
    try:
        for record in trainer.run():
            if not all(bool(p.isfinite().all()) for p in trainer.actor.parameters):
                raise DivergedError(record.step, "a parameter is NaN or infinite after it", log())
            yield record
    except InputError as error:
        if not trainer.taken:  # nothing was learned yet
            raise
        raise DivergedError(trainer.taken, str(error), log()) from None


def log_rows(record: Record, run: Run) -> list[dict[str, Any]]:
    """One row of the log for each seed."""
    plain = {name: getattr(record, name).tolist() for name in PER_SEED}
    return [
        {"step": record.step, "rows": record.rows, "seed": run.seed + i, **{name: plain[name][i] for name in PER_SEED}}
        for i in range(run.seeds)
    ]


def log_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The log as a table; an older one may lack a column."""
    return pd.DataFrame(rows, columns=["step", "rows", "seed", *PER_SEED])


def _written(folder: Path, rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = log_table(rows)
    write_atomically(folder / "log.csv", table.to_csv(index=False))
    return table


def summary(table: pd.DataFrame) -> str:
    """The last exact numbers, and means of the others over all updates and seeds, in words."""
    is_last = table["step"] == table["step"].max()
    last, updates = table[is_last].mean(numeric_only=True), table[~is_last].mean(numeric_only=True)
    means = {"J": last["J"], "entropy": last["entropy"], "cosine": updates["cosine"], "clipped": updates["clipped"]}
    means["cosine to its own target"] = updates["target_cosine"]
    means["curl of the critic"] = last["curl"]
    means["silent groups"] = updates["silent"]
    return ", ".join(f"{name} {value:.4g}" for name, value in means.items() if not math.isnan(value))
