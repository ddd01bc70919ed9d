"""The drawing of the claim about normalisations: data and axes in, axes out."""

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd

from figures.drawing.style import COLOURS, EXACT, MARKERS

_LEAST = 1e-17  # smaller numbers, 0 among them, are drawn here


def draw_bias(axis: Any, rows: pd.DataFrame, breakers: Sequence[str], mended: str, limit: float) -> Any:
    """Bias and 1 - cosine of every case, with each breaker and without it."""
    for i, breaker in enumerate(breakers):
        for part, colour, name in ((breaker, "control", "with the breaker"), (mended, "costate", "without")):
            group = rows[(rows["part"] == part) & (rows["breaker"] == breaker)]
            shown = ((group["measured"], "o", -0.15, "bias"), (1 - group["cosine"], "^", 0.15, "1 - cosine"))
            for values, mark, shift, what in shown:
                axis.plot([i + shift] * len(group), values.clip(lower=_LEAST), mark, color=COLOURS[colour], ms=4.5,
                          alpha=0.5, label=f"{what}, {name}")  # fmt: skip
    axis.axhline(limit, label="rounding limit", **EXACT)
    axis.set(yscale="log", title="distance from kappa grad J", xticks=range(len(breakers)))
    axis.set_xticklabels([textwrap.fill(name.replace(", lengths vary", ""), 9) for name in breakers], fontsize=9)
    return axis


def draw_drift(axis: Any, drift: pd.DataFrame) -> Any:
    """What the update adds to the drift of both mean lengths, one point a policy; grey: where free logits would lie."""
    excess = drift.assign(excess=drift["measured"] - drift["target"])
    table = excess.pivot_table(index=["world", "seed", "ascended"], columns="class", values="excess")
    axis.plot(table["success"], table["failure"], "o", color=COLOURS["control"], ms=6, alpha=0.6)
    axis.set_xscale("symlog", linthresh=0.01)
    axis.set_yscale("symlog", linthresh=0.01)
    size = 2 * float(table.abs().max().max())
    least = min(-0.02, 2 * float(table["failure"].min()))
    axis.set(xlim=(-size, size), ylim=(least, size), xlabel="of the successes", ylabel="of the failures")
    axis.fill_between([-size, 0], 0, size, color="0.88", zorder=0)
    axis.axhline(0, **EXACT)
    axis.axvline(0, **EXACT)
    axis.set_title("1/|o|: drift of E|o| added")
    axis.set_xticks((-10, -0.1, 0, 0.1, 10), ("-10", "-0.1", "0", "0.1", "10"))
    return axis


def draw_weights(axis: Any, curve: pd.DataFrame) -> Any:
    """Mean weight against return for the first policy, one line a group size."""
    curve = curve[(curve["seed"] == curve["seed"].min()) & (curve["ascended"] == curve["ascended"].min())]
    for i, (G, group) in enumerate(curve.groupby("group")):
        group = group.sort_values("target")
        axis.plot(group["target"], group["measured"], "-" + MARKERS[i], ms=5, lw=1, label=f"G = {G}",
                  color=COLOURS[("costate", "score", "score_value")[i]])  # fmt: skip
    line = curve["target"].sort_values()
    axis.plot(line, line, **EXACT)
    axis.legend(loc="best", fontsize=8)
    axis.set(xlabel="R - V", ylabel="mean weight, in units of its slope", title="weight of a return (std)")
    return axis
