"""The drawing of the claim about the KL optimum: ways on the simplex of three tokens, and how far each end is off."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import legend_above, no_rows
from figures.drawing.scales import log_with_zero
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {
    "k1 in the reward": ("costate", "o"),
    "k3 in the loss": ("control", "s"),
    "token by token": ("score_value", "^"),
}
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])


def draw_ends(figure: Any, paths: pd.DataFrame, ends: pd.DataFrame) -> None:
    """Two ways from one policy on the simplex; the distance of every end from the optimum, by world.

    Args:
        figure: where to draw.
        paths: rows with the probability of every token at every step of a penalty's way.
        ends: rows with the distance of an end from the law that it is compared with.
    """
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _draw_simplex(left, paths)
    _draw_distances(right, ends)
    legend_above(figure, right, left)


def _draw_simplex(axis: Any, rows: pd.DataFrame) -> None:
    """The ways of the smallest coefficient and seed, with their common start and their two ends."""
    if rows.empty:
        no_rows(axis)
        return
    first = rows[(rows["beta"] == rows["beta"].min()) & (rows["seed"] == rows["seed"].min())]
    axis.plot(*np.vstack([_CORNERS, _CORNERS[:1]]).T, color="0.5", lw=1)
    ways = {}
    for penalty, own in first.groupby("penalty", sort=False):
        laws = own.pivot_table(index="step", columns="token", values="measured").to_numpy()
        colour, marker = _LOOKS[str(penalty)]
        ways[penalty] = laws @ _CORNERS
        axis.plot(*ways[penalty].T, "-", color=COLOURS[colour], lw=1.5)
        axis.plot(*ways[penalty][-1:].T, marker, color=COLOURS[colour], ms=9)
    start = next(iter(ways.values()))[0]
    axis.plot(*start, "o", color="0.2", ms=6, mfc="white", label="start of both (left)")
    for token, corner in enumerate(_CORNERS):
        axis.annotate(
            f"token {token}",
            corner,
            (0, 6 if token == 2 else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if token == 2 else "top",
        )
    axis.set(aspect="equal", xticks=[], yticks=[], title=f"one start, two ends (b = {first['beta'].iloc[0]:g})")
    for side in axis.spines.values():
        side.set_visible(False)
    axis.margins(0.12)


def _draw_distances(axis: Any, rows: pd.DataFrame) -> None:
    """One strip for each world; the point of k3 is its distance from the optimum, not from its own end."""
    if rows.empty:
        no_rows(axis)
        return
    worlds = list(dict.fromkeys(rows["world"]))
    for i, (penalty, (colour, marker)) in enumerate(_LOOKS.items()):
        own = rows[rows["penalty"] == penalty]
        places = own["world"].map(worlds.index) + 0.2 * (i - 1)
        axis.plot(own["measured"], places, marker, color=COLOURS[colour], ms=7, label=penalty, clip_on=False)
    axis.set(yticks=range(len(worlds)), yticklabels=worlds, ylim=(len(worlds) - 0.5, -0.5))
    axis.set(xlabel="total variation from pi*", title="distance of the ends, every b")
    axis.axvline(0, label="the optimum pi*", **EXACT)
    log_with_zero(axis, rows["measured"], "x", 1e-8)
    axis.grid(visible=False, axis="y")
