"""Variance of critic-free updates against the group size, and its excess over the exact value's as baseline."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.ticker import NullLocator

from figures.drawing.line_names import LineEnd, name_lines
from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT, MARKERS

_RECIPES = (("reinforce", "control"), ("dr_grpo", "score_value"), ("rloo", "costate"), ("grpo", "score"))
_SAME = 1e-9  # relative: lines closer than this are one line with two names
_TICKS = (1, 1.5, 2, 3, 5, 10, 20)


def draw_variances(
    figure: Any, noise: pd.DataFrame, excess: pd.DataFrame, slopes: pd.DataFrame, worlds: Sequence[str]
) -> None:
    """A panel of variances for every world, and the sampled excess of the leave-one-out update on its exact one.

    Args:
        figure: where to draw.
        noise: rows with the columns world, G, learner, rescaled and oracle.
        excess: rows with the columns world and G.
        slopes: fits of the excess against log G, with the column world.
        worlds: in the order of the panels.
    """
    *axes, right = figure.subplots(1, len(worlds) + 1, width_ratios=[1] * len(worlds) + [1.1])
    for axis, world in zip(axes, worlds, strict=True):
        variance_panel(axis, noise[noise["world"] == world], world)
    axes[0].set_ylabel("variance over that with V as baseline")
    excess_panel(right, excess, slopes, worlds)


def variance_panel(axis: Any, noise: pd.DataFrame, world: str = "") -> Any:
    """Each recipe's variance over its scale squared, in units of the exact value's as baseline, which is the dashed 1."""
    noise = with_columns(noise, "learner", "rescaled", "oracle")
    if noise.empty:
        return no_rows(axis, world)
    axis.set(yscale="log", xlabel="group size G")
    ends: list[LineEnd] = []
    told = f"{world}: no rloo"
    for i, (name, colour) in enumerate(_RECIPES):
        own = noise[noise["learner"] == name].sort_values("G")
        if own.empty:
            continue
        ratio = own["rescaled"] / (own["oracle"] * own["G"])
        axis.plot(own["G"], ratio, "-" + MARKERS[i], color=COLOURS[colour], ms=8 - 1.7 * i)
        end = LineEnd(own["G"].iloc[-1], ratio.iloc[-1], name, COLOURS[colour])
        ends = _with(ends, end)
        if name == "rloo":
            told = f"{world}:\nrloo {ratio.iloc[-1]:.2f} at G = {own['G'].iloc[-1]:g}"
    axis.axhline(1, **EXACT)
    axis.set_title(told)
    low, high = axis.get_ylim()
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_xticks(sorted(noise["G"].unique()))
    name_lines(axis, ends, room=0.6)
    return axis


def _with(ends: list[LineEnd], new: LineEnd) -> list[LineEnd]:
    """Ends with one more; where it coincides with another they have one name."""
    for i, old in enumerate(ends):
        if abs(old.y - new.y) <= _SAME * abs(new.y):
            return [*ends[:i], LineEnd(new.x, new.y, f"{old.name} = {new.name}", new.colour), *ends[i + 1 :]]
    return [*ends, new]


def excess_panel(axis: Any, excess: pd.DataFrame, slopes: pd.DataFrame, worlds: Sequence[str]) -> Any:
    """Sampled excess of rloo over the oracle term on log axes, the exact one dashed, with the fitted slopes in words."""
    if excess.empty:
        return no_rows(axis, "excess of rloo")
    axis.set(xscale="log", yscale="log", xlabel="group size G", ylabel="variance - that with V (rloo)")
    sizes = sorted(excess["G"].unique())
    for i, world in enumerate(worlds):
        rows = excess[excess["world"] == world].sort_values("G")
        if rows.empty:
            continue
        look: dict[str, Any] = {"fmt": MARKERS[i], "fillstyle": ("full", "none")[i % 2], "capsize": 2, "zorder": 3}
        axis.errorbar(rows["G"], rows["measured"], 2 * rows["standard_error"], color=COLOURS["costate"], **look)
        axis.plot(rows["G"], rows["target"], **EXACT)
        fits = slopes[slopes["world"] == world]
        fitted = [f"slope {m:.2f} ± {2 * e:.2f}" for m, e in zip(fits["measured"], fits["standard_error"], strict=True)]
        place: dict[str, Any] = {"color": COLOURS["costate"], "fontsize": "small", "textcoords": "offset points"}
        side, shift = ({"ha": "left", "va": "bottom"}, (7, 5)) if i == 0 else ({"ha": "right", "va": "top"}, (-7, -5))
        middle = rows.iloc[len(rows) // (3 if i == 0 else 2)]
        axis.annotate("\n".join([world, *fitted[:1]]), (middle["G"], middle["measured"]), shift, **place, **side)
    exact = sorted({f"{target:.2f}" for target in slopes["target"]})
    axis.set_title("excess of rloo:\n" + (f"exact slope {' and '.join(exact)}" if exact else "sampled on exact"))
    axis.set_xticks(sizes, [f"{G:g}" for G in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    low, high = axis.get_ylim()
    axis.set_ylim(low / 4, high * 2)
    return axis
