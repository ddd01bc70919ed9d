"""What breaks "a critic-free update is a multiple of the gradient", how far, and what is climbed instead."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.recipes.learners import Learner, Penalty, build_learner
from agents.recipes.surrogates import importance, row_sum
from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim, Preset, Row, compare
from figures.measures.token_systems import build_policy, build_world
from theory.differences import directional_slope
from theory.groups.binary_rewards import alignment, baseline_kappa, grpo_kappa
from theory.groups.expected_update import ExpectedUpdate, expected_update
from theory.groups.kl import kl_at_prefixes
from theory.groups.objectives import (
    Objective,
    free_drift,
    frozen_objective,
    length_objective,
    mean_lengths,
    row_weights,
    trust_region_objective,
    win_rate,
)
from theory.tokens.completions import completions
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow

LENGTH, TOKENS, STD, CLIP, K3 = BREAKERS = (
    "1/|o|, lengths vary",
    "group token mean, lengths vary",
    "std, dense rewards",
    "clip, several steps",
    "k3 in the loss",
)
MENDED, CLIMBED, FREE = (
    "breaker removed",
    "what is climbed instead",
    "free logits: successes shorten, failures lengthen",
)
WINS, SHORTER = "at G = 2 the weight is the win rate", "E[R/|o|] alone is climbed"
REVERSE, UNCLIPPED = "k3 climbs J - beta KL(pi||ref)", "the clip does nothing"
_DRIFT = "drift of the policy"
_ROUNDING, _SLOPE, _BETA, _RATE = 1e-9, 1e-6, 0.2, 0.02


@dataclass(frozen=True)
class NormalisationBreaksSetting:
    """One breaker in one recipe, one world of one prompt, one random policy after some steps of exact ascent."""

    breaker: str
    recipe: str
    world: str
    seed: int
    ascended: int
    group: int


_NO_STD, _WITH_STD = "GRPO without std", "GRPO"
# per breaker: the recipes, the worlds, the group sizes
_CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]] = {
    LENGTH: ((_NO_STD, _WITH_STD, "GSPO"), ("stop (2,4)", "stop (3,3)", "lock (2,3)"), (4,)),
    TOKENS: (("DAPO",), ("stop (2,4)", "stop (3,3)"), (4,)),
    STD: ((_WITH_STD,), ("garnet (2,3)",), (2, 4, 6)),
    CLIP: (("Dr. GRPO",), ("stop (3,3)", "garnet (2,3)"), (2,)),
    K3: (("RLOO",), ("stop (3,3)", "garnet (2,3)"), (2,)),
}


def settings(preset: Preset) -> list[NormalisationBreaksSetting]:
    """Breakers x recipes x worlds x policies; ascent spreads the success probability over (0, 1)."""
    seeds, ascents = (range(2), (0, 4)) if preset == "quick" else (range(12), (0, 2, 4, 8, 12))
    return [
        NormalisationBreaksSetting(breaker, recipe, world, seed, ascended, group)
        for breaker, (recipes, worlds, groups) in _CASES.items()
        for recipe in recipes
        for world in worlds
        for group in groups
        for seed in seeds
        for ascended in ascents
    ]


def recipes(setting: NormalisationBreaksSetting) -> tuple[Learner, Learner]:
    """The recipe with its breaker, and the same without."""
    if setting.breaker == LENGTH and setting.recipe == "GSPO":
        return build_learner("gspo"), replace(build_learner("gspo"), normalise=row_sum)
    if setting.breaker == LENGTH:
        std = "none" if setting.recipe == _NO_STD else "population"
        return build_learner("grpo", std=std), build_learner("grpo", std=std, length="row sum")
    return {
        TOKENS: (build_learner("dapo"), replace(build_learner("dapo"), normalise=row_sum)),
        STD: (build_learner("grpo", length="row sum"), build_learner("dr_grpo")),
        CLIP: (build_learner("dr_grpo"), build_learner("dr_grpo")),
        K3: (build_learner("rloo", kl_loss=Penalty("k3", _BETA)), build_learner("rloo")),
    }[setting.breaker]


@dataclass(frozen=True)
class System:
    """A world of one prompt, the policy to be updated, and the policy that drew the rows (or the KL term's reference)."""

    world: TokenMDP
    policy: Any
    other: Any


def build(setting: NormalisationBreaksSetting) -> System:
    """World and policies of a setting; the clip's policy is four exact steps ahead of the one that drew the rows."""
    ahead = 4 if setting.breaker == CLIP else 0
    return _system(setting.world, setting.seed, setting.ascended, ahead)


@lru_cache(maxsize=64)
def _system(name: str, seed: int, steps: int, ahead: int) -> System:
    """Shared by the recipes that are measured on it; nothing changes it."""
    world = build_world(name)
    pick = torch.tensor([seed % len(world.prompts)])
    world = replace(world, prompts=world.prompts[pick], starts=world.starts[pick], weights=None)
    start = build_policy(world, seed, spread=2.0)
    if ahead:
        behind, policy = exact_ascent(world, start, (steps, steps + ahead), _RATE)
        return System(world, policy, behind)
    return System(world, exact_ascent(world, start, (steps,), _RATE)[0], build_policy(world, 100 + seed, spread=2.0))


def updates(setting: NormalisationBreaksSetting, system: System) -> tuple[ExpectedUpdate, ExpectedUpdate]:
    """The exact mean update with the breaker and without."""
    broken, mended = recipes(setting)
    more = {CLIP: {"behaviour": system.other}, K3: {"reference": system.other}}.get(setting.breaker, {})
    found = expected_update(system.world, system.policy, broken, setting.group, **more)
    return found, expected_update(system.world, system.policy, mended, setting.group)


def measure(setting: NormalisationBreaksSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Bias with and without the breaker, and what is climbed instead by central differences along the parameters."""
    system = build(setting)
    found, mended = updates(setting, system)
    one_length = setting.breaker == LENGTH and setting.world.startswith("lock")
    labels = {**setting.__dict__, "case": f"{setting.recipe}, {setting.world}, G={setting.group}"}
    rows: list[Row] = []
    for part, update in ((MENDED if one_length else setting.breaker, found), (MENDED, mended)):
        cosine, scale, bias = alignment(update.mean, update.truth)
        rows += compare(part, bias, 0.0, tolerance=_ROUNDING,
                        labels={**labels, "cosine": cosine, "kappa": scale, "P": float(found.J)})  # fmt: skip
    if one_length:
        return rows
    rows += _explained(setting, system, found, rng, labels)
    if setting.breaker == TOKENS or setting.recipe == _NO_STD:  # binary rewards: std changes no direction
        rows += _length_drift(system, found, labels)
    return rows + (_curve(system, found, labels) if setting.breaker == STD else [])


def _explained(
    setting: NormalisationBreaksSetting,
    system: System,
    found: ExpectedUpdate,
    rng: torch.Generator,
    labels: dict[str, Any],
) -> list[Row]:
    """Largest gap between the update and the slopes of an objective, over |update|: true and false explanations."""
    update = found.mean.flat
    directions = [update, found.truth.flat, torch.randn(len(update), generator=rng, dtype=update.dtype)]
    said = _objectives(setting, system, found, update)

    def values(policy: Any) -> Tensor:
        tree = grow(system.world, policy)
        return torch.stack([objective(tree) for _, _, objective in said])

    targets = torch.stack([target for _, target, _ in said])
    gaps = torch.stack(
        [directional_slope(system.policy, v / v.norm(), values) - targets @ v / v.norm() for v in directions]
    )
    worst = gaps.abs().amax(0) / targets.norm(dim=1)
    return [row for (part, *_), gap in zip(said, worst, strict=True)
            for row in compare(part, gap, 0.0, tolerance=_SLOPE, labels=labels)]  # fmt: skip


def _objectives(
    setting: NormalisationBreaksSetting, system: System, found: ExpectedUpdate, update: Tensor
) -> list[tuple[str, Tensor, Objective]]:
    """(part, update, what it is said to climb)."""
    with torch.no_grad():
        now, other = grow(system.world, system.policy), grow(system.world, system.other)
    if setting.breaker == LENGTH:
        V, G = found.J, setting.group
        kappa = baseline_kappa(G) if setting.recipe == _NO_STD else float(grpo_kappa(V, G))
        return [(CLIMBED, update, length_objective(kappa, V)), (SHORTER, update, length_objective(kappa, 0 * V))]
    if setting.breaker in (TOKENS, STD):
        return [(CLIMBED, update, frozen_objective(row_weights(found, completions(now))))]
    if setting.breaker == CLIP:
        learner = replace(recipes(setting)[0], surrogate=importance)
        plain = expected_update(system.world, system.policy, learner, setting.group, behaviour=system.other)
        climbed = trust_region_objective(other, baseline_kappa(setting.group))
        return [(CLIMBED, plain.mean.flat, climbed), (UNCLIPPED, update, climbed)]
    J = lambda tree: tree.J  # noqa: E731
    return [
        (CLIMBED, update, lambda tree: J(tree) - _BETA * kl_at_prefixes(tree, other, now, forward=True)),
        (REVERSE, update, lambda tree: J(tree) - _BETA * kl_at_prefixes(tree, other, tree, forward=False)),
    ]


def _length_drift(system: System, found: ExpectedUpdate, labels: dict[str, Any]) -> list[Row]:
    """How the mean lengths of successes and failures move: free completions (judged), and this policy (reported)."""
    with torch.no_grad():
        rows_of = completions(grow(system.world, system.policy))
    free = free_drift(row_weights(found, rows_of), rows_of)
    unbiased = free_drift(rows_of.returns[0] - found.J, rows_of)
    lengths = lambda policy: mean_lengths(completions(grow(system.world, policy)))  # noqa: E731
    speeds = [directional_slope(system.policy, v / v.norm(), lengths) for v in (found.mean.flat, found.truth.flat)]
    rows: list[Row] = []
    for i, (kind, relation) in enumerate((("success", "<="), ("failure", ">="))):
        own = {**labels, "class": kind}
        rows += compare(FREE, free[i], 0.0, relation=relation, tolerance=_ROUNDING, labels=own)
        rows += compare(FREE, unbiased[i], 0.0, tolerance=_ROUNDING, labels={**own, "class": f"{kind}, true gradient"})
        rows += compare(_DRIFT, speeds[0][i], speeds[1][i], relation="report", labels=own)
    return rows


def _curve(system: System, found: ExpectedUpdate, labels: dict[str, Any]) -> list[Row]:
    """Mean weight against return, in units of the affine weight nearest to it; at G = 2 it is the win rate."""
    with torch.no_grad():
        rows_of = completions(grow(system.world, system.policy))
    p, R, W = rows_of.p[0], rows_of.returns[0], row_weights(found, rows_of)
    centred = R - p @ R
    affine = p @ (W * centred) / (p @ centred**2)
    rows = compare("mean weight", W / affine, centred, relation="report", labels=labels, axes=("completion",))
    if labels["group"] == 2:
        rows += compare(WINS, W, win_rate(R, p), tolerance=_ROUNDING, labels=labels, axes=("completion",))
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Bias by breaker; drift of lengths under the update against the gradient; weight against return."""
    from figures.drawing.normalisation import draw_bias, draw_drift, draw_weights
    from figures.drawing.panels import legend_above

    axes = figure.subplots(1, 3, width_ratios=(1.35, 1, 1))
    drift = rows[(rows["part"] == _DRIFT) & (rows["breaker"] == LENGTH) & (rows["recipe"] == _NO_STD)]
    draw_bias(axes[0], rows, BREAKERS, MENDED, _ROUNDING)
    draw_drift(axes[1], drift)
    draw_weights(axes[2], rows[rows["part"] == "mean weight"])
    legend_above(figure, axes[0])


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
    how_to_read="One prompt, all exact. Left: bias (what no step size mends, circles) and 1 - cosine (triangles) of every "
    "recipe and policy, orange with the breaker, blue without: blue must stay under the dashed rounding limit. Middle: 1/|o| "
    "makes failures longer; successes get shorter only where every completion is free (grey), a shared network mostly "
    "carries them along. Right: with std the mean weight of a return is no straight line (dashed: unbiased).",
    parts={
        **dict.fromkeys(BREAKERS, ("claim", "fails")),
        MENDED: ("control", "holds"),
        CLIMBED: ("control", "holds"),
        WINS: ("control", "holds"),
        FREE: ("control", "holds"),
        SHORTER: ("control", "fails"),
        REVERSE: ("control", "fails"),
        UNCLIPPED: ("control", "fails"),
    },
    settings=settings,
    measure=measure,
    draw=draw,
    expected_outcome="fails",
    groups=dict.fromkeys((*BREAKERS, SHORTER, REVERSE, UNCLIPPED), "case"),
    seconds=(15, 300),
)
