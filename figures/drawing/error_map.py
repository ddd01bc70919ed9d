"""The error map, the error over two bounds and where one of them is exceeded: data and a figure in, panels out."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import StrMethodFormatter

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.scales import log_with_zero
from figures.drawing.style import COLOURS, EXACT
from figures.measures.attention_errors import E1, E1B, READOUT, ZERO

_NAMES = {E1: "E1,\nalpha < 1", E1B: "E1b", READOUT: "E1, hidden\nreadout", ZERO: "E1 = 0: error\nis |grad V|"}
_FAMILIES = {  # way to change the entropy -> its name, colour and marker
    "temperature": ("changed by temperature", "control", "o"),
    "offset": ("by an offset", "costate", "^"),
    "trained": ("by training", "score_value", "s"),
}
_LINEAR = 0.1  # below this the scale is linear, with 0 at 0


def draw_map(rows: pd.DataFrame, figure: Any, tier3: str, alone: str) -> None:
    """Error over what one constant allows, and over tier 3, a line for every costate; where the constant is exceeded.

    Args:
        rows: of the claim `error_map`.
        figure: where to draw.
        tier3: the part that holds every policy.
        alone: the part that tests one constant per world, of the changed policies only.
    """
    rows = with_columns(rows, "costate")
    policies, tested = rows[rows["part"] == tier3], rows[rows["part"] == alone]
    left, middle, right = figure.subplots(1, 3, width_ratios=(4, 3, 3))
    costates = [name for name in _NAMES if name in set(rows["costate"])]
    for axis, own in ((left, tested), (middle, policies)):
        _draw_strips(axis, own, costates) if len(own) else no_rows(axis)
    if len(policies) and len(tested) and _beside(left, middle):
        middle.tick_params(labelleft=False)
    left.set(title=_constant_title(tested), xlabel="error / what one constant allows")
    middle.set(title=_bound_title(policies), xlabel="error / tier 3 of the bound")
    _draw_where(right, tested) if len(tested) else no_rows(right)
    legend_above(figure, left)


def _beside(one: Any, other: Any) -> bool:
    """Whether two panels stand in one row."""
    return bool(one.get_subplotspec().rowspan.start == other.get_subplotspec().rowspan.start)


def _draw_strips(axis: Any, rows: pd.DataFrame, costates: list[str]) -> None:
    """The judged ratio of every policy, a strip for every costate, a lane in it for every way to change the entropy."""
    for i, (family, (name, colour, marker)) in enumerate(_FAMILIES.items()):
        own = rows[rows["family"] == family]
        at = own["costate"].map(costates.index) + 0.27 * (i - 1)
        axis.plot(own["measured"], at, marker, color=COLOURS[colour], ms=5, alpha=0.5, label=name)
    axis.axvline(1, label="error = bound", **EXACT)
    if ZERO in costates[1:]:
        axis.axhline(costates.index(ZERO) - 0.5, color="0.4", lw=1)
    log_with_zero(axis, [0.0, 1.0, *rows["measured"]], "x", rounding=_LINEAR)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set(ylim=(len(costates) - 0.5, -0.5))
    axis.set_yticks(range(len(costates)), [_NAMES[name] for name in costates])
    axis.grid(visible=False, axis="y")


def _constant_title(tested: pd.DataFrame) -> str:
    """How many errors the constant does not cover, the costate that is 0 left out."""
    share = 100 * (_not_trivial(tested) > 1).mean() if len(tested) else 0.0
    return f"one constant: {share:.0f} % above 1" if share else "one constant: none above 1"


def _bound_title(policies: pd.DataFrame) -> str:
    return f"D osc(Q) kept: <= {_not_trivial(policies).max():.2g}" if len(policies) else "D osc(Q) kept"


def _not_trivial(rows: pd.DataFrame) -> pd.Series:
    """The ratios of the costates that are not 0; all where there are no others."""
    own = rows[rows["costate"] != ZERO]
    return (own if len(own) else rows)["measured"]


def _draw_where(axis: Any, tested: pd.DataFrame) -> None:
    """Every policy by its entropy and sampling gap; crosses where the constant is exceeded for some costate."""
    largest = tested.groupby(["world", "family", "seed", "value", "alpha"])[["H", "gap", "measured"]].max()
    beyond = largest[largest["measured"] > 1]
    H = np.geomspace(max(largest["H"].min(), 1e-6), largest["H"].max(), 50)
    axis.plot(largest["H"], largest["gap"], ".", color="0.6", ms=5)
    axis.plot(beyond["H"], beyond["gap"], "x", color="black", ms=5, mew=1.3)
    axis.plot(H, np.minimum(H / (2 * np.log(2)), -np.expm1(-H)), **EXACT)
    axis.set(xscale="log", yscale="log", xlabel="entropy (nats)", ylabel="sampling gap")
    axis.set_title("x: one constant exceeded")
