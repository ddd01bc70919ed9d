"""What a critic-free update is on average: kappa times the value gradient, at every prefix, layer and entropy."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.policies.closed_attention import ClosedAttention, everything
from agents.policies.linear import LinearPolicy
from agents.recipes.advantages import leave_one_out, mean_baseline
from agents.recipes.learners import dr_grpo, grpo, rloo
from envs.linear_quadratic import random_system, scalar
from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim, Part, Preset, Row, batches, compare
from figures.harness.statistics import estimate, pooled
from figures.measures.actor_updates import Recipe, command_updates, group_costates, recipes, worst_deviation
from figures.measures.token_systems import build_policy, build_world
from theory.continuous.lq_gradients import command_slope
from theory.continuous.riccati import riccati
from theory.groups.binary_rewards import alignment, baseline_kappa, grpo_kappa
from theory.groups.expected_update import expected_update
from theory.tokens.completions import completions
from theory.tokens.forward_mode import forward_gradients, forward_value_gradient
from theory.tokens.prefix_tree import grow
from theory.tokens.softmax_bounds import entropy

_ROUNDING = 1e-9
_EVERY, _PARAMETERS, _SAMPLED, _LINEAR, _SCALE = (
    "kappa grad V at every prefix", "parameter gradient", "sampled update", "linear-quadratic counterpart", "scale",
)  # fmt: skip
_DETACHED, _WRONG, _DENSE, _UNIT = (
    "keys and values detached", "kappa of another recipe", "std with dense rewards", "own mean as baseline, kappa 1",
)  # fmt: skip
_SITE = "layer1"
_DRAWN = 1e-5  # prompts with a smaller P are left out of the figure
_BATCH = 5_000  # groups sampled at a time
_GROUP = 4  # rows of a sampled group
_STEPS = 3  # horizon of the linear-quadratic worlds
_BASELINES = {"RLOO": leave_one_out, "Dr. GRPO": mean_baseline}
_GAIN = 0.5  # of the optimal gain: at the optimum the slope is 0
LINEAR = {
    "scalar": lambda: scalar(horizon=_STEPS, action_noise=0.5),
    "random, laplace noise": lambda: random_system(3, 2, seed=1, horizon=_STEPS, action_noise=0.5, noise="laplace"),
}


@dataclass(frozen=True)
class ActorUpdateIsValueGradientSetting:
    """`exact`: one world and policy, all recipes. `dense`: rewards that are not binary. `sampled`, `linear`: Monte Carlo."""

    kind: str
    world: str
    most: int = 8  # the largest group
    temperature: float = 1.0
    seed: int = 0
    recipe: str = ""
    groups: int = 0
    margin: float = 0.1


def settings(preset: Preset) -> list[ActorUpdateIsValueGradientSetting]:
    """Worlds x temperatures (x seeds), the dense world, sampled worlds x recipes, linear-quadratic systems x baselines."""
    quick = preset == "quick"
    temperatures = (0.2, 1.0, 5.0) if quick else (0.2, 1.0, 5.0, 0.5, 2.0)
    # completions of many lengths make many outcomes, so many groups to enumerate
    worlds = {"lock (2,3)": 16, "arithmetic (3,2)": 16, "parity (2,5)": 16, "stop (2,4)": 4 if quick else 8}
    worlds |= {} if quick else {"copy (2,3)": 16, "lock (3,4)": 16}
    found = [
        ActorUpdateIsValueGradientSetting("exact", world, most, tau, seed)
        for world, most in worlds.items()
        for tau in (temperatures[:2] if quick and world != "arithmetic (3,2)" else temperatures)
        for seed in range(1 if quick else 3)
    ]
    found += [
        ActorUpdateIsValueGradientSetting("dense", "garnet (2,3)", 4 if quick else 8, tau) for tau in temperatures
    ]
    groups, margin = (3_000, 0.1) if quick else (100_000, 0.02)
    pairs = (("stop (2,4)", "RLOO"), ("stop (2,4)", "GRPO"), ("parity (2,5)", "Dr. GRPO"), ("parity (2,5)", "CISPO"))
    found += [
        ActorUpdateIsValueGradientSetting("sampled", w, _GROUP, 1.0, 1, recipe, groups, margin)
        for w, recipe in (pairs[1:3] if quick else pairs)
    ]
    more, margin = (1, 0.05) if quick else (25, 0.01)
    return found + [
        ActorUpdateIsValueGradientSetting("linear", world, _GROUP, recipe=recipe, groups=more * groups, margin=margin)
        for world, groups in (("scalar", 20_000), ("random, laplace noise", 120_000))  # one resolution for both
        for recipe in _BASELINES
    ]


def measure(setting: ActorUpdateIsValueGradientSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The rows of a setting's own kind."""
    if setting.kind == "linear":
        return _linear_rows(setting, rng)
    world = build_world(setting.world)
    policy = build_policy(world, setting.seed, setting.temperature)
    if setting.kind == "dense":
        return _dense_rows(setting, world, policy)
    return (
        _exact_rows(setting, world, policy) if setting.kind == "exact" else _sampled_rows(setting, world, policy, rng)
    )


