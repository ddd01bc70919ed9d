"""Is a mean update the gradient of anything? The curl of every recipe's field, by world."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.policies.prefix_table import PrefixTable
from envs.noise import draw_noise
from figures.drawing.curl import draw_curls
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, equals, vanishes
from figures.harness.statistics import estimate
from figures.measures.linear_systems import build_system, label
from figures.measures.tables import of_logits
from figures.measures.token_systems import build_world
from figures.measures.update_fields import DISTILLATION, ENTROPY, K2, K3, LENGTH, STD, recipe_field, regressions
from theory.continuous.endless import cut_endless
from theory.continuous.lq_gradients import costate_covariance
from theory.continuous.lyapunov import linear_value
from theory.curl import curl

RETURNS, BINARY, IN_REWARD = "REINFORCE, RLOO", "GRPO with std, rewards 0 or 1", "k1 in the reward"
ONE_STEP, ONE_LENGTH = "one step: losses at visited prefixes", "1/|o|, one length"
LENGTHS, BONUS = "1/|o|, lengths vary", "entropy bonus, several steps"
IN_LOSS, DISTILLED = "k2, k3 in the loss, several steps", "on-policy distillation, several steps"
PROJECTION, KEPT = "dropping the curl of regressed costates saves its share", "... saves half"
_ROUNDING = 1e-6  # of central differences
_REGRESSION = "costate regression"
_ONE_STEP = "one choice of 3"  # with two tokens alone the Jacobian of any field has rank one and is symmetric
_BINARY = ("lock (2,3)", "stop (2,3)")  # worlds with rewards of 0 and 1


@dataclass(frozen=True)
class UpdateIsAGradientSetting:
    """One recipe in one token world at a random table, or regressions of costates in one linear-quadratic system."""

    recipe: str
    world: str
    seed: int
    beta: float = knob(0.3)  # of penalties and of the bonus
    regressions: int = knob(400)
    paths: int = knob(40)  # of each regression


def settings(preset: Preset) -> list[UpdateIsAGradientSetting]:
    """Recipes by worlds of one step, of one length, and of several."""
    worlds = [_ONE_STEP, "lock (2,3)", "garnet (2,3)", "stop (2,3)"]
    recipes = [*("REINFORCE", "RLOO"), STD, LENGTH, IN_REWARD, K2, K3, ENTROPY, DISTILLATION]
    systems = ["double_integrator", "random_finite", "random_endless"]
    fields = [(recipe, world) for recipe in recipes for world in worlds if recipe != STD or world in _BINARY]
    if preset == "tiny":
        systems, fields = systems[:1], [pair for pair in fields if pair[1] == "lock (2,3)"]
        fields += [(K3, _ONE_STEP), (LENGTH, "stop (2,3)")]
    seeds, count = range(8 if preset == "full" else 1), 20 if preset == "tiny" else 400
    return [
        UpdateIsAGradientSetting(recipe, world, seed, regressions=count)
        for recipe, world in fields + [(_REGRESSION, system) for system in systems]
        for seed in seeds
    ]


def measure(setting: UpdateIsAGradientSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The curl of the recipe's exact mean update, or what dropping the curl saves in regressions."""
    if setting.recipe == _REGRESSION:
        return _regression_rows(setting, rng, device)
    world = build_world(setting.world).to(device)
    field = of_logits(world, recipe_field(world, setting.recipe, setting.beta, 2 * setting.seed + 1))
    at = PrefixTable(world, seed=2 * setting.seed).to(device).logits.detach().flatten()
    lengths, steps = world.end is not None, world.horizon
    labels: Row = {"recipe": setting.recipe, "world": setting.world, "seed": setting.seed}
    return vanishes(_part(setting.recipe, lengths, steps), curl(field, at), _ROUNDING, labels=labels)


def _part(recipe: str, lengths: bool, steps: int) -> str:
    """The part that a recipe's curl belongs to, in a world with several lengths or one, and so many steps."""
    if recipe == LENGTH:
        return LENGTHS if lengths else ONE_LENGTH
    if recipe in (K2, K3, ENTROPY, DISTILLATION):
        several = {ENTROPY: BONUS, DISTILLATION: DISTILLED}.get(recipe, IN_LOSS)
        return ONE_STEP if steps == 1 else several
    return {STD: BINARY, IN_REWARD: IN_REWARD}.get(recipe, RETURNS)


def _regression_rows(setting: UpdateIsAGradientSetting, rng: torch.Generator, device: str) -> list[Row]:
    """`|antisymmetric part|^2` of the error against its share of `|error|^2`, mean over regressions with their own states."""
    endless, K, _ = build_system(setting.world, 0.7)
    world = cut_endless(endless, K, 2)
    action, process = costate_covariance(endless, K, 0)
    X, C = -2 * linear_value(endless, K).at(0)[0], action + process
    noise = draw_noise(world, setting.regressions * setting.paths, world.horizon or 1, rng).to(device)
    errors, inverse = (x.cpu() for x in regressions(world, K.to(device), X.to(device), noise, setting.regressions))
    traces = [x.diagonal(dim1=-2, dim2=-1).sum(-1) for x in (C @ inverse, inverse)]
    share = 0.5 * (1 - traces[0] / (C.trace() * traces[1]))
    total = errors.square().sum((-2, -1))
    dropped = ((errors - errors.mT) / 2).square().sum((-2, -1))
    labels: Row = {"recipe": setting.recipe, "world": label(setting.world), "seed": setting.seed}
    scale = float(total.mean())
    rows = equals(PROJECTION, estimate((dropped - share * total) / scale), 0.0, labels=labels)
    return rows + equals(KEPT, estimate((dropped - 0.5 * total) / scale), 0.0, labels=labels)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """One strip for each recipe, one mark for each world: the curl of the mean update."""
    draw_curls(figure.subplots(), rows[~rows["part"].isin((PROJECTION, KEPT))])


CLAIM = Claim(
    name="update_is_a_gradient",
    statement="Every recipe climbs something: its mean update is the gradient of some objective",
    formula=r"u(\theta)=\nabla F(\theta)\ \mathrm{for\ some}\ F\iff A=A^{\top},\ A_{ij}=\partial u_i/\partial\theta_j"
    r"\qquad\mathrm{curl}=|A-A^{\top}|\,/\,|A|",
    source="P. Dayan and S. Singh, Improving Policies without Measuring Merits (1996); theory page section 6",
    assumptions=("A5",),
    must_hold="REINFORCE, RLOO, GRPO with std for rewards of 0 and 1, k1 in the reward: curl 0; losses at visited prefixes in "
    "one step; 1/|o| where all completions have one length; the curl's share in the error of regressed costates",
    must_fail="k2 and k3 in the loss, an entropy bonus and on-policy distillation beyond one step, 1/|o| where lengths vary: "
    "curl 0. Dropping the curl saves half",
    how_to_read="Free logits at every prefix; every mark is the exact mean update of a recipe at a random table, in one world. "
    "At 0 (dashed) the update is the gradient of an objective; away from it there is none that it climbs.",
    parts=(
        *(Part(name, "claim", "fails", every="world") for name in (IN_LOSS, DISTILLED, BONUS, LENGTHS)),
        *(Part(name, "control", "holds") for name in (RETURNS, BINARY, IN_REWARD, ONE_STEP, ONE_LENGTH, PROJECTION)),
        Part(KEPT, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
