"""Learning curves with bands, and the share of the exact gradient's gain that each learner reaches along the way."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from figures.drawing.panels import no_rows
from figures.drawing.style import COLOURS, EXACT, MARKERS


def curves_panel(axis: Any, rows: pd.DataFrame, looks: Mapping[str, str]) -> Any:
    """Returns against updates with 95 % bands, the first learner dashed; dotted: the best return there is.

    `rows` have the columns learner, step, measured, low, high and best; `looks` gives learner -> name of its colour.
    """
    if rows.empty:
        return no_rows(axis)
    for i, (name, colour) in enumerate(looks.items()):
        curve = rows[rows["learner"] == name]
        look: Mapping[str, Any] = {"color": COLOURS[colour], "marker": MARKERS[i], "ms": 4, "lw": 1.3} if i else EXACT
        axis.plot(curve["step"], curve["measured"], label=name, **look)
        axis.fill_between(curve["step"], curve["low"], curve["high"], color=COLOURS[colour], alpha=0.15, lw=0)
    axis.axhline(rows["best"].iloc[0], color="0.6", lw=0.8, ls=":")
    axis.set_ylabel("exact return J")
    return axis


def shares_panel(axis: Any, rows: pd.DataFrame, worlds: Sequence[str], looks: Mapping[str, str]) -> Any:
    """Mean gain of every learner as a share of the exact gradient's, with 95 % intervals, world by world."""
    if rows.empty:
        return no_rows(axis, "along the way")
    for i, (name, colour) in enumerate(looks.items()):
        shares = rows[rows["learner"] == name].set_index("world").reindex(list(worlds))
        at = [w + 0.12 * (i - (len(looks) - 1) / 2) for w in range(len(worlds))]
        spans = [shares["measured"] - shares["low"], shares["high"] - shares["measured"]]
        axis.errorbar(at, shares["measured"], spans, fmt=MARKERS[i], color=COLOURS[colour], ms=5, capsize=2)
    axis.axhline(1, **EXACT)
    axis.set_xticks(range(len(worlds)), worlds, fontsize="small")
    axis.set(ylabel="mean gain / exact gradient's", title="along the way", ylim=(0, None))
    return axis
