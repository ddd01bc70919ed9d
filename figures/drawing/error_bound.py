"""Shares of the error bound that are reached, tier by tier and world by world: data and a figure in, panels out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT
from figures.measures.attention_errors import E1, E1B, READOUT, ZERO

_COSTATES = {  # name, colour, marker
    E1: ("E1, alpha < 1", "costate", "o"),
    E1B: ("E1b", "score_best", "s"),
    READOUT: ("E1, hidden readout", "attention", "^"),
    ZERO: ("E1 = 0: its error is |grad V|", "reference", "x"),
}
_TIERS = {1: "tier 1", 2: "tier 2", 3: "tier 3"}
_CONTROL = "half of tier 2\n(control)"


def draw_bounds(figure: Any, within: pd.DataFrame, half: pd.DataFrame) -> None:
    """Error over bound, a strip for every tier and for half of tier 2; of tier 2, a strip for every world.

    Args:
        figure: where to draw.
        within: rows with the error as `measured` and the bound of the column `tier` as `target`.
        half: the same with half of tier 2.
    """
    within, half = (with_columns(rows, "tier", "costate", "world") for rows in (within, half))
    tiers = within.assign(strip=within["tier"].map(_TIERS))
    left, right = figure.subplots(1, 2)
    strips = [name for name in _TIERS.values() if name in set(tiers["strip"])] + [_CONTROL] * bool(len(half))
    _draw_strips(left, pd.concat([tiers, half.assign(strip=_CONTROL)]), strips, _title(within))
    second = within[within["tier"] == 2]
    _draw_strips(right, second.assign(strip=second["world"]), list(dict.fromkeys(second["world"])), "tier 2 by world")
    legend_above(figure, left)


def _title(within: pd.DataFrame) -> str:
    largest = (within["measured"] / within["target"]).max()
    return f"no tier is exceeded: at most {largest:.3g}" if largest < 1 + 1e-6 else "error over bound"


def _draw_strips(axis: Any, rows: pd.DataFrame, strips: Sequence[str], title: str) -> None:
    """Shares of the bound, a strip for each value of the column `strip`, a lane in it for every costate."""
    if rows.empty:
        no_rows(axis, title)
        return
    for i, (costate, (name, colour, marker)) in enumerate(_COSTATES.items()):
        own = rows[rows["costate"] == costate]
        at = own["strip"].map(list(strips).index) + 0.2 * (i - 1.5)
        look = {"color": COLOURS[colour], "ms": 5, "alpha": 0.7}
        axis.plot(own["measured"] / own["target"], at, marker, label=name if len(own) else None, **look)
    axis.axvline(1, label="error = bound", **EXACT)
    axis.set(xlim=(-0.03, None), ylim=(len(strips) - 0.5, -0.5), xlabel="error / bound", title=title)
    axis.set_yticks(range(len(strips)), strips)
    axis.set_yticks(np.arange(0.5, len(strips) - 1), minor=True)
    axis.grid(visible=False, axis="y")
    axis.grid(visible=True, axis="y", which="minor")
