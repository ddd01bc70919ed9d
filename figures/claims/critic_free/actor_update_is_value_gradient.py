"""What a critic-free update is on average: kappa times the value gradient, at every prefix, layer and entropy."""

from typing import Any

import pandas as pd
import torch

from agents.policies.linear import LinearPolicy
from agents.recipes.advantages import leave_one_out, mean_baseline
from agents.recipes.learners import dr_grpo, grpo, rloo
from figures.drawing.kappa import draw_kappas
from figures.harness.claim import Claim, Part
from figures.harness.rows import Row, equals, report, vanishes
from figures.measures.actor_cases import GROUP, ActorSetting, settings
from figures.measures.actor_updates import exact_case, parameter_deviation, prompt_scales, recipes, worst_deviation
from figures.measures.sampled_updates import command_updates, group_costates, in_batches, linear_case
from figures.measures.token_systems import build_policy, build_world
from theory.continuous.lq_gradients import command_slope
from theory.groups.binary_rewards import alignment, baseline_kappa
from theory.groups.expected_update import expected_update
from theory.tokens.completions import completions
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.prefix_tree import grow

_ROUNDING = 1e-9
_EVERY, _PARAMETERS, _SAMPLED = "kappa grad V at every prefix", "parameter gradient", "sampled update"
_LINEAR, _SCALE = "linear-quadratic counterpart", "scale"
_DETACHED, _WRONG = "keys and values detached", "kappa of another recipe"
_DENSE, _UNIT = "std with dense rewards", "own mean as baseline, kappa 1"
_SITE = "layer1"
_BASELINES = {"RLOO": leave_one_out, "Dr. GRPO": mean_baseline}


