"""Bias and spread of relaxed costates: data and a figure in, panels out."""

from typing import Any

import pandas as pd
from matplotlib.ticker import NullFormatter

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {  # costate -> name, colour, marker
    "straight_through": ("straight-through", "costate", "o"),
    "reinmax": ("ReinMax", "control", "s"),
    "soft": ("soft", "score_value", "^"),
    "gumbel": ("Gumbel", "critic", "D"),
    "score": ("score E2", "score", "v"),
}


def draw_bias_and_spread(rows: pd.DataFrame, figure: Any) -> None:
    """Exact bias against alpha and against temperature; spread against bias of single samples.

    Args:
        rows: parts "bias" (exact), "spread" and "sampled bias", all in units of the value gradient, with columns costate,
            alpha, temperature and tau_g.
        figure: where to draw.
    """
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 3, 4))
    rows = with_columns(rows, "costate", "alpha", "tau_g")
    bias = rows[rows["part"] == "bias"]
    _draw_bias(left, bias, "alpha")
    left.set_ylabel("|bias| / |grad V|")
    _draw_bias(middle, bias[bias["alpha"] == (bias["costate"] != "soft")], "temperature")
    temperatures = sorted(bias["temperature"].unique())
    if temperatures:
        middle.set_xscale("log", subs=[])
        middle.set_xticks(temperatures, [f"{t:g}" for t in temperatures], rotation=60 if len(temperatures) > 5 else 0)
    _draw_spread(right, rows[rows["part"].isin(("spread", "sampled bias"))])
    legend_above(figure, left, right)


def _draw_bias(axis: Any, rows: pd.DataFrame, x: str) -> None:
    """Medians over worlds and policies, one line per costate."""
    if rows.empty:
        no_rows(axis)
        return
    for costate, group in rows.groupby("costate", sort=False):
        name, colour, marker = _LOOKS[str(costate)]
        median = group.groupby(x)["measured"].median()
        axis.plot(median.index, median, marker + "-", color=COLOURS[colour], ms=5, label=name)
    axis.axhline(0, label="unbiased", **EXACT)
    axis.set(xlabel=x, title=f"exact bias by {x}")


def _draw_spread(axis: Any, rows: pd.DataFrame) -> None:
    """Medians of (bias, spread), one point per costate and tau_g; the Gumbel points carry their tau_g."""
    if rows.empty:
        no_rows(axis)
        return
    points = rows.pivot_table(index=["costate", "tau_g"], columns="part", values="measured", aggfunc="median")
    points = points.reindex(columns=["spread", "sampled bias"])
    for costate, group in points.sort_index().groupby("costate"):
        (name, colour, marker), x, y = _LOOKS[str(costate)], group["sampled bias"], group["spread"]
        axis.plot(x, y, marker + ":", color=COLOURS[colour], ms=7, label=name)
        if costate == "gumbel":
            for (_, tau_g), point in zip(group.index, zip(x, y, strict=True), strict=True):
                axis.annotate(f"{float(tau_g):g}", point, textcoords="offset points", xytext=(6, 4), fontsize="small")
    axis.set(xlabel="|mean of samples - grad V| / |grad V|", ylabel="sd of one sample / |grad V|")
    axis.set(xscale="log", yscale="log", xlim=(0.009, 2), title="bias and spread, sampled")
    axis.xaxis.set_minor_formatter(NullFormatter())
