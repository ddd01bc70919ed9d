"""Reinforcement pre-training: what next-token rewards make of a corpus's law, and how their updates stand to the likelihood."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.policies.prefix_table import PrefixTable
from figures.drawing.next_token import draw_next_token
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_least, at_most, equals, report, vanishes
from figures.measures.next_token import (
    ARCSINE,
    LAWS,
    LIKELIHOOD,
    LIMITS,
    RECIPES,
    RPT,
    along_and_slope,
    by_mean,
    closed_field,
    corpus_world,
    end_of,
    factor_gaps,
    law_world,
    sharpened_cosine,
    slope_of,
)
from figures.measures.token_systems import build_policy
from theory.groups.binary_rewards import alignment
from theory.groups.objectives import prompt_gradients
from theory.tokens.next_token import arcsine_optimum, jensen_bound, log_likelihood, mean_optimum

ENDS, COSINE = "RPT ends at pi = q", "cosine of RPT to the likelihood > 0"
FACTORS, MODE, AT_Q = "factors in closed form", "constant factor: ends at the mode", "likelihood: ends at q"
CRITERION, CLIMBS = "arcsine criterion", "mean: climbs the truncated log"
LARGE, JENSEN = "mean, G large: the likelihood's gradient", "reward log pi(x|c) climbs log P"
_COSINES, _LAW = "cosines", "law at the end"  # reported, for the picture
_ROUNDING, _END, _DIFFERENCES = 1e-10, 1e-8, 1e-8
_GROUPS = (4, 16, 64, 256)  # of division by the mean
_FAST = 20.0  # rate of a constant factor, along which the odds move by equal steps


@dataclass(frozen=True)
class NextTokenRewardSetting:
    """A law after one context and a random table, or the first answer token of a corpus and a random transformer."""

    world: str
    seed: int
    thoughts: int = 0
    quality: float = knob(0.6)  # of the corpus
    noise: float = knob(0.1)


def settings(preset: Preset) -> list[NextTokenRewardSetting]:
    """Laws on both sides of the criterion; corpora with and without a thought, by seeds."""
    laws = list(LAWS)[: 2 if preset == "tiny" else None]
    worlds = ("copy (2,3)", "arithmetic (3,2)", "arithmetic (4,2)")[: {"tiny": 1, "quick": 2, "full": 3}[preset]]
    starts, seeds = map(range, {"tiny": (1, 2), "quick": (1, 6), "full": (4, 32)}[preset])
    return [NextTokenRewardSetting(law, seed) for law in laws for seed in starts] + [
        NextTokenRewardSetting(world, seed, thoughts) for world in worlds for thoughts in (0, 1) for seed in seeds
    ]


def measure(setting: NextTokenRewardSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact mean updates against closed forms, the likelihood's gradient beside them, and where tables come to rest."""
    labels: Row = {"world": setting.world, "thoughts": setting.thoughts, "seed": setting.seed}
    if setting.world in LAWS:
        return _law_rows(setting, labels, device)
    world = corpus_world(setting.world, setting.thoughts, setting.quality, setting.noise).to(device)
    policy = build_policy(world, setting.seed)
    P, slopes = prompt_gradients(world, policy)
    truth, rows = slope_of(world, policy, log_likelihood), list[Row]()
    factors = {name: recipe.kappa for name, recipe in RECIPES.items()} | {
        f"mean, G = {G}": by_mean(G).kappa for G in _GROUPS
    }
    for name, kappa in (LIMITS | factors).items():
        cosine, own = alignment((world.weights * kappa(P)) @ slopes, truth).cosine, {**labels, "recipe": name}
        rows += report(_COSINES, cosine, 1.0, labels=own)
        if name == RPT:
            rows += at_least(COSINE, cosine, 0.0, labels=own)
    for G in (*_GROUPS, 1 + math.ceil(40 / float(P.min()))):  # the last leaves out less than rounding
        off = ((world.weights * by_mean(G).kappa(P)) @ slopes - truth).norm() / truth.norm()
        bound = (world.weights * (1 - P) ** (G - 1) / P) @ slopes.norm(dim=1) / truth.norm()
        rows += at_most(LARGE, off, bound, tolerance=_ROUNDING, labels={**labels, "G": G})
    if setting.thoughts:
        jensen = slope_of(world, policy, jensen_bound)
        rows += vanishes(JENSEN, (jensen - truth).norm() / truth.norm(), _ROUNDING, labels=labels)
    if setting.seed > 0:
        return rows
    for name, gap in factor_gaps(world, policy).items():
        rows += vanishes(FACTORS, gap, _ROUNDING, labels={**labels, "recipe": name})
    along, slope = along_and_slope(world, policy, _GROUPS[0], rng)
    return rows + equals(CLIMBS, along, slope, tolerance=_DIFFERENCES, labels={**labels, "G": _GROUPS[0]})


