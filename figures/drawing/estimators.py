"""Gradient estimators side by side: their names and colours, and their variances over the pathwise one."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.style import COLOURS, EXACT, MARKERS

NAMES = {
    "pathwise": "pathwise",
    "critic": "pathwise, perfect critic",
    "score": "score function",
    "score_value_baseline": "score, b = V(s)",
    "score_best_baseline": "score, best constant b",
}
COLOUR_OF = {
    "pathwise": "pathwise",
    "critic": "critic",
    "score": "score",
    "score_value_baseline": "score_value",
    "score_best_baseline": "score_best",
}
_MARKER_OF = dict(zip(NAMES, (MARKERS[0], MARKERS[4], *MARKERS[1:4]), strict=True))


def variance_ratio_panel(axis: Any, rows: pd.DataFrame) -> Any:
    """Variances over the pathwise one, system by system, with what a perfect critic saves printed below its point.

    Args:
        axis: where to draw.
        rows: comparison rows with the columns `system` and `estimator`.
    """
    systems = list(rows["system"].unique())
    for i, name in enumerate(NAMES):
        group, at = rows[rows["estimator"] == name], np.arange(len(systems)) + 0.13 * (i - 2)
        style = {"fmt": _MARKER_OF[name], "color": COLOURS[COLOUR_OF[name]], "ms": 6, "capsize": 2}
        axis.errorbar(at, group["measured"], 2 * group["standard_error"], label=NAMES[name], **style)
    for k, ratio in enumerate(rows[rows["estimator"] == "critic"]["measured"]):
        text = f"-{100 * (1 - ratio):.0f}%"
        axis.annotate(text, (k - 0.13, ratio), (0, -16), textcoords="offset points", ha="center", fontsize="small")
    axis.axhline(1, **EXACT, label="exact")
    axis.set(title="many steps: variance / pathwise variance", yscale="log", xticks=range(len(systems)))
    axis.set_ylim(bottom=0.15)
    axis.set_xticklabels([system.replace(" ", "\n") for system in systems])
    return axis
