"""Variance of critic-free updates against the group size, and its excess over the exact value's as baseline."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.ticker import NullLocator

from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT, MARKERS

_RECIPES = (("reinforce", "control"), ("dr_grpo", "score_value"), ("rloo", "costate"), ("grpo", "score"))


def variance_panel(axis: Any, noise: pd.DataFrame) -> Any:
    """G times the variance of each recipe's update over its scale squared, with the oracle term dashed."""
    noise = with_columns(noise, "learner", "rescaled", "oracle")
    if noise.empty:
        return no_rows(axis)
    for i, (name, colour) in enumerate(_RECIPES):
        recipe = noise[noise["learner"] == name]
        axis.plot(recipe["G"], recipe["rescaled"], "-" + MARKERS[i], color=COLOURS[colour], ms=9 - 2 * i, label=name)
    axis.plot(noise["G"], noise["oracle"] * noise["G"], label="exact (oracle, remainder)", **EXACT)
    axis.set(xlabel="group size G", ylim=(0, None))
    return axis


def excess_panel(axis: Any, excess: pd.DataFrame, slopes: pd.DataFrame, worlds: Sequence[str]) -> Any:
    """Sampled excess over the oracle term on log axes, the exact one dashed; the fitted slopes stand in the legend."""
    if excess.empty:
        return no_rows(axis, "variance - oracle term (rloo)")
    for i, world in enumerate(worlds):
        rows, name = excess[excess["world"] == world], world
        for _, fit in slopes[slopes["world"] == world].iterrows():
            name = f"{world}: slope {fit['measured']:.2f} ± {2 * fit['standard_error']:.2f} ({fit['target']:.2f})"
        look: dict[str, Any] = {
            "fmt": MARKERS[i],
            "color": COLOURS["costate"],
            "fillstyle": ("full", "none")[i],
            "capsize": 2,
            "zorder": 3,
        }
        axis.errorbar(rows["G"], rows["measured"], 2 * rows["standard_error"], label=name, **look)
        axis.plot(rows["G"], rows["target"], **EXACT)
    axis.set(xscale="log", yscale="log", xlabel="group size G", title="variance - oracle term (rloo)")
    axis.set(xticks=(2, 4, 8, 16), xticklabels=(2, 4, 8, 16))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(top=30 * axis.get_ylim()[1])  # room for the legend
    axis.legend(loc="upper right", title="fit on log G ± 2 se (exact)")
    return axis
