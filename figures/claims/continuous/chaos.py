"""Chaos: the pathwise gradient's standard deviation explodes with the horizon, the score function's does not."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import ConstantPolicy
from agents.sampling.pathwise import pathwise_gradient
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.lq_variants import ChaoticMap
from envs.noise import Noise, draw_noise
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.harness.statistics import estimate
from figures.measures.rollouts import sampled
from theory.continuous.chaotic_map import circle_moments, pathwise_growth_rate

_THETA = (
    1.0  # mean log-derivative +0.20 at beta = 2.5: chaotic; at theta = 0.5 it is -0.21, and sd explodes all the same
)
_MAPS = {"tame": 0.5, "chaotic": 2.5}
_HORIZONS = (1, 2, 3, 4, 6, 8, 12, 16, 20)
_MEANS, _VARIANCES = (
    4,
    8,
)  # sample means and chaotic pathwise variances are judged up to here: beyond, rare paths carry them
_LONG, _FACTOR, _BATCHES = 20, 10.0, 20


@dataclass(frozen=True)
class ChaosSetting:
    """One map, one horizon."""

    map: str
    horizon: int
    samples: int
    margin: float


def settings(preset: Preset) -> list[ChaosSetting]:
    """Both maps over all horizons."""
    samples, margin = {"quick": (100_000, 0.2), "full": (4_000_000, 0.05)}[preset]
    return [ChaosSetting(name, horizon, samples, margin) for name in _MAPS for horizon in _HORIZONS]


def _both(world: ChaoticMap, noise: Noise, device: str) -> torch.Tensor:
    """(sample, 2): pathwise and score-function gradient in theta, no baseline."""
    policy = ConstantPolicy([_THETA]).to(device)
    trajectory = rollout(world, policy, noise)
    both = (pathwise_gradient(policy, trajectory), score_function_gradient(world, policy, trajectory))
    return torch.cat([gradient["theta"] for gradient in both], 1)


def measure(setting: ChaosSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Variance of both estimators against exact moments, their means against the true gradient, and their ratio."""
    world = ChaoticMap(beta=_MAPS[setting.map], horizon=setting.horizon)
    exact = circle_moments(world, _THETA)
    gradient, sds = exact.gradient[-1], torch.stack([exact.pathwise_sd[-1], exact.score_sd[-1]])

    def moments(noise: Noise) -> torch.Tensor:
        values = _both(world, noise, device)
        return torch.stack([values, (values - gradient.to(values)).square()], 1)

    found = sampled(world, setting.horizon, setting.samples, rng, device, moments)
    labels = {"map": setting.map, "T": setting.horizon}
    size = circle_moments(replace(world, horizon=_MEANS), _THETA).gradient.abs().max()
    rows: list[Row] = []
    for i, name in enumerate(("pathwise", "score")):
        named = {**labels, "estimator": name}
        seen = setting.horizon <= _VARIANCES or setting.map == "tame" or name == "score"
        rows += compare("variance = exact moments", found.mean[1, i], sds[i] ** 2, found.standard_error[1, i], found.samples,
                        sds[i] ** 2, margin=setting.margin, relation="==" if seen else "report", labels=named)  # fmt: skip
        rows += compare("both unbiased", found.mean[0, i], gradient, found.standard_error[0, i], found.samples, size,
                        margin=setting.margin, labels=named,
                        relation="==" if setting.horizon <= _MEANS else "report")  # fmt: skip
    rows += compare("exact means agree", exact.score_gradient[-1], gradient, scale=size, tolerance=1e-9, labels=labels)
    if setting.horizon == _LONG:
        rows += _ratio_rows(setting, world, rng, device)
    return rows


def _ratio_rows(setting: ChaosSetting, world: ChaoticMap, rng: torch.Generator, device: str) -> list[Row]:
    """log sd(PD) / sd(SF) at the long horizon, from independent batches, must exceed log 10."""
    size = setting.samples // _BATCHES
    draws = [draw_noise(world, size, setting.horizon, rng).to(device) for _ in range(_BATCHES)]
    spreads = torch.stack([_both(world, noise, device).std(0) for noise in draws])
    ratio = estimate((spreads[:, 0] / spreads[:, 1]).log())
    part = "pathwise explodes" if setting.map == "chaotic" else "the tame map explodes too"
    long_run = circle_moments(replace(world, horizon=60), _THETA).pathwise_sd
    growth = compare("growth = top eigenvalue", (long_run[59] / long_run[49]) ** 0.1,
                     max(pathwise_growth_rate(world, _THETA), 1.0), tolerance=1e-3,
                     labels={"map": setting.map, "T": 60})  # fmt: skip
    return growth + compare(part, ratio.mean, math.log(_FACTOR), ratio.standard_error, ratio.samples, relation=">=",
                   labels={"map": setting.map, "T": setting.horizon})  # fmt: skip


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Standard deviation against horizon for both maps, exact moments dashed."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, beta) in zip(axes, _MAPS.items(), strict=True):
        world = ChaoticMap(beta=beta, horizon=max(_HORIZONS))
        exact, rate = circle_moments(world, _THETA), pathwise_growth_rate(world, _THETA)
        spread = rows[(rows["part"] == "variance = exact moments") & (rows["map"] == name)]
        for marker, estimator, curve in zip(
            MARKERS, ("pathwise", "score"), (exact.pathwise_sd, exact.score_sd), strict=False
        ):
            group = spread[spread["estimator"] == estimator]
            sd = group["measured"] ** 0.5
            axis.errorbar(group["T"], sd, group["standard_error"] / sd, fmt=marker, ms=6, capsize=2, zorder=3,
                          color=COLOURS[estimator], label={"score": "score function"}.get(estimator, estimator))  # fmt: skip
            axis.plot(range(1, len(curve) + 1), curve, **EXACT)
        axis.plot([], [], label="exact", **EXACT)
        axis.set(title=f"{name} map, beta = {beta}", xlabel="horizon T", yscale="log", xticks=range(0, 21, 4))
        axis.text(0.97, 0.04, f"sd(pathwise) in the long run: x{rate:.2f} per step" if rate > 1 else "sd(pathwise) levels off",
                  transform=axis.transAxes, ha="right", fontsize=9)  # fmt: skip
    axes[0].set_ylabel("standard deviation of the gradient")
    legend_above(figure, axes[0])


CLAIM = Claim(
    name="chaos",
    statement="In a chaotic map the pathwise gradient explodes with the horizon",
    formula=r"\mathrm{sd}\left(\frac{d \cos s_T}{d\theta}\right) \sim \rho^{T},\qquad s' = \beta\sin s + \theta + 0.3\,\xi",
    source="theory page section 1; Metz et al., Gradients are Not All You Need, arXiv:2111.05803",
    assumptions=("A1", "A2", "A3", "A6"),
    must_hold="beta = 2.5: sd(pathwise) more than ten times sd(score function) at T = 20, both still unbiased",
    must_fail="beta = 0.5: the same statement in the tame map",
    how_to_read="Points are sample standard deviations (bars two standard errors) of the two gradient estimators; dashed "
    "curves are their exact values from moments carried round the circle. On the right blue climbs by a "
    "constant factor per step; where blue points fall below the dashed line, rare paths carry the variance and"
    " samples do not show it.",
    parts=(
        Part("variance = exact moments", "claim", "holds"),
        Part("both unbiased", "claim", "holds"),
        Part("exact means agree", "claim", "holds"),
        Part("growth = top eigenvalue", "claim", "holds"),
        Part("pathwise explodes", "claim", "holds"),
        Part("the tame map explodes too", "control", "fails"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
