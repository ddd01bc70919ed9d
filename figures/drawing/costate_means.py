"""Mean costates on the value gradient: along the mean path from one start, and every moment in standard errors."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import deviations_panel, legend_above, no_rows, standardised, with_columns
from figures.drawing.style import COLOURS, EXACT
from figures.harness.statistics import critical_value


def draw_means(figure: Any, rows: pd.DataFrame, shown: str, whole: str, cut: str) -> None:
    """A column for each system: above, mean costates from one start on the value gradient; below, all deviations.

    Args:
        figure: where to draw.
        rows: of the claim; those of the part `shown` have mean costates as `measured`, the value gradient as `target`, and the
            column shown, which is `whole` or `cut`.
        shown: part of the rows for the upper panels.
        whole: part of the deviations of the total derivative.
        cut: part of the deviations of the control.
    """
    rows = with_columns(rows, "system", "t", "shown")
    systems = list(dict.fromkeys(rows["system"].dropna())) or [""]
    above, below = figure.subplots(2, len(systems), squeeze=False, height_ratios=(1.1, 1))
    for axis, lower, system in zip(above, below, systems, strict=True):
        own = rows[rows["system"] == system]
        judged = own[own["part"].isin((whole, cut))]
        means_panel(axis, own[own["part"] == shown], {whole: ("costate", "o"), cut: ("control", "x")})
        axis.set_title(system)
        deviations_panel(lower, judged, "t", judged[judged["part"] == whole])
        if len(judged):
            lower.set(xlabel="time t", title=_told(judged, whole, cut))
    above[0].set_ylabel("costate from one start")
    below[0].set_ylabel("all moments of the gap\n(standard errors)")
    _one_scale([axis for axis in below if axis.lines])
    legend_above(figure, *above)


def means_panel(axis: Any, rows: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> Any:
    """The value gradient (dashed) against time, and mean costates with two standard errors.

    Args:
        axis: where to draw.
        rows: with the columns t and shown, a key of `looks`.
        looks: kind -> (name of its colour, marker).
    """
    if rows.empty:
        return no_rows(axis)
    exact = rows.drop_duplicates("t").sort_values("t")
    axis.plot(exact["t"], exact["target"], label="exact value gradient", zorder=5, **EXACT)
    for i, (kind, (colour, marker)) in enumerate(looks.items()):
        own = rows[rows["shown"] == kind]
        if len(own):
            look: dict[str, Any] = {"color": COLOURS[colour], "ms": 5, "mew": 1.2, "capsize": 1.5, "lw": 1}
            bars = 2 * own["standard_error"]
            axis.errorbar(
                own["t"],
                own["measured"],
                bars,
                fmt=marker,
                alpha=0.85,
                label=f"mean costate, {kind}",
                zorder=4 - i,
                **look,
            )
    return axis


def _one_scale(axes: list[Any]) -> None:
    """The same y limits for all: not a shared axis, for the rows of panels have different ones."""
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _told(rows: pd.DataFrame, whole: str, cut: str) -> str:
    """How many of the moments lie outside the grey band, of both parts."""
    judged = rows[rows["part"] == whole]
    if judged.empty:
        return ""
    band = float(np.max(critical_value(len(judged), judged["samples"])))
    told = []
    for part, name in ((whole, ""), (cut, "cut ")):
        own = rows[rows["part"] == part]
        if len(own):
            told.append(f"{name}{int((np.abs(standardised(own)) > band).sum())}/{len(own)}")
    return "off: " + ",\n".join(told)
