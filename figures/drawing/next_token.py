"""The drawing of the claim about next-token rewards: the law where each objective ends, and the cosines to the likelihood."""

from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT

_SHOWN = ("RPT", "GRPO, G large", "mean, G = 4", "mean, G = 16", "likelihood")
_TOKENS = ("costate", "score", "score_value", "score_best", "critic")
_BY_THOUGHTS = {0: ("costate", "o", -0.13), 1: ("control", "s", 0.13)}


def draw_next_token(figure: Any, laws: pd.DataFrame, cosines: pd.DataFrame) -> None:
    """The next token's law at the end of each objective, one bar each; the cosines of the updates, one mark a policy.

    Args:
        figure: where to draw.
        laws: rows with the probability of every token at an objective's end, and the corpus's as target.
        cosines: rows with the cosine of a mean update to the likelihood's gradient.
    """
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_laws(left, with_columns(laws, "world", "recipe", "token", "seed"))
    _draw_cosines(right, with_columns(cosines, "recipe", "thoughts"))
    left.set(yticks=range(len(_SHOWN)), yticklabels=_SHOWN, ylim=(len(_SHOWN) - 0.5, -0.7))
    for axis in (left, right):
        axis.grid(visible=False, axis="y")


def _draw_laws(axis: Any, rows: pd.DataFrame) -> None:
    """Stacked bars of the first context; dashed where the corpus's law has its borders."""
    if rows.empty:
        no_rows(axis)
        return
    first = rows[(rows["world"] == rows["world"].iloc[0]) & (rows["seed"] == rows["seed"].min())]
    for place, recipe in enumerate(_SHOWN):
        own, begin = first[first["recipe"] == recipe].sort_values("token"), 0.0
        for colour, p in zip(_TOKENS, own["measured"], strict=False):
            axis.barh(place, p, left=begin, height=0.55, color=COLOURS[colour], alpha=0.75, lw=0)
            begin += p
    q = first[first["recipe"] == _SHOWN[0]].sort_values("token")["target"].to_numpy()
    borders = np.cumsum(q)
    for i, border in enumerate(borders[:-1]):
        axis.axvline(border, label=None if i else "the corpus's law q", **EXACT)
    for border, width in zip(borders, q, strict=True):
        axis.text(border - width / 2, -0.5, f"q = {width:g}", ha="center", va="center", fontsize="small")
    axis.set(xlim=(0, 1), xlabel="probability of the next token", title="where each objective ends")


def _draw_cosines(axis: Any, rows: pd.DataFrame) -> None:
    """Marks of every corpus and policy, with thoughts and without."""
    if rows.empty:
        no_rows(axis)
        return
    for thoughts, (colour, marker, aside) in _BY_THOUGHTS.items():
        own = rows[(rows["thoughts"] == thoughts) & rows["recipe"].isin(_SHOWN)]
        places = own["recipe"].map(_SHOWN.index) + aside
        name = "one thought" if thoughts else "no thought"
        look = {"color": COLOURS[colour], "ms": 6, "alpha": 0.8, "clip_on": False}
        axis.plot(own["measured"], places, marker, label=name, **look)
    axis.axvline(0, color="0.5", lw=1)
    axis.axvline(1, **EXACT)
    least = min(-0.25, float(rows["measured"].min()) - 0.05)
    axis.set(xlabel="cosine to the likelihood's gradient", title="the mean update", xlim=(least, 1.05))
    axis.legend(loc="lower left", fontsize="small")
