"""An attention policy's costate along a path: its two parts, what is lost with attention closed, and by how much."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT

OPEN, CLOSED, DYNAMICS, ATTENTION = "attention open", "attention closed", "through the dynamics", "through attention"
_DOTTED = {"linestyle": ":", "linewidth": 1.6}


def draw_attention_path(figure: Any, shown: pd.DataFrame, bias: pd.DataFrame, exact: pd.DataFrame) -> None:
    """Three panels: attention open, attention closed, bias by strength. Paths are drawn at the strongest attention.

    Args:
        figure: where to draw.
        shown: costates along the mean path from one start, with the columns pull, t, i (component) and shown.
        bias: measured sizes of the bias of the closed costate at t = 0, with the column pull.
        exact: their exact sizes.
    """
    left, middle, right = figure.subplots(1, 3)
    pull = shown["pull"].max()
    shown = shown[shown["pull"] == pull]
    largest = shown.loc[shown["target"].abs().idxmax(), "i"] if len(shown) else 0
    shown = shown[shown["i"] == largest]
    parts_panel(left, shown)
    closed_panel(middle, shown)
    bias_panel(right, bias, exact)
    left.set(title="attention open", ylabel="costate from one start")
    middle.set(title="attention closed")
    for axis in (left, middle):
        axis.set_xlabel(f"time t (pull {pull:g})")
    right.set(title="bias, attention closed", xlabel="pull of the past", ylabel="bias / |grad V|, t = 0")
    legend_above(figure, left, middle)


def parts_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """The value gradient along the mean path (dashed) as the sum of its parts (bars), sampled mean costates over it.

    Args:
        axis: where to draw.
        rows: of one component, with the columns t and shown.
    """
    if rows.empty:
        return no_rows(axis)
    table = rows.pivot_table(index="t", columns="shown", values="target")
    axis.bar(table.index, table[DYNAMICS], color=COLOURS["dynamics"], alpha=0.55, width=0.8, label=DYNAMICS)
    axis.bar(
        table.index,
        table[ATTENTION],
        bottom=table[DYNAMICS],
        color=COLOURS["attention"],
        alpha=0.55,
        width=0.8,
        label=ATTENTION,
    )
    axis.plot(table.index, table[OPEN], label="exact grad V", **EXACT)
    _sampled(axis, rows[rows["shown"] == OPEN], "costate", "o")
    return axis


def closed_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Mean costates with attention closed over their exact values (dotted), beside the value gradient (dashed)."""
    if rows.empty:
        return no_rows(axis)
    table = rows.pivot_table(index="t", columns="shown", values="target")
    axis.plot(table.index, table[OPEN], label="exact grad V", **EXACT)
    axis.plot(table.index, table[CLOSED], color=COLOURS["closed"], label="exact, attention closed", **_DOTTED)
    _sampled(axis, rows[rows["shown"] == CLOSED], "closed", "x")
    return axis


def _sampled(axis: Any, rows: pd.DataFrame, colour: str, marker: str) -> None:
    look: dict[str, Any] = {"color": COLOURS[colour], "ms": 6, "mew": 1.5, "capsize": 2, "zorder": 3}
    name = f"mean costate, {rows['shown'].iloc[0]}"
    axis.errorbar(rows["t"], rows["measured"], 2 * rows["standard_error"], fmt=marker, label=name, **look)


def bias_panel(axis: Any, bias: pd.DataFrame, exact: pd.DataFrame) -> Any:
    """Bias of the closed path by pull, as a share of the value gradient: measured crosses over the exact line (dotted)."""
    if bias.empty:
        return no_rows(axis)
    exact = exact.sort_values("pull")
    axis.plot(exact["pull"], exact["measured"] / exact["scale"], color=COLOURS["closed"], **_DOTTED)
    look: dict[str, Any] = {"fmt": "x", "color": COLOURS["closed"], "ms": 6, "mew": 1.5, "capsize": 2}
    axis.errorbar(bias["pull"], bias["measured"] / bias["scale"], 2 * bias["standard_error"] / bias["scale"], **look)
    axis.axhline(0, **EXACT)
    return axis
