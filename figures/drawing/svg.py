"""The drawing of the claim about stochastic value gradients: spread by sampled steps, a wrong model's error in two parts."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT, MARKERS

_LOOKS = {"symmetric": ("costate", "symmetric part"), "curl": ("control", "curl")}


def draw_svg(figure: Any, spread: pd.DataFrame, shares: pd.DataFrame) -> None:
    """Spread of SVG(k) with the exact curve; both parts of the real paths' error over the imagined paths' error.

    Args:
        figure: where to draw.
        spread: rows with the variance of SVG(steps) in units of SVG(0), by case; the target is exact.
        shares: rows with a part of the error over the error of imagined paths, by case and size of the model's error.
    """
    left, right = figure.subplots(1, 2)
    cases = list(dict.fromkeys([*spread.get("case", []), *shares.get("case", [])]))
    markers = {case: MARKERS[i % len(MARKERS)] for i, case in enumerate(cases)}
    _spread(left, spread, markers)
    _shares(right, shares, markers)
    legend_above(figure, left, right)


def _spread(axis: Any, rows: pd.DataFrame, markers: dict[str, str]) -> None:
    if rows.empty:
        no_rows(axis, "spread")
        return
    steps = list(dict.fromkeys(rows["steps"]))
    for case, own in rows.groupby("case", sort=False):
        x = own["steps"].map(steps.index)
        axis.errorbar(
            x,
            own["measured"],
            2 * own["standard_error"],
            fmt=markers[str(case)],
            color=COLOURS["costate"],
            ms=7,
            label=case,
        )
        axis.plot(x, own["target"], **EXACT)
    axis.plot([], [], label="exact", **EXACT)
    last = rows[rows["steps"] == steps[-1]]["target"]
    axis.set(xticks=range(len(steps)), xticklabels=steps, xlabel="sampled steps k before the critic", ylim=(0, None))
    axis.set(ylabel="added variance / variance of SVG(0)")
    axis.set_title(f"all sampled steps add {last.min():.0%} to {last.max():.0%} variance")
    axis.grid(visible=False, axis="x")


def _shares(axis: Any, rows: pd.DataFrame, markers: dict[str, str]) -> None:
    if rows.empty:
        no_rows(axis, "a wrong model")
        return
    for what, (colour, name) in _LOOKS.items():
        for case, own in rows[rows["what"] == what].groupby("case", sort=False):
            axis.plot(own["size"], own["measured"], markers[str(case)] + "-", color=COLOURS[colour], ms=6, lw=1)
        axis.plot([], [], "-", lw=4, color=COLOURS[colour], label=f"{name} (right)")
    axis.axhline(0.5, **EXACT)
    axis.set(xscale="log", xlabel="error of the model, share of the closed loop", ylim=(-0.03, None))
    least = rows[(rows["size"] == rows["size"].min()) & (rows["what"] == "symmetric")]["measured"]
    axis.set(ylabel="error on real paths / on imagined paths")
    axis.set_title(f"a wrong model on real paths:\n{least.mean():.0%} of the symmetric error, and a curl")
