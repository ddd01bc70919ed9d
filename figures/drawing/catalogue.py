"""The drawing of the catalogue of estimators: variances over RLOO's, and variances on one bit."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {  # estimator -> colour, marker, size
    "unordered set": ("score", "s", 5),
    "sum and sample, baseline": ("score_value", "^", 6),
    "unordered set, baseline": ("costate", "o", 8),
}
_BITS = {"RLOO": ("control", "D"), "DisARM": ("costate", "o"), "REBAR": ("score_best", "v")}


def draw_catalogue(figure: Any, ratios: pd.DataFrame, bits: pd.DataFrame) -> None:
    """Two panels.

    Args:
        figure: where to draw.
        ratios: variance over RLOO's by estimator, with the probability of the likeliest completion.
        bits: variance on one bit over the squared difference of its values, by estimator and p; `target` is the closed form.
    """
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    _draw_ratios(left, with_columns(ratios, "estimator", "likeliest"))
    _draw_bits(right, with_columns(bits, "estimator", "p", "tau"))
    legend_above(figure, left, right)


def _draw_ratios(axis: Any, rows: pd.DataFrame) -> None:
    """One mark for each policy and estimator; the title counts where the set with its baseline is below 1."""
    rows = rows[rows["estimator"].isin(list(_LOOKS))]
    if rows.empty:
        no_rows(axis)
        return
    for name, (colour, marker, size) in _LOOKS.items():
        own = rows[rows["estimator"] == name]
        axis.plot(
            own["likeliest"], own["measured"], marker, color=COLOURS[colour], ms=size, mew=1.2, alpha=0.8, label=name
        )
    axis.axhline(1, label="RLOO; on one bit the closed form", **EXACT)
    sets = rows[rows["estimator"] == "unordered set, baseline"]["measured"]
    title = (
        f"blue below RLOO in {int((sets <= 1).sum())} of {len(sets)} policies" if len(sets) else "over RLOO's variance"
    )
    axis.set(xlabel="probability of the likeliest completion", ylabel="variance / RLOO's", yscale="log", title=title)


def _draw_bits(axis: Any, rows: pd.DataFrame) -> None:
    """Marks on closed forms; of REBAR the largest temperature, at its best weight."""
    rows = rows[rows["estimator"].isin(list(_BITS))]
    if rows.empty:
        no_rows(axis)
        return
    p = np.linspace(0, 1, 201)
    less, both = np.minimum(p, 1 - p), p * (1 - p)
    curves = {"RLOO": both * (1 - 2 * both) / 2, "DisARM": both * (1 - less) * (1 - 2 * less) / 2}
    for name, (colour, marker) in _BITS.items():
        own = rows[rows["estimator"] == name].sort_values("p")
        if name in curves:
            axis.plot(p, curves[name], **EXACT)
        else:
            own = own[own["tau"] == own["tau"].max()]
        label = {"RLOO": "one bit: RLOO", "REBAR": "REBAR, best weight"}.get(name, name)
        axis.plot(own["p"], own["measured"], marker, color=COLOURS[colour], ms=6, label=label, clip_on=False)
    axis.set(xlabel="probability of the bit", ylabel="variance / (f1 - f0)^2", title="one bit", ylim=(0, None))
