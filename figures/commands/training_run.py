"""One training run as a folder: settings.json, log.csv, checkpoint.pt, curves; the same command goes on from it."""

import dataclasses
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from agents.policies.transformer import Transformer
from agents.recipes.learners import Learner, Penalty, build_learner
from agents.training.settings import Record, TrainingSettings
from agents.training.trainer import Trainer
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.harness.records import canonical, digest, write_atomically
from figures.measures.oracles import task_and_oracle

_PER_SEED = [f.name for f in dataclasses.fields(Record) if f.name not in ("step", "rows")]


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
    dtype: str = "float64"
    device: str = "cpu"
    setting: TrainingSettings = field(default_factory=TrainingSettings)

    @property
    def name(self) -> str:
        """The folder's name: readable, and the hash of all settings."""
        return f"{self.learner}-{self.world}-{digest(canonical(dataclasses.asdict(self)))[:8]}"


def build_policy(run: Run, world: Any, seed: int) -> Any:
    """A small transformer for tokens; for commands the gain that does nothing yet, K = 0."""
    dtype = getattr(torch, run.dtype)
    if isinstance(world, TokenMDP):
        length = world.prompts.shape[1] + world.horizon
        return Transformer(world.V, None, run.width, run.layers, run.heads, length, seed=seed, dtype=dtype).to(
            run.device
        )
    if run.dtype != "float64":
        raise InputError(
            "--dtype float32 is for token worlds: the gain of a linear policy is judged in double precision"
        )
    return LinearPolicy(torch.zeros(world.m, world.n)).to(run.device)


def build_trainer(run: Run) -> tuple[Trainer, Any, str]:
    """The trainer, its world, and why nothing exact is recorded (else "")."""
    world = make_world(run.world, **dict(run.world_options))
    seeds = [run.seed + i for i in range(run.seeds)]
    policies = [build_policy(run, world, seed) for seed in seeds]
    task, oracle, why = task_and_oracle(world, policies[0], run.seeds)
    learner, critics = learner_of(run), None
    if why and (learner.exact or learner.critic == "exact"):
        raise InputError(f"learner {learner.name!r} needs exact answers, and there are none: {why}")
    places = task.steps + (world.prompts.shape[1] if isinstance(world, TokenMDP) else 0)
    if learner.critic == "learned":
        critics = [
            Transformer(1, task.features, run.width, run.layers, run.heads, length=places, seed=1000 + seed,
                        dtype=getattr(torch, run.dtype)).to(run.device)
            for seed in seeds
        ]  # fmt: skip
    return Trainer(task, learner, policies, seeds, run.setting, oracle, critics), world, why


def learner_of(run: Run) -> Learner:
    """The recipe with its options."""
    in_reward, in_loss = (None if given is None else Penalty(*given) for given in (run.kl_reward, run.kl_loss))
    options = dict(run.options)
    return build_learner(run.learner, kl_reward=in_reward, kl_loss=in_loss, entropy=run.entropy, **options)


def train(run: Run, out: Path, report: Callable[[Record, int], None]) -> pd.DataFrame:
    """Run to the end, or on from where it stopped; `report(record, steps done before)` after every step. The log's rows.

    The checkpoint is written every `every` steps: a run that is stopped goes on from the last one.
    """
    trainer, _, _ = build_trainer(run)
    folder, rows = out / run.name, list[dict[str, Any]]()
    write_atomically(folder / "settings.json", json.dumps(dataclasses.asdict(run), indent=1))
    if (folder / "checkpoint.pt").exists():
        kept = torch.load(folder / "checkpoint.pt", weights_only=True, map_location=run.device)
        trainer.restore(kept["state"])
        rows = kept["rows"]
    if rows and rows[-1]["step"] == run.setting.steps:
        return _written(folder, rows)
    before = trainer.taken
    for record in trainer.run():
        rows += _rows(record, run)
        if record.step % run.setting.every == 0 or record.step == run.setting.steps:
            _checkpoint(folder, trainer, rows)
        report(record, before)
    return _written(folder, rows)


def _rows(record: Record, run: Run) -> list[dict[str, Any]]:
    """One row a seed."""
    plain = {name: getattr(record, name).tolist() for name in _PER_SEED}
    return [
        {"step": record.step, "rows": record.rows, "seed": run.seed + i, **{name: plain[name][i] for name in _PER_SEED}}
        for i in range(run.seeds)
    ]


def _checkpoint(folder: Path, trainer: Trainer, rows: list[dict[str, Any]]) -> None:
    buffer = io.BytesIO()
    torch.save({"state": trainer.state(), "rows": rows}, buffer)
    write_atomically(folder / "checkpoint.pt", buffer.getvalue())


def _written(folder: Path, rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    write_atomically(folder / "log.csv", table.to_csv(index=False))
    return table


def summary(table: pd.DataFrame) -> str:
    """The last exact numbers, means over seeds."""
    last = table[table["step"] == table["step"].max()]
    drawn = table[table["step"] < table["step"].max()]
    parts = {"J": last["J"].mean(), "entropy": last["entropy"].mean(), "cosine": drawn["cosine"].mean(),
             "clipped": drawn["clipped"].mean(), "silent groups": drawn["silent"].mean()}  # fmt: skip
    return ", ".join(f"{name} {value:.4g}" for name, value in parts.items() if not math.isnan(value))
