"""Gumbel noise on logits: the bridge from a smooth rollout to sampled tokens, with its bias and both of its spreads."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from figures.drawing.bridge import draw_bridge
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, equals, report
from figures.measures.gumbel_bridge import (
    CURVE,
    ESTIMATORS,
    REWARDS,
    SHARE,
    SPREAD,
    OneStep,
    exact_spreads,
    moments,
    one_step,
    sampled_estimators,
)
from figures.measures.gumbel_limits import (
    BEATS,
    CURVATURE,
    FISHER,
    GROWTH,
    LATE,
    LENGTHS,
    LINEAR,
    SAME,
    SCORES,
    SLOPE,
    every_reward,
    quadratic_rows,
    table_rows,
)

MEANS, SPREADS = "sampled means are exact", "sampled spreads are exact"


@dataclass(frozen=True)
class GumbelBridgeSetting:
    """One law of a token and one kind of reward; estimators are sampled at the temperatures `taus`."""

    probabilities: tuple[float, ...]
    reward: str
    taus: tuple[float, ...]
    samples: int
    margin: float


def settings(preset: Preset) -> list[GumbelBridgeSetting]:
    """Laws x rewards; the first law is drawn."""
    laws: tuple[tuple[float, ...], ...] = ((0.7, 0.3), (0.9, 0.1))
    laws += () if preset == "tiny" else ((0.6, 0.3, 0.1),)
    laws += ((0.55, 0.45), (0.99, 0.01), (0.4, 0.35, 0.25), (0.05, 0.85, 0.1)) if preset == "full" else ()
    taus = (0.1, 1.0) if preset == "tiny" else (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    samples, margin = {"tiny": (2_000, 0.8), "quick": (60_000, 0.16), "full": (2_000_000, 0.05)}[preset]
    return [GumbelBridgeSetting(law, reward, taus, samples, margin) for law in laws for reward in REWARDS]


def measure(setting: GumbelBridgeSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact rows of one case, and sampled ones at every temperature."""
    step = one_step(setting.probabilities, setting.reward)
    labels = {"law": " ".join(map(str, setting.probabilities)), "reward": setting.reward}
    rows = every_reward(step, labels) + (table_rows if setting.reward == "table" else quadratic_rows)(step, labels)
    for tau in setting.taus:
        rows += _sampled(step, tau, setting, labels, rng, device)
    return rows + (_curves(step, labels) if setting.reward == "table" else [])


def _sampled(
    step: OneStep, tau: float, setting: GumbelBridgeSetting, labels: Row, rng: torch.Generator, device: str
) -> list[Row]:
    """Means and variances of the three estimators on one noise; what the figure shows of them, in units of the gradient."""
    rows, size, exact = list[Row](), step.gradient_size, moments(step, tau)
    spreads = exact_spreads(step, exact)
    for name, found in sampled_estimators(step, exact, tau, setting.samples, rng, device).items():
        here = {**labels, "tau": tau, "estimator": name}
        one: Row = {"margin": setting.margin, "labels": here}
        rows += equals(MEANS, found.mean, found.exact, spreads[name] ** 0.5, axes=("a",), **one)
        rows += equals(SPREADS, found.variance, spreads[name], spreads[name], **one)
        rows += report(SHARE, found.share, float(found.exact @ step.gradient) / size**2, labels=here)
        rows += report(SPREAD, found.spread(size), spreads[name] ** 0.5 / size, labels=here)
    return rows


def _curves(step: OneStep, labels: Row) -> list[Row]:
    """The exact curves of the figure."""
    rows, size = list[Row](), step.gradient_size
    for tau in np.geomspace(0.03, 4.0, 24).tolist():
        here, exact = {**labels, "tau": tau}, moments(step, tau)
        share, spreads = float(exact.pathwise @ step.gradient) / size**2, exact_spreads(step, exact)
        rows += report(CURVE, share, share, labels={**here, "estimator": SHARE})
        for name in ESTIMATORS:
            rows += report(CURVE, spreads[name] ** 0.5 / size, labels={**here, "estimator": name})
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The first law with a table of rewards."""
    rows = rows[rows["reward"] == "table"]
    draw_bridge(figure, rows[rows["law"] == rows["law"].iloc[0]] if len(rows) else rows)


CLAIM = Claim(
    name="gumbel_bridge",
    statement="Gumbel noise on logits is an additive-noise policy at every temperature",
    formula=r"J_\tau=\mathbb{E}f(\mathrm{softmax}((\log p+g)/\tau)),\quad \nabla J_\tau=\mathbb{E}[\mathrm{PD}]="
    r"\mathbb{E}[\mathrm{SF}]\to\nabla J,\quad \mathbb{E}|\mathrm{PD}|^2\to\mathrm{Var}_p(f)/(3\tau)",
    source="theory page sections 2 and 6; the Gumbel-softmax of arXiv:1611.01144 and arXiv:1611.00712",
    assumptions=("A1", "A2", "A3", "A4", "A5"),
    must_hold="Score and pathwise gradients are one at every tau; their bias against sampled tokens is linear in tau, of slope "
    "-tr(M J(p)), and for a table of rewards of order tau^2 with its constant; the pathwise spread grows as 1 / tau; three "
    "scores have one mean and their own Fisher matrices",
    must_fail="A linear bias for a table of rewards; a Fisher matrix of the Concrete density that tends to the token's; a "
    "smaller spread than REINFORCE with baseline at tau = 0.1",
    how_to_read="From right, a smooth rollout, to left, sampled tokens: one token, its relaxed form at temperature tau, all in "
    "units of the gradient of sampled tokens. Above, the spread of one sample; below, the mean. Points are sampled, dashed "
    "lines exact; the upright line marks where backpropagation and REINFORCE spread alike.",
    parts=(
        *(Part(name, "claim", "holds") for name in (SAME, MEANS, SPREADS, SLOPE, CURVATURE, GROWTH)),
        *(Part(name, "control", "holds") for name in (SCORES, LENGTHS, LATE)),
        *(Part(name, "control", "fails", every="law") for name in (LINEAR, FISHER, BEATS)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
    height=6.5,
)
