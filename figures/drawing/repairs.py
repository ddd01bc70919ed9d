"""The drawing of the claim about DeepSeek-V3.2's repairs: the angle with each of them against the angle without."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.scales import log_with_zero
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {
    "rho in the KL term": ("costate", "o"),
    "sets of top-p kept": ("score_value", "^"),
    "off-policy mask": ("control", "x"),
}
_EXACT_BELOW = 1e-5  # degrees: smaller angles are rounding


def draw_repairs(figure: Any, rows: pd.DataFrame) -> None:
    """One mark for each update: the angle to the truth with a repair over the angle without it, in degrees.

    Args:
        figure: where to draw.
        rows: with the columns repair, without and angle.
    """
    axis = figure.subplots()
    rows = with_columns(rows, "repair", "without", "angle")
    rows = rows[rows["without"] > _EXACT_BELOW]  # where there was nothing to repair there is no mark
    if rows.empty:
        no_rows(axis)
        return
    angles = rows["angle"].where(rows["angle"] > _EXACT_BELOW, 0.0)
    for repair, (colour, marker) in _LOOKS.items():
        own = rows["repair"] == repair
        axis.plot(
            rows["without"][own], angles[own], marker, color=COLOURS[colour], ms=7, mew=1.5, alpha=0.8, label=repair
        )
    ends = [float(rows["without"].min()), 180.0]
    axis.plot(ends, ends, "-", color="0.6", lw=1, zorder=0, label="no change")
    axis.axhline(0, label="exact", **EXACT)
    axis.set(xlabel="angle without the repair (degrees)", ylabel="angle with it (degrees)", xscale="log")
    log_with_zero(axis, [*angles, *ends])
    legend_above(figure, axis)
