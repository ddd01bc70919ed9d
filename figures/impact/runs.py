"""Pretrain on a corpus, stop at checkpoints on a log grid, say everything exact of each, and start RL from all of them.

A *trajectory* is one network from its first draw to the end of pretraining. A point of the study is a few trajectories on one
corpus. Its rows are of two kinds: "checkpoint" (what is known before RL) and "gain" (what a recipe made of it).
"""

import copy
import dataclasses
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agents.policies.transformer import Transformer
from agents.recipes.learners import Learner, grpo, rloo, value_gradient
from agents.training.copies import Copies
from agents.training.pretraining import Checkpoint, log_grid, pretrain
from agents.training.settings import TrainingSettings
from agents.training.tasks import TokenTask
from agents.training.trainer import Trainer
from envs.corpus import Corpus
from envs.policy import TokenPolicy
from envs.skills import skills
from envs.token_mdp import TokenMDP
from envs.world import InputError
from figures.harness.claim import Claim, Preset
from figures.harness.code import digest
from figures.harness.records import canonical
from figures.harness.rows import Row
from figures.impact.numbers import SITE, Definitions, describe_policy, reader_return
from figures.measures.oracles import TokenOracle
from figures.measures.token_systems import at_least
from theory.tokens.completions import completion_log_probs, completions, mean_entropy
from theory.tokens.dynamic_programming import best_words
from theory.tokens.prefix_tree import grow

MAIN = "GRPO"  # the recipe that claims are judged on; the others are the noise-free limits and the unbiased sibling
DOCUMENTS, ROLLOUTS = 2**32, 2**33  # added to a seed, so that documents and rows of RL are not drawn as the network was
EXACT_ADAM, EXACT_SGD, UNBIASED = "exact, Adam", "exact, SGD", "RLOO"


@dataclass(frozen=True)
class ImpactSetting:
    """A corpus, a network, and RL of `budgets` updates of `rows` completions from every checkpoint, `seeds` trajectories.

    The first of `groups` is every recipe's group size; the others are GRPO's alone. `sgd` adds exact ascent by plain SGD.
    """

    quality: float = 1.0
    noise: float = 0.0
    coverage: float = 1.0
    block: int = 0  # trajectories of other seeds, the same in all else
    seeds: int = 4
    groups: tuple[int, ...] = (8,)
    sgd: bool = False
    width: int = 16
    names: str = "say,copy,add"
    modulus: int = 3
    horizon: int = 3
    updates: int = 256
    checkpoints: int = 7
    batch: int = 64
    pretraining_rate: float = 0.005
    budgets: tuple[int, ...] = (6, 12, 24)
    rows: int = 64
    rate: float = 0.001
    sgd_rate: float = 0.05
    site: str = SITE

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to measure."""
        at_least(1, seeds=self.seeds, updates=self.updates)
        at_least(3, checkpoints=self.checkpoints)
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)) or self.budgets[0] < 1:
            raise InputError(f"budgets must be rising whole numbers >= 1, RL updates; got {tuple(self.budgets)}")
        if not self.groups or any(group < 2 or self.rows % group for group in self.groups):
            raise InputError(f"groups must be >= 2 and divide rows={self.rows}; got {tuple(self.groups)}")


def settings(preset: Preset) -> list[ImpactSetting]:
    """Clean and half-wrong corpora; in the full preset more of them, slips, gaps, larger networks, other skills, more seeds."""
    if preset == "quick":
        clean = [ImpactSetting(block=block, seeds=6, groups=(8, 2, 32), sgd=True) for block in range(2)]
        return clean + [ImpactSetting(quality=0.5, block=block, updates=1024) for block in range(2)]
    whole = ImpactSetting(seeds=2, updates=1024, checkpoints=11, budgets=(8, 32, 128), groups=(8, 2, 32), sgd=True)
    kinds = [
        replace(whole, quality=quality, updates=4096 if quality < 0.9 else 1024)
        for quality in (1.0, 0.9, 0.7, 0.5, 0.3)
    ]
    kinds += [replace(whole, noise=0.2), replace(whole, coverage=0.6), replace(whole, width=32)]
    kinds.append(replace(whole, names="copy,reverse,add,multiply"))
    return [replace(kind, block=block) for kind in kinds for block in range(8)]


def measure(setting: ImpactSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Rows of kind "checkpoint" and "gain", one for every trajectory, checkpoint, recipe and budget."""
    first = int(torch.randint(2**31, (1,), generator=rng))
    world, path = trajectory(setting, first, device)
    networks = [network for point in path for network in point.networks]
    reader = reader_return(corpus_of(setting))
    rows = [
        {**label, "reader": reader, **describe_policy(world, network, Definitions(site=setting.site))}
        for label, network in zip(_labels(setting, path, "checkpoint"), networks, strict=True)
    ]
    for name, learner, group, optimiser, rate in recipes(setting):
        found = gains(world, networks, learner, group, setting, optimiser, rate, first)
        for i, label in enumerate(_labels(setting, path, "gain")):
            rows += [
                {**label, "recipe": name, "group": group, "budget": budget, **{k: float(x[i]) for k, x in one.items()}}
                for budget, one in found.items()
            ]
    return rows


