"""DeepSeek-V3.2's repairs of GRPO: the KL term with its ratio, the off-policy mask, the sets of top-p that are kept."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from envs.token_mdp import TokenMDP
from figures.drawing.repairs import draw_repairs
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_most, vanishes
from figures.measures import repairs
from figures.measures.policy_pairs import between
from figures.measures.repairs import DETACHED, LEARNERS, WITH, WITHOUT, angle
from figures.measures.token_systems import build_policy, build_world
from theory.groups.expected_update import expected_update

RHO, NO_RHO = "rho k3 = grad KL(pi || ref) at old prefixes", "k3 without rho = the same"
HELD, SLOPES = "rho k3 with a constant rho = the same", "rho k3: every token has the slope of rho k2"
MASKED, NEARER = "stale rows, mask: along grad J", "stale rows: the mask turns no update away from grad J"
FRESH = "fresh rows: the mask changes nothing"
KEPT, FULL = "top-p, sets kept: grad J of what is sampled", "top-p, full softmax: the same"
EXTRA, RATIO = "full softmax: the gap is E[A | prefix] grad log Z", "full softmax: the first ratio is Z"
PENALTY, MASK, TOP_P = "rho in the KL term", "off-policy mask", "sets of top-p kept"
_ROUNDING = 1e-10


@dataclass(frozen=True)
class OffPolicyMasksSetting:
    """One world and one repair; policies on the line from the one that drew the rows to another, or values of top_p."""

    world: str
    repair: str
    seed: int
    shares: tuple[float, ...] = (1 / 32, 1 / 8, 1 / 2)
    deltas: tuple[float, ...] = (0.1, 0.02)
    top_ps: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9)
    group: int = 3
    spread: float = knob(2.0)  # of the heads of stale policies; halved under top-p, for nuclei of several tokens


def settings(preset: Preset) -> list[OffPolicyMasksSetting]:
    """Small worlds of one length and of many; for top-p with three or four tokens."""
    small, wide = ("stop (2,3)", "lock (2,3)", "garnet (2,3)"), ("stop (3,3)", "garnet (3,3)")
    worlds = {PENALTY: ("lock (2,3)", *wide), MASK: small, TOP_P: wide}
    cases = [(repair, world) for repair, own in worlds.items() for world in own]
    if preset == "tiny":
        return [OffPolicyMasksSetting(own[0], repair, 0) for repair, own in worlds.items()]
    seeds = range(2 if preset == "quick" else 8)
    group = 3 if preset == "quick" else 4
    return [OffPolicyMasksSetting(world, repair, seed, group=group) for repair, world in cases for seed in seeds]


def measure(setting: OffPolicyMasksSetting, rng: torch.Generator, device: str) -> list[Row]:
    """One repair in one world, each with the update that lacks it, against what it is meant to follow."""
    world, at = build_world(setting.world).to(device), {"world": setting.world, "seed": setting.seed}
    rows = {PENALTY: _penalty_rows, MASK: _mask_rows, TOP_P: _nucleus_rows}[setting.repair]
    return rows(setting, world, at | {"repair": setting.repair})


def _penalty_rows(setting: OffPolicyMasksSetting, world: TokenMDP, at: Row) -> list[Row]:
    """The KL term alone: its mean against the reverse KL's slope at the prefixes of the old policy, and token by token."""
    old, other, reference = (build_policy(world, 3 * setting.seed + i, spread=setting.spread) for i in range(3))
    rows: list[Row] = []
    for share in setting.shares:
        now, labels = between(old, other, share), {**at, "share": share}
        truth = repairs.reverse_kl_slope(world, now, old, reference)
        updates = repairs.penalty_updates(world, now, old, reference)
        angles = {"without": angle(updates[WITHOUT], truth), "angle": angle(updates[WITH], truth)}
        for part, name in ((RHO, WITH), (NO_RHO, WITHOUT), (HELD, DETACHED)):
            gap = (updates[name] - truth).norm() / truth.norm()
            rows += vanishes(part, gap, _ROUNDING, labels=labels | (angles if part == RHO else {}))
        mine, k2 = repairs.token_slopes(world, now, old, reference)
        rows += vanishes(SLOPES, (mine - k2).abs().max() / k2.abs().max(), _ROUNDING, labels=labels)
    return rows