def _exact_rows(setting: ActorUpdateIsValueGradientSetting, world: TokenMDP, policy: Any) -> list[Row]:
    with torch.no_grad():
        tree = grow(world, policy)
    P, H = completions(tree).success(), float(entropy(tree.levels[0].pi).mean())
    truth = {site: forward_gradients(world, policy, site) for site in policy.sites}
    labels = {"world": setting.world, "temperature": setting.temperature, "H": H}
    rows: list[Row] = []
    for recipe in recipes(setting.most):
        if not recipe.one_length or world.end is None:
            rows += _recipe_rows(recipe, world, policy, truth, P, labels, tree.V)
    closed = expected_update(world, ClosedAttention(policy, everything), rloo(), 2, [_SITE])
    gap = worst_deviation(closed.mean.costates[_SITE], truth[_SITE], torch.ones_like(P))
    return rows + compare(_DETACHED, gap, 0.0, tolerance=_ROUNDING, labels=labels)


def _recipe_rows(
    recipe: Recipe,
    world: TokenMDP,
    policy: Any,
    truth: dict[str, list[Tensor]],
    P: Tensor,
    labels: Row,
    V: list[Tensor],
) -> list[Row]:
    """One recipe in one world: every prefix and site, the parameters, the scale at each prompt, a wrong kappa."""
    values = V if recipe.learner.critic == "exact" else None
    update = expected_update(world, policy, recipe.learner, recipe.group, policy.sites, values=values)
    kappa, labels = recipe.kappa(P, world.horizon), {**labels, "recipe": recipe.name, "G": recipe.group}
    rows: list[Row] = []
    for site, gradients in truth.items():
        gap = worst_deviation(update.mean.costates[site], gradients, kappa)
        rows += compare(_EVERY, gap, 0.0, tolerance=_ROUNDING, labels={**labels, "site": site})
    if len(P) == 1:
        rows += _parameter_rows(update, float(kappa[0]), labels)
    found = update.mean.costates[_SITE][0][:, -1]
    scales = [alignment(x, y)[1] for x, y in zip(found, truth[_SITE][0], strict=True)]
    for prompt, scale in enumerate(scales):
        own = {**labels, "P": float(P[prompt]), "prompt": prompt}
        rows += compare(_SCALE, scale, kappa[prompt], relation="report", labels=own)
    other = {"Dr. GRPO": torch.ones_like(P), "GRPO": (P * (1 - P)).rsqrt()}.get(recipe.name)
    if other is not None:
        gap = worst_deviation(update.mean.costates[_SITE], truth[_SITE], other)
        rows += compare(_WRONG, gap, 0.0, tolerance=_ROUNDING, labels=labels)
    return rows


def _parameter_rows(update: Any, kappa: float, labels: Row) -> list[Row]:
    """|mean update - kappa grad J| over |kappa grad J|, all parameters together."""
    _, scale, bias = alignment(update.mean, update.truth)
    return compare(
        _PARAMETERS, ((scale - kappa) ** 2 + bias**2) ** 0.5 / kappa, 0.0, tolerance=_ROUNDING, labels=labels
    )


def _dense_rows(setting: ActorUpdateIsValueGradientSetting, world: TokenMDP, policy: Any) -> list[Row]:
    """Rewards at every step: the mean baselines keep their kappa; with std no kappa fits."""
    rows: list[Row] = []
    for G in (2, 4, 8)[: 2 if setting.most < 8 else 3]:
        labels = {"world": setting.world, "temperature": setting.temperature, "G": G}
        for name, learner, kappa in (("RLOO", rloo(), 1.0), ("Dr. GRPO", dr_grpo(), baseline_kappa(G))):
            update = expected_update(world, policy, learner, G)
            rows += _parameter_rows(update, kappa, {**labels, "recipe": name})
        update = expected_update(world, policy, grpo(length="row sum"), G)
        bias = alignment(update.mean, update.truth)[2]
        rows += compare(_DENSE, bias, 0.0, tolerance=_ROUNDING, labels={**labels, "recipe": "GRPO"})
    return rows


def _sampled_rows(
    setting: ActorUpdateIsValueGradientSetting, world: TokenMDP, policy: Any, rng: torch.Generator
) -> list[Row]:
    recipe = next(r for r in recipes(_GROUP) if (r.name, r.group) == (setting.recipe, _GROUP))
    with torch.no_grad():
        P = completions(grow(world, policy)).success()
    exact = recipe.kappa(P, world.horizon)[:, None] * forward_value_gradient(world, policy, 1.0, _SITE)
    found = pooled(
        estimate(group_costates(world, policy, recipe.learner, _SITE, _GROUP, size, rng))
        for size in batches(setting.groups, _BATCH)
    )
    labels = {"world": setting.world, "recipe": recipe.name, "G": _GROUP, "P": float(P[0])}
    return compare(_SAMPLED, found.mean, exact[0], found.standard_error, found.samples, exact.norm(),
                   margin=setting.margin, labels=labels, axes=("component",))  # fmt: skip


