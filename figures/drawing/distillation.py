"""The drawing of the claim about distillation: two ends against the minimiser, by the number of teachers."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows
from figures.drawing.scales import log_with_zero
from figures.drawing.style import COLOURS, EXACT, MARKERS

_LOOKS = {"on-policy distillation": ("control", -0.19), "k1 in the reward": ("costate", 0.19)}
_ROUNDING = 1e-8


def draw_distillation(figure: Any, excess: pd.DataFrame, away: pd.DataFrame) -> None:
    """The objective above its least value, and the distance from the minimiser, by number of teachers, way and world.

    Args:
        figure: where to draw.
        excess: rows with the objective at each end minus its least value, in nats.
        away: rows with the distance of each end from the minimiser.
    """
    left, right = figure.subplots(1, 2)
    _panel(left, excess, "sum of KL above its least value (nats)", "the objective")
    _panel(right, away, "total variation from the minimiser", "the law of completions")
    legend_above(figure, left, right)


def _panel(axis: Any, rows: pd.DataFrame, name: str, title: str) -> None:
    """One marker for each world, one colour for each way."""
    if rows.empty:
        no_rows(axis, title)
        return
    worlds = list(dict.fromkeys(rows["world"]))
    counts = sorted(set(rows["teachers"]))
    for i, world in enumerate(worlds):
        for way, (colour, aside) in _LOOKS.items():
            own = rows[(rows["world"] == world) & (rows["way"] == way)]
            places = own["teachers"].map(counts.index) + aside + 0.3 * ((i + 0.5) / len(worlds) - 0.5)
            values = own["measured"].where(own["measured"] > _ROUNDING, 0.0)
            axis.plot(places, values, MARKERS[i % len(MARKERS)], color=COLOURS[colour], ms=7, clip_on=False)
        axis.plot([], [], MARKERS[i % len(MARKERS)], color="0.4", label=world)
    for way, (colour, _) in _LOOKS.items():
        axis.plot([], [], "-", lw=4, color=COLOURS[colour], label=way)
    axis.axhline(0, label="minimiser", **EXACT)
    axis.set(xlabel="teachers", ylabel=name, title=title, xticks=range(len(counts)), xticklabels=counts)
    axis.set_xlim(-0.5, len(counts) - 0.5)
    log_with_zero(axis, rows["measured"].where(rows["measured"] > _ROUNDING, 0.0))
    axis.grid(visible=False, axis="x")
