"""What breaks "a critic-free update is a multiple of the gradient", by how much, and what is ascended instead."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch

from figures.drawing.normalisation import angle_panel, drift_panel, weight_panel
from figures.drawing.panels import legend_above
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_least, at_most, equals, report, vanishes
from figures.measures import breakers
from figures.measures.breakers import BREAKERS, CASES, LENGTH, NO_STD, STD, TOKENS, BreakerCase, breaker_case
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import ExpectedUpdate
from theory.groups.objectives import free_drift, length_speeds, row_weights, slope_gaps, win_rate

MENDED, WINS = "breaker removed", "at G = 2 the weight is the win rate"
FREE, _DRIFT = "free logits: successes shorten, failures lengthen", "drift of the policy"
_WEIGHT = "mean weight"
_ROUNDING, _SLOPE = 1e-9, 1e-6


@dataclass(frozen=True)
class NormalisationBreaksSetting:
    """One breaker in one recipe, one world of one prompt, one random policy after some steps of exact ascent."""

    breaker: str
    recipe: str
    world: str
    seed: int
    ascended: int
    group: int
    ahead: int = knob(4)  # exact steps between the policy that drew the rows and the clipped one
    beta: float = knob(0.2)  # coefficient of the KL term


def settings(preset: Preset) -> list[NormalisationBreaksSetting]:
    """Breakers x recipes x worlds x policies; ascent spreads the success probability over (0, 1)."""
    policies = {"tiny": (1, (0,)), "quick": (2, (0, 4)), "full": (12, (0, 2, 4, 8, 12))}
    (seeds, ascents), few = policies[preset], slice(1 if preset == "tiny" else None)
    return [
        NormalisationBreaksSetting(breaker, recipe, world, seed, ascended, group)
        for breaker, (recipes, worlds, groups) in CASES.items()
        for recipe in recipes[few]
        for world in (worlds[::2] if preset == "tiny" else worlds)  # of LENGTH the first and the one of one length
        for group in groups[few]
        for seed in range(seeds)
        for ascended in ascents
    ]


def measure(setting: NormalisationBreaksSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Bias with and without the breaker, and what is ascended instead by central differences along the parameters."""
    case = breaker_case(**asdict(setting), device=device)
    broken, mended = case.updates()
    one_length = setting.breaker == LENGTH and setting.world.startswith("lock")
    labels, rows = {**asdict(setting), "case": f"{setting.recipe}, {setting.world}, G={setting.group}"}, list[Row]()
    for part, update in ((MENDED if one_length else setting.breaker, broken), (MENDED, mended)):
        cosine, scale, bias = alignment(update.mean, update.truth)
        own = {**labels, "cosine": cosine, "kappa": scale, "P": float(broken.J)}
        rows += vanishes(part, bias, _ROUNDING, labels=own)
    if one_length:
        return rows
    rows += _explained(case, broken, rng, labels)
    if setting.breaker == TOKENS or setting.recipe == NO_STD:  # binary rewards: std changes no direction
        rows += _length_drift(case, broken, labels)
    return rows + (_weights(case, broken, labels) if setting.breaker == STD else [])


def _explained(case: BreakerCase, broken: ExpectedUpdate, rng: torch.Generator, labels: Row) -> list[Row]:
    """Largest gap between the update and the slopes of an objective, over |update|: true and false explanations."""
    update = broken.mean.flat
    directions = [
        update,
        broken.truth.flat,
        torch.randn(len(update), generator=rng, dtype=update.dtype).to(update.device),
    ]
    parts, updates, objectives = zip(*case.explanations(broken), strict=True)
    gaps = slope_gaps(case.pair.world, case.pair.policy, torch.stack(updates), objectives, directions)
    return [row for part, gap in zip(parts, gaps, strict=True) for row in vanishes(part, gap, _SLOPE, labels=labels)]


