"""The drawing of the claim about KL estimators: gradients, means and spreads against the divergence."""

from typing import Any

import pandas as pd

from figures.drawing.line_names import LineEnd, name_lines
from figures.drawing.panels import legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {"k1": ("costate", "o"), "k2": ("score_value", "^"), "k3": ("control", "s")}
_PLACES = {"reward": "-", "loss": ":"}
_JOINED = "stop (2,4)"  # the world whose points are joined by lines


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
    ends = []
    for name in _LOOKS:
        for place, line in _PLACES.items():
            own = rows[rows["estimator"] == f"{name} in the {place}"]
            ends += [
                LineEnd(*end, f"{name}, {place}", COLOURS[_LOOKS[name][0]]) for end in _draw_line(axis, own, name, line)
            ]
    axis.axhline(0, label="exact", **EXACT)
    axis.axhline(1, color="0.5", lw=1)
    axis.set(xscale="log", xlabel="KL(pi || ref)", ylabel="|mean gradient - grad KL| / |grad KL|", ylim=(-0.1, None))
    axis.set_title("gradient: 0 follows grad KL(pi || ref), 1 is as far off as no penalty")
    name_lines(axis, ends, 0.25)


def _draw_line(axis: Any, rows: pd.DataFrame, name: str, line: str) -> list[tuple[float, float]]:
    """All worlds as faint points, one of them joined by a line; where its name goes."""
    if rows.empty:
        return []
    colour, marker = _LOOKS[name]
    axis.plot(rows["KL"], rows["measured"], marker, color=COLOURS[colour], ms=3.5, alpha=0.3)
    world = _JOINED if _JOINED in set(rows["world"]) else rows["world"].iloc[0]
    joined = rows[rows["world"] == world]
    joined = joined[joined["seed"] == joined["seed"].min()].sort_values("share")
    axis.plot(joined["KL"], joined["measured"], line + marker, color=COLOURS[colour], ms=5)
    return [(rows["KL"].max(), joined["measured"].iloc[-1])]
