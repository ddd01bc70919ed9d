"""Relaxed costates: bias and variance of straight-through, ReinMax, soft and Gumbel against alpha, temperature and tau_g."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim, Preset, Row, compare
from figures.harness.statistics import estimate
from figures.measures.token_systems import at_least, build_policy, build_world
from theory.tokens.costates import expected_costates, sampled_costates
from theory.tokens.forward_mode import forward_value_gradient
from theory.tokens.prefix_tree import token_roots

_ROUNDING = 1e-9
_SITE = "layer1"
ENUMERATED, SAMPLED = ("straight_through", "reinmax", "soft"), ("score", "straight_through", "reinmax", "gumbel")
NAMES = {
    "straight_through": "straight-through",
    "reinmax": "ReinMax",
    "soft": "soft",
    "gumbel": "Gumbel",
    "score": "score E2",
}
_ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
_OWN, _ONE, _MEANS = "soft = its own value gradient", "one token: exact", "sampled mean = exact mean"


@dataclass(frozen=True)
class RelaxedCostatesSetting:
    """One world and random policy; `tau_g` are the temperatures of the Gumbel-softmax."""

    world: str
    temperature: float
    seed: int
    tau_g: tuple[float, ...]
    samples: int
    margin: float

    def __post_init__(self) -> None:
        """Refuse what has no mean and spread."""
        at_least(2, samples=self.samples)


def settings(preset: Preset) -> list[RelaxedCostatesSetting]:
    """Worlds x temperatures x policies."""
    quick = preset == "quick"
    worlds = ("garnet (4,4)", "copy (2,3)", "one choice") + (() if quick else ("garnet (6,4)", "parity (2,5)"))
    temperatures, seeds = ((0.3, 1.0, 3.0), 1) if quick else ((0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0), 8)
    taus = (0.25, 1.0, 4.0) if quick else (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
    samples, margin = (8_000, 0.1) if quick else (200_000, 0.02)
    return [
        RelaxedCostatesSetting(world, tau, seed, taus, samples, margin)
        for world in worlds
        for tau in temperatures
        for seed in range(seeds)
    ]


def measure(setting: RelaxedCostatesSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact bias against grad V_1 for every alpha, and the samples' bias and spread at alpha = 1, at the (first) prompt."""
    world = build_world(setting.world)
    policy = build_policy(world, setting.seed, setting.temperature)
    truth = forward_value_gradient(world, policy, 1.0, _SITE)[0]
    labels = {"world": setting.world, "temperature": setting.temperature, "seed": setting.seed}
    rows = _exact_rows(world, policy, truth, labels)
    own = forward_value_gradient(world, policy, 0.0, _SITE)[0]
    gap = (_mean(world, policy, "soft") - own).norm() / own.norm()
    rows += compare(_OWN, gap, 0.0, tolerance=_ROUNDING, labels=labels)
    for name in SAMPLED:
        for tau_g in setting.tau_g if name == "gumbel" else (1.0,):
            rows += _sampled_rows(world, policy, name, tau_g, truth, setting, rng, labels)
    return rows


def _mean(world: TokenMDP, policy: Any, name: str, alpha: float = 1.0) -> Tensor:
    return expected_costates(world, policy, name, _SITE, alpha)[0][0, -1]


def _exact_rows(world: TokenMDP, policy: Any, truth: Tensor, labels: dict[str, Any]) -> list[Row]:
    """Relative bias of the enumerated costates; judged at alpha = 1 (soft: at its own alpha, 0)."""
    rows: list[Row] = []
    for name in ENUMERATED:
        for alpha in (1.0,) if name == "soft" else _ALPHAS:
            bias = (_mean(world, policy, name, alpha) - truth).norm() / truth.norm()
            here = {**labels, "costate": name, "alpha": 0.0 if name == "soft" else alpha}
            rows += compare("bias", bias, 0.0, relation="report", labels=here)
            if alpha == 1:
                part = _ONE if world.horizon == 1 else f"{NAMES[name]} is unbiased"
                rows += compare(part, bias, 0.0, tolerance=_ROUNDING, labels=here)
    return rows