def _mask_rows(setting: OffPolicyMasksSetting, world: TokenMDP, at: Row) -> list[Row]:
    """Angles of the updates to grad J with and without the mask, on stale rows; on fresh ones they must agree."""
    old, other = (build_policy(world, 3 * setting.seed + i, spread=setting.spread) for i in range(2))
    rows, limits = list[Row](), (math.inf, *setting.deltas)
    for name, learner in LEARNERS.items():
        for share in (0.0, *setting.shares):
            now = between(old, other, share)
            updates = [repairs.stale_update(world, now, old, learner, delta, setting.group) for delta in limits]
            without, *angles = (angle(update.mean.flat, update.truth.flat) for update in updates)
            for delta, update, own in zip(setting.deltas, updates[1:], angles, strict=True):
                labels = at | {"learner": name, "delta": delta, "share": share, "without": without, "angle": own}
                if share == 0:
                    bare = updates[0].mean.flat
                    rows += vanishes(FRESH, (update.mean.flat - bare).norm() / bare.norm(), _ROUNDING, labels=labels)
                    continue
                rows += vanishes(MASKED, own, _ROUNDING, labels=labels)
                rows += at_most(NEARER, own, without, tolerance=1e-6, labels=labels)  # an arc tangent near 0 rounds
    return rows


def _nucleus_rows(setting: OffPolicyMasksSetting, world: TokenMDP, at: Row) -> list[Row]:
    """RLOO on rows of top-p: trained within the sets that they were drawn from, and with the full softmax."""
    policy, rows = build_policy(world, setting.seed, spread=setting.spread / 2), list[Row]()
    unit = expected_update(world, policy, LEARNERS["token ratios"], 2).truth.flat.norm()
    for top_p in setting.top_ps:
        kept, full, slope = repairs.nucleus_updates(world, policy, top_p)
        truth, labels = kept.truth.flat, {**at, "top_p": top_p}
        some = bool(truth.norm() > _ROUNDING * unit)  # top-p may leave one completion, or no reward
        shown = {"without": angle(full, truth), "angle": angle(kept.mean.flat, truth)} if some else {}
        rows += vanishes(KEPT, (kept.mean.flat - truth).norm() / unit, _ROUNDING, labels=labels | shown)
        rows += vanishes(FULL, (full - truth).norm() / unit, _ROUNDING, labels=labels)
        rows += vanishes(EXTRA, (full - truth - slope).norm() / unit, _ROUNDING, labels=labels)
        ratios, masses = repairs.first_ratios(world, policy, top_p)
        rows += vanishes(
            RATIO, (ratios - masses).abs().max(), _ROUNDING, labels=labels | {"least": float(masses.min())}
        )
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The angle to the truth with each repair against the angle without it."""
    draw_repairs(figure, rows[rows["part"].isin((RHO, KEPT, NEARER))])


CLAIM = Claim(
    name="off_policy_masks",
    statement="DeepSeek-V3.2's repairs give GRPO, on rows of another policy, the gradients that it is meant to follow",
    formula=r"\nabla(\rho\,k_3)=\rho\,\log\frac{\pi}{\pi_{\mathrm{ref}}}\nabla\log\pi\qquad"
    r"M=0\ \mathrm{if}\ A<0,\ \overline{\log(\pi_{\mathrm{old}}/\pi)}>\delta",
    source="arXiv:2512.02556 (DeepSeek-V3.2), kept by arXiv:2606.19348; theory page section 6",
    assumptions=("A5",),
    must_hold="rho k3 in the loss, whose tokens have the slope of rho k2; training within the sets of top-p that rows "
    "were drawn from; the mask on fresh rows changes nothing; the gap of the full softmax is E[A | prefix] grad log Z",
    must_fail="The mask on stale rows, as a way to grad J and as one that is always nearer to it; k3 without rho, or with a "
    "constant one; the full softmax on rows of top-p",
    how_to_read="Each mark is one exact mean update with a repair, against the same update without it: angles to the gradient "
    "that is meant, 0 along it. Marks at 0 (dashed) are exact. Below the diagonal the repair helps, above it hurts: the mask "
    "does either. It drops rows with A < 0 alone, which biases; a small delta on rows that are hardly stale costs most.",
    parts=(
        *(Part(name, "claim", "holds") for name in (RHO, KEPT)),
        Part(MASKED, "claim", "fails", every="world"),
        *(Part(name, "control", "holds") for name in (SLOPES, FRESH, EXTRA, RATIO)),
        *(Part(name, "control", "fails", every="world") for name in (NO_RHO, HELD, NEARER, FULL)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
