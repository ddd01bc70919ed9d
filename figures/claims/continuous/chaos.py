"""Chaos: the pathwise gradient's standard deviation explodes with the horizon, the score function's does not."""

import math
from collections.abc import Callable
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
from figures.drawing.chaos import spread_panel
from figures.drawing.panels import legend_above
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_least, equals
from figures.harness.statistics import batches, estimate
from figures.measures.rollouts import sampled
from theory.continuous.chaotic_map import circle_moments, pathwise_growth_rate

_MAPS = {"tame": 0.5, "chaotic": 2.5}
_HORIZONS = (1, 2, 3, 4, 6, 8, 12, 16, 20)
_MEANS, _VARIANCES = 4, 8  # horizons up to which means and chaotic variances are judged: beyond, rare paths carry them
_LONG, _FACTOR, _BATCHES = 20, 10.0, 20
_VARIANCE, _UNBIASED, _AGREE = "variance = exact moments", "both unbiased", "exact means agree"
_GROWTH, _EXPLODES, _TAME = "growth = top eigenvalue", "pathwise explodes", "the tame map explodes too"


@dataclass(frozen=True)
class ChaosSetting:
    """One map, one horizon; `theta` is the policy, `beta` the map's slope where it is not the map's own."""

    map: str
    horizon: int
    samples: int
    margin: float
    theta: float = knob(1.0)  # the mean log-derivative at beta = 2.5 is positive here, and negative at theta = 0.5
    beta: float | None = knob(None)


def settings(preset: Preset) -> list[ChaosSetting]:
    """Both maps over all horizons."""
    samples, margin = {"tiny": (6, 0.2), "quick": (100_000, 0.2), "full": (4_000_000, 0.05)}[preset]
    horizons = (2, _LONG) if preset == "tiny" else _HORIZONS
    return [ChaosSetting(name, horizon, samples, margin) for name in _MAPS for horizon in horizons]


def _gradients(world: ChaoticMap, theta: float, device: str) -> Callable[[Noise], torch.Tensor]:
    """Noise -> (sample, 2): pathwise and score-function gradient in theta, no baseline."""
    policy = ConstantPolicy([theta]).to(device)

    def both(noise: Noise) -> torch.Tensor:
        trajectory = rollout(world, policy, noise)
        pair = (pathwise_gradient(policy, trajectory), score_function_gradient(world, policy, trajectory))
        return torch.cat([gradient["theta"] for gradient in pair], 1)

    return both


def measure(setting: ChaosSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Variance of both estimators against exact moments, their means against the true gradient, and their ratio."""
    theta, beta = setting.theta, _MAPS[setting.map] if setting.beta is None else setting.beta
    world = ChaoticMap(beta=beta, horizon=setting.horizon)
    exact, gradients = circle_moments(world, theta), _gradients(world, theta, device)
    gradient, sds = exact.gradient[-1], torch.stack([exact.pathwise_sd[-1], exact.score_sd[-1]])

    def moments(noise: Noise) -> torch.Tensor:
        values = gradients(noise)
        return torch.stack([values, (values - gradient.to(values)).square()], 1)

    estimates = sampled(world, setting.horizon, setting.samples, rng, device, moments)
    labels = {"map": setting.map, "T": setting.horizon, "theta": theta, "beta": beta}
    size = circle_moments(replace(world, horizon=_MEANS), theta).gradient.abs().max()
    rows: list[Row] = []
    for i, name in enumerate(("pathwise", "score")):
        shared: dict[str, Any] = {"margin": setting.margin, "labels": {**labels, "estimator": name}}
        seen = setting.horizon <= _VARIANCES or setting.map == "tame" or name == "score"
        rows += equals(_VARIANCE, estimates[1, i], sds[i] ** 2, sds[i] ** 2, judged=seen, **shared)
        rows += equals(_UNBIASED, estimates[0, i], gradient, size, judged=setting.horizon <= _MEANS, **shared)
    rows += equals(_AGREE, exact.score_gradient[-1], gradient, size, tolerance=1e-9, labels=labels)
    if setting.horizon == _LONG:
        rows += _growth_rows(setting, world) + _ratio_rows(setting, world, rng, device)
    return rows


def _growth_rows(setting: ChaosSetting, world: ChaoticMap) -> list[Row]:
    """Exact growth of sd(pathwise) per step at long horizons against the square root of the top eigenvalue."""
    sd = circle_moments(replace(world, horizon=60), setting.theta).pathwise_sd
    rate = max(pathwise_growth_rate(world, setting.theta), 1.0)
    return equals(_GROWTH, (sd[59] / sd[49]) ** 0.1, rate, tolerance=1e-3, labels={"map": setting.map, "T": 60})


def _ratio_rows(setting: ChaosSetting, world: ChaoticMap, rng: torch.Generator, device: str) -> list[Row]:
    """log sd(pathwise) / sd(score function) at the long horizon, from independent batches, must exceed log 10."""
    sizes, gradients = (
        batches(setting.samples, max(2, setting.samples // _BATCHES)),
        _gradients(world, setting.theta, device),
    )
    draws = [draw_noise(world, size, setting.horizon, rng).to(device) for size in sizes]
    spreads = torch.stack([gradients(noise).std(0) for noise in draws])
    ratio = estimate((spreads[:, 0] / spreads[:, 1]).log())
    part = _EXPLODES if setting.map == "chaotic" else _TAME
    return at_least(part, ratio, math.log(_FACTOR), labels={"map": setting.map, "T": setting.horizon})


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Standard deviation against horizon for both maps, exact moments dashed."""
    axes = figure.subplots(1, len(_MAPS), sharey=True)
    for axis, (name, beta) in zip(axes, _MAPS.items(), strict=True):
        variances = rows[(rows["part"] == _VARIANCE) & (rows["map"] == name)]
        spread_panel(axis, variances, f"{name} map", beta, max(_HORIZONS))
    axes[0].set_ylabel("standard deviation of the gradient")
    legend_above(figure, *axes)


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
        Part(_VARIANCE, "claim", "holds"),
        Part(_UNBIASED, "claim", "holds"),
        Part(_AGREE, "claim", "holds"),
        Part(_GROWTH, "claim", "holds"),
        Part(_EXPLODES, "claim", "holds"),
        Part(_TAME, "control", "fails"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
