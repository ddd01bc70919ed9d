"""The drawing of the claim about power sampling: how far its law is from the power of p, and how often texts end."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.scales import log_with_zero
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {"with the factor |x| / |y|": ("costate", "o"), "published end-token rule": ("control", "s")}
_STEPS = "steps N (0: temperature 1 / alpha)"


def draw_power_sampling(figure: Any, away: pd.DataFrame, drawn: pd.DataFrame) -> None:
    """Total variation from the power of p by the number of steps, and how often texts of one world end.

    Args:
        figure: where to draw.
        away: rows with the distance of Algorithm 1's law from the power, and how often texts end under both.
        drawn: rows with means over drawn texts.
    """
    left, right = figure.subplots(1, 2)
    away = with_columns(away, "block", "steps", "chain", "ended", "power_ended")
    rows = _in_one_block(away)
    if rows.empty:
        no_rows(left)
        no_rows(right)
        return
    _draw_distances(left, rows)
    _draw_ends(right, rows, with_columns(drawn, "block", "steps", "chain", "of"))
    legend_above(figure, left, right)


def _in_one_block(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one block as long as the world's texts, at the largest power, where there is an end token if anywhere."""
    rows = rows[
        (rows["alpha"] == rows["alpha"].max()) & (rows["block"] == rows.groupby("world")["block"].transform("max"))
    ]
    ends = set(rows[rows["chain"] == "published end-token rule"]["world"])
    return rows[rows["world"].isin(ends)] if ends else rows


def _draw_distances(axis: Any, rows: pd.DataFrame) -> None:
    """One line for each world and seed and chain."""
    for chain, (colour, marker) in _LOOKS.items():
        for _, own in rows[rows["chain"] == chain].groupby(["world", "seed"]):
            own = own[~own["enough"].astype(bool)].sort_values("steps")
            axis.plot(own["steps"], own["measured"], "-", marker=marker, color=COLOURS[colour], lw=1.2, ms=4, alpha=0.8)
        axis.plot([], [], "-", marker=marker, color=COLOURS[colour], label=chain)
    axis.axhline(0, label="exact: p^alpha / Z", **EXACT)
    axis.set(xlabel=_STEPS, ylabel="total variation from the power", title=_what_is_left(rows))
    log_with_zero(axis, rows["steps"][~rows["enough"].astype(bool)], "x")
    axis.set_ylim(-0.04, 1.04)


def _what_is_left(rows: pd.DataFrame) -> str:
    """The largest distance of one chain and the least of the other at the end of the axis."""
    shown = rows[~rows["enough"].astype(bool)]
    last = shown[shown["steps"] == shown["steps"].max()]
    right, wrong = (last[last["chain"] == chain]["measured"] for chain in _LOOKS)
    against = f" against {wrong.min():.2f} or more" if len(wrong) else ""
    return f"N = {shown['steps'].max():g}: {right.max():.2f}{against}"


def _draw_ends(axis: Any, rows: pd.DataFrame, drawn: pd.DataFrame) -> None:
    """How often a text of the first world and seed says the end token: exact lines, points with two standard errors."""
    first = rows.iloc[0]
    one = rows[_same(rows, first)]
    seen = drawn[_same(drawn, first) & (drawn["of"] == "says the end token")]
    for chain, (colour, marker) in _LOOKS.items():
        own = one[(one["chain"] == chain) & ~one["enough"].astype(bool)].sort_values("steps")
        points = seen[seen["chain"] == chain]
        axis.plot(own["steps"], own["ended"], "-", color=COLOURS[colour], lw=1.5)
        look = {"fmt": marker, "color": COLOURS[colour], "ms": 6, "capsize": 2}
        axis.errorbar(points["steps"], points["measured"], 2 * points["standard_error"], **look)
    axis.axhline(first["power_ended"], **EXACT)
    axis.set(
        xlabel=_STEPS,
        ylabel="texts that say the end token (share)",
        title=f"{first['world']}, alpha = {first['alpha']:g}",
    )
    log_with_zero(axis, one["steps"][~one["enough"].astype(bool)], "x")
    axis.set_ylim(-0.04, 1.04)


def _same(rows: pd.DataFrame, first: pd.Series) -> Any:
    """Rows of the point that `first` belongs to."""
    return (rows[["world", "alpha", "seed", "block"]] == first[["world", "alpha", "seed", "block"]]).all(axis=1)
