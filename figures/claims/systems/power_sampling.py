"""Power sampling: what it draws from, how its chain gets there, and what the published code's end-token rule does to it."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.policies.prefix_table import PrefixTable
from envs.token_mdp import TokenMDP
from figures.drawing.power_sampling import draw_power_sampling
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_least, at_most, equals, report, vanishes
from figures.measures import power_sampling as measures
from figures.measures.power_sampling import TEXTBOOK, apart, tree_of
from figures.measures.token_systems import build_world
from theory.tokens.power_sampling import chain, gap_bound, metropolis, spectral_gap, texts
from theory.tokens.prefix_tree import Tree

TILT, RATIO = "p^alpha / Z = temperature 1 / alpha x product of Z_a", "acceptance = product of Z_a"
STATIONARY, GAP = "p^alpha / Z is stationary", "spectral gap <= 1 / T"
APPROACH, DRAWN = "Algorithm 1 ends at p^alpha / Z", "drawn texts follow the exact law of Algorithm 1"
SAME, POSITION = (
    "temperature 1 / alpha = p^alpha / Z",
    "one step or position alone: temperature 1 / alpha = p^alpha / Z",
)
CUT, NO_FACTOR = "published end-token rule: p^alpha / Z is stationary", "without |x| / |y|: p^alpha / Z is stationary"
ALWAYS, LOWERS = "accept always: p^alpha / Z is stationary", "power sampling never lowers J"
AWAY = "total variation from p^alpha / Z"
_ROUNDING, _END = 1e-10, 1e-8  # of one evaluation; of a chain after many steps


@dataclass(frozen=True)
class PowerSamplingSetting:
    """One world, one power, a random table; rows to be drawn, and steps per block after which the law is looked at."""

    world: str
    alpha: float
    seed: int
    rows: int
    steps: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 300)
    drawn_steps: tuple[int, ...] = (0, 3, 10)
    spread: float = knob(1.0)  # standard deviation of the logits


def settings(preset: Preset) -> list[PowerSamplingSetting]:
    """Worlds of one step, of one length and of many, by powers and seeds."""
    worlds = ["one choice of 3", "lock (2,3)", "garnet (3,3)", "stop (2,4)", "stop (3,3)"]
    worlds = ["one choice of 3", "garnet (2,3)", "stop (2,3)"] if preset == "tiny" else worlds
    alphas = {"tiny": (4.0,), "quick": (2.0, 4.0), "full": (0.5, 1.5, 2.0, 4.0, 8.0)}[preset]
    rows, seeds = (40_000, 6) if preset == "full" else (3000, 2 if preset == "quick" else 1)
    return [
        PowerSamplingSetting(name, alpha, seed, rows) for name in worlds for alpha in alphas for seed in range(seeds)
    ]


def measure(setting: PowerSamplingSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The law by several roads, the chain against it, Algorithm 1 exactly and by sampling, and the return."""
    world = build_world(setting.world).to(device)
    policy = PrefixTable(world, seed=setting.seed, spread=setting.spread).to(device)
    tree, at = tree_of(world, policy), {"world": setting.world, "alpha": setting.alpha, "seed": setting.seed}
    rows = _law_rows(setting, world, tree, at) + _chain_rows(world, tree, setting.alpha, at)
    for labels, away, bound in measures.approach(tree, setting.alpha, setting.steps):
        rows += report(AWAY, world.weights @ away, labels=at | labels)
        if labels["chain"] == TEXTBOOK:
            rows += at_most(APPROACH, away, bound, tolerance=_END, labels=at | labels, axes=("prompt",))
            rows += vanishes(APPROACH, world.weights @ away, _END, labels=at | labels) if labels["enough"] else []
    for labels, seen, mean in measures.drawn(tree, policy, setting.alpha, setting.drawn_steps, setting.rows, rng):
        scale = float(seen.standard_error) * math.sqrt(seen.samples)
        rows += equals(DRAWN, seen, mean, scale, tolerance=_ROUNDING, labels=at | labels)
    J = measures.returns(tree, setting.alpha)
    for reward, sign in (("the world's", 1.0), ("its opposite", -1.0)):
        gain = sign * (J["J of the power"] - J["J of p"])
        rows += at_least(LOWERS, gain, 0.0, tolerance=_ROUNDING, labels=at | J | {"reward": reward})
    return rows


