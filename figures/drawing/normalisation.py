"""The drawing of the claim about normalisations: what breaks an update, how lengths drift, how returns are weighed."""

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd

from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT, MARKERS

_LEAST = 1e-17  # smaller numbers, 0 among them, are drawn here
_LINEAR = 0.01  # drifts up to this size are drawn on a linear scale


def bias_panel(axis: Any, rows: pd.DataFrame, breakers: Sequence[str], mended: str, limit: float) -> Any:
    """Bias and 1 - cosine of every case, with each breaker and mended, above and below the dashed limit of rounding."""
    for i, breaker in enumerate(breakers):
        for part, colour, name in ((breaker, "control", "with the breaker"), (mended, "costate", "without")):
            group = rows[(rows["part"] == part) & (rows["breaker"] == breaker)]
            shown = ((group["measured"], "o", -0.15, "bias"), (1 - group["cosine"], "^", 0.15, "1 - cosine"))
            for values, marker, shift, what in shown:
                look: dict[str, Any] = {"color": COLOURS[colour], "ms": 4.5, "alpha": 0.5}
                label = f"{what}, {name}"
                axis.plot([i + shift] * len(group), values.clip(lower=_LEAST), marker, label=label, **look)
    axis.axhline(limit, label="rounding limit", **EXACT)
    axis.set(yscale="log", title="distance from kappa grad J", xticks=range(len(breakers)))
    axis.set_xticklabels([textwrap.fill(name.replace(", lengths vary", ""), 9) for name in breakers], fontsize="small")
    return axis


def drift_panel(axis: Any, drift: pd.DataFrame) -> Any:
    """What the update adds to the drift of both mean lengths, one point a policy; grey: where free logits would lie."""
    added = with_columns(drift, "class").assign(added=drift["measured"] - drift["target"])
    if drift.empty:
        return no_rows(axis, "1/|o|: drift of E|o| added")
    table = added.pivot_table(index=["world", "seed", "ascended"], columns="class", values="added")
    table = table.reindex(columns=["success", "failure"])
    axis.plot(table["success"], table["failure"], "o", color=COLOURS["control"], ms=6, alpha=0.6)
    axis.set_xscale("symlog", linthresh=_LINEAR)
    axis.set_yscale("symlog", linthresh=_LINEAR)
    size = 2 * float(table.abs().max().max())
    least = min(-2 * _LINEAR, 2 * float(table["failure"].min()))
    axis.set(xlim=(-size, size), ylim=(least, size), xlabel="of the successes", ylabel="of the failures")
    axis.fill_between([-size, 0], 0, size, color="0.88", zorder=0)
    axis.axhline(0, **EXACT)
    axis.axvline(0, **EXACT)
    axis.set_title("1/|o|: drift of E|o| added")
    axis.set_xticks((-10, -0.1, 0, 0.1, 10), ("-10", "-0.1", "0", "0.1", "10"))
    return axis


def weight_panel(axis: Any, weights: pd.DataFrame) -> Any:
    """Mean weight against return for the first policy, one line a group size; dashed: the weight of an unbiased update."""
    if weights.empty:
        return no_rows(axis, "weight of a return (std)")
    first = weights[(weights["seed"] == weights["seed"].min()) & (weights["ascended"] == weights["ascended"].min())]
    colours = ("costate", "score", "score_value")
    for i, (G, group) in enumerate(first.groupby("group")):
        group = group.sort_values("target")
        look: dict[str, Any] = {"color": COLOURS[colours[i]], "ms": 5, "lw": 1}
        axis.plot(group["target"], group["measured"], "-" + MARKERS[i], label=f"G = {G}", **look)
    line = first["target"].sort_values()
    axis.plot(line, line, **EXACT)
    axis.legend(loc="best", fontsize="small")
    axis.set(xlabel="R - V", ylabel="mean weight, in units of its slope", title="weight of a return (std)")
    return axis
