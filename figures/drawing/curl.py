"""The drawing of the claim about update fields: the curl of every recipe, by world."""

from typing import Any

import pandas as pd

from figures.drawing.panels import no_rows
from figures.drawing.style import COLOURS, EXACT, MARKERS

_GRADIENT = 1e-6  # up to here a curl is rounding


def draw_curls(axis: Any, rows: pd.DataFrame) -> Any:
    """One strip for each recipe, those without curl below; one marker for each world.

    Args:
        axis: where to draw.
        rows: with the curl of a recipe's mean update in a world.

    Returns:
        The axis.
    """
    if rows.empty:
        return no_rows(axis)
    largest = rows.groupby("recipe", sort=False)["measured"].max().sort_values(ascending=False, kind="stable")
    recipes, worlds = list(largest.index), list(dict.fromkeys(rows["world"]))
    for i, (marker, world) in enumerate(zip(MARKERS * (1 + len(worlds) // len(MARKERS)), worlds, strict=False)):
        own = rows[rows["world"] == world]
        places = own["recipe"].map(recipes.index) + 0.5 * ((i + 0.5) / len(worlds) - 0.5)
        colours = [COLOURS["costate" if x <= _GRADIENT else "control"] for x in own["measured"]]
        axis.scatter(own["measured"], places, 55, colours, marker=marker, zorder=3)
        axis.scatter([], [], 55, "0.4", marker=marker, label=world)
    axis.axvline(0, label="the gradient of something", **EXACT)
    axis.set(yticks=range(len(recipes)), yticklabels=recipes, ylim=(len(recipes) - 0.5, -0.5))
    axis.set(xlabel="curl of the mean update, |A - A'| / |A|", xlim=(-0.03, None))
    without = sum(x <= _GRADIENT for x in largest)
    axis.set_title(
        f"{without} of {len(recipes)} recipes are gradients in all worlds here (blue); red: the gradient of nothing"
    )
    axis.grid(visible=False, axis="y")
    axis.legend(loc="lower right")
    return axis