def _law_rows(setting: PowerSamplingSetting, world: TokenMDP, tree: Tree, at: Row) -> list[Row]:
    """The power of p by several roads, against the law at temperature 1 / alpha."""
    among, rows = texts(tree, setting.alpha), list[Row]()
    for road, law in measures.law_roads(tree, setting.alpha).items():
        rows += vanishes(TILT, (law - among.power).abs().max(), _ROUNDING, labels=at | {"road": road})
    rows += vanishes(RATIO, measures.ratio_gap(tree, setting.alpha), _ROUNDING, labels=at)
    gap = apart(world, among.cold, among.power)
    rows += vanishes(POSITION if world.horizon == 1 else SAME, gap, _ROUNDING, labels=at)
    if world.end is None and world.horizon > 1:
        other = texts(tree_of(world, measures.position_only(world, setting.seed, setting.spread)), setting.alpha)
        rows += vanishes(POSITION, apart(world, other.cold, other.power), _ROUNDING, labels=at)
    return rows


def _chain_rows(world: TokenMDP, tree: Tree, alpha: float, at: Row) -> list[Row]:
    """The chain of the last block: balance, gap, and three wrong chains."""
    among, K, rows = texts(tree, alpha), chain(tree, alpha, world.horizon), list[Row]()
    for what, error in zip(("law", "flow"), measures.flow_gap(among.power, K), strict=True):
        rows += vanishes(STATIONARY, error, _ROUNDING, labels=at | {"of": what})
    gap = spectral_gap(K, among.power)
    rows += at_most(GAP, gap, gap_bound(among), tolerance=_ROUNDING, labels=at, axes=("prompt",))
    wrong = [(ALWAYS, "hastings", measures.always)] if world.horizon > 1 else []
    wrong += [(CUT, "cut", metropolis), (NO_FACTOR, "no factor", metropolis)] if world.end is not None else []
    for part, rule, accept in wrong:
        rows += vanishes(part, measures.moved(tree, alpha, rule, accept), _ROUNDING, labels=at)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """How far the law is from the power, and the mean length, by steps."""
    draw_power_sampling(figure, rows[rows["part"] == AWAY], rows[rows["part"] == DRAWN])


CLAIM = Claim(
    name="power_sampling",
    statement="Power sampling draws whole texts from p^alpha / Z",
    formula=r"\frac{p^\alpha(o)}{Z}=\frac{q(o)\prod_t Z_\alpha(o_{<t})}{\mathrm{E}_q\prod_t Z_\alpha}\qquad"
    r"\min\left(1,\prod_{t>m}\frac{Z_\alpha(o'_{<t})}{Z_\alpha(o_{<t})}\frac{|o|}{|o'|}\right)",
    source="arXiv:2510.14901, Algorithm 1, and its published code (720a8e9); theory page section 6",
    assumptions=(),
    must_hold="The power is the law at temperature 1 / alpha times a product of Z_a; the chain needs Z_a alone, is reversible "
    "and has a gap of at most 1 / T; Algorithm 1 ends at the power, and drawn texts follow its exact law",
    must_fail="Temperature 1 / alpha in its place; the published code's end-token rule; the chain without |x| / |y|; a chain "
    "that accepts always; a power that never lowers the return",
    how_to_read="Left, how far the exact law of the drawn texts is from p^alpha / Z after N steps in one block, in the worlds "
    "with an end token at the largest alpha; at N = 0 it is temperature 1 / alpha. Right, how often a text says the end token: "
    "lines are exact, points are drawn texts with two standard errors. Steps with the factor |x| / |y| go to the power "
    "(dashed). Those of the published rule (code at 720a8e9) end elsewhere, at texts of one token.",
    parts=(
        *(Part(name, "claim", "holds") for name in (TILT, RATIO, STATIONARY, GAP, APPROACH)),
        *(Part(name, "control", "holds") for name in (DRAWN, POSITION)),
        *(Part(name, "control", "fails", every="world") for name in (SAME, CUT, NO_FACTOR, ALWAYS, LOWERS)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
