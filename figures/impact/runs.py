"""The impact study: pretrain on a corpus, describe every checkpoint exactly, and run RL from each of them.

A *trajectory* is one network from its first draw to the end of pretraining. A point of the study is a few trajectories on one
corpus. Its rows are of two kinds: "checkpoint" (what is known before RL) and "gain" (the exact gain of a recipe).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from agents.policies.transformer import Transformer
from agents.recipes.learners import Learner, grpo, rloo, value_gradient
from agents.training.copies import Copies
from agents.training.noise import noise_of
from agents.training.pretraining import Checkpoint, log_grid, pretrain
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.corpus import Corpus
from envs.policy import TokenPolicy
from envs.skills import skills
from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim
from figures.harness.code import digest
from figures.harness.records import canonical
from figures.harness.rows import Row
from figures.impact.numbers import Definitions, describe_policy, reader_return
from figures.impact.settings import ImpactSetting, settings
from figures.impact.tables import with_shared_fields
from figures.measures.oracles import TokenOracle
from theory.tokens.completions import completion_log_probs, mean_entropy, words
from theory.tokens.dynamic_programming import best_words
from theory.tokens.prefix_tree import grow

MAIN, UNBIASED = "GRPO", "RLOO"  # claims are judged on the main recipe
EXACT_ADAM, EXACT_SGD = "exact, Adam", "exact, SGD"  # ascent on the exact gradient: the limits without noise


class Recipe(NamedTuple):
    """What is run from every checkpoint: name, learner, rows of a group, optimiser, learning rate."""

    name: str
    learner: Learner
    group: int
    optimiser: str
    rate: float


def measure(setting: ImpactSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Rows of kind "checkpoint" and "gain", one for every trajectory, checkpoint, recipe and budget."""
    first = int(torch.randint(2**31, (1,), generator=rng))
    world, path = trajectory(setting, first, device)
    networks = [network for point in path for network in point.networks]
    reader, definitions = reader_return(corpus_of(setting)), Definitions(site=setting.site)
    rows = [
        {**label, "reader": reader, **describe_policy(world, network, definitions)}
        for label, network in zip(_labels(setting, path, "checkpoint"), networks, strict=True)
    ]
    before = evaluate(world, Copies(networks))
    for recipe in recipes(setting):
        by_budget = gains(world, networks, recipe, setting, first, before)
        for i, label in enumerate(_labels(setting, path, "gain")):
            rows += [
                {**label, "recipe": recipe.name, "group": recipe.group, "budget": budget}
                | {name: float(values[i]) for name, values in numbers.items()}
                for budget, numbers in by_budget.items()
            ]
    return rows


def corpus_of(setting: ImpactSetting) -> Corpus:
    """World and documents of a setting; every block leaves out the same prompts."""
    world = skills(setting.modulus, setting.horizon, setting.names)
    return Corpus(world, best_words(world), setting.quality, setting.noise, setting.coverage)


def trajectory(setting: ImpactSetting, first: int, device: str) -> tuple[TokenMDP, list[Checkpoint]]:
    """The world, and the checkpoints of `seeds` networks trained side by side with seeds `first`, `first + 1`, ..."""
    corpus = corpus_of(setting)
    seeds = [first + i for i in range(setting.seeds)]
    networks = [
        Transformer(corpus.world.V, None, setting.width, 2, 2, corpus.length, seed=seed).to(device) for seed in seeds
    ]
    grid = log_grid(min(8, setting.updates), setting.updates, setting.checkpoints)
    noise = [noise_of("documents", seed) for seed in seeds]
    path = pretrain(networks, corpus, grid, noise, setting.batch, setting.pretraining_rate)
    return corpus.world, list(path)


def recipes(setting: ImpactSetting) -> list[Recipe]:
    """All that is run from every checkpoint."""
    first, rate = setting.groups[0], setting.rate
    chosen = [Recipe(MAIN, grpo(), group, "adam", rate) for group in setting.groups]
    chosen += [Recipe(UNBIASED, rloo(), first, "adam", rate), Recipe(EXACT_ADAM, value_gradient(), 1, "adam", rate)]
    if setting.sgd:
        chosen.append(Recipe(EXACT_SGD, value_gradient(), 1, "sgd", setting.sgd_rate))
    return chosen


