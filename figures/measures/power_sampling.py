"""Power sampling in small worlds: its law by several roads, its chain against that law, and texts that were drawn."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from agents.sampling.power_sampling import power_sample
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.harness.rows import Row
from figures.harness.statistics import Estimate, estimate
from figures.measures.tables import table_of
from theory.tokens.completions import prefixes_alive
from theory.tokens.power_sampling import Acceptance, Stage, block_stages, chain, spectral_gap, temperature_law, texts
from theory.tokens.prefix_tree import Tree, grow
from theory.tokens.soft_control import soft_optimum
from theory.tokens.softmax_bounds import log_softmax
from theory.tokens.tilted_laws import power_law

TEXTBOOK, PUBLISHED = "with the factor |x| / |y|", "published end-token rule"
ENDED = "says the end token"


def tree_of(world: TokenMDP, policy: TokenPolicy) -> Tree:
    """The tree without a graph."""
    with torch.no_grad():
        return grow(world, policy)


def position_only(world: TokenMDP, seed: int, spread: float) -> PrefixTable:
    """A random table whose law of a token depends on its position alone."""
    rng, prompts = torch.Generator().manual_seed(seed), len(torch.unique(world.prompts, dim=0))
    rows = [spread * torch.randn(1, world.V, generator=rng, dtype=torch.float64) for _ in range(world.horizon)]
    return table_of(world, [row.expand(prompts * world.V**k, -1) for k, row in enumerate(rows)])


def apart(world: TokenMDP, one: Float[Tensor, "prompts W"], other: Float[Tensor, "prompts W"]) -> float:
    """Total variation between two laws of texts, mean over the prompts."""
    return float(world.weights @ (one - other).abs().sum(-1)) / 2


def law_roads(tree: Tree, alpha: float) -> dict[str, Float[Tensor, "prompts W"]]:
    """Laws of texts that must be `p^alpha / Z`: by name, each by another road.

    "product of Z" weighs the law at temperature `1 / alpha` by the product of Z_a, "recursion" goes backward from prefix to
    prefix, and "soft optimum" (alpha > 1) is the optimum of the return `log p` with a KL penalty of `1 / (alpha - 1)`.
    """
    among, world = texts(tree, alpha), tree.world
    weighted = among.cold * among.log_Z.sum(-1).exp()
    laws = {"product of Z": weighted / weighted.sum(-1, keepdim=True)}
    tables = {"recursion": power_law(tree, alpha).log_pi}
    if alpha > 1:
        steps = enumerate(zip(tree.levels, prefixes_alive(tree), strict=True))
        paid = [
            replace(level, rewards=alive[:, None] * log_softmax(level.logits) / world.gamma**k)
            for k, (level, alive) in steps
        ]
        tables["soft optimum"] = soft_optimum(replace(tree, levels=paid), 1 / (alpha - 1)).log_pi
    return laws | {name: texts(tree_of(world, table_of(world, log_pi)), 1.0).power for name, log_pi in tables.items()}


def ratio_gap(tree: Tree, alpha: float) -> float:
    """The largest gap between the logarithm of `p^alpha(y) q(x) / (p^alpha(x) q(y))` from likelihoods and that from Z_a alone.

    Over all texts x, y and positions m up to which they agree; q is a table at temperature `1 / alpha`.
    """
    among = texts(tree, alpha)
    cold = texts(tree_of(tree.world, table_of(tree.world, temperature_law(tree, alpha).log_pi)), 1.0)
    worst, T = 0.0, among.tokens.shape[1]
    for m in range(T):
        same = (among.tokens[:, None, :m] == among.tokens[None, :, :m]).all(-1) & (among.length > m)
        suffix = (alpha * among.log_pi - cold.log_pi)[..., m:].sum(-1)
        sums = among.log_Z[..., m + 1 :].sum(-1)
        gap = (suffix[:, None] - suffix[..., None]) - (sums[:, None] - sums[..., None])
        worst = max(worst, float(gap[:, same & (among.length > m)[:, None]].abs().max()))
    return worst


def flow_gap(law: Float[Tensor, "prompts W"], K: Float[Tensor, "prompts W W"]) -> tuple[float, float]:
    """How far a law is from stationary under a chain, and the largest net flow between two texts."""
    flow = law[..., None] * K
    return float((flow.sum(1) - law).abs().max()), float((flow - flow.mT).abs().max())


def moved(tree: Tree, alpha: float, end_rule: str, accept: Acceptance) -> float:
    """The largest change of a probability when one step is taken from `p^alpha / Z`."""
    K = chain(tree, alpha, tree.world.horizon, end_rule, accept)
    return flow_gap(texts(tree, alpha, unfinished=end_rule == "cut").power, K)[0]


def always(log_ratio: Tensor) -> Tensor:
    """Accept every new text."""
    return torch.ones_like(log_ratio)


def last_blocks(tree: Tree, alpha: float, B: int, steps: Sequence[int], end_rule: str) -> dict[int, Stage]:
    """The last block of power sampling by the number of steps; in one block it is the same for all of them."""
    if tree.world.horizon <= B:
        return dict.fromkeys(steps, next(block_stages(tree, alpha, B, 0, end_rule)))
    return {N: list(block_stages(tree, alpha, B, N, end_rule))[-1] for N in steps}


def contraction(law: Float[Tensor, "prompts W"], start: Float[Tensor, "prompts W"], gap: Tensor, N: int) -> Tensor:
    """`sqrt(chi^2) (1 - gap)^N / 2`, the bound on the total variation after N steps of a reversible chain from `start`."""
    chi = torch.where(law > 0, (start - law) ** 2 / law, 0.0).sum(-1)
    return chi.sqrt() * (1 - gap).clamp(min=0.0) ** N / 2


def rules(world: TokenMDP) -> dict[str, str]:
    """Names of chains and their end rules; the published one differs from the textbook's where an end token exists."""
    return {TEXTBOOK: "hastings"} if world.end is None else {TEXTBOOK: "hastings", PUBLISHED: "cut"}


