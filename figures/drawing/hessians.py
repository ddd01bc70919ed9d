"""The drawing of the claim about second derivatives: Hessians beside their truth, and the gaps of all cases."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from figures.drawing.panels import legend_above, no_rows
from figures.drawing.scales import log_with_zero
from figures.drawing.style import COLOURS, EXACT

_SHOWN = {  # objective -> name of its matrix, and its place: row and column
    "exact": ("exact Hessian", (0, 0)),
    "DiCE": ("DiCE", (0, 1)),
    "surrogate": ("surrogate", (1, 0)),
    "surrogate, value baseline": ("with the value baseline", (1, 1)),
}
_LOOKS = {  # objective -> what its gaps are called, their colour and marker
    "surrogate": ("surrogate", "score", "s"),
    "surrogate, value baseline": ("surrogate, value baseline", "control", "D"),
    "DiCE": ("DiCE, three forms", "costate", "o"),
}


def draw_hessians(figure: Any, entries: pd.DataFrame, gaps: pd.DataFrame) -> None:
    """Four matrices in one colour scale, and one strip of gaps for each world.

    Args:
        figure: where to draw.
        entries: rows with all entries of a Hessian for each objective, columns `row` and `column`.
        gaps: rows with the relative gap of an objective's Hessian in a world, column `policy`.
    """
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    _draw_matrices(left, entries)
    _draw_gaps(right, gaps)
    legend_above(figure, right)


def _draw_matrices(axis: Any, rows: pd.DataFrame) -> None:
    """All matrices on one axis, two by two, each under its name; entries beyond the exact ones have the colours of the ends."""
    tables = {} if rows.empty else {name: _matrix(rows[rows["objective"] == name]) for name in _SHOWN}
    if not tables or not all(table.size for table in tables.values()):
        no_rows(axis)
        return
    size, limit = len(tables["exact"]), np.abs(tables["exact"]).max()
    step = 1.25 * size
    for name, (title, (i, j)) in _SHOWN.items():
        x, y = j * step, i * step
        look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
        axis.imshow(tables[name], extent=(x, x + size, y + size, y), **look)
        axis.add_patch(Rectangle((x, y), size, size, fill=False, color="0.5", lw=1))
        axis.annotate(title, (x + size / 2, y), (0, 4), textcoords="offset points", ha="center", va="bottom")
    axis.set(xlim=(-0.05 * size, step + 1.05 * size), ylim=(step + 1.05 * size, -0.25 * size), xticks=[], yticks=[])
    axis.set(title="the same table, differentiated twice", aspect="equal")
    axis.grid(visible=False)
    for side in axis.spines.values():
        side.set_visible(False)


def _matrix(rows: pd.DataFrame) -> np.ndarray:
    return np.asarray(rows.pivot_table(index="row", columns="column", values="measured"))


def _draw_gaps(axis: Any, rows: pd.DataFrame) -> None:
    """One strip for each world, filled for tables and open for transformers; the forms of DiCE share their marks."""
    if rows.empty:
        no_rows(axis)
        return
    worlds = list(dict.fromkeys(rows["world"]))
    for i, (objective, (name, colour, marker)) in enumerate(_LOOKS.items()):
        own = rows[rows["objective"].str.startswith("DiCE") if objective == "DiCE" else rows["objective"] == objective]
        for policy, shift, fill in (("table", -0.07, COLOURS[colour]), ("transformer", 0.07, "none")):
            some = own[own["policy"].str.startswith(policy)]
            places = some["world"].map(worlds.index) + 0.26 * (i - 1) + shift
            label = name if policy == "table" else None
            axis.plot(
                some["measured"], places, marker, color=COLOURS[colour], mfc=fill, ms=7, label=label, clip_on=False
            )
    axis.plot([], [], "o", color="0.4", mfc="none", ms=7, label="open: transformer, at layer1")
    axis.axvline(0, label="exact", **EXACT)
    axis.set(yticks=range(len(worlds)), yticklabels=worlds, ylim=(len(worlds) - 0.5, -0.5))
    axis.set(xlabel="|gap| / |Hessian|", title="gap to the Hessian, by world")
    log_with_zero(axis, rows["measured"], "x", 1e-10)
    axis.grid(visible=False, axis="y")
