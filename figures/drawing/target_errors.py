"""The drawing of the claim about value-gradient learning: bias and variance of targets against lambda."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {"bias^2": ("costate", "o"), "variance": ("score", "s")}
_SHOWN = ("10 % too small", "30 % too small")
_SYSTEM = "random endless"


def draw_target_errors(figure: Any, rows: pd.DataFrame, curves: pd.DataFrame) -> None:
    """A panel for each of two critics: bias and variance of one target, sampled and exact, and their sum.

    Args:
        figure: where to draw.
        rows: sampled bias and variance, with the columns system, critic and lam.
        curves: the same, exact, on a fine grid; a part's name ends with that of the rows' part.
    """
    axes = figure.subplots(1, 2, sharey=True)
    rows, curves = (with_columns(x, "system", "critic", "lam") for x in (rows, curves))
    system = _SYSTEM if _SYSTEM in set(rows["system"]) else next(iter(rows["system"]), "")
    for axis, critic in zip(axes, _SHOWN, strict=True):
        own, exact = (x[(x["system"] == system) & (x["critic"] == critic)] for x in (rows, curves))
        error_panel(axis, own, exact, f"critic {critic}")
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel(f"{system}: over E |grad V|^2")
    legend_above(figure, *axes)


def error_panel(axis: Any, rows: pd.DataFrame, curves: pd.DataFrame, title: str = "") -> Any:
    """Bias^2 and variance of the targets of one critic against lambda, and where their sum is least."""
    if rows.empty or curves.empty:
        return no_rows(axis, title)
    lines = {part: curves[curves["part"].str.endswith(part)].sort_values("lam") for part in _LOOKS}
    total = sum(line.set_index("lam")["measured"] / line.set_index("lam")["scale"] for line in lines.values())
    for part, (colour, marker) in _LOOKS.items():
        own, line = rows[rows["part"] == part], lines[part]
        bars, look = (
            2 * own["standard_error"] / own["scale"],
            {"color": COLOURS[colour], "ms": 6, "capsize": 2, "zorder": 3},
        )
        axis.errorbar(own["lam"], own["measured"] / own["scale"], bars, fmt=marker, label=f"{part}, sampled", **look)
        axis.plot(line["lam"], line["measured"] / line["scale"], **EXACT)
    axis.plot(total.index, total, color=COLOURS["score_value"], lw=2, label="squared error, the sum")
    best = float(total.idxmin())
    axis.plot(
        best, total.min(), "v", color=COLOURS["score_value"], ms=9, mfc="white", mew=2, zorder=4, label="its minimum"
    )
    axis.plot([], [], label="exact", **EXACT)
    axis.set(xlabel="lambda", title=f"{title}:\nleast squared error at lambda = {best:.2g}")
    return axis