def _sampled_rows(
    world: TokenMDP, policy: Any, name: str, tau_g: float, truth: Tensor, setting: RelaxedCostatesSetting, rng: torch.Generator,
    labels: dict[str, Any],
) -> list[Row]:  # fmt: skip
    """Standard deviation and bias of single samples, in units of the value gradient, and the mean against the exact one."""
    roots = token_roots(world, policy, 0, [])
    values = sampled_costates(world, policy, name, _SITE, setting.samples, rng, tau_g=tau_g, roots=roots)[0, :, -1]
    result, size = estimate(values), float(truth.norm())
    spread = values.std(0).clamp(min=_ROUNDING * size)  # the slope of one token does not depend on the sample
    here = {**labels, "costate": name, "tau_g": tau_g}
    rows = compare("spread", values.std(0).norm() / size, 1.0, relation="report", labels=here)
    bias = np.linalg.norm(result.mean - truth.numpy()) / size
    error = np.linalg.norm(result.standard_error) / size
    rows += compare("sampled bias", bias, 0.0, error, result.samples, relation="report", labels=here)
    if name == "gumbel":
        if world.horizon > 1:
            rows += compare("Gumbel is unbiased", result.mean, truth, result.standard_error, result.samples, spread,
                            margin=setting.margin, labels=here, axes=("component",))  # fmt: skip
        return rows
    exact = _mean(world, policy, name)
    return rows + compare(_MEANS, result.mean, exact, result.standard_error, result.samples, spread, margin=setting.margin,
                          tolerance=1e-12, labels=here, axes=("component",))  # fmt: skip


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Exact bias against alpha; exact bias against temperature; spread against bias, sampled, with tau_g at the points."""
    from matplotlib.ticker import NullFormatter

    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    colours = dict(zip(NAMES, ("costate", "control", "score_value", "critic", "score"), strict=True))
    marks = dict(zip(NAMES, MARKERS, strict=False))
    long = rows[rows["world"] != "one choice"]
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 3, 4))
    bias = long[long["part"] == "bias"]
    for axis, column, chosen in (
        (left, "alpha", bias),
        (middle, "temperature", bias[bias["alpha"] == (bias["costate"] != "soft")]),
    ):
        for name, group in chosen.groupby("costate", sort=False):
            mean = group.groupby(column)["measured"].median()
            axis.plot(mean.index, mean, marks[name] + "-", color=COLOURS[colours[name]], ms=5, label=NAMES[name])
        axis.axhline(0, label="unbiased", **EXACT)
        axis.set(xlabel=column, title="exact bias")
    left.set_ylabel("|bias| / |grad V|")
    temperatures = sorted(bias["temperature"].unique())
    middle.set_xscale("log", subs=[])
    middle.set_xticks(temperatures, [f"{t:g}" for t in temperatures], rotation=60 if len(temperatures) > 5 else 0)
    points = (
        long[long["part"].isin(("spread", "sampled bias"))]
        .pivot_table(index=["costate", "tau_g"], columns="part", values="measured", aggfunc="median")
        .sort_index()
    )
    for name in dict.fromkeys(points.index.get_level_values(0)):
        group = points.loc[name]
        right.plot(
            group["sampled bias"],
            group["spread"],
            marks[name] + ":",
            color=COLOURS[colours[name]],
            ms=7,
            label=NAMES[name],
        )
        for tau_g, point in group.iterrows() if name == "gumbel" else ():
            right.annotate(f"{tau_g:g}", (point["sampled bias"], point["spread"]), textcoords="offset points", xytext=(6, 4),
                           fontsize=8)  # fmt: skip
    names = {"xlabel": "|mean of samples - grad V| / |grad V|", "ylabel": "sd of one sample / |grad V|"}
    right.set(xscale="log", yscale="log", xlim=(0.009, 2), title="bias and spread, sampled", **names)
    right.xaxis.set_minor_formatter(NullFormatter())
    legend_above(figure, left, right)


CLAIM = Claim(
    name="relaxed_costates",
    statement="Relaxed costates (straight-through, ReinMax, soft, Gumbel) are the value gradient",
    formula=r"\mathbb{E}[E_3] = \mathbb{E}[E_4] = \mathbb{E}[E_5] = \nabla V_1",
    source="theory page section 3 (E3, E4, E5); the alternatives to the score costate in arXiv:2605.21654",
    assumptions=("A1",),
    must_hold="Straight-through, ReinMax and soft where one token decides all (the return is affine in it), and soft for its "
    "own objective, alpha = 0",
    must_fail="All four in every world where later tokens see earlier ones",
    how_to_read="In units of the value gradient of the discrete policy, medians over worlds and policies. Left and middle, "
    "exact biases: straight-through and ReinMax begin at soft where alpha = 0. Right, means and spreads of sampled costates: "
    "the score costate lies far left, where only its sampling error is left, and high; numbers at the Gumbel marks are tau_g.",
    parts={
        **{f"{NAMES[name]} is unbiased": ("claim", "fails") for name in (*ENUMERATED, "gumbel")},
        _OWN: ("control", "holds"),
        _ONE: ("control", "holds"),
        _MEANS: ("control", "holds"),
    },
    settings=settings,
    measure=measure,
    draw=draw,
    expected_outcome="fails",
    groups={f"{NAMES[name]} is unbiased": "world" for name in (*ENUMERATED, "gumbel")},
    seconds=(20, 1500),
)