def corpus_of(setting: ImpactSetting) -> Corpus:
    """World and documents; the same prompts are left out in every block."""
    world = skills(setting.modulus, setting.horizon, setting.names)
    return Corpus(world, best_words(world), setting.quality, setting.noise, setting.coverage)


def trajectory(setting: ImpactSetting, first: int, device: str) -> tuple[TokenMDP, list[Checkpoint]]:
    """`seeds` networks trained side by side, seeds `first`, `first + 1`, ...; their checkpoints."""
    corpus = corpus_of(setting)
    seeds = [first + i for i in range(setting.seeds)]
    networks = [
        Transformer(corpus.world.V, None, setting.width, 2, 2, corpus.length, seed=seed).to(device) for seed in seeds
    ]
    grid = log_grid(min(8, setting.updates), setting.updates, setting.checkpoints)
    noise = [torch.Generator().manual_seed(DOCUMENTS + seed) for seed in seeds]
    path = pretrain(networks, corpus, grid, noise, setting.batch, setting.pretraining_rate)
    return corpus.world, list(path)


def recipes(setting: ImpactSetting) -> list[tuple[str, Learner, int, str, float]]:
    """Name, learner, group, optimiser, rate of all that is run from every checkpoint."""
    first = setting.groups[0]
    found = [(MAIN, grpo(), group, "adam", setting.rate) for group in setting.groups]
    found += [(UNBIASED, rloo(), first, "adam", setting.rate), (EXACT_ADAM, value_gradient(), 1, "adam", setting.rate)]
    return found + ([(EXACT_SGD, value_gradient(), 1, "sgd", setting.sgd_rate)] if setting.sgd else [])


def gains(
    world: TokenMDP, networks: list[Any], learner: Learner, group: int, setting: ImpactSetting, optimiser: str, rate: float,
    first: int,
) -> dict[int, dict[str, Tensor]]:  # fmt: skip
    """For every budget the exact gain of each network; after the last also the KL to the start, both means over prompts."""
    last, prompts = setting.budgets[-1], 1 if learner.exact else setting.rows // group
    asked = TrainingSettings(last, prompts, group, rate=rate, optimiser=optimiser)
    seeds = [ROLLOUTS + first + i for i in range(len(networks))]
    oracle = TokenOracle(world) if learner.exact else None
    trainer = Trainer(TokenTask(world), learner, [copy.deepcopy(n) for n in networks], seeds, asked, oracle)
    before, found = _exact(world, trainer.actor)[0], dict[int, dict[str, Tensor]]()
    for done in range(1, last + 1):
        trainer.step()
        if done in setting.budgets:
            J, H = _exact(world, trainer.actor)
            found[done] = {"gain": J - before, "J_after": J, "H_after": H}
    found[last]["kl"] = kl_moved(world, Copies(networks), trainer.actor)
    return found


def _exact(world: TokenMDP, actor: Copies) -> tuple[Tensor, Tensor]:
    """Expected return and entropy of every copy."""

    def both(policy: TokenPolicy) -> tuple[Tensor, Tensor]:
        tree = grow(world, policy)
        return tree.J, mean_entropy(tree)

    with torch.no_grad():
        J, H = actor.run(both)
    return J.double().cpu(), H.double().cpu()


def kl_moved(world: TokenMDP, before: Copies, after: Copies) -> Tensor:
    """`KL(after || before)` of whole completions, mean over prompts, exact."""
    tree = grow(world, before.network_of(0))
    mask = completions(tree).mask

    def log_p(policy: TokenPolicy) -> Tensor:
        return (completion_log_probs(grow(world, policy)) * mask).sum(-1)

    with torch.no_grad():
        old, new = before.run(log_p), after.run(log_p)
    # completions that differ only after their end are rows of their own here: each is one of so many of the same
    alike = (world.V ** (~mask).sum(-1)).to(old)
    return ((new.exp() * (new - old) / alike).sum(-1) @ world.weights.to(old)).double().cpu()


def _labels(setting: ImpactSetting, path: list[Checkpoint], kind: str) -> list[Row]:
    """One row a network, in the order of the checkpoints and, within each, of the trajectories."""
    fields = ("quality", "noise", "coverage", "width", "names")
    run = digest(canonical(dataclasses.asdict(setting)))
    fixed = {"kind": kind, "run": run, **{name: getattr(setting, name) for name in fields}}
    return [
        {**fixed, "trajectory": i, "checkpoint": c, "updates": point.updates, "tokens": point.tokens}
        for c, point in enumerate(path)
        for i in range(setting.seeds)
    ]


# a claim that is judged on these runs: what it adds is its own
claim_on_runs = partial(Claim, assumptions=(), settings=settings, measure=measure, study="impact_runs")
