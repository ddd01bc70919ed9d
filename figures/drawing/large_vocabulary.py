"""Error and bounds against the size of the vocabulary: data and a figure in, panels out."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from figures.drawing.panels import legend_above
from figures.drawing.style import COLOURS, EXACT
from figures.measures.state_readers import POLICIES, REWARDS

_COLOUR_OF = dict(zip(POLICIES, ("costate", "score", "attention"), strict=True))
RANKED = ("H", "G", "||J||", "D osc(Q) ||J||", "Q dealt at random", "sd(w) sd(Q)", "tier 2", "naive product")
_STAR = 8  # points


def draw_large_vocabulary(
    figure: Any, bounds: pd.DataFrame, spectral: pd.DataFrame, attained: pd.DataFrame, ranks: pd.DataFrame
) -> None:
    """Error in units of D osc(Q) against V; bounds and ||J|| in the same units; rank correlations with the error.

    Args:
        figure: where to draw.
        bounds: rows with the error as `measured` and the bound of the column `bound` as `target`.
        spectral: rows with ||J|| in the place of the bound's factor as `target`.
        attained: rows of the two clusters, which attain tier 2.
        ranks: rank correlations by `quantity` and `over`, the points that they are taken over.
    """
    left, middle, right = figure.subplots(1, 3, width_ratios=(5, 5, 4))
    error = bounds[bounds["bound"] == "tier 1"]
    for rewards, line in zip(REWARDS, ("o-", "s:"), strict=True):
        _draw_policies(left, error[error["rewards"] == rewards], "measured", line, f"rewards {rewards}")
    for name, line in (("naive product", "^-"), ("sd(w) sd(Q)", "v-.")):
        _draw_policies(middle, bounds[bounds["bound"] == name], "target", line, name)
    _draw_policies(middle, spectral, "target", "x:", "||J||, no bound")
    for axis in (left, middle):
        axis.legend(loc="lower left", frameon=False)
        axis.axhline(0.25, **EXACT)
        axis.plot(attained["V"], attained["measured"], "*", color=COLOURS["exact"], ms=_STAR)
        axis.set(xscale="log", yscale="log", xlabel="vocabulary size V")
        axis.xaxis.set_minor_formatter(NullFormatter())
    left.set(ylabel="in units of D osc(Q)", title="error", ylim=(left.get_ylim()[0] / 20, None))
    middle.set(title="bounds, and ||J||")
    _draw_ranks(right, ranks)
    _add_to_legend(right)
    legend_above(figure, right)


def _draw_policies(axis: Any, rows: pd.DataFrame, column: str, line: str, name: str) -> None:
    """One line per kind of policy: the geometric mean over networks, ways of tying and rewards, against V."""
    for kind, colour in _COLOUR_OF.items():
        group = rows[rows["policy"] == kind]
        mean = np.log(group[column]).groupby(group["V"]).mean()
        axis.plot(mean.index, np.exp(mean), line, color=COLOURS[colour], ms=5, lw=1.3)
    axis.plot([], [], line, color="0.3", label=name)


def _draw_ranks(axis: Any, rows: pd.DataFrame) -> None:
    """Rank correlation of every quantity with the error where entropy and vocabulary are large, mean over networks."""
    for over, marker in (("large, related", "o"), ("large, unrelated", "s")):
        group = rows[rows["over"] == over]
        mean = group.groupby("quantity", sort=False)["measured"].mean().reindex(list(RANKED))
        axis.plot(mean, mean.index, marker, color="0.3", ms=7)
    axis.axvline(0, color="0.6", lw=1)
    axis.set(xlim=(-1.1, 1.1), xlabel="rank corr. with the error", title="high entropy, large V")
    axis.invert_yaxis()


def _add_to_legend(axis: Any) -> None:
    """Names of what all panels share."""
    for kind, colour in _COLOUR_OF.items():
        axis.plot([], [], "-", color=COLOURS[colour], lw=3, label=kind)
    axis.plot([], [], label="1/4, the exact limit", **EXACT)
    axis.plot([], [], "*", color=COLOURS["exact"], ms=_STAR, label="two clusters of tokens")