def _law_rows(setting: NextTokenRewardSetting, labels: Row, device: str) -> list[Row]:
    """Where each objective brings a table with one context, against the closed forms of the ends."""
    q = torch.tensor(LAWS[setting.world], dtype=torch.float64, device=device)
    world, mode = law_world(q).to(device), torch.nn.functional.one_hot(q.argmax(), len(q)).to(q)
    start, rows = PrefixTable(world, seed=setting.seed).to(device), list[Row]()
    known = {name: (RECIPES[name].kappa, _FAST, MODE, mode) for name in (RPT, "RLOO", "GRPO, G = 3")}
    known |= {f"mean, G = {G}": (by_mean(G).kappa, 1.0, CLIMBS, mean_optimum(q, G)) for G in (4, 16)}
    known[ARCSINE] = (LIMITS[ARCSINE], 1.0, CRITERION, arcsine_optimum(q))
    known[LIKELIHOOD] = (LIMITS[LIKELIHOOD], 1.0, AT_Q, q)
    for name, (kappa, rate, part, end) in known.items():
        own = {**labels, "recipe": name}
        pi = end_of(world, closed_field(q, kappa), start, kappa, rate)
        rows += vanishes(part, (pi - end.to(pi)).abs().sum() / 2, _END, labels=own)
        rows += report(_LAW, pi, q, labels=own, axes=("token",))
        if name == RPT:
            rows += vanishes(ENDS, (pi - q).abs().sum() / 2, _END, labels=own)
    for name, gap in factor_gaps(world, start).items():
        rows += vanishes(FACTORS, gap, _ROUNDING, labels={**labels, "recipe": name})
    return rows + at_least(COSINE, sharpened_cosine(q), 0.0, labels={**labels, "recipe": RPT})


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The laws at the ends for one context, and the cosines to the likelihood's gradient."""
    draw_next_token(figure, rows[rows["part"] == _LAW], rows[rows["part"] == _COSINES])


CLAIM = Claim(
    name="next_token_reward",
    statement="Next-token rewards teach the corpus",
    formula=r"\sum_x q_x\,\kappa(\pi_x)\,\nabla\pi_x:\quad\kappa=1\ \mathrm{(RPT)},\ \ c_G\ \mathrm{(GRPO)},\ \ "
    r"\frac{1-(1-\pi)^{G-1}}{\pi}\ \mathrm{(mean)},\ \ \frac1\pi\ \mathrm{(likelihood)}",
    source="arXiv:2506.08007 (RPT); arXiv:2602.02710 (MaxRL); theory page section 6",
    assumptions=("A5",),
    must_hold="Mean updates have closed factors, with thoughts as well; a constant factor ends at the mode, the arcsine by its "
    "criterion; division by the mean climbs the truncated log and tends to the likelihood; the likelihood ends at q",
    must_fail="RPT ends at the corpus's law; its update points along the likelihood's gradient; log pi(x|c) as the reward of "
    "thoughts climbs the likelihood",
    how_to_read="Left, one context: the law of the next token where each objective ends (dashed: the corpus). Right, the "
    "cosine of each mean update to the likelihood's gradient (dashed: the same direction), one mark for each random policy.",
    parts=(
        *(Part(name, "claim", "fails", every="world") for name in (ENDS, COSINE)),
        *(Part(name, "control", "holds") for name in (FACTORS, MODE, AT_Q, CRITERION, CLIMBS, LARGE)),
        Part(JENSEN, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
