"""The drawing of the claim about soft thoughts: two limits of small noise, and the code's mean against the whole density."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT, MARKERS

NOISES = {"Gumbel noise (SofT-GRPO)": ("costate", "o"), "Gaussian noise (soft tokens)": ("control", "s")}
_FORMS = {"sum": ("costate", "whole noise density"), "mean over the mask": ("score", "mean over the code's mask")}


def draw_soft_thoughts(figure: Any, gaps: pd.DataFrame, angles: pd.DataFrame) -> None:
    """How far gradients are from that of sampled tokens, by the noise's width; angles of mean updates, by the logits' spread.

    Args:
        figure: where to draw.
        gaps: rows with the columns noise, size and seed.
        angles: rows with the columns form, logits (their spread) and world.
    """
    left, right = figure.subplots(1, 2)
    _limits(left, with_columns(gaps, "noise", "size", "seed"))
    _forms(right, with_columns(angles, "form", "logits", "world"))
    legend_above(figure, left, right)


def _limits(axis: Any, rows: pd.DataFrame) -> None:
    """One line for each policy and noise."""
    title = "small noise"
    if rows.empty:
        no_rows(axis, title)
        return
    for noise, (colour, marker) in NOISES.items():
        own = rows[rows["noise"] == noise]
        for i, (_, each) in enumerate(own.groupby("seed")):
            each = each.sort_values("size")
            name = noise if i == 0 else None
            axis.plot(each["size"], each["measured"], f"{marker}-", color=COLOURS[colour], ms=5, label=name)
    axis.axhline(0, label="exact", **EXACT)
    name = "relative distance to sampled tokens' gradient"
    axis.set(xscale="log", xlabel="width of the noise (tau or sigma)", ylabel=name, title=title)


def _forms(axis: Any, rows: pd.DataFrame) -> None:
    """One marker for each world."""
    title = "mean update"
    if rows.empty:
        no_rows(axis, title)
        return
    for i, world in enumerate(dict.fromkeys(rows["world"])):
        for form, (colour, name) in _FORMS.items():
            own = rows[(rows["world"] == world) & (rows["form"] == form)]
            place = own["logits"] + 0.12 * (i - 1)
            label = name if i == 0 else None
            axis.plot(place, own["measured"], MARKERS[i], color=COLOURS[colour], ms=7, clip_on=False, label=label)
        axis.plot([], [], MARKERS[i], color="0.4", label=world)
    axis.axhline(0, label="exact", **EXACT)
    axis.set(xlabel="spread of the logits", ylabel="angle to the gradient (degrees)", title=title)
    axis.set(ylim=(-4, None), xticks=sorted(set(rows["logits"])))