def gains(
    world: TokenMDP,
    networks: Sequence[Any],
    recipe: Recipe,
    setting: ImpactSetting,
    first: int,
    before: "Evaluation | None" = None,
) -> dict[int, dict[str, Tensor]]:
    """Run a recipe from every network, each by itself and with its own noise, and take the exact gains.

    Args:
        world: the token world.
        networks: where RL starts; they are left as they are.
        recipe: what is run.
        setting: its `budgets` and `rows` are used.
        first: seed of the first network's noise; the others' are `first + 1`, `first + 2`, ...
        before: `evaluate` of the networks, where it is known.

    Returns:
        Budget -> "gain", "J_after" and "H_after" of each network (means over prompts); "kl", which is KL(after || before), at
        the last budget alone.
    """
    last, prompts = setting.budgets[-1], 1 if recipe.learner.exact else setting.rows // recipe.group
    never = last + 1  # the trainer's own record of exact answers is not read here
    training = TrainingSettings(last, prompts, recipe.group, rate=recipe.rate, optimiser=recipe.optimiser, every=never)
    seeds = [first + i for i in range(len(networks))]
    oracle = TokenOracle(world) if recipe.learner.exact else None
    trainer = Trainer(TokenTask(world), recipe.learner, networks, seeds, training, oracle)
    start = evaluate(world, trainer.actor) if before is None else before
    by_budget = dict[int, dict[str, Tensor]]()
    for done in range(1, last + 1):
        trainer.step()
        if done in setting.budgets:
            now = evaluate(world, trainer.actor)
            by_budget[done] = {"gain": now.J - start.J, "J_after": now.J, "H_after": now.entropy}
    by_budget[last]["kl"] = kl_moved(world, start, now)
    return by_budget


class Evaluation(NamedTuple):
    """What is exact about each of S policies.

    `J` (S,) and `entropy` (S,) of a completion, `log_p` (S, prompts, completions) of whole completions, and the `length`
    (prompts, completions) of each. Completions that differ only after their end have an entry each.
    """

    J: Tensor
    entropy: Tensor
    log_p: Tensor
    length: Tensor


def evaluate(world: TokenMDP, actor: Copies) -> Evaluation:
    """Expected return, entropy and log-probabilities of every copy, from one growth of its tree."""
    with torch.no_grad():
        mask = words(grow(world, actor.network_of(0))).mask

    def of(policy: TokenPolicy) -> tuple[Tensor, Tensor, Tensor]:
        tree = grow(world, policy)
        return tree.J, mean_entropy(tree), (completion_log_probs(tree) * mask).sum(-1)

    with torch.no_grad():
        J, entropy, log_p = actor.run(of)
    return Evaluation(J.double().cpu(), entropy.double().cpu(), log_p, mask.sum(-1))


def kl_moved(world: TokenMDP, before: Evaluation, after: Evaluation) -> Tensor:
    """`KL(after || before)` of whole completions, mean over prompts, exact."""
    old, new = before.log_p, after.log_p
    # completions that differ only after their end have a row each: the sum over rows counts each of them `alike` times
    alike = (world.V ** (world.horizon - before.length)).to(old)
    kl: Tensor = (new.exp() * (new - old) / alike).sum(-1) @ world.weights.to(old)
    return kl.double().cpu()


def _labels(setting: ImpactSetting, path: list[Checkpoint], kind: str) -> list[Row]:
    """Labels of the rows: one for every network, in the order of the checkpoints and, within each, of the trajectories."""
    fields = ("quality", "noise", "coverage", "width", "names")
    run = digest(canonical(dataclasses.asdict(setting)))
    fixed = {"kind": kind, "run": run, **{name: getattr(setting, name) for name in fields}}
    return [
        {**fixed, "trajectory": i, "checkpoint": c, "updates": point.updates, "tokens": point.tokens}
        for c, point in enumerate(path)
        for i in range(setting.seeds)
    ]


def claim_on_runs(derive: Callable[[pd.DataFrame], list[Row]], **own: Any) -> Claim:
    """A claim that is judged on these runs: what it derives from their rows, and its other fields."""
    fields = ("run_seed", *(field.name for field in dataclasses.fields(ImpactSetting)))

    def labelled(study: pd.DataFrame) -> list[Row]:
        return with_shared_fields(derive(study), study, fields)

    shared: dict[str, Any] = {"assumptions": (), "settings": settings, "measure": measure, "study": "impact_runs"}
    return Claim(**shared, derive=labelled, **own)
