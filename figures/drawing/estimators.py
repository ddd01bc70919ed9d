"""Gradient estimators side by side: their names and colours, and their variances over the pathwise one."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from figures.drawing.panels import no_rows, points_with_curve, value_of
from figures.drawing.style import COLOURS, EXACT, MARKERS
from theory.continuous.lq_gradients import one_step_variances

NAMES = {
    "pathwise": "pathwise",
    "critic": "pathwise, perfect critic",
    "score": "score function",
    "score_value_baseline": "score, b = V(s)",
    "score_best_baseline": "score, best constant b",
}
COLOUR_OF = {
    "pathwise": "pathwise",
    "critic": "critic",
    "score": "score",
    "score_value_baseline": "score_value",
    "score_best_baseline": "score_best",
}
_MARKER_OF = dict(zip(NAMES, (MARKERS[0], MARKERS[4], *MARKERS[1:4]), strict=True))


def one_step_panel(axis: Any, rows: pd.DataFrame, names: Sequence[str], most: float) -> Any:
    """Sampled variances of one step on their dashed closed forms.

    Args:
        axis: where to draw.
        rows: comparison rows with the columns estimator, ratio (mu / sigma), sigma and R (the cost).
        names: the estimators.
        most: the curves go at least as far as this ratio.
    """
    if rows.empty:
        return no_rows(axis, "one step: variance")
    R, sigma = value_of(rows, "R", 1.0), value_of(rows, "sigma", 0.5)
    grid = torch.linspace(0, max(most, rows["ratio"].max()), 200, dtype=torch.float64)
    exact = one_step_variances(R, sigma * grid, torch.tensor(sigma, dtype=torch.float64))
    for marker, name in zip(MARKERS, names, strict=False):
        group, curve = rows[rows["estimator"] == name], (grid, getattr(exact, name))
        points_with_curve(axis, group, "ratio", COLOUR_OF[name], NAMES[name], curve, marker)
    axis.set(title="one step: variance", xlabel="mu / sigma", ylabel="variance of d/dmu", yscale="log")
    return axis


def variance_ratio_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Variances over the pathwise one, system by system, with what a perfect critic saves printed below its point.

    Args:
        axis: where to draw.
        rows: comparison rows with the columns `system` and `estimator`.
    """
    if rows.empty:
        return no_rows(axis, "many steps")
    systems = list(rows["system"].unique())
    for i, name in enumerate(NAMES):
        group = rows[rows["estimator"] == name]
        at = [systems.index(system) + 0.13 * (i - 2) for system in group["system"]]
        style = {"fmt": _MARKER_OF[name], "color": COLOURS[COLOUR_OF[name]], "ms": 6, "capsize": 2}
        axis.errorbar(at, group["measured"], 2 * group["standard_error"], label=NAMES[name], **style)
    critic = rows[rows["estimator"] == "critic"]
    for system, ratio in zip(critic["system"], critic["measured"], strict=True):
        text, k = f"-{100 * (1 - ratio):.0f}%", systems.index(system)
        axis.annotate(text, (k - 0.13, ratio), (0, -16), textcoords="offset points", ha="center", fontsize="small")
    axis.axhline(1, **EXACT, label="exact")
    axis.set(title="many steps: variance / pathwise variance", yscale="log", xticks=range(len(systems)))
    axis.set_ylim(bottom=0.15)
    axis.set_xticklabels([system.replace(" ", "\n") for system in systems])
    return axis
