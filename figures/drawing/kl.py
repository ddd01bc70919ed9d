"""The drawing of the claim about KL estimators: values, spreads, directions and gaps against the divergence."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above
from figures.drawing.style import COLOURS, EXACT

_LOOKS = {"k1": ("costate", "o"), "k2": ("score_value", "^"), "k3": ("control", "s")}
_PLACES = {"reward": "-", "loss": ":"}
_JOINED = "stop (2,4)"  # the world whose points are joined by lines


def draw_estimators(figure: Any, values: pd.DataFrame, spreads: pd.DataFrame, gradients: pd.DataFrame) -> None:
    """Values and spreads above, cosines and relative gaps of the gradients below, all against the KL.

    Args:
        figure: where to draw.
        values: rows with the mean over the KL, by estimator.
        spreads: rows with the standard deviation over completions over the KL.
        gradients: rows with the gap and the cosine of "k1 in the reward", "k1 in the loss" and so on.
    """
    (value, spread), (cosine, gap) = figure.subplots(2, 2)
    for name in _LOOKS:
        _points(value, values[values["estimator"] == name], "measured", name, "-", label=name)
        _points(spread, spreads[spreads["estimator"] == name], "measured", name, "-")
        for place, line in _PLACES.items():
            rows = gradients[gradients["estimator"] == f"{name} in the {place}"]
            _points(gap, rows, "measured", name, line)
            if (name, place) != ("k1", "loss"):  # it is 0 and has no direction
                _points(cosine, rows, "cosine", name, line)
    value.axhline(1, label="exact", **EXACT)
    cosine.axhline(1, **EXACT)
    gap.axhline(1, color="0.4", linewidth=1)
    for place, line in _PLACES.items():
        cosine.plot([], [], line, color="0.3", label=f"in the {place}")
    kl, title = "KL(pi || ref)", "gap (k1 in the reward: 0; grey: no signal at all)"
    value.set(xscale="log", ylabel="E[k] / KL", title="value")
    spread.set(xscale="log", yscale="log", ylabel="sd[k] / KL", title="spread over completions")
    cosine.set(xscale="log", xlabel=kl, ylabel=f"cosine to grad {kl}", title="direction")
    gap.set(xscale="log", yscale="log", xlabel=kl, ylabel="|g - grad KL| / |grad KL|", ylim=(3e-4, None), title=title)
    legend_above(figure, value, cosine)


def _points(axis: Any, rows: pd.DataFrame, column: str, name: str, line: str, label: str | None = None) -> None:
    """All worlds as faint points, one of them joined by a line."""
    colour, marker = _LOOKS[name]
    axis.plot(rows["KL"], rows[column], marker, color=COLOURS[colour], ms=3.5, alpha=0.35)
    joined = rows[(rows["world"] == _JOINED) & (rows["seed"] == 0)].sort_values("share")
    axis.plot(joined["KL"], joined[column], line + marker, color=COLOURS[colour], ms=5, label=label)
