"""Differentiating the actor's surrogate twice does not give the Hessian of the return; differentiating DiCE twice does."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from figures.drawing.hessians import draw_hessians
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, report, vanishes
from figures.measures.second_order import (
    BASELINED,
    OBJECTIVES,
    OWN_BOX,
    SURROGATE,
    first_order,
    hessian_spread,
    second_order,
)
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.second_order import differentiable_return

TWICE, TWICE_BASELINED = "the surrogate's Hessian = Hessian", "the same with the value baseline"
ZERO, EXACT = "with the value baseline: 0 for tables", "DiCE's Hessian = Hessian"
GRADIENTS, OWN = "gradients of all = gradient", "box of the own token: gradient = gradient"
_ENTRIES, _SPREAD = "entries", "spread of one row's Hessian"
TABLE, NETWORK = "table", "transformer at layer1"
_ROUNDING = 1e-10
PICTURED = "garnet (2,3)"  # whose table's Hessians are drawn


@dataclass(frozen=True)
class SurrogateHessianSetting:
    """One world and one random policy: a table, in all of its logits, or a transformer, in the state of every prefix."""

    world: str
    policy: str
    seed: int


def settings(preset: Preset) -> list[SurrogateHessianSetting]:
    """Worlds of one step, of one length and of many, by policies and seeds."""
    worlds = ["one choice of 3", PICTURED, "lock (2,3)", "stop (2,3)", "stop (2,4)", "stop (3,3)"]
    count, seeds = {"tiny": (2, 1), "quick": (4, 2), "full": (6, 8)}[preset]
    return [
        SurrogateHessianSetting(world, policy, seed)
        for world in worlds[:count]
        for policy in (TABLE, NETWORK)
        for seed in range(seeds)
    ]


def measure(setting: SurrogateHessianSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact means of gradient and Hessian of every objective, against those of the expected return."""
    world, table = build_world(setting.world).to(device), setting.policy == TABLE
    policy = PrefixTable(world, seed=setting.seed).to(device) if table else build_policy(world, setting.seed)
    site, case = "" if table else "layer1", f"{setting.world}, {setting.policy}"
    labels: Row = {"world": setting.world, "policy": setting.policy, "seed": setting.seed, "case": case}
    truth, slope = (f(world, policy, site, differentiable_return) for f in (second_order, first_order))
    pictured, rows = table and setting.world == PICTURED and setting.seed == 0, list[Row]()
    if pictured:
        rows += _entries(truth, labels | {"objective": "exact"})
    for name, objective in OBJECTIVES.items():
        own, gap = labels | {"objective": name}, first_order(world, policy, site, objective) - slope
        if name == OWN_BOX:
            rows += _own_box(gap.norm() / slope.norm(), world.horizon, own)
            continue
        hessian = second_order(world, policy, site, objective)
        part = {SURROGATE: TWICE, BASELINED: TWICE_BASELINED}.get(name, EXACT)
        rows += vanishes(GRADIENTS, gap.norm() / slope.norm(), _ROUNDING, labels=own)
        rows += vanishes(part, (hessian - truth).norm() / truth.norm(), _ROUNDING, labels=own)
        if name == BASELINED and table:
            rows += vanishes(ZERO, hessian.norm() / truth.norm(), _ROUNDING, labels=own)
        if pictured:
            rows += _entries(hessian, own)
            rows += (
                report(_SPREAD, hessian_spread(world, policy, name) / truth.norm(), labels=own) if part == EXACT else []
            )
    return rows


def _entries(hessian: Tensor, labels: Row) -> list[Row]:
    """All entries of a table's Hessian, reported."""
    size = math.isqrt(len(hessian))
    return report(_ENTRIES, hessian.reshape(size, size), labels=labels, axes=("row", "column"))


def _own_box(gap: Tensor, steps: int, labels: Row) -> list[Row]:
    """The gradient of the box of the own token alone, which is right where there is one token."""
    return report(OWN, gap, labels=labels) if steps == 1 else vanishes(OWN, gap, _ROUNDING, labels=labels)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The Hessian of one table and what three objectives give for it; the relative gaps of all cases."""
    gaps = rows[rows["part"].isin((TWICE, TWICE_BASELINED, EXACT))]
    draw_hessians(figure, rows[rows["part"] == _ENTRIES], gaps)


CLAIM = Claim(
    name="surrogate_hessian",
    statement="Differentiating the actor's surrogate twice gives the Hessian of the expected return",
    formula=r"\nabla^2\sum_t\mathrm{stop}(Q_t-b_t)\log\pi(c_t)\ \to\ \mathbb{E}\sum_t(Q_t-b_t)\nabla^2\log\pi(c_t)"
    r"\ \neq\ \nabla^2 J\qquad\nabla^2\sum_t r_t\,\mathrm{box}(\sum_{j\leq t}\log\pi(c_j))\ \to\ \nabla^2 J",
    source="J. Schulman et al., Gradient Estimation Using Stochastic Computation Graphs (2015); arXiv:1802.05098 (DiCE); "
    "theory page section 6",
    assumptions=("A5",),
    must_hold="The gradients of the surrogate and of DiCE in three forms; the Hessian of DiCE; with the value baseline the "
    "surrogate's Hessian is 0 for every table",
    must_fail="The surrogate's Hessian is that of the return, with or without the value baseline; a box of the own token "
    "only has the right gradient (beyond one step)",
    how_to_read="Exact means over all completions. Left, the Hessian of the expected return in the logits of one table, and "
    "what differentiating three objectives twice gives in its place (one colour scale). Right, the gap to the "
    "Hessian, over its size, for tables and for the states of a transformer; dashed: no gap.",
    parts=(
        *(Part(name, "claim", "fails", every="case") for name in (TWICE, TWICE_BASELINED)),
        *(Part(name, "control", "holds") for name in (ZERO, EXACT, GRADIENTS)),
        Part(OWN, "control", "fails", every="case"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
