"""Spread of two gradient estimators against the horizon, in a map that is tame or chaotic."""

from functools import cache
from typing import Any

import pandas as pd

from envs.lq_variants import ChaoticMap
from figures.drawing.panels import corner_text, no_rows, points_with_curve, value_of
from figures.drawing.style import EXACT, MARKERS
from theory.continuous.chaotic_map import GradientMoments, circle_moments, pathwise_growth_rate


@cache
def _exact(beta: float, horizon: int, theta: float) -> tuple[GradientMoments, float]:
    """Moments of both estimators, and the growth of the pathwise one's spread: seconds of work, so once for each map."""
    world = ChaoticMap(beta=beta, horizon=horizon)
    return circle_moments(world, theta), pathwise_growth_rate(world, theta)


def spread_panel(axis: Any, variances: pd.DataFrame, name: str, beta: float, longest: int) -> Any:
    """Sample standard deviations of both estimators on their exact curves.

    Args:
        axis: where to draw.
        variances: rows of one map, with the columns T and estimator, and beta and theta where these are not the usual ones.
        name: of the map.
        beta: its slope, where the rows do not say.
        longest: the curves go at least as far as this horizon.
    """
    if variances.empty:
        return no_rows(axis, name)
    beta, theta = (float(value_of(variances, field, value)) for field, value in (("beta", beta), ("theta", 1.0)))
    longest = max(longest, int(variances["T"].max()))
    exact, rate = _exact(beta, longest, theta)
    sd = variances["measured"] ** 0.5
    deviations = variances.assign(measured=sd, standard_error=variances["standard_error"] / sd / 2)
    curves = {"pathwise": ("pathwise", exact.pathwise_sd), "score": ("score function", exact.score_sd)}
    for marker, (estimator, (shown, curve)) in zip(MARKERS, curves.items(), strict=False):
        group, horizons = deviations[deviations["estimator"] == estimator], range(1, len(curve) + 1)
        points_with_curve(axis, group, "T", estimator, shown, (horizons, curve), marker, {**EXACT, "label": "exact"})
    axis.set(title=f"{name}, beta = {beta}", xlabel="horizon T", yscale="log", xticks=range(0, longest + 1, 4))
    growth = f"sd(pathwise) in the long run: x{rate:.2f} per step" if rate > 1 else "sd(pathwise) levels off"
    corner_text(axis, growth)
    return axis