def _linear_rows(setting: ActorUpdateIsValueGradientSetting, rng: torch.Generator) -> list[Row]:
    """Slopes in the first command and in the gain, from one start state."""
    world = LINEAR[setting.world]().to()
    K = _GAIN * riccati(world).K[0]
    start, baseline = world.m_0 + 6, _BASELINES[setting.recipe]
    found = pooled(
        estimate(command_updates(world, LinearPolicy(K), baseline, start, _GROUP, size, rng))
        for size in batches(setting.groups, _BATCH)
    )
    kappa = baseline_kappa(_GROUP, own=setting.recipe == "Dr. GRPO")
    labels = {"world": setting.world, "recipe": setting.recipe, "G": _GROUP}
    rows: list[Row] = []
    exact = command_slope(world, K, start)
    for name, slope, place in zip(("command", "gain"), exact, (slice(world.m), slice(world.m, None)), strict=True):
        size, given = slope.norm(), {**labels, "slope in": name}
        numbers = found.mean[place], found.standard_error[place]
        rows += compare(_LINEAR, numbers[0], kappa * slope.flatten(), numbers[1], found.samples, kappa * size,
                        margin=setting.margin, labels=given, axes=("component",))  # fmt: skip
        if kappa != 1:
            rows += compare(_UNIT, numbers[0], slope.flatten(), numbers[1], found.samples, size, labels=given,
                            axes=("component",))  # fmt: skip
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Measured scale against kappa; deviations against entropy; kappa against P at every group size."""
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    left, middle, right = figure.subplots(1, 3)
    scales = rows[(rows["part"] == _SCALE) & (rows["P"] > _DRAWN)]
    names = scales["recipe"].where(~scales["recipe"].isin(["DAPO", "GSPO", "CISPO"]), "DAPO, GSPO, CISPO")
    colours = ("reference", "critic", "score_value", "score", "score_best", "costate", "control", "exact")
    for i, (name, recipe) in enumerate(scales.groupby(names, sort=False)):
        left.plot(
            recipe["target"], recipe["measured"], MARKERS[i], color=COLOURS[colours[i]], ms=5, alpha=0.7, label=name
        )
    left.axline((1, 1), slope=1, label="closed form", **EXACT)
    left.set(xlabel="kappa, closed form", ylabel="measured scale at a prompt", title="every recipe")
    for part, marker, colour in ((_EVERY, "o", "costate"), (_DETACHED, "x", "control")):
        group = rows[rows["part"] == part]
        middle.plot(group["H"], group["measured"].clip(lower=1e-17), marker, color=COLOURS[colour], ms=4, alpha=0.6)
    middle.axhline(_ROUNDING, **EXACT)
    middle.set(yscale="log", xlabel="entropy at the prompt (nats)", ylabel="largest deviation, relative",
               title="every prefix, site, world")  # fmt: skip
    _kappa_panel(right, scales[scales["recipe"] == "GRPO"])
    left.legend(loc="lower right", fontsize=7.5, handletextpad=0.3)


def _kappa_panel(axis: Any, rows: pd.DataFrame) -> None:
    """GRPO's kappa over P: curves for each group size, measured points, the limit dashed."""
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    P = torch.linspace(-12, 9, 200, dtype=torch.float64).sigmoid()
    colours = [COLOURS[name] for name in ("costate", "score", "score_value", "score_best")]
    for i, (G, group) in enumerate(rows.groupby("G")):
        axis.plot(P, grpo_kappa(P, int(G)), color=colours[i], lw=1)
        axis.plot(group["P"], group["measured"], MARKERS[i], color=colours[i], ms=5)
        axis.text(P[3], 1.06 * (G - 1) ** 0.5, f"G = {int(G)}", color=colours[i], fontsize=9)
    axis.plot(P, (P * (1 - P)).rsqrt(), **EXACT)
    axis.set(xscale="logit", yscale="log", ylim=(0.8, 12), xlabel="success probability P", ylabel="kappa",
             title="GRPO with std", xticks=(1e-5, 1e-3, 0.1, 0.5, 0.9, 0.999), yticks=(1, 2, 4, 8))  # fmt: skip
    axis.set_xticklabels(("1e-5", "0.001", "0.1", "0.5", "0.9", "0.999"), fontsize=8)
    axis.set_yticklabels(("1", "2", "4", "8"))
    axis.minorticks_off()


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
    how_to_read="Left, the exact mean update at each prompt over the value gradient by another road: all recipes lie on the "
    "dashed diagonal. Middle, the largest deviation from kappa grad V over all prefixes (blue) stays under the dashed "
    "rounding limit at every entropy; orange crosses are the same with the past detached. Right, GRPO's kappa by success "
    "probability, points on their curves: below the dashed 1 / sqrt(P(1-P)), saturating at sqrt(G-1).",
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
