"""The drawing of the claim about normalisations: what turns an update, how lengths drift, how returns are weighed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT, MARKERS

_LINEAR = 0.1  # drifts up to this size are drawn on a linear scale


def angle_panel(axis: Any, rows: pd.DataFrame, breakers: Sequence[str], mended: str) -> Any:
    """Angle between update and gradient for every case, a row for each breaker, with it and without; dashed: along grad J."""
    there = [breaker for breaker in breakers if (rows["breaker"] == breaker).any()]
    for i, breaker in enumerate(there):
        for part, colour, name, shift in ((breaker, "control", "with it", 0.13), (mended, "costate", "without", -0.13)):
            group = rows[(rows["part"] == part) & (rows["breaker"] == breaker)]
            angles = np.degrees(np.arccos(group["cosine"].clip(-1, 1)))
            look: dict[str, Any] = {"color": COLOURS[colour], "ms": 6, "alpha": 0.5}
            axis.plot(angles, [len(there) - i + shift] * len(group), "o", label=name, **look)
    axis.axvline(0, label="exact (kappa grad J)", **EXACT)
    names = [name.replace(", lengths vary", "") for name in there]
    axis.set_yticks([len(there) - i for i in range(len(there))], names, fontsize="small")
    axis.set(xlim=(-6, 180), xticks=(0, 45, 90, 135, 180), ylim=(0.4, len(there) + 0.6))
    axis.set(xlabel="angle to grad J (degrees)", title="what turns the update")
    return axis


def drift_panel(axis: Any, drift: pd.DataFrame) -> Any:
    """What the update adds to the drift of both mean lengths, a row for each policy; right of the dashed 0 is longer."""
    added = with_columns(drift, "class").assign(added=drift["measured"] - drift["target"])
    title = "1/|o| and lengths"
    if drift.empty:
        return no_rows(axis, title)
    table = added.pivot_table(index=["world", "seed", "ascended"], columns="class", values="added")
    table = table.reindex(columns=["success", "failure"]).sort_values("failure").reset_index(drop=True)
    look: dict[str, Any] = {"color": COLOURS["control"], "ms": 6, "mew": 1.3}
    axis.hlines(table.index, table.min(axis=1), table.max(axis=1), color=COLOURS["control"], lw=1, alpha=0.5)
    axis.plot(table["success"], table.index, "o", mfc="white", label="successes", **look)
    axis.plot(table["failure"], table.index, "s", label="failures", **look)
    axis.axvline(0, **EXACT)
    if (table["failure"] > 0).all():
        title = "1/|o| lengthens failures"
    size = 2 * float(table.abs().max().max())
    axis.set_xscale("symlog", linthresh=_LINEAR)
    axis.set_xticks([-10, -1, 0, 1, 10], ["-10", "-1", "0", "1", "10"])
    axis.set(xlim=(min(-2 * _LINEAR, 2 * float(table.min().min())), size), yticks=[], title=title)
    axis.set(xlabel="added to drift of E|o|", ylabel="policies", ylim=(-0.6, len(table) - 0.4))
    return axis


def weight_panel(axis: Any, weights: pd.DataFrame) -> Any:
    """Mean weight of a return less the straight line that is nearest to it, for the first policy, by group size; dashed: 0."""
    title = "std and weights"
    if weights.empty:
        return no_rows(axis, title)
    first = weights[(weights["seed"] == weights["seed"].min()) & (weights["ascended"] == weights["ascended"].min())]
    if (first["measured"] - first["target"]).abs().max() > 1e-9:
        title = "std bends the weights"
    for i, (G, group) in enumerate(first.groupby("group")):
        group = group.sort_values("target")
        look: dict[str, Any] = {"color": COLOURS["control"], "alpha": 1 - 0.3 * i, "ms": 5, "lw": 1.2}
        axis.plot(group["target"], group["measured"] - group["target"], "-" + MARKERS[i], label=f"G = {G}", **look)
    axis.axhline(0, **EXACT)
    axis.set(xlabel="R - V", ylabel="weight - straight line", title=title)
    return axis