def _length_drift(case: BreakerCase, broken: ExpectedUpdate, labels: Row) -> list[Row]:
    """How the mean lengths of successes and failures move: free completions (judged), and this policy (reported)."""
    completions, world, policy = case.completions(), case.pair.world, case.pair.policy
    free = free_drift(row_weights(broken, case.words())[completions.word], completions)
    unbiased = free_drift(completions.returns[0] - broken.J, completions)
    speeds, true_speeds = (length_speeds(world, policy, v) for v in (broken.mean.flat, broken.truth.flat))
    rows: list[Row] = []
    for i, (kind, moves) in enumerate((("success", at_most), ("failure", at_least))):
        own = {**labels, "class": kind}
        rows += moves(FREE, free[i], 0.0, tolerance=_ROUNDING, labels=own)
        rows += vanishes(FREE, unbiased[i], _ROUNDING, labels={**own, "class": f"{kind}, true gradient"})
        rows += report(_DRIFT, speeds[i], true_speeds[i], labels=own)
    return rows


def _weights(case: BreakerCase, broken: ExpectedUpdate, labels: Row) -> list[Row]:
    """Mean weight against return, in units of the affine weight nearest to it; at G = 2 it is the win rate."""
    completions, words = case.completions(), case.words()
    p, R, W = words.p[0], words.returns[0], row_weights(broken, words)
    centred = R - p @ R
    slope = p @ (W * centred) / (p @ centred**2)
    rows = report(_WEIGHT, W / slope, centred, labels=labels, axes=("completion",))
    if case.group == 2:
        wins = completions.over_states(win_rate(completions.returns[0], completions.p[0])[None])[0]
        rows += equals(WINS, W, wins, tolerance=_ROUNDING, labels=labels, axes=("completion",))
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Angles by breaker; drift of lengths under the update against the gradient; weight against return."""
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.35, 1, 1))
    drift = rows[(rows["part"] == _DRIFT) & (rows["breaker"] == LENGTH) & (rows["recipe"] == NO_STD)]
    angle_panel(left, rows, BREAKERS, MENDED)
    drift_panel(middle, drift)
    weight_panel(right, rows[rows["part"] == _WEIGHT])
    legend_above(figure, left, middle, right)


CLAIM = Claim(
    name="normalisation_breaks",
    statement="A critic-free update is kappa times the gradient, whatever the normalisation",
    formula=r"\mathbb{E}\left[\frac{1}{G}\sum_i\frac{R_i-\bar R}{|o_i|}\sum_t\nabla\log\pi\right] = \frac{G-1}{G}"
    r"\left(\nabla\mathbb{E}\frac{R}{|o|} - V\,\nabla\mathbb{E}\frac{1}{|o|}\right) \ne \kappa\nabla J",
    source="theory page section 4; arXiv:2503.20783 on 1/|o| and std",
    assumptions=("A5",),
    must_hold="The same recipes with the breaker removed; the objective that is climbed instead, by central differences",
    must_fail="1/|o| and group token mean with lengths that vary; std with dense rewards; clip after several steps; k3 "
    "in the loss",
    how_to_read="One prompt, all exact; every mark is a recipe and a policy. Left, the angle between mean update and gradient "
    "with each ingredient (orange) and without it (blue, on the dashed line). Middle, what 1/|o| adds to the "
    "drift of mean lengths: were every completion free, successes would get shorter, but a shared network mostly "
    "carries them along. Right, with std the mean weight of a return is no straight line (dashed: unbiased).",
    parts=(
        *(Part(breaker, "claim", "fails", every="case") for breaker in BREAKERS),
        Part(MENDED, "control", "holds"),
        Part(breakers.ASCENDED, "control", "holds"),
        Part(WINS, "control", "holds"),
        Part(FREE, "control", "holds"),
        Part(breakers.SHORTER, "control", "fails", every="case"),
        Part(breakers.REVERSE, "control", "fails", every="case"),
        Part(breakers.UNCLIPPED, "control", "fails", every="case"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
