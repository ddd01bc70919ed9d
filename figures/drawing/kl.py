"""The drawing of the claim about KL estimators: gradients, means and spreads against the divergence."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {"k1": ("costate", "o"), "k2": ("score_value", "^"), "k3": ("control", "s")}
_PLACES = {"reward": "-", "loss": ":"}
_JOINED = "stop (2,4)"  # the world whose points are joined by lines
_APART = 0.065  # of the axis: labels at the ends of lines stand at least so far apart


def draw_estimators(figure: Any, values: pd.DataFrame, spreads: pd.DataFrame, gradients: pd.DataFrame) -> None:
    """How far the mean gradients are from that of the KL, large; means and spreads of the estimates, small.

    Args:
        figure: where to draw.
        values: rows with the mean over the KL, by estimator.
        spreads: rows with the standard deviation over completions over the KL.
        gradients: rows with the gap of "k1 in the reward", "k1 in the loss" and so on.
    """
    places = figure.subplot_mosaic([["gap", "gap", "value"], ["gap", "gap", "spread"]])
    gap, value, spread = places["gap"], places["value"], places["spread"]
    _draw_gaps(gap, gradients)
    for axis, rows in ((value, values), (spread, spreads)):
        for name in _LOOKS:
            _draw_line(axis, rows[rows["estimator"] == name], name, "-")
        axis.set(xscale="log", xlabel="KL(pi || ref)")
    value.axhline(1, **EXACT)
    value.set(title="as a number: mean / KL")
    spread.set(title="spread / KL", yscale="log")
    for name, (colour, marker) in _LOOKS.items():
        gap.plot([], [], marker + "-", color=COLOURS[colour], label=name)
    for place, line in _PLACES.items():
        gap.plot([], [], line, color="0.3", label=f"in the {place}")
    legend_above(figure, gap)


def _draw_gaps(axis: Any, rows: pd.DataFrame) -> None:
    """Distance of every mean gradient from that of the KL, in its units: 0 follows it, 1 is as far off as no penalty."""
    if rows.empty:
        no_rows(axis)
        return
    ends: dict[str, tuple[float, str]] = {}
    for name in _LOOKS:
        for place, line in _PLACES.items():
            end = _draw_line(axis, rows[rows["estimator"] == f"{name} in the {place}"], name, line)
            if end is not None:
                ends[f"{name}, {place}"] = (end, name)
    axis.axhline(0, label="exact", **EXACT)
    axis.axhline(1, color="0.5", lw=1)
    low, high = rows["KL"].min(), rows["KL"].max()
    axis.set(xscale="log", xlabel="KL(pi || ref)", ylabel="|mean gradient - grad KL| / |grad KL|")
    axis.set(xlim=(low / 2, high * (high / low) ** 0.3 * 6), ylim=(-0.1, None))
    axis.set_title("gradient: 0 follows grad KL(pi || ref), 1 is as far off as no penalty")
    axis.set_xticks(
        [x for x in axis.get_xticks() if low / 2 <= x <= 2 * high]
    )  # the rest of the axis is room for the names
    _label_ends(axis, ends, 2 * high)


def _label_ends(axis: Any, ends: dict[str, tuple[float, str]], x: float) -> None:
    """The name of every line beside its end, moved apart where ends are close."""
    step, at = _APART * np.diff(axis.get_ylim())[0], -np.inf
    for text, (end, name) in sorted(ends.items(), key=lambda item: item[1][0]):
        at = max(end, at + step)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axis.text(x, at, text, color=COLOURS[_LOOKS[name][0]], va="center", fontsize="small", bbox=box)


def _draw_line(axis: Any, rows: pd.DataFrame, name: str, line: str) -> float | None:
    """All worlds as faint points, one of them joined by a line; where that ends."""
    if rows.empty:
        return None
    colour, marker = _LOOKS[name]
    axis.plot(rows["KL"], rows["measured"], marker, color=COLOURS[colour], ms=3.5, alpha=0.3)
    world = _JOINED if _JOINED in set(rows["world"]) else rows["world"].iloc[0]
    joined = rows[rows["world"] == world]
    joined = joined[joined["seed"] == joined["seed"].min()].sort_values("share")
    axis.plot(joined["KL"], joined["measured"], line + marker, color=COLOURS[colour], ms=5)
    return float(joined["measured"].iloc[-1])
