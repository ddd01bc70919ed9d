"""What closed attention edges cost: shares of the value gradient at the prompt, and along the prefix."""

from typing import Any

import pandas as pd

from figures.drawing.line_names import LineEnd, name_lines
from figures.drawing.panels import legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT, MARKERS

_HUES = ("costate", "score", "score_value", "control", "critic")
_KINDS = {  # how the name of a closing begins -> name in the legend, colour, marker, size, whether it is open
    "all": ("all edges closed", "control", "o", 8, False),
    "longer": ("long edges", "reference", ">", 5, True),
    "layer": ("one layer", "reference", "s", 5, True),
    "head": ("one head", "reference", "D", 4.5, True),
}


def draw_lost_shares(figure: Any, shares: pd.DataFrame, rounding: float) -> None:
    """Left, the share lost at the prompt in every world, by what is closed; right, with all closed, along the prefix.

    Args:
        figure: where to draw.
        shares: share lost as `measured`, with the columns world, trained, closed and k (length of the prefix).
        rounding: a smaller share is nothing.
    """
    left, right = figure.subplots(1, 2, width_ratios=(6, 5))
    prompt_panel(left, shares[shares["k"] == 0], rounding)
    lengths_panel(right, shares[shares["closed"] == "all"], rounding)
    legend_above(figure, left)


def prompt_panel(axis: Any, shares: pd.DataFrame, rounding: float) -> Any:
    """A line for every world and policy, the largest loss on top; every closing is a mark at the share that it costs.

    Args:
        axis: where to draw.
        shares: of the prompt alone.
        rounding: as in `draw_lost_shares`.
    """
    if shares.empty:
        return no_rows(axis)
    policy = shares["trained"].map({True: "trained", False: "random"})
    names = shares["world"].str.split(" ").str[0] + ", " + policy
    largest = shares["measured"].where(shares["closed"] == "all", 0).groupby(names).max()
    order = list(largest.sort_values(kind="stable").index)
    for start, (label, colour, marker, size, open_) in reversed(_KINDS.items()):
        own = shares["closed"].str.startswith(start)
        look: dict[str, Any] = {"color": COLOURS[colour], "ms": size, "mfc": "none" if open_ else None}
        if own.any():
            axis.plot(shares["measured"][own], [order.index(n) for n in names[own]], marker, label=label, **look)
    axis.axvline(0, label="nothing lost", **EXACT)
    axis.set_yticks(range(len(order)), order, fontsize="small")
    axis.set(ylim=(-0.6, len(order) - 0.4), xlabel="share of grad V lost at the prompt")
    axis.set_title(_told(shares[shares["closed"] == "all"], rounding))
    return axis


def _told(shares: pd.DataFrame, rounding: float) -> str:
    """The smallest and the largest loss with all edges closed, and the worlds where nothing is lost."""
    lost = shares.groupby(shares["world"].str.split(" ").str[0], sort=False)["measured"].max()
    some, none = shares["measured"][shares["measured"] > rounding], list(lost.index[lost <= rounding])
    told = [f"lost: {some.min():.0%} to {some.max():.0%}"] if len(some) else []
    return "; ".join([*told, *([f"{' and '.join(none)}: nothing"] if none else [])])


def lengths_panel(axis: Any, shares: pd.DataFrame, rounding: float) -> Any:
    """With all edges closed, the mean over policies against the length of the prefix, a line for every world.

    Args:
        axis: where to draw.
        shares: with all edges closed.
        rounding: as in `draw_lost_shares`.
    """
    if shares.empty:
        return no_rows(axis)
    table, ends = shares.groupby(["world", "k"], sort=False)["measured"].mean(), []
    for i, world in enumerate(dict.fromkeys(shares["world"])):
        line, colour = table[world].sort_index(), COLOURS[_HUES[i % len(_HUES)]]
        axis.plot(line.index, line, MARKERS[i % len(MARKERS)] + "-", color=colour, ms=5)
        ends.append(LineEnd(line.index[0], line.iloc[0], world.split(" ")[0], colour))
    axis.axhline(0, **EXACT)
    axis.xaxis.get_major_locator().set_params(integer=True)
    last = [table[world].sort_index().iloc[-1] for world in dict.fromkeys(shares["world"])]
    free = sum(share <= rounding for share in last)
    axis.set(xlabel="tokens in the prefix", ylabel="share lost, all edges closed")
    axis.set_title(f"before the end: nothing lost in {free} of {len(last)}")
    name_lines(axis, ends, room=0.4, side="left")
    return axis
