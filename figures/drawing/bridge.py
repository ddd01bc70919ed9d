"""The drawing of the bridge from a smooth rollout to sampled tokens: spreads above, the mean below, temperature along."""

from typing import Any

import pandas as pd
from matplotlib.ticker import FuncFormatter

from figures.drawing.panels import legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT, MARKERS
from figures.measures.gumbel_bridge import CURVE, SHARE, SPREAD
from figures.measures.gumbel_limits import CROSSING

_LOOKS = {  # estimator -> colour, marker, name in the legend
    "pathwise": ("pathwise", MARKERS[0], "backpropagation (pathwise)"),
    "score": ("score_best", MARKERS[2], "score of the noise"),
    "REINFORCE": ("score", MARKERS[1], "REINFORCE with baseline"),
}
_TICKS = (0.03, 0.1, 0.3, 1, 3)


def draw_bridge(figure: Any, rows: pd.DataFrame) -> None:
    """Above, the spread of one sample of each estimator; below, their means over the gradient of sampled tokens.

    Args:
        figure: where to draw.
        rows: of one law, with the columns part, tau and estimator; the rows "spreads cross" hold the crossing and, as their
            scale, the bias there.
    """
    rows = with_columns(rows, "tau", "estimator")
    above, below = figure.subplots(2, 1, sharex=True)
    curves = rows[rows["part"] == CURVE]
    _points(above, rows[rows["part"] == SPREAD], curves, list(_LOOKS))
    _points(below, rows[rows["part"] == SHARE], curves, ["pathwise", "score"])
    if rows["tau"].notna().any():
        _axes(above, below)
        _bias(below, curves)
        _crossing(above, below, rows[rows["part"] == CROSSING], curves)
    legend_above(figure, above, below)


def _points(axis: Any, points: pd.DataFrame, curves: pd.DataFrame, estimators: list[str]) -> None:
    """Sampled points with two standard errors over the dashed exact curves."""
    if points.empty and curves.empty:
        no_rows(axis)
        return
    for i, name in enumerate(estimators):
        colour, marker, label = _LOOKS[name]
        own = points[points["estimator"] == name]
        aside = 1.0 if len(estimators) > 2 else (0.97, 1.03)[i]  # two means lie on one curve
        bars = {"fmt": marker, "color": COLOURS[colour], "ms": 6, "capsize": 2, "label": label, "zorder": 3}
        axis.errorbar(own["tau"] * aside, own["measured"], 2 * own["standard_error"], **bars)
    for name in estimators if len(estimators) > 2 else [SHARE]:
        exact = curves[curves["estimator"] == name].sort_values("tau")
        axis.plot(exact["tau"], exact["measured"], **EXACT, label="exact", zorder=2)


def _axes(above: Any, below: Any) -> None:
    plain = FuncFormatter(lambda y, _: f"{y:g}")
    above.set(xscale="log", yscale="log", ylim=(0.03, 9), ylabel="spread of one sample\n/ |grad J|")
    above.yaxis.set_major_formatter(plain)
    below.set(ylabel="mean / grad J", ylim=(0, 1.2), xlabel="sampled tokens \u2190 tau \u2192 smooth rollout")
    below.set_xticks(_TICKS, [f"{tau:g}" for tau in _TICKS])
    above.minorticks_off()
    below.minorticks_off()


def _bias(axis: Any, curves: pd.DataFrame) -> None:
    """The gap between the mean and the gradient of sampled tokens."""
    exact = curves[curves["estimator"] == SHARE].sort_values("tau")
    axis.axhline(1, color="0.4", lw=1, zorder=1)
    if exact.empty:
        return
    axis.fill_between(exact["tau"], exact["measured"], 1, color=COLOURS["control"], alpha=0.18, lw=0, zorder=0)
    widest = exact.iloc[-1]
    middle = (float(widest["tau"]) * 0.72, 0.5 + 0.68 * float(widest["measured"]))
    axis.text(*middle, "bias", color=COLOURS["control"], ha="center", va="center", fontweight="bold")


def _crossing(above: Any, below: Any, found: pd.DataFrame, curves: pd.DataFrame) -> None:
    """The temperature at which the spreads cross, through both panels, and the bias there."""
    if found.empty:
        return
    tau, bias = float(found["measured"].iloc[0]), float(found["scale"].iloc[0])
    for axis in (above, below):
        axis.axvline(tau, color="0.4", lw=1, zorder=1)
    flat = curves[curves["estimator"] == "REINFORCE"]["measured"]
    above.plot([tau], flat.iloc[:1], "o", ms=15, mfc="none", mec="black", mew=1.5, zorder=4)
    above.set_title(f"Backpropagation spreads less than REINFORCE only above tau = {tau:.2f} ...")
    below.set_title(f"... where its gradient is already {bias:.0%} off")
