"""Error of the attention costate along sweeps that lower the entropy: data and a figure in, panels out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import corner_text, legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT

KNOBS = {"temperature": ("control", 0.04), "offset": ("costate", 0.10)}  # knob -> colour, height of its text
_VISIBLE = 1e-8  # smaller errors are not drawn


def draw_sweeps(figure: Any, sweep: pd.DataFrame, ranks: Mapping[str, pd.Series]) -> None:
    """Error against entropy on the left and against the bound on the right, a line for every policy and knob.

    Args:
        figure: where to draw.
        sweep: rows with the error as `measured`, the bound as `target`, and the columns knob, world, seed and H.
        ranks: "entropy" and "bound" -> rank correlation with the error, by knob.
    """
    left, right = figure.subplots(1, 2, sharey=True)
    if sweep.empty:
        no_rows(left)
        no_rows(right)
        return
    for name in KNOBS:
        visible = sweep[(sweep["knob"] == name) & (sweep["measured"] > _VISIBLE)]
        if not visible.empty:
            for axis, x, quantity in ((left, "H", "entropy"), (right, "target", "bound")):
                rank = ranks[quantity].get(name)
                _draw_knob(axis, visible, x, name if rank is None else f"{name}: rank corr. {rank:.2f}")
            left.plot([], [], "o-", color=COLOURS[KNOBS[name][0]], label=f"entropy lowered by {name}")
    ends = [sweep["target"].clip(lower=_VISIBLE).min(), sweep["target"].max()]
    right.plot(ends, ends, label="error = bound (exact limit)", **EXACT)
    left.set(xscale="log", yscale="log", xlabel="mean entropy (nats)", ylabel="|grad V - E1|", xlim=(1e-3, 2))
    right.set(xscale="log", xlabel="sum E[ D_w osc(Q) min(1/4, G/2) ]")
    legend_above(figure, left, right)


def _draw_knob(axis: Any, rows: pd.DataFrame, x: str, text: str) -> None:
    """One line per policy, and in the corner `text` with the spread of the points."""
    name, height = KNOBS[rows["knob"].iloc[0]]
    for _, line in rows.groupby(["world", "seed"]):
        axis.plot(line[x], line["measured"], "o-", color=COLOURS[name], ms=3, lw=0.7, alpha=0.45)
    spread = _spread(rows[x].to_numpy(), rows["measured"].to_numpy())
    corner_text(axis, f"{text}, spread {spread:.2f}", height, color=COLOURS[name])


def _spread(x: np.ndarray, error: np.ndarray) -> float:
    """Standard deviation of ln error about a straight line in ln x: 0 where all points lie on one line, NaN for one point."""
    keep = (error > _VISIBLE) & (x > _VISIBLE)
    if keep.sum() < 2:
        return float("nan")
    u, v = np.log(x[keep]), np.log(error[keep])
    return float(np.std(v - np.polyval(np.polyfit(u, v, 1), u)))