def measure(setting: ActorSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The rows of the setting's own kind."""
    return {"exact": _exact, "dense": _dense, "sampled": _sampled, "linear": _linear}[setting.kind](
        setting, rng, device
    )


def _exact(setting: ActorSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Binary rewards: every recipe at every prefix and site, its parameters, its scale at each prompt, a wrong kappa."""
    world = build_world(setting.world).to(device)
    case = exact_case(world, build_policy(world, setting.seed, setting.temperature))
    labels = {"world": setting.world, "temperature": setting.temperature, "H": case.entropy}
    wrong = {"Dr. GRPO": torch.ones_like(case.P), "GRPO": (case.P * (1 - case.P)).rsqrt()}
    rows: list[Row] = []
    for recipe in case.recipes(setting.most):
        update, kappa = case.update(recipe), recipe.kappa(case.P, world.horizon)
        costates, own = update.mean.costates, {**labels, "recipe": recipe.name, "G": recipe.group}
        for site, truth in case.truth.items():
            gap = worst_deviation(costates[site], truth, kappa)
            rows += vanishes(_EVERY, gap, _ROUNDING, labels={**own, "site": site})
        if len(kappa) == 1:
            rows += vanishes(_PARAMETERS, parameter_deviation(update, float(kappa[0])), _ROUNDING, labels=own)
        for prompt, scale in enumerate(prompt_scales(costates[_SITE], case.truth[_SITE])):
            at = {**own, "P": float(case.P[prompt]), "prompt": prompt}
            rows += report(_SCALE, scale, kappa[prompt], labels=at)
        if recipe.name in wrong:
            gap = worst_deviation(costates[_SITE], case.truth[_SITE], wrong[recipe.name])
            rows += vanishes(_WRONG, gap, _ROUNDING, labels=own)
    return rows + vanishes(_DETACHED, case.deviation_without_past(_SITE), _ROUNDING, labels=labels)


def _dense(setting: ActorSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Rewards at every step: the mean baselines keep their kappa; with std no kappa fits."""
    world, rows = build_world(setting.world).to(device), list[Row]()
    policy = build_policy(world, setting.seed, setting.temperature)
    for G in (G for G in setting.sizes if setting.most >= G):
        labels = {"world": setting.world, "temperature": setting.temperature, "G": G}
        for name, learner, kappa in (("RLOO", rloo(), 1.0), ("Dr. GRPO", dr_grpo(), baseline_kappa(G))):
            gap = parameter_deviation(expected_update(world, policy, learner, G), kappa)
            rows += vanishes(_PARAMETERS, gap, _ROUNDING, labels={**labels, "recipe": name})
        update = expected_update(world, policy, grpo(length="row sum"), G)
        bias = alignment(update.mean, update.truth).bias
        rows += vanishes(_DENSE, bias, _ROUNDING, labels={**labels, "recipe": "GRPO"})
    return rows


def _sampled(setting: ActorSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The costate at the prompt in sampled groups of completions."""
    world = build_world(setting.world).to(device)
    policy = build_policy(world, setting.seed, setting.temperature)
    recipe = next(r for r in recipes(GROUP) if (r.name, r.group) == (setting.recipe, GROUP))
    with torch.no_grad():
        P = completions(grow(world, policy)).success()
    exact = (recipe.kappa(P, world.horizon)[:, None] * forward_value_gradient(world, policy, 1.0, _SITE))[0]
    mean = in_batches(lambda n: group_costates(world, policy, recipe.learner, _SITE, GROUP, n, rng), setting.groups)
    labels = {"world": setting.world, "recipe": recipe.name, "G": GROUP, "P": float(P[0])}
    return equals(_SAMPLED, mean, exact, exact.norm(), margin=setting.margin, labels=labels, axes=("component",))


def _linear(setting: ActorSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Slopes in the first command and in the gain, from one start state, in sampled groups of linear-quadratic paths."""
    world, K, start = linear_case(setting.world)
    policy, baseline = LinearPolicy(K).to(device), _BASELINES[setting.recipe]
    mean = in_batches(lambda n: command_updates(world, policy, baseline, start, GROUP, n, rng), setting.groups)
    kappa, rows = baseline_kappa(GROUP, own=setting.recipe == "Dr. GRPO"), list[Row]()
    command, gain = command_slope(world, K, start)
    for name, slope, own in (("command", command, mean[: world.m]), ("gain", gain, mean[world.m :])):
        labels = {"world": setting.world, "recipe": setting.recipe, "G": GROUP, "slope in": name}
        size, axes = slope.norm(), ("component",)
        rows += equals(
            _LINEAR, own, kappa * slope.flatten(), kappa * size, margin=setting.margin, labels=labels, axes=axes
        )
        if kappa != 1:
            rows += equals(_UNIT, own, slope.flatten(), size, labels=labels, axes=axes)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Measured scale against kappa; deviations against entropy; kappa against P at every group size."""
    gaps = {_EVERY: ("costate", "o"), _DETACHED: ("control", "x")}
    draw_kappas(figure, rows[rows["part"] == _SCALE], rows, gaps, _ROUNDING)


CLAIM = Claim(
    name="actor_update_is_value_gradient",
    statement="A critic-free update is kappa times the value gradient at every prefix, layer and entropy",
    formula=r"\mathbb{E}\left[A_i\sum_{k\ge t}\nabla_{h_t}\log\pi(c_k)\,\middle|\,\text{prefix}\right] = \kappa\,\nabla_{h_t}V,"
    r"\qquad \kappa\in\left\{1,\ \tfrac{G-1}{G},\ c_G(P)\right\}",
    source="theory page section 4; closed forms in theory/groups/binary_rewards.py",
    assumptions=("A5",),
    must_hold="On-policy, no KL, each prompt with its own kappa: REINFORCE, RLOO, Dr. GRPO, exact-critic PPO (any reward); "
    "recipes with std for binary rewards; those with a factor 1/|o| where all completions have one length, kappa / L",
    must_fail="Keys and values detached; another recipe's kappa; std with rewards that are not binary; own mean with kappa 1",
    how_to_read="Left, the exact mean update at each prompt over the value gradient, found in another way (dots): every "
    "recipe has its own kappa (black strokes), and every dot lies on its stroke. Middle, the largest deviation from kappa "
    "grad V over all prefixes and layers (blue) stays under the dashed limit of rounding at every entropy; red crosses are "
    "the same with the past detached. Right, GRPO's kappa by success probability P, points on their curves: below the dashed "
    "1 / sqrt(P(1-P)), and no more than sqrt(G-1).",
    parts=(
        Part(_EVERY, "claim", "holds"),
        Part(_PARAMETERS, "claim", "holds"),
        Part(_SAMPLED, "claim", "holds"),
        Part(_LINEAR, "claim", "holds"),
        Part(_DETACHED, "control", "fails", every="world"),
        Part(_WRONG, "control", "fails", every="recipe"),
        Part(_DENSE, "control", "fails", every="G"),
        Part(_UNIT, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