def approach(tree: Tree, alpha: float, steps: Sequence[int]) -> Iterator[tuple[Row, Tensor, Tensor]]:
    """Labels of a run of Algorithm 1, its distance from `p^alpha / Z` for every prompt, and the bound for the textbook chain.

    In one block and in blocks of one token; after each number of steps, and after as many as the gap says are enough.
    """
    world, among = tree.world, texts(tree, alpha)
    gap = spectral_gap(chain(tree, alpha, world.horizon), among.power)
    enough = math.ceil(40 / float(gap.min()))
    for B, (name, rule) in itertools.product(sorted({1, world.horizon}), rules(world).items()):
        for N, stage in last_blocks(tree, alpha, B, (*steps, enough), rule).items():
            labels = {"block": B, "steps": N, "chain": name, "enough": enough == N}
            target, ended = stage.texts.power, stage.texts.ended.to(stage.law).expand_as(stage.law)
            means = (_moments(world, law, ended)[0] for law in (stage.after(N), target))
            labels |= dict(zip(("ended", "power_ended"), means, strict=True))
            bound = contraction(target, stage.law, gap, N)
            yield labels, (stage.after(N) - target).abs().sum(-1) / 2, bound


def drawn(
    tree: Tree, policy: TokenPolicy, alpha: float, steps: Sequence[int], rows: int, rng: torch.Generator
) -> Iterator[tuple[Row, Estimate, float]]:
    """Labels of a run of Algorithm 1, a mean over drawn texts, and its exact value.

    The means are those of log p, and of whether the text says the end token; the world's prompts must have even weights. The
    standard error is the larger one of the sample's and of the exact law's: rare texts may be missing in the sample.
    """
    world = tree.world
    runs = [(world.horizon, N) for N in steps] + [(1, 2)] * (world.horizon > 1)
    copies = -(-rows // len(world.prompts))
    for (name, rule), (B, N) in itertools.product(rules(world).items(), runs):
        stage = last_blocks(tree, alpha, B, (N,), rule)[N]
        sample = power_sample(policy, world.prompts, alpha, B, N, rng, world.horizon, copies, world.end, rule)
        log_p = stage.texts.log_pi.sum(-1)
        numbers = {"log p": (log_p, sample.log_probs.sum(1))}
        if world.end is not None:
            numbers[ENDED] = (stage.texts.ended.to(log_p).expand_as(log_p), sample.ended.double())
        for what, (x, seen) in numbers.items():
            mean, spread = _moments(world, stage.after(N), x)
            own = estimate(seen)
            error = np.maximum(own.standard_error, spread / math.sqrt(own.samples))
            yield {"block": B, "steps": N, "chain": name, "of": what}, replace(own, standard_error=error), mean


def _moments(world: TokenMDP, law: Float[Tensor, "prompts W"], x: Float[Tensor, "prompts W"]) -> tuple[float, float]:
    """Mean and standard deviation of a number of every text."""
    mean = world.weights @ (law * x).sum(-1)
    square = world.weights @ (law * x**2).sum(-1)
    return float(mean), float((square - mean**2).clamp(min=0.0).sqrt())


def returns(tree: Tree, alpha: float) -> dict[str, float]:
    """J under p, under p at temperature `1 / alpha`, and under its power."""
    world = tree.world
    laws = {"J at temperature": temperature_law(tree, alpha), "J of the power": power_law(tree, alpha)}
    others = {name: float(tree_of(world, table_of(world, law.log_pi)).J) for name, law in laws.items()}
    return {"J of p": float(tree.J)} | others
