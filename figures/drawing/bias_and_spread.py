"""Bias and spread of relaxed costates, and the error that follows from both: data and a figure in, panels out."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from figures.drawing.line_names import LineEnd, name_lines
from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {  # costate -> name, colour, marker
    "straight_through": ("straight-through", "costate", "o"),
    "reinmax": ("ReinMax", "control", "s"),
    "soft": ("soft", "score_value", "^"),
    "gumbel": ("Gumbel", "critic", "D"),
    "score": ("score E2", "score", "v"),
}
_PARTS = ("spread", "sampled bias")
_CASE = ("world", "temperature", "seed")


def draw_bias_and_spread(rows: pd.DataFrame, figure: Any) -> None:
    """Exact bias against alpha and against temperature; the error of a mean of samples against their number.

    Args:
        rows: parts "bias" (exact), "spread" and "sampled bias", all in units of the value gradient, with columns costate,
            alpha, temperature and tau_g.
        figure: where to draw.
    """
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 3, 4))
    rows = with_columns(rows, "costate", "alpha", "tau_g", "standard_error", *_CASE)
    bias = rows[rows["part"] == "bias"]
    bias_panel(left, bias, "alpha")
    left.set_ylabel("|bias| / |grad V|")
    own = bias[bias["alpha"] == (bias["costate"] != "soft")]
    bias_panel(middle, own, "temperature")
    error_panel(right, rows[rows["part"].isin(_PARTS)])


def bias_panel(axis: Any, rows: pd.DataFrame, x: str) -> Any:
    """Medians over worlds and policies against one column, a line for every costate with its name at the end; 0 dashed."""
    if rows.empty:
        return no_rows(axis)
    medians, ends = rows.groupby(["costate", x])["measured"].median(), []
    if x == "temperature":
        axis.set_xscale("log", subs=[])
    for costate in dict.fromkeys(rows["costate"]):
        (name, colour, marker), line = _LOOKS[str(costate)], medians[costate]
        axis.plot(line.index, line, marker + "-", color=COLOURS[colour], ms=5)
        end = LineEnd(line.index[-1], line.iloc[-1], name, COLOURS[colour])
        if end.x == rows[x].max():
            ends.append(end)
        else:
            look: dict[str, Any] = {"textcoords": "offset points", "fontsize": "small", "color": end.colour}
            axis.annotate(name, (end.x, end.y), xytext=(6, 4), **look)
    axis.axhline(0, **EXACT)
    axis.set(xlabel=x, title=f"exact bias by {x}:\n{_range(medians, rows[x], x)}")
    if x == "temperature":
        at = sorted(rows[x].unique())
        axis.set_xticks(at, [f"{t:g}" for t in at], rotation=60 if len(at) > 5 else 0)
        axis.minorticks_off()
    else:
        axis.set_xticks(sorted(rows[x].unique()))
    name_lines(axis, ends, room=0.75)
    return axis


def _range(medians: pd.Series, values: pd.Series, x: str) -> str:
    """The smallest and the largest median bias, at alpha = 1 where the axis is alpha."""
    shown = medians[medians.index.get_level_values(1) == values.max()] if x == "alpha" else medians
    at = f" at {x} = {values.max():g}" if x == "alpha" else ""
    return f"{shown.min():.0%} to {shown.max():.0%}{at}"


def error_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Root-mean-square error of a mean of n samples, `sqrt(bias^2 + spread^2 / n)`, against n: medians over the cases.

    Args:
        axis: where to draw.
        rows: parts "spread" and "sampled bias"; of the square of the latter that of its standard error, which it has by chance,
            is taken off.
    """
    lines = _errors(rows)
    if lines.empty:
        return no_rows(axis)
    ends = []
    for (costate, tau_g), line in lines.iterrows():
        colour = COLOURS[_LOOKS[str(costate)][1]]
        axis.plot(lines.columns, line, color=colour, lw=2 if costate == "score" else 1.4)
        ends.append(LineEnd(lines.columns[-1], float(line.iloc[-1]), _name(costate, float(tau_g)), colour))
    axis.set(xscale="log", yscale="log", xlabel="samples that are averaged", ylabel="rms error / |grad V|")
    axis.set_title(_best(lines))
    axis.yaxis.set_minor_formatter(NullFormatter())
    name_lines(axis, ends, room=0.75)
    return axis


def _errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors by (costate, tau_g), a column for each number of samples: powers of 2, no more than were drawn."""
    keys = [*_CASE, "costate", "tau_g"]
    table = rows.groupby([*keys, "part"], dropna=False)[["measured", "standard_error"]].median()
    spread, bias = (table[table.index.get_level_values("part") == part].droplevel("part") for part in _PARTS)
    both = bias.assign(spread=spread["measured"]).dropna()
    if both.empty:
        return pd.DataFrame()
    square = (both["measured"] ** 2 - both["standard_error"] ** 2).clip(lower=0)
    sizes = [2**i for i in range(int(rows["samples"].max()).bit_length())]
    errors = {n: np.sqrt(square + both["spread"] ** 2 / n) for n in sizes}
    return pd.DataFrame(errors).groupby(level=["costate", "tau_g"]).median()


def _name(costate: Any, tau_g: float) -> str:
    name = _LOOKS[str(costate)][0]
    return f"{name} {tau_g:g}" if costate == "gumbel" else name


def _best(lines: pd.DataFrame) -> str:
    """Which costate has the smallest error with one sample, and which with as many as were drawn."""
    first, last = lines.columns[0], lines.columns[-1]
    return (
        f"least error, {first} sample: {_name(*lines[first].idxmin())};\n{last} samples: {_name(*lines[last].idxmin())}"
    )
