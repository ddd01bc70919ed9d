"""Error of the attention costate along sweeps that lower the entropy: data and a figure in, panels out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS
from figures.measures.attention_errors import E1, E1B, READOUT, ZERO

KNOBS = {"temperature": ("control", "o"), "offset": ("costate", "s")}  # knob -> colour, marker
_ERRORS = {  # the first that is there is drawn
    READOUT: "error of E1, hidden readout",
    E1B: "error of E1b",
    E1: "error of E1",
    ZERO: "|grad V|, the error of E1 = 0",
}
_RISES = 1e-6  # of ln error
_LEAST = 1e-12  # smaller errors are rounding
_LINEAR = 1e-4  # of the largest error: below it the scale is linear, with 0 at 0


def draw_sweeps(figure: Any, sweep: pd.DataFrame, ranks: Mapping[str, pd.DataFrame]) -> None:
    """Error against falling entropy, a panel for each knob and a line for each policy; what ranks the error best.

    Args:
        figure: where to draw.
        sweep: rows with the error as `measured`, and the columns knob, world, seed, costate and H; entropy falling.
        ranks: name of a quantity -> rows with its rank correlation with the error, by knob and costate.
    """
    sweep = with_columns(sweep, "costate")
    shown = next((name for name in _ERRORS if name in set(sweep["costate"])), ZERO)
    knobs = [name for name in KNOBS if name in set(sweep["knob"])]
    panels = max(1, len(knobs))
    *left, right = figure.subplots(1, panels + 1, width_ratios=[4] * panels + [3])
    for axis, knob in zip(left, knobs, strict=False):
        _draw_knob(axis, sweep[(sweep["knob"] == knob) & (sweep["costate"] == shown)], knob)
        axis.set_yscale("symlog", linthresh=_LINEAR * sweep["measured"].max(), linscale=0.5)
        axis.sharey(left[0])
        right.plot([], [], KNOBS[knob][1], color=COLOURS[KNOBS[knob][0]], ms=8, label=knob)
    no_rows(left[0]) if sweep.empty else left[0].set(ylabel=_ERRORS[shown], ylim=(0, 1.5 * sweep["measured"].max()))
    _draw_ranks(right, ranks, shown)
    legend_above(figure, left[0], right)


def _draw_knob(axis: Any, rows: pd.DataFrame, knob: str) -> None:
    """One grey line for every policy, coloured where the error rises although the entropy falls."""
    colour, rising, policies = COLOURS[KNOBS[knob][0]], 0, rows.groupby(["world", "seed"], sort=False)
    for _, line in policies:
        H, error = line["H"].to_numpy(), line["measured"].to_numpy()
        axis.plot(H, error, ".-", color="0.7", ms=4, lw=1)
        rises = np.flatnonzero(np.diff(np.log(np.maximum(error, _LEAST))) > _RISES)
        for k in rises:
            axis.plot(H[k : k + 2], error[k : k + 2], "-", color=colour, lw=2.2)
        rising += len(rises) > 0
    axis.plot([], [], "-", color="black", lw=2.2, label="coloured: the error rises while the entropy falls")
    axis.set(xlabel="entropy (nats), falling", xlim=(1.05 * rows["H"].max(), 0))
    axis.set_title(f"lowered by {knob}: error rises for {rising} of {len(policies)}")


def _draw_ranks(axis: Any, ranks: Mapping[str, pd.DataFrame], shown: str) -> None:
    """Rank correlation of entropy and of the bound with the error, by knob; open where the error is not the one shown."""
    for i, rows in enumerate(ranks.values()):
        rows = with_columns(rows, "costate")
        for j, (knob, (colour, marker)) in enumerate(KNOBS.items()):
            own = rows[rows["knob"] == knob]
            for costate, rank in own.groupby("costate")["measured"].mean().items():
                fill = COLOURS[colour] if costate == shown else "white"
                axis.plot(rank, i + 0.3 * (j - 0.5), marker, color=COLOURS[colour], mfc=fill, ms=8)
                if costate != shown:
                    axis.plot([], [], "o", color="0.3", mfc="white", ms=8, label=f"open: {_ERRORS[costate]}")
    axis.axvline(0, color="0.6", lw=1)
    axis.set(xlim=(-1.1, 1.1), ylim=(len(ranks) - 0.4, -0.6), xlabel="rank correlation", title="what ranks the error?")
    axis.set_yticks(range(len(ranks)), list(ranks))
    axis.grid(visible=False, axis="y")
